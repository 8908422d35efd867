"""Events committed together with their effects, and published later.

1. The events of one key in one transaction are one item, so a reader sees all of them or none.
2. The items of one key are in one partition, by sequence number. A reader of one item cannot know whether
   earlier items have all arrived: an earlier transaction may commit during the read. So the reader reads twice, and
   takes only the items of the first read and all items before them. Every transaction answered before the later
   transaction was sent is visible by the second read.
3. An item's location depends only on the key and on the number of shards. The number of shards is a part of the
   table's format.
4. A page is a fair turn for each key: at most one page of items of one key, and then the next key. A page begins with
   the first item of a key, so each key is read from its head, in order.
5. An item counts how often its first remaining event has failed. Each count is a conditional write of the whole item,
   so the count survives every relay, and two relays never overwrite each other.
"""

import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, final

from aioidempotency._core import placements
from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import LARGEST_NUMBER, Item, Location, Table
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

ATTEMPTS: Final = 5
"""The most attempts to remove an item, while other relays count its failures."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """The events of one key in one transaction, each written by the store's codec.

    Attributes:
        key: The events of one key are in order.
        sequence: The order of the transaction among those of the key.
        owner: The owner of the call.
        events: The events. None where an event was published, and a later one of the item failed.
        failures: How often the first remaining event has failed.
    """

    key: str = field(repr=False)
    sequence: int
    owner: str
    events: tuple[str | None, ...] = field(repr=False)
    failures: int = 0


@final
@dataclass(frozen=True, slots=True)
class Page:
    """A turn of some keys.

    Attributes:
        items: The items that can be published now, in order.
        behind: The position of the next turn. None if the partition has no item behind this turn's position.
    """

    items: tuple[Item, ...] = field(repr=False)
    behind: str | None


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


def page(outbox: Outbox, shard: int, after: str = "", *, skip: Container[str] = ()) -> Procedure[Page]:
    """Read the next turn of a shard, behind a position. The digests in `skip` have no turn now."""
    table = outbox.table
    seen = yield from _read(outbox, shard, after)
    if not seen:
        return Page((), None)
    last = key_of(seen[-1], table)
    if len(seen) == PAGE and key_of(seen[0], table) != last:
        # The page ends inside the last key. The next turn begins with that key, and reads all of it.
        seen = [item for item in seen if key_of(item, table) != last]
        last = key_of(seen[-1], table)
    seen = [item for item in seen if key_of(item, table) not in skip]
    if not seen:
        return Page((), _behind(last))
    return Page(tuple(publishable(seen, (yield from _read(outbox, shard, after)), table)), _behind(last))


def publishable(seen: Sequence[Item], again: Sequence[Item], table: Table) -> Iterator[Item]:
    """Choose from a second read the items of the first read, and the items before them."""
    # Rule 2: an item new in the second read may have an unseen predecessor, so only a third read could publish the
    # item.
    last = {key_of(item, table): _sort(item, table) for item in seen}
    return (item for item in again if _sort(item, table) <= last.get(key_of(item, table), ""))


def parse(item: Item, table: Table) -> Emitted:
    """Read an item.

    Raises:
        ConfigurationError: The item holds no events.
    """
    try:
        emitted = _emitted(item, table)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        emitted = None
    if emitted is None or not _fits(emitted):
        raise ConfigurationError(
            f"an item in the outbox of table {table.name!r} holds no events; only this library may write there: "
            "find out who else does, and remove the item"
        )
    return emitted


def _emitted(item: Item, table: Table) -> Emitted | None:
    data = json.loads(str(item[table.names["data"]]["S"]))
    if not 0 <= _changes(item, table) <= LARGEST_NUMBER:
        return None
    return Emitted(
        key=data["key"],
        sequence=data["sequence"],
        owner=str(item[table.names["owner"]]["S"]),
        events=tuple(data["events"]),
        failures=data.get("failures", 0),
    )


def _fits(emitted: Emitted) -> bool:
    texts = (emitted.key, *(each for each in emitted.events if each is not None))
    numbers = (emitted.sequence, emitted.failures)
    return all(isinstance(each, str) for each in texts) and all(type(each) is int and each >= 0 for each in numbers)


def was_counted(item: Item, table: Table) -> bool:
    """Tell whether an earlier delivery of an item failed, or did not end."""
    return table.names["fencing_token"] in item


def count(outbox: Outbox, shard: int, item: Item, *, done: int, failures: int) -> Procedure[Item | None]:
    """Write that the events before `done` are published, and how often the next one has failed.

    Returns the item as written. None if another relay has changed or deleted the item.
    """
    names = outbox.table.names
    data = json.loads(str(item[names["data"]]["S"]))
    data["events"][:done] = [None] * done
    data["failures"] = failures
    # The number of changes grows with each change, so `Unchanged` finds each one.
    changes = {"N": str(_changes(item, outbox.table) + 1)}
    counted = {**item, names["data"]: {"S": json.dumps(data)}, names["fencing_token"]: changes}
    reply = yield Put(_location(outbox, shard, item), counted, Unchanged(item))
    if not isinstance(reply, Applied | ConditionFailed):
        raise TypeError(f"the backend answered a put with {type(reply).__name__}")
    return counted if isinstance(reply, Applied) else None


def remove(outbox: Outbox, shard: int, item: Item) -> Procedure[None]:
    """Delete a published item. Another relay may have deleted the item already."""
    # Two relays may publish one event: delivery is at least once, and `OutboxEvent.id` tells duplicates.
    for _ in range(ATTEMPTS):
        operation = Delete(_location(outbox, shard, item), Unchanged(item))
        reply = yield operation
        if isinstance(reply, Applied):
            return
        if not isinstance(reply, ConditionFailed):
            raise TypeError(f"the backend answered a deletion with {type(reply).__name__}")
        # Another relay has counted a failure of an event that this one has published.
        (found,) = yield from placements.seen_by(operation, reply)
        if found is None:
            return
        item = found


def key_of(item: Item, table: Table) -> str:
    """Read the digest of the key of an item's events."""
    return _sort(item, table).partition("#")[0]


def _behind(key: str) -> str:
    """Name the position behind all items of a key."""
    # "$" is the character after "#", and a digest has neither.
    return f"{key}$"


def _read(outbox: Outbox, shard: int, after: str) -> Procedure[Sequence[Item]]:
    reply = yield Query(Location(table=outbox.table, partition=outbox.partition(shard), sort=after), PAGE)
    if not isinstance(reply, FoundAll):
        raise TypeError(f"the backend answered a query with {type(reply).__name__}")
    # A backend that reads from the beginning would else lead a relay in a circle.
    return [item for item in reply.items if item is not None and _sort(item, outbox.table) > after]


def _location(outbox: Outbox, shard: int, item: Item) -> Location:
    return Location(table=outbox.table, partition=outbox.partition(shard), sort=_sort(item, outbox.table))


def _changes(item: Item, table: Table) -> int:
    value = item.get(table.names["fencing_token"])
    return 0 if value is None else int(str(value["N"]))


def _digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def _sort(item: Item, table: Table) -> str:
    return str(item[table.names["sort"]]["S"])
