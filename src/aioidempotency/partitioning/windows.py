"""Records in partitions that are new with every window of time.

A record stays in the window of its claim, so a claim looks into every window that may still hold a
live one: those that the retention reaches back to, and the next one near a boundary, where another
clock may have turned already. That is one transaction over all of them.

Two promises make it safe, and the windows keep them, not the caller:

1. A record ends before claims stop to look into its window: it expires a retention after the end of
   that window at the latest, and so does its lease.
2. A claim that took longer than `ANSWER_WITHIN` from reading its clock to its answer is not relied
   upon: another one may have been made in a window that it did not look into.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from math import floor
from typing import final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import MOST_PLACES, Settled, Terms, check_count, check_text, spread

ANSWER_WITHIN = 10.0
"""Seconds that a claim may take; the library's own limit for one operation is as long."""


@final
@dataclass(frozen=True, slots=True)
class TimeBuckets(Settled):
    """Records in `buckets` partitions for each window of so many seconds.

    A claim looks at `retention / window` places and two more, in one transaction at double write
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
    def most_places(self) -> int:
        """Those of a store with default settings."""
        return self.bound(Terms()).most_places

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

    def looked_at_until(self, partition: str) -> float:
        """A retention after the window's end."""
        return self.bound(Terms()).looked_at_until(partition)

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
            reach=max(retention, terms.lease + terms.clock_skew + 1),
            ahead=terms.clock_skew + ANSWER_WITHIN,
        )
        if made.most_places > MOST_PLACES:
            raise PartitioningError(
                f"TimeBuckets with windows of {window:g} s has to look at {made.most_places} of them for a retention of "
                f"{made.reach:g} s, and one transaction takes {MOST_PLACES}: give a window= of "
                f"{made.shortest:.0f} s or more, or a shorter retention"
            )
        return made


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Windows(Settled):
    """`TimeBuckets` with the settings of a store.

    Attributes:
        reach: Seconds that claims look back.
        ahead: Seconds that claims look ahead.
    """

    window: float
    buckets: int
    prefix: str
    reach: float
    ahead: float

    @property
    def answer_within(self) -> float:
        """The seconds after which the next window may have begun."""
        return ANSWER_WITHIN

    @property
    def most_places(self) -> int:
        """The windows between the earliest and the latest instant that matter, both ends cut."""
        return floor((self.reach + self.ahead) / self.window) + 2

    @property
    def longest_retention(self) -> float:
        """The seconds that claims look back."""
        return self.reach

    @property
    def shortest(self) -> float:
        """The shortest window that one transaction can look through."""
        return (self.reach + self.ahead) / (MOST_PLACES - 2) + 1

    def home(self, key: str, now: float) -> str:
        """Answer with the key's bucket in the window of this instant."""
        return self._partition(floor(now / self.window), spread(key) % self.buckets)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with the key's bucket in every other window that may hold a live record, the latest first."""
        bucket, current = spread(key) % self.buckets, floor(now / self.window)
        return tuple(self._partition(number, bucket) for number in self._numbers(now) if number != current)

    def looked_at_until(self, partition: str) -> float:
        """The end of the partition's window and a retention, less a second: records expire after a whole one."""
        found = re.fullmatch(rf"{re.escape(self.prefix)}#(-?\d+)#\d+", partition)
        return float("inf") if found is None else (int(found[1]) + 1) * self.window + self.reach - 1

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
            "retention": self.reach,
        }

    def _numbers(self, now: float) -> range:
        latest, earliest = floor((now + self.ahead) / self.window), floor((now - self.reach) / self.window)
        return range(latest, earliest - 1, -1)

    def _partition(self, number: int, bucket: int) -> str:
        return f"{self.prefix}#{number}#{bucket}"


def _check_duration(given: object, name: str) -> None:
    if not isinstance(given, int | float | timedelta) or isinstance(given, bool) or not _seconds(given) > 0:
        raise PartitioningError(f"TimeBuckets needs {name}= in seconds, above 0: not {given!r}")


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
