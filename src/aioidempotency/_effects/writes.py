"""The caller's own writes, checked before any request.

1. DynamoDB takes 100 actions and 4 MB in one transaction, and one action for each item. A write beyond a limit is
   refused at once, and the earlier writes stay.
2. A put names the item by the table's key, and the key's attributes are unknown here. They become known
   from another action with a `Key`, or for the table of the records. Otherwise `WriteSet.ambiguous_tables` names the
   tables whose keys decide.
3. The record's own item belongs to the protocol: the transaction has no other write of the record.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast, final

from aioidempotency import _attributes as attributes
from aioidempotency._attributes import LARGEST_ITEM
from aioidempotency._core.model import AttributeValue, Item, Locations
from aioidempotency._core.operations import Effect, Put
from aioidempotency.exceptions import ConfigurationError, TransactionError

MOST_ACTIONS: Final = 100
"""The most actions of one transaction, by DynamoDB's limit. The record takes one for each of its locations."""

LARGEST_TRANSACTION: Final = 4 * 1024 * 1024
"""The most bytes of one transaction, by DynamoDB's limit."""

ROOM_FOR_COUNT: Final = 512
"""Bytes of an outbox's item that stay free for the count of failures."""

KINDS: Final = {"Put": "put", "Update": "update", "Delete": "delete", "ConditionCheck": "check"}
"""DynamoDB's names of the actions, and the methods of `Transaction`."""

REQUIRED: Final = {
    "Put": ("TableName", "Item"),
    "Update": ("TableName", "Key", "UpdateExpression"),
    "Delete": ("TableName", "Key"),
    "ConditionCheck": ("TableName", "Key", "ConditionExpression"),
}
"""The required parameters of each kind of action."""

_OPTIONAL: Final = (
    "ConditionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ReturnValuesOnConditionCheckFailure",
)
"""The optional parameters of every action."""

KeyNames = Mapping[str, frozenset[str]]
"""The names of a table's key attributes, by the table's name."""

Writes = Sequence[Effect | Put]
Identity = frozenset[tuple[str, tuple[str, object]]]

_SCALARS = {"S", "N", "B"}
_LONGEST_KEY = 2


def effect(kind: Any, given: Mapping[str, object]) -> Effect:
    """Write one action with DynamoDB's parameters. Parameters of None are left out.

    Raises:
        SerializationError: A value cannot be written.
        TransactionError: A parameter is missing or invalid.
    """
    parameters = {name: value for name, value in given.items() if value is not None}
    name = KINDS[kind]
    strange = [each for each in given if each not in {*REQUIRED[kind], *_OPTIONAL}]
    if strange:
        raise refused(
            f"{name} does not take {strange[0]}=; it takes {', '.join(dict.fromkeys((*REQUIRED[kind], *_OPTIONAL)))}"
        )
    if lacking := [each for each in REQUIRED[kind] if each not in parameters]:
        raise refused(f"{name} needs {lacking[0]}=: not None")
    # Values and names are copied from here on: a later change by the caller must not change what the checks have
    # seen.
    _check_texts(name, parameters)
    for part in ("Item", "Key"):
        if part in parameters:
            parameters[part] = attributes.item(parameters[part], f"the {part} of {name}")
    if "Key" in parameters:
        _check_key(name, parameters["Key"])
    if "ExpressionAttributeValues" in parameters:
        values = attributes.item(parameters["ExpressionAttributeValues"], f"the values of {name}")
        parameters["ExpressionAttributeValues"] = values
    if "ExpressionAttributeNames" in parameters:
        parameters["ExpressionAttributeNames"] = dict(cast("Mapping[str, str]", parameters["ExpressionAttributeNames"]))
    made = Effect(kind, parameters)
    if attributes.size(_item(made)) > LARGEST_ITEM:
        raise refused(f"the Item of {name} is over 400 KB, the most that DynamoDB takes; store a reference instead")
    return made


def no_outbox() -> ConfigurationError:
    """Make the error for a store without a place for events."""
    return ConfigurationError(
        "events need a table with a sort key: give the store outbox_table=, the name of one, or layout=CompositeKey()"
    )


