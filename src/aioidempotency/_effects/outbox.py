"""Events that are committed with their effects, and published later.

1. The events of one key in one transaction are one item, so a reader sees all of them or none.
2. Items of one key are in one partition, in the order of their sequence numbers. A reader that sees one
   cannot know that it has seen all before it: those may have been written while it read. So it reads twice, and
   takes only what was there the first time, and what stands before that: everything whose transaction was
   answered before the later one's was sent, is there by then.
3. Where an item is depends on its key alone, and on the number of shards, which is part of the table's format.
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
"""What an outbox's partition begins with."""

SHARDS: Final = 16
"""Partitions of one outbox: each takes about 500 events a second, since one in a transaction costs two units."""

LARGEST_SEQUENCE: Final = 10**20 - 1
"""The numbers are compared as texts of this length."""

PAGE: Final = 100
"""Items that are read at a time."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """Events of one key in one transaction, as they are stored: each written by the store's codec."""

    key: str
    sequence: int
    owner: str
    events: tuple[str, ...] = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Outbox:
    """Where a namespace's events are: in a table with a sort key."""

    table: Table
    namespace: str

    def partition(self, shard: int) -> str:
        """Name the partition of a shard."""
        return f"{KEY}#{shard}#{self.namespace}" if self.namespace else f"{KEY}#{shard}"

    def put(self, emitted: Emitted) -> Put:
        """Write events; no other transaction has the same location."""
        order = f"{_digest(emitted.key)}#{emitted.sequence:020d}#{emitted.owner}"
        location = Location(table=self.table, partition=self.partition(shard_of(emitted.key)), sort=order)
        data = json.dumps({"key": emitted.key, "sequence": emitted.sequence, "events": emitted.events})
        names = self.table.names
        item = {**location.item, names["owner"]: {"S": emitted.owner}, names["data"]: {"S": data}}
        return Put(location, item, Absent())


def shard_of(key: str) -> int:
    """Say which shard has the events of a key."""
    return int(_digest(key), 16) % SHARDS


def pending(outbox: Outbox, shard: int) -> Procedure[tuple[Item, ...]]:
    """Read the events of a shard that can be published now, in their order."""
    seen = yield from _page(outbox, shard)
    return tuple(publishable(seen, (yield from _page(outbox, shard)), outbox.table)) if seen else ()


def publishable(seen: Sequence[Item], again: Sequence[Item], table: Table) -> Iterator[Item]:
    """Choose from a second look what the first one had seen, and what stands before that."""
    last = {_key(item, table): _sort(item, table) for item in seen}
    return (item for item in again if _sort(item, table) <= last.get(_key(item, table), ""))


def parse(item: Item, table: Table) -> Emitted:
    """Read an item.

    Raises:
        ConfigurationError: It holds no events.
    """
    names = table.names
    try:
        data = json.loads(str(item[names["data"]]["S"]))
        owner = str(item[names["owner"]]["S"])
        return Emitted(key=data["key"], sequence=data["sequence"], owner=owner, events=tuple(data["events"]))
    except (KeyError, TypeError, ValueError):
        raise ConfigurationError(
            f"an item in the outbox of table {table.name!r} holds no events; nothing but this library may write there: "
            "find out what does, and remove it"
        ) from None


def remove(outbox: Outbox, shard: int, item: Item) -> Procedure[None]:
    """Delete an item that was published; another relay may have done it."""
    location = Location(table=outbox.table, partition=outbox.partition(shard), sort=_sort(item, outbox.table))
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
