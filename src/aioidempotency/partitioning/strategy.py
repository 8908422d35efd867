"""What a strategy answers, and what all of them have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Protocol, final

import xxhash

from aioidempotency.exceptions import PartitioningError

MOST_LOCATIONS = 100
"""Locations of one key: DynamoDB takes as many actions in one transaction."""

LONGEST_PARTITION = 2048
"""Bytes of a partition value that DynamoDB takes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a store's settings mean for its strategy, in seconds; the defaults are the store's own."""

    retention: float = 3600.0
    lease: float = 60.0
    clock_skew: float = 1.0


class Partitioning(Protocol):
    """Says in which partitions the record of a key may be. Only the strategies of this module are accepted.

    `key` is `namespace#digest`, `now` is epoch seconds.
    """

    @property
    def answer_within(self) -> float:
        """Seconds for which an answer counts: a claim that took longer is not relied upon."""
        ...

    @property
    def most_locations(self) -> int:
        """How many locations a key has at the most."""
        ...

    @property
    def longest_retention(self) -> float:
        """Seconds that claims look back at the least: no record may be asked to answer for longer."""
        ...

    def home(self, key: str, now: float) -> str:
        """Name the partition of a new record."""
        ...

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name every other partition where a live record of the key may be."""
        ...

    def searched_until(self, partition: str) -> float:
        """Epoch seconds until which every claim looks into a partition."""
        ...

    def partitions(self, now: float) -> tuple[str, ...] | None:
        """Name every partition that may hold a live record; None where that cannot be said."""
        ...

    def description(self) -> Mapping[str, object]:
        """Describe the strategy in JSON's terms: two strategies that put records alike are described alike."""
        ...

    def bound(self, terms: Terms) -> "Partitioning":
        """Take a store's settings in.

        Raises:
            PartitioningError: They do not go together.
        """
        ...


class Settled(Partitioning):
    """A strategy whose records have one location, for ever; what others do otherwise, they say."""

    @property
    def answer_within(self) -> float:
        """Any time: what the locations of a key are does not change."""
        return inf

    @property
    def most_locations(self) -> int:
        """One."""
        return 1

    @property
    def longest_retention(self) -> float:
        """Any: a record is looked for where it is, for ever."""
        return inf

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with nothing: a record can be in one location only."""
        return ()

    def searched_until(self, partition: str) -> float:
        """For ever."""
        return inf

    def bound(self, terms: Terms) -> Partitioning:
        """Need nothing of a store's settings."""
        return self


def spread(key: str) -> int:
    """Hash a key for routing: xxh3_64 with seed 0 over its UTF-8 bytes. It is part of the table's format."""
    return xxhash.xxh3_64_intdigest(key.encode())


def check_count(count: object, strategy: str, what: str) -> None:
    """Refuse what is not a whole number above 0."""
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise PartitioningError(f"{strategy} needs at least one {what}, and a whole number of them: not {count}")


def check_text(text: object, strategy: str, what: str) -> None:
    """Refuse what cannot be, or begin, a partition value."""
    if not isinstance(text, str) or not text:
        raise PartitioningError(f"{strategy} needs a {what}: a text that is not empty")
    if len(text.encode()) > LONGEST_PARTITION:
        raise PartitioningError(f"{strategy} needs a {what} of {LONGEST_PARTITION} bytes at the most")
