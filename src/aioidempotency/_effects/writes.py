"""The caller's own writes, checked before anything is sent.

1. DynamoDB takes 100 actions of 4 MB together, and one action for an item. What breaks these limits is
   refused where it is said, and what was said before stays.
2. A put names its item by the table's key, which only the table knows. It is known here where another action
   gives a `Key`, or for the table of the records; else `WriteSet.ambiguous_tables` names the tables whose key decides.
3. The record's own item belongs to the protocol: no other write of it is in its transaction.
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
"""Actions that DynamoDB takes in one transaction; the record's own is one of them, or one for each location."""

LARGEST_TRANSACTION: Final = 4 * 1024 * 1024
"""Bytes that DynamoDB takes in one transaction."""

KINDS: Final = {"Put": "put", "Update": "update", "Delete": "delete", "ConditionCheck": "check"}
"""The wire's names of the actions, and ours."""

REQUIRED: Final = {
    "Put": ("TableName", "Item"),
    "Update": ("TableName", "Key", "UpdateExpression"),
    "Delete": ("TableName", "Key"),
    "ConditionCheck": ("TableName", "Key", "ConditionExpression"),
}
"""The parameters that each kind of action must have."""

_OPTIONAL: Final = (
    "ConditionExpression",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "ReturnValuesOnConditionCheckFailure",
)
"""Those that it may have."""

KeyNames = Mapping[str, frozenset[str]]
"""The names of a table's key attributes, by the table's name."""

Writes = Sequence[Effect | Put]
Identity = frozenset[tuple[str, tuple[str, object]]]

_SCALARS = {"S", "N", "B"}
_LONGEST_KEY = 2


def effect(kind: Any, given: Mapping[str, object]) -> Effect:
    """Write one action with the wire's parameters; those that are None are left out.

    Raises:
        SerializationError: A value cannot be written.
        TransactionError: A parameter is missing, or makes no sense.
    """
    parameters = {name: value for name, value in given.items() if value is not None}
    name = KINDS[kind]
    strange = [each for each in given if each not in {*REQUIRED[kind], *_OPTIONAL}]
    if strange:
        raise refused(
            f"{name} does not take {strange[0]}=; it takes {', '.join(dict.fromkeys((*REQUIRED[kind], *_OPTIONAL)))}"
        )
    if lacking := [each for each in REQUIRED[kind] if each not in parameters]:
        raise refused(f"{name} needs {lacking[0]}=, and it is None")
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
        raise refused(f"the Item of {name} is over 400 KB, the most that DynamoDB takes; store a reference to it")
    return made


def no_outbox() -> ConfigurationError:
    """Make the error of a store that has no place for events."""
    return ConfigurationError(
        "events need a table with a sort key: give the store outbox_table=, the name of one, or layout=CompositeKey()"
    )


def refused(trouble: str) -> TransactionError:
    """Make the error of a write that is not sent."""
    return TransactionError((), trouble)


@final
@dataclass(frozen=True, slots=True)
class Items:
    """The items that a transaction writes in one table: by their keys, or, where the key is not known, as they are."""

    names: frozenset[str] | None
    identities: frozenset[Identity] = frozenset()
    puts: tuple[Effect, ...] = ()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WriteSet:
    """What a transaction holds so far: each addition is checked against it.

    Attributes:
        record_locations: Where the record may be.
        record_actions: How many actions the record takes.
        keys: What is known of the tables' keys.
        count: Actions, without the record's.
        bytes: What they take, and what is to be left for the record.
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
            TransactionError: DynamoDB would refuse it together with the others, or it would break the record.
        """
        self.check_room(actions=1, more=(taken := size(write)))
        table = table_of(write)
        before = self.tables.get(table) or Items(self._key_names_of(table))
        after = _with_item(_with_key_names(before, write, table), write, table)
        self._check_record(table, after)
        tables = {**self.tables, table: after}
        return replace(self, count=self.count + 1, bytes=self.bytes + taken, tables=tables)

    def check_room(self, *, actions: int, more: int) -> None:
        """Refuse more actions, or more bytes, than DynamoDB takes."""
        if self.count + self.record_actions + actions > MOST_ACTIONS:
            raise refused(
                f"DynamoDB takes {MOST_ACTIONS} actions in one transaction, and {self.record_actions} of them "
                f"{'are' if self.record_actions > 1 else 'is'} the record's; split the work, with a key for each part"
            )
        if self.bytes + more > LARGEST_TRANSACTION:
            raise refused("DynamoDB takes 4 MB in one transaction; split the work, with a key for each part")

    def ambiguous_tables(self) -> list[str]:
        """Name the tables with puts of which only the table's key could tell that they are of different items."""
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
                "transaction: keep what is yours in items of your own"
            )


