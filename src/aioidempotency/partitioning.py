"""Where records live: the table's key, and how keys spread over its partitions.

One DynamoDB partition takes about 1,000 write units a second, so one partition value takes about
500 new calls. A partitioning spreads keys over several values, and must be a function of the key:
a second attempt that looks in another place finds nothing, and runs again.
"""

from dataclasses import dataclass, field
from typing import Protocol, final

import xxhash

from aioidempotency._core.model import AttributeNames, Location, Table, check_names
from aioidempotency.exceptions import PartitioningError


class Partitioning(Protocol):
    """Says in which partition the record of a key lives. Only the strategies of this module are accepted."""

    def home(self, key: str, now: float) -> str:
        """Name the partition of a new record; `key` is `namespace#digest`, `now` epoch seconds."""
        ...

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name every other partition where a live record of the key may be."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Static:
    """All records under one partition value, as Powertools puts them: about 500 new calls a second."""

    value: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, str) or not self.value:
            raise PartitioningError("Static needs a partition value: a text that is not empty")

    def home(self, key: str, now: float) -> str:
        """Answer with the one value."""
        return self.value

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with nothing: a record can be in one place only."""
        return ()


@final
@dataclass(frozen=True, slots=True)
class HashBuckets:
    """Records spread evenly over `n` partition values, chosen by the hash of the whole key.

    The hash is xxh3_64 with seed 0 over the key's UTF-8 bytes, modulo `n`; it is part of the table's
    format. Another `n` on live data would run keys twice.
    """

    n: int
    prefix: str = "idempotency"

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise PartitioningError(f"HashBuckets needs at least one bucket, and a whole number of them: not {self.n}")
        if not isinstance(self.prefix, str) or not self.prefix:
            raise PartitioningError("HashBuckets needs a prefix: a text that is not empty")

    def home(self, key: str, now: float) -> str:
        """Answer with the bucket that the key's hash names."""
        return f"{self.prefix}#{xxhash.xxh3_64_intdigest(key.encode()) % self.n}"

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with nothing: a record can be in one place only."""
        return ()


@final
@dataclass(frozen=True, slots=True)
class SimpleKey:
    """A table whose partition key is the record's key: DynamoDB spreads it by itself."""

    attribute: str = "id"

    def __post_init__(self) -> None:
        check_names([self.attribute])

    def table(self, name: str, attributes: AttributeNames) -> Table:
        """Describe a table with this layout."""
        return Table(name, self.attribute, None, attributes)

    def location(self, table: Table, key: str, now: float) -> Location:
        """Find the place of a key's record."""
        return Location(table=table, partition=key)


@final
@dataclass(frozen=True, slots=True)
class CompositeKey:
    """A table with a sort key, which holds the record's key; `partitioning` chooses the partition."""

    partition_attribute: str = "pk"
    sort_attribute: str = "sk"
    partitioning: Partitioning = field(default_factory=lambda: HashBuckets(32), kw_only=True)

    def __post_init__(self) -> None:
        check_names([self.partition_attribute, self.sort_attribute])
        if not isinstance(self.partitioning, Static | HashBuckets):
            raise PartitioningError(
                "partitioning= takes HashBuckets(32) or Static('idempotency'), which are known to be safe: "
                f"not {self.partitioning!r}"
            )

    def table(self, name: str, attributes: AttributeNames) -> Table:
        """Describe a table with this layout."""
        return Table(name, self.partition_attribute, self.sort_attribute, attributes)

    def location(self, table: Table, key: str, now: float) -> Location:
        """Find the place of a key's record."""
        return Location(table=table, partition=self.partitioning.home(key, now), sort=key)


Layout = SimpleKey | CompositeKey
