"""The operations of a backend, and the replies.

Every write carries a condition. A backend executes an operation completely or not at all, and returns
one reply. A failed condition is a reply; a store that does not answer is an exception. A key with only one
location never needs a transaction.

No `repr` here shows data, because items hold results.
"""

from collections.abc import Mapping
from typing import Literal, final

from msgspec import Struct

from aioidempotency._core.conditions import Condition
from aioidempotency._core.model import AttributeValue, Item, Location, Locations, Role
from aioidempotency.exceptions import Reason


@final
class Put(Struct, frozen=True, gc=False):
    """Write a whole item. The reply is `Applied`, or `ConditionFailed` with the existing item.

    Attributes:
        location: The item's location.
        item: The item in DynamoDB's wire format, key attributes included.
        condition: A condition on the existing item, or on the absence of one.
    """

    location: Location
    item: Item
    condition: Condition

    def __repr__(self) -> str:
        return f"<Put {self.location.shown}: if {self.condition!r}>"


@final
class Update(Struct, frozen=True, gc=False):
    """Set some attributes of an item, and keep the others. The replies are those of a `Put`.

    Attributes:
        location: The item's location.
        changes: The new values by the attribute's role; `location.table.names` maps roles to names.
        condition: A condition on the existing item.
    """

    location: Location
    changes: Mapping[Role, AttributeValue]
    condition: Condition

    def __repr__(self) -> str:
        return f"<Update {self.location.shown}: {', '.join(self.changes)}, if {self.condition!r}>"


@final
class Delete(Struct, frozen=True):
    """Delete an item. The replies are those of a `Put`.

    Attributes:
        location: The item's location.
        condition: A condition on the existing item.
    """

    location: Location
    condition: Condition

    def __repr__(self) -> str:
        return f"<Delete {self.location.shown}: if {self.condition!r}>"


@final
class Get(Struct, frozen=True):
    """Read an item, strongly consistent. The reply is `Found`."""

    location: Location

    def __repr__(self) -> str:
        return f"<Get {self.location.shown}>"


@final
class Check(Struct, frozen=True):
    """Write nothing, and insist on a condition. Only a part of a `Transact`."""

    location: Location
    condition: Condition

    def __repr__(self) -> str:
        return f"<Check {self.location.shown}: {self.condition!r}>"


@final
class Effect(Struct, frozen=True):
    """A write of the caller's own, to any table. Only a part of a `Transact`.

    Attributes:
        kind: DynamoDB's name of the action.
        parameters: DynamoDB's parameters of the action, with typed values.
    """

    kind: Literal["Put", "Update", "Delete", "ConditionCheck"]
    parameters: Mapping[str, object]

    @property
    def table_name(self) -> str:
        """The table's name or ARN."""
        return str(self.parameters["TableName"])

    def __repr__(self) -> str:
        return f"<Effect: {self.kind} in {self.table_name}>"


@final
class Transact(Struct, frozen=True):
    """Apply all writes, or none: at most 100 (DynamoDB's limit), no two at one location.

    The reply is `Applied`, or `TransactionFailed` with an entry for each write and each effect.

    Attributes:
        writes: The writes of the record.
        effects: The caller's own writes and events, committed together with the record.
        token: The same text for each attempt of one transaction. A store that knows tokens applies a
            transaction with the same token only once.
    """

    writes: tuple["Write | Check", ...]
    effects: tuple["Effect | Put", ...] = ()
    token: str | None = None

    @property
    def location(self) -> Location:
        """The first write's location."""
        return self.writes[0].location

    def __repr__(self) -> str:
        return f"<Transact {self.location.shown}: {len(self.writes)} writes, {len(self.effects)} effects>"


@final
class GetAll(Struct, frozen=True):
    """Read the items of several locations as of one moment, strongly consistent.

    The reply is `FoundAll`, with an entry for each location, in the same order.
    """

    locations: Locations

    @property
    def location(self) -> Location:
        """The first location."""
        return self.locations[0]

    def __repr__(self) -> str:
        return f"<GetAll {self.location.shown}: {len(self.locations)} locations>"


@final
class Query(Struct, frozen=True):
    """Read the first items of a partition behind the location, by sort key, strongly consistent.

    The reply is `FoundAll` with up to `limit` items whose sort key is greater than `location.sort`, or fewer if the
    items are large, but at least one if there is one. An empty `sort` stands for the beginning of the partition.
    """

    location: Location
    limit: int

    def __repr__(self) -> str:
        return f"<Query: {self.limit} items of one partition>"


@final
class Applied(Struct, frozen=True):
    """The write was applied."""


@final
class ConditionFailed(Struct, frozen=True):
    """The condition of a write failed, and nothing was changed.

    Attributes:
        item: The existing item. None if there is no item, or if the store does not return one.
    """

    item: Item | None

    def __repr__(self) -> str:
        return f"<ConditionFailed: {_shown(self.item)}>"


@final
class TransactionFailed(Struct, frozen=True):
    """A transaction was not applied.

    Attributes:
        failures: An entry for each write of the record: the failed condition, or None for a write without failure.
        reasons: An entry for each effect, in the same way. A reason may also be a conflict or throttling.
    """

    failures: tuple[ConditionFailed | None, ...]
    reasons: tuple[Reason | None, ...] = ()


@final
class Found(Struct, frozen=True):
    """The reply to a `Get`: the item, or None."""

    item: Item | None

    def __repr__(self) -> str:
        return f"<Found: {_shown(self.item)}>"


@final
class FoundAll(Struct, frozen=True):
    """The reply to a `GetAll`, in the order of the locations, or to a `Query`."""

    items: tuple[Item | None, ...]

    def __repr__(self) -> str:
        return f"<FoundAll: {len(self.items)} items>"


# Closed unions, matched without a default case: the type checker then finds every place that lacks a new operation.
Write = Put | Update | Delete
Operation = Write | Transact | Get | GetAll | Query
WriteReply = Applied | ConditionFailed | TransactionFailed
Reply = WriteReply | Found | FoundAll


def wrong_reply(operation: Operation, reply: object) -> str | None:
    """Describe the fault in a backend's reply, by types alone. None if the reply fits the operation.

    Procedures trust replies, so every reply of every backend passes here first. A description names types and counts
    only, never data.
    """
    match operation, reply:
        case (Put() | Update() | Delete() | Transact(), Applied()) | (Query(), FoundAll()):
            return None
        case (Put() | Update() | Delete(), ConditionFailed(item)) | (Get(), Found(item)):
            return _wrong_item(item)
        # A transaction of records alone needs no reasons, so a backend may leave them out.
        case Transact(writes, effects), TransactionFailed(failures, reasons):
            # Failures are read by index, so a reply one entry short would blame the wrong write.
            fits = len(failures) == len(writes) and len(reasons) in {0, len(effects)}
            return None if fits else f"TransactionFailed with {len(failures)} failures and {len(reasons)} reasons"
        case GetAll(locations), FoundAll(items):
            return None if len(items) == len(locations) else f"FoundAll with {len(items)} items"
        case _:
            return type(reply).__name__


def _wrong_item(item: object) -> str | None:
    if item is None or (type(item) is dict and {*map(type, item.values())} == {dict}):
        return None  # the fast way for dictionaries, as from JSON
    if isinstance(item, Mapping) and all(isinstance(value, Mapping) for value in item.values()):
        return None
    return f"an item that is no mapping of names to typed values, but {type(item).__name__}"


def _shown(item: Item | None) -> str:
    return "no item" if item is None else f"an item with {', '.join(item)}"
