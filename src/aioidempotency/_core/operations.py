"""What a backend can be asked, and what it answers.

Every write carries its condition. A backend executes one operation, as a whole or not at all, and
returns one reply; that a condition did not hold is a reply, that the store did not answer is an
exception. Where all records have one location, no transaction is ever asked for.

None of these values shows data when it is printed: items hold results.
"""

from collections.abc import Mapping
from typing import Literal, final

from msgspec import Struct

from aioidempotency._core.conditions import Condition
from aioidempotency._core.model import AttributeValue, Item, Location, Locations, Role
from aioidempotency.exceptions import Reason


@final
class Put(Struct, frozen=True):
    """Write a whole item. The reply is `Applied`, or `ConditionFailed` with the item that is there.

    Attributes:
        location: Where to write it.
        item: The item, with its key's attributes, as the wire has it.
        condition: What must hold of the item that is there now, or of the lack of one.
    """

    location: Location
    item: Item
    condition: Condition

    def __repr__(self) -> str:
        return f"<Put {self.location.key}: if {self.condition!r}>"


@final
class Update(Struct, frozen=True):
    """Set some attributes of an item, and leave the others. The reply is that of a `Put`.

    Attributes:
        location: Where the item is.
        changes: The new value of each attribute, by the attribute's role: `location.table.names` has its name.
        condition: What must hold of the item that is there now.
    """

    location: Location
    changes: Mapping[Role, AttributeValue]
    condition: Condition

    def __repr__(self) -> str:
        return f"<Update {self.location.key}: {', '.join(self.changes)}, if {self.condition!r}>"


@final
class Delete(Struct, frozen=True):
    """Remove an item. The reply is that of a `Put`.

    Attributes:
        location: Where the item is.
        condition: What must hold of the item that is there now.
    """

    location: Location
    condition: Condition

    def __repr__(self) -> str:
        return f"<Delete {self.location.key}: if {self.condition!r}>"


@final
class Get(Struct, frozen=True):
    """Read an item, strongly consistent. The reply is `Found`."""

    location: Location

    def __repr__(self) -> str:
        return f"<Get {self.location.key}>"


@final
class Check(Struct, frozen=True):
    """Write nothing, and insist on a condition: a part of a `Transact`."""

    location: Location
    condition: Condition

    def __repr__(self) -> str:
        return f"<Check {self.location.key}: {self.condition!r}>"


@final
class Effect(Struct, frozen=True):
    """A write of the caller's own, to whatever table: a part of a `Transact`.

    Attributes:
        kind: The wire's name of the action.
        parameters: The wire's parameters of the action, values typed.
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
    """Apply all of these, or none of them: at most 100, no two at one location.

    The reply is `Applied`, or `TransactionFailed` with an entry for each write and each effect.

    Attributes:
        writes: Those of the record.
        effects: The caller's own writes and events, which are committed together with the record.
        token: The same for each try of the same transaction: what was applied with it is not applied again,
            where the store knows tokens.
    """

    writes: tuple["Write | Check", ...]
    effects: tuple["Effect | Put", ...] = ()
    token: str | None = None

    @property
    def location(self) -> Location:
        """The first write's location."""
        return self.writes[0].location

    def __repr__(self) -> str:
        return f"<Transact {self.location.key}: {len(self.writes)} writes, {len(self.effects)} effects>"


@final
class GetAll(Struct, frozen=True):
    """Read the items of all these locations as they are at one moment, strongly consistent.

    The reply is `FoundAll`, with an entry for each location, in their order.
    """

    locations: Locations

    @property
    def location(self) -> Location:
        """The first location."""
        return self.locations[0]

    def __repr__(self) -> str:
        return f"<GetAll {self.location.key}: {len(self.locations)} locations>"


@final
class Query(Struct, frozen=True):
    """Read the first items of the location's partition, in the order of their sort keys, strongly consistent.

    The reply is `FoundAll`, with up to `limit` items, or fewer where they are large.
    """

    location: Location
    limit: int

    def __repr__(self) -> str:
        return f"<Query: {self.limit} items of one partition>"


@final
class Applied(Struct, frozen=True):
    """The write happened."""


@final
class ConditionFailed(Struct, frozen=True):
    """The condition of a write did not hold, and nothing was changed.

    Attributes:
        item: What was there; None where nothing was, or where the store does not say.
    """

    item: Item | None

    def __repr__(self) -> str:
        return f"<ConditionFailed: {_shown(self.item)}>"


@final
class TransactionFailed(Struct, frozen=True):
    """A transaction was not applied.

    Attributes:
        failures: For each of the record's writes why it was refused, or None: that one would have been applied.
        reasons: The same for each effect; there are reasons besides their conditions.
    """

    failures: tuple[ConditionFailed | None, ...]
    reasons: tuple[Reason | None, ...] = ()


@final
class Found(Struct, frozen=True):
    """The answer of a `Get`: the item, or None where nothing is."""

    item: Item | None

    def __repr__(self) -> str:
        return f"<Found: {_shown(self.item)}>"


@final
class FoundAll(Struct, frozen=True):
    """The answer of a `GetAll`, in the order asked; or of a `Query`."""

    items: tuple[Item | None, ...]

    def __repr__(self) -> str:
        return f"<FoundAll: {len(self.items)} items>"


Write = Put | Update | Delete
Operation = Write | Transact | Get | GetAll | Query
WriteReply = Applied | ConditionFailed | TransactionFailed
Reply = WriteReply | Found | FoundAll


def wrong_reply(operation: Operation, reply: object) -> str | None:
    """Say what is wrong with a reply to an operation, by types alone; None where it fits.

    Procedures trust what they are sent. So whatever a backend returns is looked at here first.
    """
    match operation, reply:
        case (Put() | Update() | Delete() | Transact(), Applied()) | (Query(), FoundAll()):
            return None
        case (Put() | Update() | Delete(), ConditionFailed(item)) | (Get(), Found(item)):
            return _wrong_item(item)
        case Transact(writes, effects), TransactionFailed(failures, reasons):
            fits = len(failures) == len(writes) and len(reasons) in {0, len(effects)}
            return None if fits else f"TransactionFailed with {len(failures)} failures and {len(reasons)} reasons"
        case GetAll(locations), FoundAll(items):
            return None if len(items) == len(locations) else f"FoundAll with {len(items)} items"
        case _:
            return type(reply).__name__


def _wrong_item(item: object) -> str | None:
    if item is None or (type(item) is dict and {*map(type, item.values())} == {dict}):
        return None  # whatever comes from JSON
    if isinstance(item, Mapping) and all(isinstance(value, Mapping) for value in item.values()):
        return None
    return f"an item that is no mapping of names to typed values, but {type(item).__name__}"


def _shown(item: Item | None) -> str:
    return "no item" if item is None else f"an item with {', '.join(item)}"
