"""Strategies with numbered partitions: one partition, one by hash, or some by hash."""

import struct
from dataclasses import dataclass
from typing import final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import MOST_LOCATIONS, Settled, check_count, check_text, spread


@final
@dataclass(frozen=True, slots=True)
class Static(Settled):
    """All records in one partition, as with Powertools: about 500 new calls a second.

    ```python
    from aioidempotency import AsyncIdempotencyStore, CompositeKey, Static

    layout = CompositeKey(partitioning=Static("idempotency#orders"))
    store = AsyncIdempotencyStore("idempotency", layout=layout)
    ```

    Args:
        value: The partition value, at most 2,048 bytes.

    Raises:
        PartitioningError: The value is empty or too long.
    """

    value: str

    def __post_init__(self) -> None:
        check_text(self.value, "Static", "partition value")

    def home(self, key: str, now: float) -> str:
        """Name the one partition."""
        return self.value

    def partitions(self, now: float) -> tuple[str, ...]:
        """Name the one partition."""
        return (self.value,)

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON."""
        return {"strategy": "Static", "value": self.value}


@final
@dataclass(frozen=True, slots=True)
class HashBuckets(Settled):
    """Records distributed evenly over `n` partitions, by the hash of the whole key.

    ```python
    from aioidempotency import AsyncIdempotencyStore, CompositeKey, HashBuckets

    store = AsyncIdempotencyStore("idempotency", layout=CompositeKey(partitioning=HashBuckets(64)))
    ```

    The bucket is xxh3_64 with seed 0 over the key's UTF-8 bytes, modulo `n`. The hash is a part of the table's
    format. Another `n` on live data would run keys twice; `Reshard` moves from one `n` to another.

    Args:
        n: The number of partitions. Each takes about 500 new calls a second.
        prefix: The beginning of every partition value: `prefix#bucket`.

    Raises:
        PartitioningError: `n` is no whole number above 0, or the prefix is empty or too long.
    """

    n: int
    prefix: str = "idempotency"

    def __post_init__(self) -> None:
        check_count(self.n, "HashBuckets", "bucket")
        check_text(self.prefix, "HashBuckets", "prefix", followed_by=f"#{self.n - 1}")

    def home(self, key: str, now: float) -> str:
        """Name the bucket by the hash of the key."""
        return f"{self.prefix}#{spread(key) % self.n}"

    def partitions(self, now: float) -> tuple[str, ...]:
        """Name all buckets."""
        return tuple(f"{self.prefix}#{bucket}" for bucket in range(self.n))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON."""
        return {"strategy": "HashBuckets", "n": self.n, "prefix": self.prefix}


@final
@dataclass(frozen=True, slots=True)
class RandomBuckets(Settled):
    """Records at random in one of `choices` buckets, named by the key's hash. Each claim looks at all of them.

    ```python
    from aioidempotency import AsyncIdempotencyStore, CompositeKey, RandomBuckets

    store = AsyncIdempotencyStore("idempotency", layout=CompositeKey(partitioning=RandomBuckets(32, choices=2)))
    ```

    A claim is one transaction of `choices` writes, at double write units. `HashBuckets` needs one plain write
    for the same distribution, and is the better choice for a new table. `RandomBuckets` serves existing tables and
    comparisons.

    Args:
        n: The number of buckets.
        choices: The number of buckets for each key, at most 100 (DynamoDB's limit for a transaction).
        prefix: The beginning of every partition value: `prefix#bucket`.

    Raises:
        PartitioningError: A number is out of bounds, or the prefix is empty or too long.
    """

    n: int
    choices: int = 2
    prefix: str = "idempotency"

    def __post_init__(self) -> None:
        check_count(self.n, "RandomBuckets", "bucket")
        check_count(self.choices, "RandomBuckets", "choice")
        check_text(self.prefix, "RandomBuckets", "prefix", followed_by=f"#{self.n - 1}")
        if self.choices > min(self.n, MOST_LOCATIONS):
            raise PartitioningError(
                f"RandomBuckets can choose between {self.choices} buckets only if n= is as large, and at most "
                f"{MOST_LOCATIONS} in one transaction: give choices={min(self.n, MOST_LOCATIONS)} or less"
            )

    @property
    def most_locations(self) -> int:
        """The number of choices."""
        return self.choices

    def home(self, key: str, now: float) -> str:
        """Choose one of the key's buckets. The choice depends on the instant, in place of random bits."""
        candidates = self._candidates(key)
        # A strategy must be pure, so the instant stands for the dice. The exact bits of the float, because a rounded
        # instant would send all claims of one second to one bucket.
        return candidates[spread(f"{key}@{struct.pack('>d', now).hex()}") % self.choices]

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name the key's other buckets."""
        home = self.home(key, now)
        return tuple(each for each in self._candidates(key) if each != home)

    def partitions(self, now: float) -> tuple[str, ...]:
        """Name all buckets."""
        return tuple(f"{self.prefix}#{bucket}" for bucket in range(self.n))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON."""
        return {"strategy": "RandomBuckets", "n": self.n, "choices": self.choices, "prefix": self.prefix}

    def _candidates(self, key: str) -> tuple[str, ...]:
        """Draw distinct buckets from the hash of the key.

        Each digit of the hash, in bases n, n - 1, ..., selects one of the remaining buckets.
        """
        digits, left = spread(key), list(range(self.n))
        drawn: list[int] = []
        for _ in range(self.choices):
            digits, digit = divmod(digits, len(left))
            # The chosen bucket moves to the end and leaves the list: two equal choices would be two actions on one
            # item, which DynamoDB refuses. The order is a part of the table's format.
            left[digit], left[-1] = left[-1], left[digit]
            drawn.append(left.pop())
        return tuple(f"{self.prefix}#{bucket}" for bucket in drawn)
