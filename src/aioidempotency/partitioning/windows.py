"""Records in partitions that are new with every window of time.

A record stays in the window of its claim, so a claim looks into every window that may still hold a
live one: those that the retention reaches back to, and the next one near a boundary, where another
clock may have turned already. That is one transaction over all of them.

Two promises make it safe, and the windows keep them, not the caller:

1. A record ends before claims stop to look into its window: it expires a retention after the end of
   that window at the latest, and so does its lease. Claims look back for `ANSWER_WITHIN` longer, so
   that a write which is under way then is still seen. A lease that is over is lost, even if nobody
   seems to have taken it over.
2. A claim that took longer than `ANSWER_WITHIN` from reading its clock to its answer is not relied
   upon: another one may have been made in a window that it did not look into. So claims look ahead
   for as long, too.
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
"""Seconds that a claim may take; the library's own limit for one operation is as long."""


@final
@dataclass(frozen=True, slots=True)
class TimeBuckets(Settled):
    """Records in `buckets` partitions for each window of so many seconds.

    A claim looks at `retention / window` locations and two more, in one transaction at double write
    units. A record answers for its retention, but not longer than that after the end of the window
    in which it was claimed; nor does a lease last longer.

    Args:
        window: Seconds of one window; more than clocks may differ by.
        retention: The longest that a record answers, in seconds; the store's unless it is given.
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
        check_text(self.prefix, "TimeBuckets", "prefix")

    @property
    def answer_within(self) -> float:
        """The seconds after which the next window may have begun."""
        return ANSWER_WITHIN

    @property
    def most_locations(self) -> int:
        """Those of a store with default settings."""
        return self.bound(Terms()).most_locations

    @property
    def longest_retention(self) -> float:
        """The seconds that a store with default settings looks back."""
        return self.bound(Terms()).longest_retention

    def home(self, key: str, now: float) -> str:
        """Answer with the key's bucket in the window of this instant."""
        return self.bound(Terms()).home(key, now)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with the key's bucket in the other windows, for a store's own default settings."""
        return self.bound(Terms()).elsewhere(key, now)

    def searched_until(self, partition: str) -> float:
        """A retention after the window's end."""
        return self.bound(Terms()).searched_until(partition)

    def partitions(self, now: float) -> tuple[str, ...]:
        """Answer with all buckets of all windows."""
        return self.bound(Terms()).partitions(now)

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON's terms."""
        return self.bound(Terms()).description()

    def bound(self, terms: Terms) -> "Windows":
        """Look back as far as the store's records live, and ahead as far as clocks may differ.

        Raises:
            PartitioningError: The windows are shorter than the clocks differ, or too many.
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
            retention=max(retention, terms.lease + terms.clock_skew + 1),
            ahead=terms.clock_skew + ANSWER_WITHIN,
        )
        if made.most_locations > MOST_LOCATIONS:
            raise PartitioningError(
                f"TimeBuckets with windows of {window:g} s has to look at {made.most_locations} of them for a retention of "
                f"{made.retention:g} s, and one transaction takes {MOST_LOCATIONS}: give a window= of "
                f"{made.shortest:.0f} s or more, or a shorter retention"
            )
        return made


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Windows(Settled):
    """`TimeBuckets` with the settings of a store.

    Attributes:
        retention: Seconds that a record may live after the end of its window.
        ahead: Seconds that claims look ahead.
        within: Seconds after which the answer to a claim does not count.
    """

    window: float
    buckets: int
    prefix: str
    retention: float
    ahead: float
    within: float = ANSWER_WITHIN

    @property
    def answer_within(self) -> float:
        """Seconds after which the answer to a claim does not count."""
        return self.within

    @property
    def most_locations(self) -> int:
        """The windows between the earliest and the latest instant that matter, both ends cut."""
        return floor((self.retention + self.answer_within + self.ahead) / self.window) + 2

    @property
    def longest_retention(self) -> float:
        """The seconds that a record may live after the end of its window."""
        return self.retention

    @property
    def shortest(self) -> float:
        """The shortest window that one transaction can look through."""
        return (self.retention + self.answer_within + self.ahead) / (MOST_LOCATIONS - 2) + 1

    def home(self, key: str, now: float) -> str:
        """Answer with the key's bucket in the window of this instant."""
        return self._partition(floor(now / self.window), spread(key) % self.buckets)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with the key's bucket in every other window that may hold a live record, the latest first."""
        bucket, current = spread(key) % self.buckets, floor(now / self.window)
        return tuple(self._partition(number, bucket) for number in self._numbers(now) if number != current)

    def searched_until(self, partition: str) -> float:
        """A retention after the end of the partition's window, less a second: records expire after a whole one."""
        found = re.fullmatch(rf"{re.escape(self.prefix)}#(-?\d+)#\d+", partition)
        return float("inf") if found is None else (int(found[1]) + 1) * self.window + self.retention - 1

    def partitions(self, now: float) -> tuple[str, ...]:
        """Answer with all buckets of all windows that may hold a live record."""
        return tuple(self._partition(number, each) for number in self._numbers(now) for each in range(self.buckets))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON's terms."""
        return {
            "strategy": "TimeBuckets",
            "window": self.window,
            "buckets": self.buckets,
            "prefix": self.prefix,
            "retention": self.retention,
        }

    def _numbers(self, now: float) -> range:
        latest = floor((now + self.ahead) / self.window)
        earliest = floor((now - self.retention - self.answer_within) / self.window)
        return range(latest, earliest - 1, -1)

    def _partition(self, number: int, bucket: int) -> str:
        return f"{self.prefix}#{number}#{bucket}"


def confusable(one: Partitioning, other: Partitioning) -> bool:
    """Tell whether two strategies call windows by the same names and mean different times by them."""
    if not isinstance(one, TimeBuckets | Windows) or not isinstance(other, TimeBuckets | Windows):
        return False
    return one.prefix == other.prefix and _seconds(one.window) != _seconds(other.window)


def _check_duration(given: object, name: str) -> None:
    if not isinstance(given, int | float | timedelta) or isinstance(given, bool) or not _seconds(given) > 0:
        raise PartitioningError(f"TimeBuckets needs {name}= in seconds, above 0: not {given!r}")


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
