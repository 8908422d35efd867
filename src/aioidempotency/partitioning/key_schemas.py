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
"""The strategies known to be safe. Any other object is refused: an unsafe one runs keys twice, without an error."""


@final
class PartitionedRoute(Struct, frozen=True):
    """The locations of one key, by a strategy: a `Route`."""

    table: Table
    partitioning: Partitioning
    key: str

    @property
    def answer_within(self) -> float:
        """Seconds after which the locations of an instant may be incomplete."""
        return self.partitioning.answer_within

    def locations(self, now: float) -> Locations:
        """Name the location of a new record, and then every other location with a possible live record."""
        home, elsewhere = self.partitioning.home(self.key, now), self.partitioning.elsewhere(self.key, now)
        partitions = tuple(dict.fromkeys((home, *elsewhere)))
        if len(partitions) > MOST_LOCATIONS:
            raise PartitioningError(
                f"a key has {len(partitions)} locations, and one transaction takes {MOST_LOCATIONS}"
            )
        return tuple(self._location(partition) for partition in partitions)

    def searched_until(self, location: Location) -> float:
        """Epoch seconds until which every claim looks at a location."""
        return self.partitioning.searched_until(location.partition)

    def _location(self, partition: str) -> Location:
        if self.table.sort_attribute is not None:
            return Location(table=self.table, partition=partition, sort=self.key)
        # Without the digest, two keys could share an item, and one caller would get another caller's result.
        if self.key.rpartition("#")[2] not in partition:
            raise PartitioningError(
                "with SimpleKey, the text from the function of CustomPartition is the whole key, and lacks the "
                "digest: two calls could get one answer. Return a text that includes the key's part after the last '#'"
            )
        return Location(table=self.table, partition=partition)


@final
@dataclass(frozen=True, slots=True)
class SimpleKey:
    """A table whose partition key is the record's key. DynamoDB distributes such keys without help.

    ```python
    from aioidempotency import AsyncIdempotencyStore, SimpleKey

    store = AsyncIdempotencyStore("idempotency", layout=SimpleKey("request_id"))
    ```

    Args:
        attribute: The name of the partition key's attribute.
        partitioning: None, or a `CustomPartition`, whose text then is the whole key.

    Raises:
        PartitioningError: Another strategy is given: `SimpleKey` has no sort key.
    """

    attribute: str = "id"
    partitioning: CustomPartition | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_names([self.attribute])
        if self.partitioning is not None and not isinstance(self.partitioning, CustomPartition):
            raise PartitioningError(
                "DynamoDB spreads SimpleKey by itself. SimpleKey takes no partitioning, except CustomPartition, "
                f"which makes the key: leave partitioning= out, or use CompositeKey(partitioning=...): not {self.partitioning!r}"
            )

    def table(self, name: str, attributes: AttributeNames) -> Table:
        """Describe a table with this key."""
        return Table(name, self.attribute, None, attributes)

    def bound(self, terms: Terms) -> "SimpleKey":
        """Ignore the settings of a store."""
        return self

    def router(self, table: Table) -> Callable[[str], Route]:
        """Make the function from keys to routes."""
        if self.partitioning is None:
            return partial(Location, table)  # pyright: ignore[reportReturnType] # it takes a class variable for no property
        return partial(PartitionedRoute, table, self.partitioning)

    def route(self, table: Table, key: str) -> Route:
        """Find the possible locations of a key's record."""
        return self.router(table)(key)


@final
@dataclass(frozen=True, slots=True)
class CompositeKey:
    """A table with a sort key. The sort key holds the record's key, and `partitioning` chooses the partition.

    ```python
    from aioidempotency import AsyncIdempotencyStore, CompositeKey, HashBuckets

    layout = CompositeKey("pk", "sk", partitioning=HashBuckets(32))
    async with AsyncIdempotencyStore("idempotency", layout=layout) as store:
        await store.create_table()
    ```

    A store reads the table's layout item at the first call, and refuses to work with another strategy than the one of
    the records in the table.

    Args:
        partition_attribute: The name of the partition key's attribute.
        sort_attribute: The name of the sort key's attribute.
        partitioning: The strategy.

    Raises:
        PartitioningError: The strategy is none of this library's.
    """

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
        """Describe a table with this key."""
        return Table(name, self.partition_attribute, self.sort_attribute, attributes)

    def bound(self, terms: Terms) -> "CompositeKey":
        """Apply a store's settings.

        Raises:
            PartitioningError: The strategy does not work with the settings.
        """
        return replace(self, partitioning=self.partitioning.bound(terms))

    def router(self, table: Table) -> Callable[[str], Route]:
        """Make the function from keys to routes."""
        # A plain `Location` is a route, too, and costs every call less than a `PartitionedRoute`. Both strategies
        # ignore the instant.
        if isinstance(home := self.partitioning, Static | HashBuckets):
            return lambda key: Location(table, home.home(key, 0), key)  # pyright: ignore[reportReturnType] # as above
        return partial(PartitionedRoute, table, self.partitioning)

    def route(self, table: Table, key: str) -> Route:
        """Find the possible locations of a key's record."""
        return self.router(table)(key)


KeySchema = SimpleKey | CompositeKey
