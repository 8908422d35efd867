"""The caller's own writes, checked before anything is sent.

1. DynamoDB takes 100 actions of 4 MB together, and one action for an item. What breaks these limits is
   refused where it is said, and what was said before stays.
2. A put names its item by the table's key, which only the table knows. It is known here where another action
   gives a `Key`, or for the table of the records; else `doubtful` names the tables whose key decides.
3. The record's own item belongs to the protocol: no other write of it is in its transaction.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, cast

from aioidempotency._core import attributes
from aioidempotency._core.model import AttributeValue, Item, Places
from aioidempotency._core.operations import Effect, Put
from aioidempotency.exceptions import ConfigurationError, TransactionError

MOST_ACTIONS: Final = 100
"""Actions that DynamoDB takes in one transaction; the record's own is one of them, or one for each place."""

LARGEST_TRANSACTION: Final = 4 * 1024 * 1024
"""Bytes that DynamoDB takes in one transaction."""

LARGEST_ITEM: Final = 400 * 1024
"""Bytes that DynamoDB takes in one item, attribute names included."""

KINDS: Final = {"Put": "put", "Update": "update", "Delete": "delete", "ConditionCheck": "check"}
"""The wire's names of the actions, and ours."""

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
    _check_texts(name, parameters)
    for field in ("Item", "Key"):
        if field in parameters:
            parameters[field] = attributes.item(parameters[field], f"the {field} of {name}")
    if "Key" in parameters:
        _check_key(name, parameters["Key"])
    if "ExpressionAttributeValues" in parameters:
        values = attributes.item(parameters["ExpressionAttributeValues"], f"the values of {name}")
        parameters["ExpressionAttributeValues"] = values
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


def check(writes: Writes, own: Places, keys: KeyNames, *, parts: int = 1, spare: int = 0) -> None:
    """Refuse what DynamoDB would refuse, or what would break the record.

    Args:
        writes: In the order in which they were made.
        own: Where the record may be.
        keys: What is known of the tables' keys.
        parts: How many actions the record takes.
        spare: Bytes that the record takes.

    Raises:
        TransactionError: With what to do.
    """
    if len(writes) + parts > MOST_ACTIONS:
        raise refused(
            f"DynamoDB takes {MOST_ACTIONS} actions in one transaction, and {parts} of them "
            f"{'are' if parts > 1 else 'is'} the record's; split the work, with a key for each part"
        )
    if spare + sum(size(write) for write in writes) > LARGEST_TRANSACTION:
        raise refused("DynamoDB takes 4 MB in one transaction; split the work, with a key for each part")
    for table, group in _by_table(writes):
        known = _key_names(table, group, own, keys)
        _check_items(group)
        if known is not None:
            _check_identities(table, [_identity(write, known) for write in group], own)
        elif any(one == other for index, one in enumerate(group) for other in group[:index]):
            raise _twice(table)


def doubtful(writes: Writes, own: Places, keys: KeyNames) -> Iterator[str]:
    """Name the tables with puts of which only the table's key could tell that they are of different items."""
    for table, group in _by_table(writes):
        if _key_names(table, group, own, keys) is None and _have_something_in_common(group):
            yield table


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
    return name.rpartition("/")[2]


def _check_texts(name: str, parameters: Mapping[str, object]) -> None:
    for field in ("TableName", "ConditionExpression", "UpdateExpression"):
        value = parameters.get(field, "-")
        if not isinstance(value, str) or not value:
            raise refused(f"{name} takes {field}= as a text that is not empty")
    if parameters.get("ReturnValuesOnConditionCheckFailure", "NONE") not in {"ALL_OLD", "NONE"}:
        raise refused(f"{name} takes ReturnValuesOnConditionCheckFailure='ALL_OLD', or leaves it out")
    names = parameters.get("ExpressionAttributeNames", {})
    if not isinstance(names, Mapping) or not all(isinstance(each, str) for pair in names.items() for each in pair):
        raise refused(f"{name} takes ExpressionAttributeNames= as a mapping of texts to texts")


def _check_key(name: str, key: Any) -> None:
    if len(key) > _LONGEST_KEY or not all(value.keys() <= _SCALARS for value in key.values()):
        raise refused(f"{name} takes Key= as the table's one or two key attributes: text, a number or bytes")


def _item(write: Effect) -> Item:
    return cast("Item", write.parameters.get("Item") or write.parameters.get("Key") or {})


def _by_table(writes: Writes) -> Iterator[tuple[str, list[Effect | Put]]]:
    return ((table, list(group)) for table, group in groupby(sorted(writes, key=table_of), key=table_of))


def _key_names(table: str, group: Iterable[Effect | Put], own: Places, keys: KeyNames) -> frozenset[str] | None:
    """Find the names of a table's key; None where nothing tells."""
    for place in own:
        if place.table.name.rpartition("/")[2] == table:
            return frozenset(place.item)
    for write in group:
        if isinstance(write, Put):
            return frozenset(write.location.item)
        if "Key" in write.parameters:
            return frozenset(cast("Item", write.parameters["Key"]))
    return keys.get(table)


def _identity(write: Effect | Put, names: frozenset[str]) -> Identity:
    item = write.item if isinstance(write, Put) else _item(write)
    return frozenset((name, _comparable(item[name])) for name in names if name in item)


def _comparable(value: AttributeValue) -> tuple[str, object]:
    kind = next(iter(value))
    return attributes.same(value) if kind in _SCALARS else (kind, None)


def _check_identities(table: str, identities: list[Identity], own: Places) -> None:
    if len(set(identities)) < len(identities):
        raise _twice(table)
    records = {
        frozenset((name, attributes.same(value)) for name, value in place.item.items())
        for place in own
        if place.table.name.rpartition("/")[2] == table
    }
    if not records.isdisjoint(identities):
        raise refused(
            f"a write is of the execution's own record in table {table!r}; the library writes it in the same "
            "transaction: keep what is yours in items of your own"
        )


def _check_items(group: Iterable[Effect | Put]) -> None:
    """Refuse what grew over time: the events of one key."""
    if any(attributes.size(write.item) > LARGEST_ITEM for write in group if isinstance(write, Put)):
        raise refused(
            "the events of one key are over 400 KB, the most that DynamoDB takes in one item; emit references"
        )


def _twice(table: str) -> TransactionError:
    return refused(
        f"two writes are of one item in table {table!r}, and a transaction takes one for an item; make one of them"
    )


def _have_something_in_common(group: Iterable[Effect | Put]) -> bool:
    """Tell whether two of these puts have a scalar in common, which could be the key."""
    seen: set[object] = set()
    for write in group:
        scalars = {
            (name, _comparable(value))
            for name, value in _item(cast("Effect", write)).items()
            if value.keys() <= _SCALARS
        }
        if not seen.isdisjoint(scalars):
            return True
        seen |= scalars
    return False
