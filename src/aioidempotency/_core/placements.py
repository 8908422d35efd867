"""A record that may be in several locations: what is sent to all of them, and what comes back.

1. Whoever puts a record insists, in the same transaction, on each other location: that nothing is there,
   or that what was seen there goes away with it. So a key has one record, wherever it was put.
2. What is taken over elsewhere is deleted, not only checked: its old owner must find itself refused.
3. What a transaction did not refuse is as its condition says. Where a refusal does not bring its item,
   all locations are read, as they are at one moment.

A key with one location is the common case, and costs no transaction: one plain `Put`, one plain `Get`.
"""

from collections.abc import Generator, Sequence
from typing import TypeVar

from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import Item, Location, Locations
from aioidempotency._core.operations import (
    Check,
    ConditionFailed,
    Delete,
    Found,
    FoundAll,
    Get,
    GetAll,
    Operation,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Write,
)

T = TypeVar("T")
Procedure = Generator[Operation, Reply, T]

Seen = Sequence[Item | None]
"""What is in each of the locations, in their order."""


def put(locations: Locations, item: Item, seen: Seen | None) -> Put | Transact:
    """Put an item into the first location, and insist that all locations are as they were seen; empty, if nobody looked."""
    found, *others = seen or (None,) * len(locations)
    first = Put(locations[0], item, Absent() if found is None else Unchanged(found))
    if not others:
        return first
    return Transact((first, *(_cleared(*each) for each in zip(locations[1:], others, strict=True))))


def look(locations: Locations) -> Procedure[Seen]:
    """Read all locations."""
    operation = Get(locations[0]) if len(locations) == 1 else GetAll(locations)
    reply = yield operation
    if isinstance(reply, Found):
        return (reply.item,)
    if isinstance(reply, FoundAll):
        return reply.items
    raise TypeError(f"the backend answered {operation!r} with {type(reply).__name__}")


def seen_by(operation: Write | Transact, refusal: ConditionFailed | TransactionFailed) -> Procedure[Seen]:
    """Say what is in the locations of a write that was refused; read them where the refusal does not say."""
    writes = operation.writes if isinstance(operation, Transact) else (operation,)
    failures = refusal.failures if isinstance(refusal, TransactionFailed) else (refusal,)
    if any(each is not None and each.item is None for each in failures):
        return (yield from look(tuple(write.location for write in writes)))
    return tuple(_item_after(*each) for each in zip(writes, failures, strict=True))


def _cleared(location: Location, found: Item | None) -> Delete | Check:
    return Check(location, Absent()) if found is None else Delete(location, Unchanged(found))


def _item_after(write: Write | Check, refused: ConditionFailed | None) -> Item | None:
    if refused is not None:
        return refused.item
    return write.condition.item if isinstance(write.condition, Unchanged) else None
