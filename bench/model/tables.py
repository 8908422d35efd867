"""Tables: their key, their items, and where in its space a table keeps an item."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import xxhash

from bench.model.expressions import Request
from bench.model.limits import Limits
from bench.model.partitions import Partitions, Point
from bench.model.refusals import MisfitError, ServiceError, malformed
from bench.model.values import AttributeValue, Item, Stored, measured, order

_ARN: Final = "arn:aws:dynamodb:eu-central-1:000000000000:table/"
LARGEST_PARTITION_VALUE: Final = 2048
LARGEST_SORT_VALUE: Final = 1024


@final
@dataclass(frozen=True, slots=True)
class KeyAttribute:
    """An attribute of a table's key; `kind` is S, N or B."""

    name: str
    kind: str

    def encoded(self, item: Mapping[str, AttributeValue], largest: int) -> bytes:
        """Encode the attribute of an item so that bytes compare as the values do."""
        value = item.get(self.name)
        if value is None:
            raise MisfitError(f"One or more parameter values were invalid: Missing the key {self.name} in the item")
        if self.kind not in value:
            mismatch = f"Type mismatch for key {self.name} expected: {self.kind} actual: {next(iter(value))}"
            raise MisfitError(f"One or more parameter values were invalid: {mismatch}")
        encoded = order(value)
        if not encoded:
            empty = "The AttributeValue for a key attribute cannot contain an empty string value"
            raise MisfitError(f"One or more parameter values are not valid. {empty}. Key: {self.name}")
        if len(encoded) > largest:
            raise MisfitError(f"One or more parameter values were invalid: {self.name} has more than {largest} bytes")
        return encoded


@final
@dataclass(frozen=True, slots=True)
class Key:
    """A table's key: one attribute, or two."""

    partition: KeyAttribute
    sort: KeyAttribute | None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its attributes."""
        return (self.partition.name,) if self.sort is None else (self.partition.name, self.sort.name)

    def point(self, item: Item) -> Point:
        """Find the point of an item."""
        start = self.start(self.partition.encoded(item, LARGEST_PARTITION_VALUE))
        return start if self.sort is None else start + self.sort.encoded(item, LARGEST_SORT_VALUE)

    def start(self, partition_value: bytes) -> Point:
        """Find the first point of a partition value: its length keeps it apart from longer ones."""
        return xxhash.xxh3_64_digest(partition_value, seed=1) + len(partition_value).to_bytes(2) + partition_value

    def named_by(self, given: object) -> tuple[Item, Point]:
        """Read the key that a request names an item by: exactly its attributes."""
        if type(given) is not dict:
            raise malformed("A key is a map of attribute values")
        key = {name: measured(value)[0] for name, value in given.items()}
        if key.keys() != set(self.names) or any(each.kind not in key[each.name] for each in self._attributes):
            raise MisfitError("The provided key element does not match the schema")
        return key, self.point(key)

    @property
    def _attributes(self) -> tuple[KeyAttribute, ...]:
        return (self.partition,) if self.sort is None else (self.partition, self.sort)


@final
class Table:
    """The items of one table, by their points, and its partitions."""

    def __init__(self, name: str, key: Key, description: Mapping[str, Any], partitions: Partitions) -> None:
        self.name = name
        self.arn = _ARN + name
        self.key = key
        self.description = description
        self.partitions = partitions
        self.expiration: str | None = None
        """The attribute that TTL is on; nothing is deleted by it."""
        self._items: dict[Point, Stored] = {}
        self._order: list[Point] | None = []

    def get(self, point: Point) -> Stored | None:
        """Give the item at a point."""
        return self._items.get(point)

    def stored_at(self, point: Point) -> Stored:
        """Give the item at one of the table's points."""
        return self._items[point]

    def put(self, point: Point, stored: Stored | None) -> None:
        """Store an item at its point, or with None nothing."""
        if stored is None:
            if self._items.pop(point, None) is not None:
                self._order = None
            return
        if point not in self._items:
            self._order = None
        self._items[point] = stored

    @property
    def points(self) -> Sequence[Point]:
        """All points in order; sorted when somebody asks, since reads of many items are rare here."""
        if self._order is None:
            self._order = sorted(self._items)
        return self._order

    @property
    def size(self) -> int:
        """Bytes of all items."""
        return sum(stored.size for stored in self._items.values())


@final
class Database:
    """All tables, and the requests that must not be applied twice."""

    def __init__(self, limits: Limits | None) -> None:
        self.limits = limits
        self.tables: dict[str, Table] = {}
        self.applied: dict[str, tuple[bytes, float]] = {}
        """Of each `ClientRequestToken` the digest of its parameters and the time, oldest first."""
        self.requests: Counter[str] = Counter()
        """How many requests there were for each operation, refused ones too."""

    def table(self, request: Request) -> Table:
        """Find the table that a request names."""
        name = request.get("TableName")
        found = self.tables.get(name) if type(name) is str else None
        if found is None:
            raise ServiceError("ResourceNotFoundException", "Requested resource not found")
        return found
