"""Partitions for windows of time.

A record stays in the window of its claim. So a claim looks into every window with a possible live record: the
windows within the retention, and near a boundary the next window, because another node's clock may already be
there. One transaction covers all of them.

Two rules make the strategy safe. The windows enforce both, not the caller:

1. A record ends before claims stop looking into its window. The record and its lease expire at the latest
   a retention after the end of the window. Claims look back `ANSWER_WITHIN` longer, to see a write still
   under way at that moment. A lease beyond its end is lost, even without a known successor.
2. A claim whose answer came later than `ANSWER_WITHIN` after the reading of the clock is void: another claim may be
   in a window unknown to the first one. For the same reason claims look ahead by `ANSWER_WITHIN`.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from math import floor
from typing import final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import (
    MOST_LOCATIONS,
    Partitioning,
    Settled,
    Terms,
    check_count,
    check_text,
    spread,
)

ANSWER_WITHIN = 10.0
"""Seconds that a claim may take, from reading the clock to the answer: the library's time limit for one operation."""


@final
@dataclass(frozen=True, slots=True)
class TimeBuckets(Settled):
    """Records in `buckets` partitions for each window of time.

    ```python
    from datetime import timedelta

    from aioidempotency import AsyncIdempotencyStore, CompositeKey, TimeBuckets

    layout = CompositeKey(partitioning=TimeBuckets(timedelta(hours=1), buckets=8))
    store = AsyncIdempotencyStore("idempotency", layout=layout, retention=timedelta(hours=24))
    ```

    A claim looks at `retention / window` locations and two more, in one transaction at double write
    units. A record answers at most for the retention after the end of the window of its claim, and a lease ends
    no later.

    Args:
        window: Seconds of one window, more than the clock skew.
        buckets: The number of partitions for each window.
        prefix: The beginning of every partition value: `prefix#window#bucket`.
        retention: The longest retention of a record, in seconds. The default is the store's.

    Raises:
        PartitioningError: A number is out of bounds. A store also raises the error for windows shorter than
            its `clock_skew`, and for more than 100 windows (DynamoDB's limit for a transaction).
    """

    window: float | timedelta
    buckets: int = 32
    prefix: str = "idempotency"
    retention: float | timedelta | None = None

    def __post_init__(self) -> None:
        _check_duration(self.window, "window")
        if self.retention is not None:
            _check_duration(self.retention, "retention")
        check_count(self.buckets, "TimeBuckets", "bucket")
        # The number of a window of a second has ten digits, and of a shorter one more.
        check_text(self.prefix, "TimeBuckets", "prefix", followed_by=f"#{10**20}#{self.buckets - 1}")

    @property
    def answer_within(self) -> float:
        """Seconds after which the next window may have begun."""
        return ANSWER_WITHIN

    @property
    def most_locations(self) -> int:
        """The most locations with a store's default settings."""
        return self.bound(Terms()).most_locations

    @property
    def longest_retention(self) -> float:
        """The seconds that a store with default settings looks back."""
        return self.bound(Terms()).longest_retention

    def home(self, key: str, now: float) -> str:
        """Name the key's bucket in the window of an instant."""
        return self.bound(Terms()).home(key, now)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name the key's bucket in the other windows, with a store's default settings."""
        return self.bound(Terms()).elsewhere(key, now)

    def searched_until(self, partition: str) -> float:
        """The window's end and a retention."""
        return self.bound(Terms()).searched_until(partition)

    def partitions(self, now: float) -> tuple[str, ...]:
        """Name all buckets of all windows."""
        return self.bound(Terms()).partitions(now)

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON."""
        return self.bound(Terms()).description()

    def bound(self, terms: Terms) -> "Windows":
        """Look back by the store's retention, and ahead by the store's clock skew.

        Raises:
            PartitioningError: The windows are shorter than the clock skew, or there are too many.
        """
        window = _seconds(self.window)
        retention = terms.retention if self.retention is None else _seconds(self.retention)
        if window < terms.clock_skew:
            raise PartitioningError(
                f"TimeBuckets has windows of {window:g} s, and clocks may differ by {terms.clock_skew:g} s: "
                "give a window= that is longer than clock_skew="
            )
        made = Windows(
            window=window,
            buckets=self.buckets,
            prefix=self.prefix,
            # A lease may outlast a short retention. A running record beyond the windows of all claims would be
            # invisible, and a second body would run.
            retention=max(retention, terms.lease + terms.clock_skew + 1),
            # Without the look ahead, the simulation finds two owners at a boundary between windows.
            ahead=terms.clock_skew + ANSWER_WITHIN,
        )
        if made.most_locations > MOST_LOCATIONS:
            raise PartitioningError(
                f"TimeBuckets with windows of {window:g} s has to look at {made.most_locations} windows for a "
                f"retention of {made.retention:g} s, and one transaction takes {MOST_LOCATIONS}: give a window= of "
                f"{made.shortest:.0f} s or more, or a shorter retention"
            )
        return made


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Windows(Settled):
    """`TimeBuckets` with the settings of a store.

    Attributes:
        retention: The longest life of a record after the end of its window, in seconds.
        ahead: Seconds that claims look ahead.
        within: Seconds after which the answer to a claim is void.
    """

    window: float
    buckets: int
    prefix: str
    retention: float
    ahead: float
    within: float = ANSWER_WITHIN

    @property
    def answer_within(self) -> float:
        """Seconds after which the answer to a claim is void."""
        return self.within

    @property
    def most_locations(self) -> int:
        """The most windows between the earliest and the latest instant."""
        # Two more than the quotient, because the first and the last window are cut.
        return floor((self.retention + self.answer_within + self.ahead) / self.window) + 2

    @property
    def longest_retention(self) -> float:
        """The longest life of a record after the end of its window, in seconds."""
        return self.retention

    @property
    def shortest(self) -> float:
        """The shortest window that fits in one transaction."""
        return (self.retention + self.answer_within + self.ahead) / (MOST_LOCATIONS - 2) + 1

    def home(self, key: str, now: float) -> str:
        """Name the key's bucket in the window of an instant."""
        return self._partition(floor(now / self.window), spread(key) % self.buckets)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name the key's bucket in every other window with a possible live record, the latest window first."""
        bucket, current = spread(key) % self.buckets, floor(now / self.window)
        return tuple(self._partition(number, bucket) for number in self._numbers(now) if number != current)

    def searched_until(self, partition: str) -> float:
        """The end of the partition's window and the retention, less a second: records expire after a whole second."""
        found = re.fullmatch(rf"{re.escape(self.prefix)}#(-?\d+)#\d+", partition)
        return float("inf") if found is None else (int(found[1]) + 1) * self.window + self.retention - 1

    def partitions(self, now: float) -> tuple[str, ...]:
        """Name all buckets of all windows with possible live records."""
        return tuple(self._partition(number, each) for number in self._numbers(now) for each in range(self.buckets))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON."""
        return {
            "strategy": "TimeBuckets",
            "window": self.window,
            "buckets": self.buckets,
            "prefix": self.prefix,
            "retention": self.retention,
        }

    def _numbers(self, now: float) -> range:
        # The simulation finds a second execution for each of two changes: one window less into the past, or no look
        # ahead.
        latest = floor((now + self.ahead) / self.window)
        earliest = floor((now - self.retention - self.answer_within) / self.window)
        return range(latest, earliest - 1, -1)

    def _partition(self, number: int, bucket: int) -> str:
        return f"{self.prefix}#{number}#{bucket}"


def confusable(one: Partitioning, other: Partitioning) -> bool:
    """Tell whether two strategies use the same names for windows of different lengths."""
    if not isinstance(one, TimeBuckets | Windows) or not isinstance(other, TimeBuckets | Windows):
        return False
    return one.prefix == other.prefix and _seconds(one.window) != _seconds(other.window)


def _check_duration(given: object, name: str) -> None:
    if not isinstance(given, int | float | timedelta) or isinstance(given, bool) or not _seconds(given) > 0:
        raise PartitioningError(f"TimeBuckets needs {name}= in seconds, above 0: not {given!r}")


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
