"""Events committed together with their effects, and published later.

1. The events of one key in one transaction are one item, so a reader sees all of them or none.
2. The items of one key are in one partition, by sequence number. A reader of one item cannot know whether
   earlier items have all arrived: an earlier transaction may commit during the read. So the reader reads twice, and
   takes only the items of the first read and all items before them. Every transaction answered before the later
   transaction was sent is visible by the second read.
3. An item's location depends only on the key and on the number of shards. The number of shards is a part of the
   table's format.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, final

from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import Item, Location, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, FoundAll, Put, Query
from aioidempotency._core.placements import Procedure
from aioidempotency.exceptions import ConfigurationError

KEY: Final = "aioidempotency#outbox"
"""The beginning of an outbox's partition value."""

SHARDS: Final = 16
"""The partitions of an outbox.

Each takes about 500 events a second, because an event in a transaction costs two write units.
"""

LARGEST_SEQUENCE: Final = 10**20 - 1
"""The largest sequence number. Sort keys hold the numbers as texts of this length, because DynamoDB compares texts."""

PAGE: Final = 100
"""The items of one read."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """The events of one key in one transaction, each written by the store's codec."""

    key: str = field(repr=False)
    sequence: int
    owner: str
    events: tuple[str, ...] = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Outbox:
    """The events of a namespace, in a table with a sort key."""

    table: Table
    namespace: str

    def partition(self, shard: int) -> str:
        """Name the partition of a shard."""
        return f"{KEY}#{shard}#{self.namespace}" if self.namespace else f"{KEY}#{shard}"

    def put(self, emitted: Emitted) -> Put:
        """Write events. The owner in the sort key keeps the locations of two transactions apart."""
        order = f"{_digest(emitted.key)}#{emitted.sequence:020d}#{emitted.owner}"
        location = Location(table=self.table, partition=self.partition(shard_of(emitted.key)), sort=order)
        data = json.dumps({"key": emitted.key, "sequence": emitted.sequence, "events": emitted.events})
        names = self.table.names
        item = {**location.item, names["owner"]: {"S": emitted.owner}, names["data"]: {"S": data}}
        # `Absent`, so that a second copy of the transaction can never overwrite an event.
        return Put(location, item, Absent())


def shard_of(key: str) -> int:
    """Find the shard of a key's events."""
    return int(_digest(key), 16) % SHARDS


def pending(outbox: Outbox, shard: int) -> Procedure[tuple[Item, ...]]:
    """Read the events of a shard that can be published now, in order."""
    seen = yield from _page(outbox, shard)
    return tuple(publishable(seen, (yield from _page(outbox, shard)), outbox.table)) if seen else ()


def publishable(seen: Sequence[Item], again: Sequence[Item], table: Table) -> Iterator[Item]:
    """Choose from a second read the items of the first read, and the items before them."""
    # Rule 2: an item new in the second read may have an unseen predecessor, so only a third read could publish the
    # item.
    last = {_key(item, table): _sort(item, table) for item in seen}
    return (item for item in again if _sort(item, table) <= last.get(_key(item, table), ""))


def parse(item: Item, table: Table) -> Emitted:
    """Read an item.

    Raises:
        ConfigurationError: The item holds no events.
    """
    names = table.names
    try:
        data = json.loads(str(item[names["data"]]["S"]))
        owner = str(item[names["owner"]]["S"])
        return Emitted(key=data["key"], sequence=data["sequence"], owner=owner, events=tuple(data["events"]))
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(
            f"an item in the outbox of table {table.name!r} holds no events; only this library may write there: "
            "find out who else does, and remove the item"
        ) from None


def remove(outbox: Outbox, shard: int, item: Item) -> Procedure[None]:
    """Delete a published item. Another relay may have deleted the item already."""
    location = Location(table=outbox.table, partition=outbox.partition(shard), sort=_sort(item, outbox.table))
    # Two relays may publish one event: delivery is at least once, and `OutboxEvent.id` tells duplicates.
    reply = yield Delete(location, Unchanged(item))
    if not isinstance(reply, Applied | ConditionFailed):
        raise TypeError(f"the backend answered a deletion with {type(reply).__name__}")


def _page(outbox: Outbox, shard: int) -> Procedure[Sequence[Item]]:
    reply = yield Query(Location(table=outbox.table, partition=outbox.partition(shard), sort=""), PAGE)
    if not isinstance(reply, FoundAll):
        raise TypeError(f"the backend answered a query with {type(reply).__name__}")
    return [item for item in reply.items if item is not None]


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _sort(item: Item, table: Table) -> str:
    return str(item[table.names["sort"]]["S"])


def _key(item: Item, table: Table) -> str:
    return _sort(item, table).partition("#")[0]
