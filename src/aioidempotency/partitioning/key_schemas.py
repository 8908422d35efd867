"""The table's key: one attribute, or two."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

from msgspec import Struct

from aioidempotency._core.model import AttributeNames, Location, Locations, Route, Table, check_names
from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.buckets import HashBuckets, RandomBuckets, Static
from aioidempotency.partitioning.custom import CustomPartition
from aioidempotency.partitioning.reshard import Reshard
from aioidempotency.partitioning.strategy import MOST_LOCATIONS, Partitioning, Terms
from aioidempotency.partitioning.windows import TimeBuckets, Windows

Strategy = Static | HashBuckets | TimeBuckets | Windows | RandomBuckets | CustomPartition | Reshard
"""The strategies that are known to be safe."""


@final
class PartitionedRoute(Struct, frozen=True):
    """The locations of one key, as a strategy names them: a `Route`."""

    table: Table
    partitioning: Partitioning
    key: str

    @property
    def answer_within(self) -> float:
        """Seconds after which the locations of an instant may no longer be all that matter."""
        return self.partitioning.answer_within

    def locations(self, now: float) -> Locations:
        """Name the location of a new record, and then every other one where a live record may be."""
        home, elsewhere = self.partitioning.home(self.key, now), self.partitioning.elsewhere(self.key, now)
        partitions = tuple(dict.fromkeys((home, *elsewhere)))
        if len(partitions) > MOST_LOCATIONS:
            raise PartitioningError(
                f"a key has {len(partitions)} locations, and one transaction takes {MOST_LOCATIONS}"
            )
        return tuple(self._location(partition) for partition in partitions)

    def searched_until(self, location: Location) -> float:
        """Epoch seconds until which every claim looks at a location that is home now."""
        return self.partitioning.searched_until(location.partition)

    def _location(self, partition: str) -> Location:
        if self.table.sort_attribute is not None:
            return Location(table=self.table, partition=partition, sort=self.key)
        if self.key.rpartition("#")[2] not in partition:
            raise PartitioningError(
                "with SimpleKey, what the function of CustomPartition returns is the whole key, and it leaves out the "
                "digest: two calls could get one answer. Return a text that holds what follows the last '#' of its key"
            )
        return Location(table=self.table, partition=partition)


@final
@dataclass(frozen=True, slots=True)
class SimpleKey:
    """A table whose partition key is the record's key: DynamoDB spreads it by itself.

    The one partitioning it takes is `CustomPartition`, which then makes the key itself.
    """

    attribute: str = "id"
    partitioning: CustomPartition | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_names([self.attribute])
        if self.partitioning is not None and not isinstance(self.partitioning, CustomPartition):
            raise PartitioningError(
                "SimpleKey is spread by DynamoDB itself and takes no partitioning, except CustomPartition, which makes "
                f"the key: leave partitioning= out, or use CompositeKey(partitioning=...): not {self.partitioning!r}"
            )

    def table(self, name: str, attributes: AttributeNames) -> Table:
        """Describe a table with this layout."""
        return Table(name, self.attribute, None, attributes)

    def bound(self, terms: Terms) -> "SimpleKey":
        """Need nothing of a store's settings."""
        return self

    def router(self, table: Table) -> Callable[[str], Route]:
        """Make what says where the record of a key may be."""
        if self.partitioning is None:
            return partial(Location, table)
        return partial(PartitionedRoute, table, self.partitioning)

    def route(self, table: Table, key: str) -> Route:
        """Say where a key's record may be."""
        return self.router(table)(key)


@final
@dataclass(frozen=True, slots=True)
class CompositeKey:
    """A table with a sort key, which holds the record's key; `partitioning` chooses the partition."""

    partition_attribute: str = "pk"
    sort_attribute: str = "sk"
    partitioning: Partitioning = field(default_factory=lambda: HashBuckets(32), kw_only=True)

    def __post_init__(self) -> None:
        check_names([self.partition_attribute, self.sort_attribute])
        if not isinstance(self.partitioning, Strategy):
            raise PartitioningError(
                "partitioning= takes HashBuckets, TimeBuckets, RandomBuckets, Static, CustomPartition or Reshard, which "
                f"are known to be safe: not {self.partitioning!r}. CustomPartition(function) takes a function of yours"
            )

    def table(self, name: str, attributes: AttributeNames) -> Table:
        """Describe a table with this layout."""
        return Table(name, self.partition_attribute, self.sort_attribute, attributes)

    def bound(self, terms: Terms) -> "CompositeKey":
        """Take a store's settings in.

        Raises:
            PartitioningError: The strategy and the settings do not go together.
        """
        return replace(self, partitioning=self.partitioning.bound(terms))

    def router(self, table: Table) -> Callable[[str], Route]:
        """Make what says where the record of a key may be."""
        if isinstance(home := self.partitioning, Static | HashBuckets):
            return lambda key: Location(table, home.home(key, 0), key)
        return partial(PartitionedRoute, table, self.partitioning)

    def route(self, table: Table, key: str) -> Route:
        """Say where a key's record may be."""
        return self.router(table)(key)


KeySchema = SimpleKey | CompositeKey
