"""Strategies whose partitions are numbered: one, those that a hash names, or some of them."""

import struct
from dataclasses import dataclass
from typing import final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import MOST_LOCATIONS, Settled, check_count, check_text, spread


@final
@dataclass(frozen=True, slots=True)
class Static(Settled):
    """All records under one partition value, as Powertools puts them: about 500 new calls a second."""

    value: str

    def __post_init__(self) -> None:
        check_text(self.value, "Static", "partition value")

    def home(self, key: str, now: float) -> str:
        """Answer with the one value."""
        return self.value

    def partitions(self, now: float) -> tuple[str, ...]:
        """Answer with the one value."""
        return (self.value,)

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON's terms."""
        return {"strategy": "Static", "value": self.value}


@final
@dataclass(frozen=True, slots=True)
class HashBuckets(Settled):
    """Records spread evenly over `n` partition values, chosen by the hash of the whole key.

    The hash is xxh3_64 with seed 0 over the key's UTF-8 bytes, modulo `n`; it is part of the table's
    format. Another `n` on live data would run keys twice: `Reshard` moves from one to the other.
    """

    n: int
    prefix: str = "idempotency"

    def __post_init__(self) -> None:
        check_count(self.n, "HashBuckets", "bucket")
        check_text(self.prefix, "HashBuckets", "prefix")

    def home(self, key: str, now: float) -> str:
        """Answer with the bucket that the key's hash names."""
        return f"{self.prefix}#{spread(key) % self.n}"

    def partitions(self, now: float) -> tuple[str, ...]:
        """Answer with all buckets."""
        return tuple(f"{self.prefix}#{bucket}" for bucket in range(self.n))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON's terms."""
        return {"strategy": "HashBuckets", "n": self.n, "prefix": self.prefix}


@final
@dataclass(frozen=True, slots=True)
class RandomBuckets(Settled):
    """Records in one at random of `choices` buckets that the key's hash names; each claim looks at all of them.

    A claim is one transaction of `choices` writes at double write units: `HashBuckets` does the same
    with one plain write. It is here for tables that were laid out so, and to be measured against.
    """

    n: int
    choices: int = 2
    prefix: str = "idempotency"

    def __post_init__(self) -> None:
        check_count(self.n, "RandomBuckets", "bucket")
        check_count(self.choices, "RandomBuckets", "choice")
        check_text(self.prefix, "RandomBuckets", "prefix")
        if self.choices > min(self.n, MOST_LOCATIONS):
            raise PartitioningError(
                f"RandomBuckets can choose between {self.choices} buckets only if it has as many, and at most "
                f"{MOST_LOCATIONS} in one transaction: give choices={min(self.n, MOST_LOCATIONS)} or less"
            )

    @property
    def most_locations(self) -> int:
        """As many as there are choices."""
        return self.choices

    def home(self, key: str, now: float) -> str:
        """Answer with one of the key's buckets; which one depends on the instant, as a draw would."""
        candidates = self._candidates(key)
        return candidates[spread(f"{key}@{struct.pack('>d', now).hex()}") % self.choices]

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with the key's other buckets."""
        home = self.home(key, now)
        return tuple(each for each in self._candidates(key) if each != home)

    def partitions(self, now: float) -> tuple[str, ...]:
        """Answer with all buckets."""
        return tuple(f"{self.prefix}#{bucket}" for bucket in range(self.n))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON's terms."""
        return {"strategy": "RandomBuckets", "n": self.n, "choices": self.choices, "prefix": self.prefix}

    def _candidates(self, key: str) -> tuple[str, ...]:
        """Draw distinct buckets: each digit of the hash, in bases n, n - 1, ..., counts among those left."""
        digits, left = spread(key), list(range(self.n))
        drawn: list[int] = []
        for _ in range(self.choices):
            digits, digit = divmod(digits, len(left))
            left[digit], left[-1] = left[-1], left[digit]
            drawn.append(left.pop())
        return tuple(f"{self.prefix}#{bucket}" for bucket in drawn)
