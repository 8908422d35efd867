"""A record with several possible locations: the transactions over all of them, and the replies.

Invariants:

1. A put also insists, in the same transaction, on every other location: nothing is there, or the item
   read there is deleted. So a key has one record, in whatever location.
2. A take-over deletes the old record in another location. A mere check would leave the record of a stale owner,
   whose completion would then succeed.
3. A location without a failure in a failed transaction is as its condition says. If a failure brings no
   item, all locations are read as of one moment.

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
"""The item in each location, in the order of the locations."""


def put(locations: Locations, item: Item, seen: Seen | None) -> Put | Transact:
    """Put an item into the first location if all locations are as seen. Without `seen`, all must be empty."""
    found, *others = seen or (None,) * len(locations)
    first = Put(locations[0], item, Absent() if found is None else Unchanged(found))
    if not others:
        return first
    return Transact((first, *(_cleared(*each) for each in zip(locations[1:], others, strict=True))))


def look(locations: Locations) -> Procedure[Seen]:
    """Read all locations."""
    # Not one `Get` after the other: a record could move between two reads, and both reads would miss the record.
    operation = Get(locations[0]) if len(locations) == 1 else GetAll(locations)
    reply = yield operation
    if isinstance(reply, Found):
        return (reply.item,)
    if isinstance(reply, FoundAll):
        return reply.items
    raise TypeError(f"the backend answered {operation!r} with {type(reply).__name__}")


def seen_by(operation: Write | Transact, refusal: ConditionFailed | TransactionFailed) -> Procedure[Seen]:
    """Find the items in the locations of a failed write. Read the locations if the failure does not tell."""
    writes = operation.writes if isinstance(operation, Transact) else (operation,)
    failures = refusal.failures if isinstance(refusal, TransactionFailed) else (refusal,)
    # Batches bring no item of a duplicate, and an item may be gone by now. All locations are read, not only this one:
    # an item from a failure and an item from a later read would be of two moments.
    if any(each is not None and each.item is None for each in failures):
        return (yield from look(tuple(write.location for write in writes)))
    return tuple(_item_after(*each) for each in zip(writes, failures, strict=True))


def _cleared(location: Location, found: Item | None) -> Delete | Check:
    return Check(location, Absent()) if found is None else Delete(location, Unchanged(found))


def _item_after(write: Write | Check, refused: ConditionFailed | None) -> Item | None:
    if refused is not None:
        return refused.item
    return write.condition.item if isinstance(write.condition, Unchanged) else None
