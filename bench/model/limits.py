"""What one partition can do, and the bucket that keeps count of it. Time comes in as an argument."""

import math
from dataclasses import dataclass
from typing import Final, final

WRITE_UNITS: Final = 1000.0
READ_UNITS: Final = 3000.0
"""What one partition gives in a second, in both billing modes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How a table is partitioned when it is made, and what its partitions can do.

    Args:
        scale: Multiplies the units of every partition, so that a small machine can saturate one.
        burst: Seconds of unused units that a partition keeps. DynamoDB keeps up to 300, does not
            guarantee them, and says that they do not help a hot partition; so a second is enough.
        split_after: Seconds of saturation after which a partition is split; None: never.

    Raises:
        ValueError: A setting makes no partition.
    """

    partitions: int = 64
    scale: float = 1.0
    burst: float = 1.0
    split_after: float | None = None

    def __post_init__(self) -> None:
        if self.partitions < 1:
            raise ValueError(f"a table has at least one partition, not {self.partitions}")
        if not 0 < self.scale < math.inf or not 0 < self.burst < math.inf:
            raise ValueError(f"scale and burst are more than 0, not {self.scale:g} and {self.burst:g}")
        if self.split_after is not None and not self.split_after >= 0:
            raise ValueError(f"split_after is 0 or more seconds, not {self.split_after:g}")


@final
class Bucket:
    """Units that come back with time, up to a capacity."""

    __slots__ = ("_capacity", "_level", "_rate", "_seen")

    def __init__(self, rate: float, capacity: float, level: float, now: float) -> None:
        self._rate = rate
        self._capacity = capacity
        self._level = level
        self._seen = now

    def has(self, units: float, now: float) -> bool:
        """Tell whether so much can be taken. A full bucket gives any amount, and owes what it lacks."""
        self._level = min(self._capacity, self._level + (now - self._seen) * self._rate)
        self._seen = now
        return self._level >= min(units, self._capacity)

    def take(self, units: float) -> None:
        """Take units that are there."""
        self._level -= units

    def twin(self) -> "Bucket":
        """Make another one that is as full."""
        return Bucket(self._rate, self._capacity, self._level, self._seen)


def bucket(units: float, limits: Limits | None, now: float) -> Bucket:
    """Make a full bucket of a partition; without limits, one that never runs out."""
    if limits is None:
        return Bucket(0.0, math.inf, math.inf, now)
    rate = units * limits.scale
    return Bucket(rate, rate * limits.burst, rate * limits.burst, now)