def size(write: Effect | Put) -> int:
    """Count the bytes of an action, as far as it is known here: an update's item is as large as it becomes."""
    if isinstance(write, Put):
        return attributes.size(write.item)
    texts = (write.parameters.get(name, "") for name in ("UpdateExpression", "ConditionExpression"))
    values = cast("Item", write.parameters.get("ExpressionAttributeValues", {}))
    return attributes.size(_item(write)) + attributes.size(values) + sum(len(str(text)) for text in texts)


def table_of(write: Effect | Put) -> str:
    """Name the table of an action; an ARN ends with it."""
    name = write.location.table.name if isinstance(write, Put) else str(write.parameters["TableName"])
    return without_arn(name)


def _check_texts(name: str, parameters: Mapping[str, object]) -> None:
    for part in ("TableName", "ConditionExpression", "UpdateExpression"):
        value = parameters.get(part, "-")
        if not isinstance(value, str) or not value:
            raise refused(f"{name} takes {part}= as a text that is not empty")
        attributes.text(value, f"the {part} of {name}")
    if parameters.get("ReturnValuesOnConditionCheckFailure", "NONE") not in {"ALL_OLD", "NONE"}:
        raise refused(f"{name} takes ReturnValuesOnConditionCheckFailure='ALL_OLD', or leaves it out")
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
    """Name a table without its ARN."""
    return table_name.rpartition("/")[2]


def _with_key_names(items: Items, write: Effect | Put, table: str) -> Items:
    """Learn a table's key from a write that names it; then what was put before can be told apart, too."""
    if items.names is not None:
        return items
    if isinstance(write, Put):
        names = frozenset(write.location.item)
    elif "Key" in write.parameters:
        names = frozenset(cast("Item", write.parameters["Key"]))
    else:
        return items
    known = Items(names)
    for put in items.puts:
        known = _with_item(known, put, table)
    return known


def _with_item(items: Items, write: Effect | Put, table: str) -> Items:
    """Add a write of an item that none of the others is of."""
    if isinstance(write, Put) and attributes.size(write.item) > LARGEST_ITEM:
        raise too_many_events()
    if items.names is None:
        assert isinstance(write, Effect)  # noqa: S101 - a put of ours names its key
        if write in items.puts:
            raise _twice(table)
        return replace(items, puts=(*items.puts, write))
    identity = _identity(write, items.names)
    if identity in items.identities:
        raise _twice(table)
    return replace(items, identities=items.identities | {identity})


def _identity(write: Effect | Put, names: frozenset[str]) -> Identity:
    item = write.item if isinstance(write, Put) else _item(write)
    return frozenset((name, _comparable(item[name])) for name in names if name in item)


def _comparable(value: AttributeValue) -> tuple[str, object]:
    kind = next(iter(value))
    return attributes.comparable(value) if kind in _SCALARS else (kind, None)


def too_many_events() -> TransactionError:
    """Make the error of events that do not fit into one item."""
    return refused("the events of one key are over 400 KB, the most that DynamoDB takes in one item; emit references")


def _twice(table: str) -> TransactionError:
    return refused(
        f"two writes are of one item in table {table!r}, and a transaction takes one for an item; make one of them"
    )


def _may_share_a_key(group: Iterable[Effect]) -> bool:
    """Tell whether two of these puts have a scalar in common, which could be the key."""
    seen: set[object] = set()
    for write in group:
        scalars = {(name, _comparable(value)) for name, value in _item(write).items() if value.keys() <= _SCALARS}
        if not seen.isdisjoint(scalars):
            return True
        seen |= scalars
    return False