def refused(trouble: str) -> TransactionError:
    """Make the error for a refused write."""
    return TransactionError((), trouble)


@final
@dataclass(frozen=True, slots=True)
class Items:
    """The items written by a transaction in one table: by key, or as whole puts while the key is unknown."""

    names: frozenset[str] | None
    identities: frozenset[Identity] = field(default=frozenset(), repr=False)
    puts: tuple[Effect, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSet:
    """The writes of a transaction so far. Each addition is checked against the set.

    An addition makes a new set, and looks only at the new write. 99 puts of 200 attributes take 0.15 s; with a check of
    all writes at each addition they took 2.0 s.

    Attributes:
        record_locations: The possible locations of the record.
        record_actions: The number of actions for the record.
        keys: The known key attributes of tables.
        count: The number of actions, without the record's.
        bytes: The bytes of the actions, and the bytes reserved for the record.
        tables: The items of each table.
    """

    record_locations: Locations
    record_actions: int = 1
    keys: KeyNames = field(default_factory=dict)
    count: int = 0
    bytes: int = 0
    tables: Mapping[str, Items] = field(default_factory=dict)

    def with_write(self, write: Effect | Put) -> "WriteSet":
        """Add a write.

        Raises:
            TransactionError: DynamoDB would refuse the writes together, or the write is of the record.
        """
        self.check_room(actions=1, more=(taken := size(write)))
        table = table_of(write)
        before = self.tables.get(table) or Items(self._key_names_of(table))
        after = _with_item(_with_key_names(before, write, table), write, table)
        self._check_record(table, after)
        tables = {**self.tables, table: after}
        return replace(self, count=self.count + 1, bytes=self.bytes + taken, tables=tables)

    def check_room(self, *, actions: int, more: int) -> None:
        """Refuse more actions or bytes than DynamoDB takes."""
        if self.count + self.record_actions + actions > MOST_ACTIONS:
            raise refused(
                f"DynamoDB takes {MOST_ACTIONS} actions in one transaction, and {self.record_actions} of them "
                f"{'are' if self.record_actions > 1 else 'is'} the record's; split the work, with a key for each part"
            )
        if self.bytes + more > LARGEST_TRANSACTION:
            raise refused("DynamoDB takes 4 MB in one transaction; split the work, with a key for each part")

    def ambiguous_tables(self) -> list[str]:
        """Name the tables with puts of perhaps one item, if only the table's key can tell."""
        unknown = (items.puts for items in self.tables.values() if items.names is None)
        return [str(puts[0].parameters["TableName"]) for puts in unknown if _may_share_a_key(puts)]

    def _key_names_of(self, table: str) -> frozenset[str] | None:
        for location in self.record_locations:
            if without_arn(location.table.name) == table:
                return frozenset(location.item)
        return self.keys.get(table)

    def _check_record(self, table: str, items: Items) -> None:
        records = {
            frozenset((name, attributes.comparable(value)) for name, value in location.item.items())
            for location in self.record_locations
            if without_arn(location.table.name) == table
        }
        if not records.isdisjoint(items.identities):
            raise refused(
                f"a write is of the execution's own record in table {table!r}; the library writes it in the same "
                "transaction: put your data in items of your own"
            )


def size(write: Effect | Put) -> int:
    """Count the bytes of an action, as far as known here. The item of an update is as large as it becomes."""
    if isinstance(write, Put):
        return attributes.size(write.item)
    texts = (write.parameters.get(name, "") for name in ("UpdateExpression", "ConditionExpression"))
    values = cast("Item", write.parameters.get("ExpressionAttributeValues", {}))
    return attributes.size(_item(write)) + attributes.size(values) + sum(len(str(text)) for text in texts)


def table_of(write: Effect | Put) -> str:
    """Name the table of an action."""
    name = write.location.table.name if isinstance(write, Put) else str(write.parameters["TableName"])
    return without_arn(name)


def _check_texts(name: str, parameters: Mapping[str, object]) -> None:
    for part in ("TableName", "ConditionExpression", "UpdateExpression"):
        value = parameters.get(part, "-")
        if not isinstance(value, str) or not value:
            raise refused(f"{name} takes {part}= as a text that is not empty")
        attributes.text(value, f"the {part} of {name}")
    if parameters.get("ReturnValuesOnConditionCheckFailure", "NONE") not in {"ALL_OLD", "NONE"}:
        raise refused(f"{name} takes ReturnValuesOnConditionCheckFailure='ALL_OLD' or 'NONE'")
    names = parameters.get("ExpressionAttributeNames", {})
    if not isinstance(names, Mapping) or not all(isinstance(each, str) for pair in names.items() for each in pair):
        raise refused(f"{name} takes ExpressionAttributeNames= as a mapping of texts to texts")
    for each in (*names, *names.values()):
        attributes.text(each, f"ExpressionAttributeNames of {name}")


def _check_key(name: str, key: Any) -> None:
    if len(key) > _LONGEST_KEY or not all(value.keys() <= _SCALARS for value in key.values()):
        raise refused(f"{name} takes Key= as the table's one or two key attributes: text, a number or bytes")


def _item(write: Effect) -> Item:
    return cast("Item", write.parameters.get("Item") or write.parameters.get("Key") or {})


def without_arn(table_name: str) -> str:
    """Name a table without the ARN, which ends with the name."""
    return table_name.rpartition("/")[2]


def _with_key_names(items: Items, write: Effect | Put, table: str) -> Items:
    """Learn the key of a table from a write with a key, and compare the earlier puts by the key."""
    if items.names is not None:
        return items
    if isinstance(write, Put):
        names = frozenset(write.location.item)
    elif "Key" in write.parameters:
        names = frozenset(cast("Item", write.parameters["Key"]))
    else:
        return items
    known = Items(names)
    # Earlier puts were accepted without a known key, and may turn out to be of one item now.
    for put in items.puts:
        known = _with_item(known, put, table)
    return known


def _with_item(items: Items, write: Effect | Put, table: str) -> Items:
    """Add a write, if no other write is of the same item."""
    # A caller's item was measured by `effect`. An outbox's item grows after the first check, and a relay adds a count:
    # without room for the count, each relay would stop at the item.
    if isinstance(write, Put) and attributes.size(write.item) > LARGEST_ITEM - ROOM_FOR_COUNT:
        raise too_many_events()
    if items.names is None:
        assert isinstance(write, Effect)  # noqa: S101 - a put of ours names its key
        if write in items.puts:
            raise _twice(table)
        return replace(items, puts=(*items.puts, write))
    # By DynamoDB's notion of equal keys: `1`, `1.0` and `1E0` are one key.
    identity = _identity(write, items.names)
    if identity in items.identities:
        raise _twice(table)
    return replace(items, identities=items.identities | {identity})


def _identity(write: Effect | Put, names: frozenset[str]) -> Identity:
    item = write.item if isinstance(write, Put) else _item(write)
    return frozenset((name, _comparable(item[name])) for name in names if name in item)


def _comparable(value: AttributeValue) -> tuple[str, object]:
    kind = next(iter(value))
    # Only scalars can be keys, and other values may be too large to compare.
    return attributes.comparable(value) if kind in _SCALARS else (kind, None)


def too_many_events() -> TransactionError:
    """Make the error for events that exceed one item."""
    return refused("the events of one key are over 400 KB, the most that DynamoDB takes in one item; emit references")


def _twice(table: str) -> TransactionError:
    return refused(
        f"two writes are of one item in table {table!r}, and a transaction takes only one for each item; merge the two"
    )


def _may_share_a_key(group: Iterable[Effect]) -> bool:
    """Tell whether two puts have an equal scalar, which could be the key."""
    seen: set[object] = set()
    for write in group:
        scalars = {(name, _comparable(value)) for name, value in _item(write).items() if value.keys() <= _SCALARS}
        if not seen.isdisjoint(scalars):
            return True
        seen |= scalars
    return False
