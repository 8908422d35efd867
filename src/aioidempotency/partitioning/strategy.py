"""The interface of partitioning strategies, and their common parts."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol, final

import xxhash

from aioidempotency.exceptions import PartitioningError

MOST_LOCATIONS = 100
"""The most locations of one key: DynamoDB's limit of actions in one transaction."""

LONGEST_PARTITION = 2048
"""The most bytes of a partition value, by DynamoDB's limit."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The settings of a store that matter to a strategy, in seconds. The defaults are the store's own."""

    retention: float = 3600.0
    lease: float = 60.0
    clock_skew: float = 1.0


class Partitioning(Protocol):
    """Names the partitions of a key's record. Only the strategies of `aioidempotency.partitioning` are accepted.

    `key` is `namespace#digest`, `now` is epoch seconds. All answers are pure functions of the arguments.
    """

    @property
    def answer_within(self) -> float:
        """Seconds for which the locations of a key stay valid. A claim that took longer is made again."""
        ...

    @property
    def most_locations(self) -> int:
        """The most locations of one key."""
        ...

    @property
    def longest_retention(self) -> float:
        """Seconds into the past in which every claim finds a record. No record may have a longer retention."""
        ...

    def home(self, key: str, now: float) -> str:
        """Name the partition of a new record."""
        ...

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name every other partition that may hold a live record of the key."""
        ...

    def searched_until(self, partition: str) -> float:
        """Epoch seconds until which every claim looks into a partition."""
        ...

    def partitions(self, now: float) -> tuple[str, ...] | None:
        """Name every partition that may hold live records. None if unknown."""
        ...

    def description(self) -> Mapping[str, object]:
        """Describe the strategy in JSON. Strategies that put all records in the same places have the same description."""
        ...

    def bound(self, terms: Terms) -> "Partitioning":
        """Apply a store's settings.

        Raises:
            PartitioningError: The strategy does not work with the settings.
        """
        ...


class Settled(Partitioning):
    """A strategy with one permanent location for each key. Other strategies override the differences."""

    @property
    def answer_within(self) -> float:
        """Without limit: the locations of a key never change."""
        return inf

    @property
    def most_locations(self) -> int:
        """One."""
        return 1

    @property
    def longest_retention(self) -> float:
        """Without limit: claims always look at the record's location."""
        return inf

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name no other partition."""
        return ()

    def searched_until(self, partition: str) -> float:
        """Without limit."""
        return inf

    def bound(self, terms: Terms) -> Partitioning:
        """Ignore the settings of a store."""
        return self


def spread(key: str) -> int:
    """Hash a key for routing: xxh3_64, seed 0, over the UTF-8 bytes.

    The hash is a part of the table's format: with another hash, a second attempt misses the record of the first.
    """
    # Test vectors pin the value. xxh3_64 is fast and spreads evenly. The hash need not be secure, because the SHA-256 in
    # the key identifies a record.
    return xxhash.xxh3_64_intdigest(key.encode())


def check_count(count: object, strategy: str, what: str) -> None:
    """Refuse everything but a whole number above 0."""
    # `True` is an `int`, and would be one bucket.
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise PartitioningError(f"{strategy} needs at least one {what}, as a whole number: not {count}")


def check_text(text: object, strategy: str, what: str, *, followed_by: str = "") -> None:
    """Refuse a text that cannot be, or begin, a partition value.

    Args:
        followed_by: The longest text that is to follow.
    """
    if not isinstance(text, str) or not text:
        raise PartitioningError(f"{strategy} needs a {what}: a text that is not empty")
    # Half of a surrogate pair has no bytes, so no request could contain the value.
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise PartitioningError(f"{strategy} needs a {what} that can be written in UTF-8, without half of a character")
    longest = LONGEST_PARTITION - len(followed_by)
    if len(text.encode()) > longest:
        raise PartitioningError(f"{strategy} needs a {what} of {longest} bytes at the most")
