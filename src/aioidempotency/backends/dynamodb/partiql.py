"""Operations as PartiQL statements, many in one request, and the answers as replies.

`INSERT` is exactly `Put` when `Absent`; `UPDATE` and `DELETE` take conditions on an owner. Each statement succeeds
or fails alone: a batch is no transaction. Two kinds of operation have no statement: PartiQL cannot replace a whole
item, and `BatchGetItem` serves many reads. Two answers differ from plain calls: a duplicate brings no item, and a
`DELETE` of an absent item succeeds.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, final

from msgspec import Struct

from aioidempotency._core import conditions
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Requirement
from aioidempotency._core.model import AttributeValue, Item, Location, Role, Status, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Get, Operation, Put, Update
from aioidempotency.backends.dynamodb.transport import encode

Statement = dict[str, object]

STATEMENTS: Final[Mapping[type[Operation], type[Condition]]] = {Put: Absent, Update: HeldBy, Delete: HeldBy}
"""The writes that PartiQL can express, and under which condition.

Never `Unchanged`: the condition may ask for an absent attribute, and engines differ in the syntax for absence.
"""

MOST_HEADS: Final = 1024
"""The most templates in memory; a table has about four."""

_RETURNING: Final = b',"ReturnValuesOnConditionCheckFailure":"ALL_OLD"}'
_RUNNING: Final[AttributeValue] = {"S": Status.INPROGRESS.value}
_NO_CHANGES: Final[Mapping[Role, AttributeValue]] = {}
_APPLIED: Final = Applied()
_DUPLICATE, _REFUSED = "DuplicateItem", "ConditionalCheckFailed"


def has_statement(operation: Operation) -> bool:
    """Tell whether PartiQL can express an operation."""
    wanted = STATEMENTS.get(type(operation))
    return wanted is not None and type(operation.condition) is wanted  # type: ignore[union-attr] # only writes are listed


def statement(operation: Operation) -> Statement:
    """Write an operation as a statement, if `has_statement`."""
    match operation:
        case Put(location, item, Absent()):
            return {"Statement": _insert(location.table.name, tuple(item)), "Parameters": list(item.values())}
        case Update(location, changes, HeldBy() as condition):
            wanted = conditions.requirements(condition, location.table)
            text = _update(location.table, tuple(changes), _roles(wanted))
            return _conditional(location, text, wanted, changes.values())
        case Delete(location, HeldBy() as condition):
            wanted = conditions.requirements(condition, location.table)
            return _conditional(location, _delete(location.table, _roles(wanted)), wanted, ())
        case _:
            raise TypeError(f"PartiQL cannot say {type(operation).__name__} under this condition")


def text(operation: Put | Update | Delete) -> bytes:
    """Write the statement of an operation as JSON: the bytes of `statement`, made from a template.

    Raises:
        ValueError: A value has no form in JSON, such as half of a surrogate pair.
    """
    location = operation.location
    if type(operation) is Put:
        head = _insert_head(location.table.name, tuple(operation.item))
        return b"%b%b}" % (head, encode([*operation.item.values()]))
    condition = operation.condition
    assert isinstance(condition, HeldBy)  # noqa: S101 - see `has_statement`
    until = condition.until
    changes = operation.changes if type(operation) is Update else _NO_CHANGES
    shape = (type(operation), id(location.table), tuple(changes), until is None)
    head = (_heads.get(shape) or _head(shape, operation, HeldBy("", until))).text
    # In the order of `requirements`.
    values = [*changes.values(), *location.item.values(), {"S": condition.owner}, _RUNNING]
    if until is not None:
        values.append({"N": str(until)})
    return b"%b%b%b" % (head, encode(values), _RETURNING)


def answer(error: Mapping[str, Any] | None) -> Applied | ConditionFailed | str:
    """Read the answer to a statement: a reply, or the code of an error other than a failed condition."""
    if error is None:
        return _APPLIED
    if error["Code"] == _DUPLICATE:
        return ConditionFailed(None)
    return ConditionFailed(error.get("Item") or None) if error["Code"] == _REFUSED else str(error["Code"])


def reading(gets: Sequence[Get]) -> dict[str, object]:
    """Write many reads of one table as one request."""
    table = gets[0].location.table
    keys = [get.location.item for get in gets]
    # Strongly consistent, because a stale read would show a taken key as free.
    return {"RequestItems": {table.name: {"Keys": keys, "ConsistentRead": True}}}


def found(gets: Sequence[Get], response: Mapping[str, Any]) -> list[Item | str | None]:
    """Find the item of each read in a response. A text, the reason, stands for each read left unprocessed."""
    table = gets[0].location.table
    items = {_key(item, table): item for item in response["Responses"].get(table.name, ())}
    # DynamoDB may read only some of the keys (16 MB, or throttling). An unprocessed key is not an absent item: the
    # claim of a taken key would look free.
    left = response.get("UnprocessedKeys", {}).get(table.name, {}).get("Keys", ())
    unread = {_key(key, table) for key in left}
    keys = ((get.location.partition, get.location.sort) for get in gets)
    return ["UnprocessedKeys" if key in unread else items.get(key) for key in keys]


def _key(item: Item, table: Table) -> tuple[str, str | None]:
    sort = None if table.sort_attribute is None else str(item[table.sort_attribute]["S"])
    return str(item[table.partition_attribute]["S"]), sort


def _roles(wanted: tuple[Requirement, ...]) -> tuple[Role, ...]:
    return tuple([role for role, _ in wanted])


def _conditional(
    location: Location, text: str, wanted: tuple[Requirement, ...], values: Iterable[AttributeValue]
) -> Statement:
    """Add the values of key and condition. A failed condition is to return the existing item."""
    return {
        "Statement": text,
        "Parameters": [*values, *location.item.values(), *[value for _, value in wanted]],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


@final
class _Head(Struct, frozen=True, eq=False):
    """The part of a statement's JSON before the values. It holds its table, so no other table can get the same id."""

    table: Table
    text: bytes

    def __repr__(self) -> str:
        return f"<Head of statements on {self.table.name}>"


# Keyed by `id(table)`, as the templates of `requests`.
_heads: Final[dict[tuple[object, ...], _Head]] = {}


def _head(shape: tuple[object, ...], like: Update | Delete, condition: HeldBy) -> _Head:
    """Make and store the template of all statements of one kind in one table."""
    table = like.location.table
    roles = _roles(conditions.requirements(condition, table))
    said = _update(table, tuple(like.changes), roles) if isinstance(like, Update) else _delete(table, roles)
    if len(_heads) >= MOST_HEADS:
        _heads.clear()
    head = _heads[shape] = _Head(table, _opened(said))
    return head


@lru_cache
def _insert_head(table_name: str, names: tuple[str, ...]) -> bytes:
    return _opened(_insert(table_name, names))


def _opened(statement: str) -> bytes:
    return b'{"Statement":%b,"Parameters":' % encode(statement)


@lru_cache
def _insert(table_name: str, names: tuple[str, ...]) -> str:
    members = ", ".join(_quoted(name, mark="'") + ": ?" for name in names)
    return f"INSERT INTO {_quoted(table_name)} VALUE {{{members}}}"


@lru_cache
def _update(table: Table, roles: tuple[Role, ...], wanted: tuple[Role, ...]) -> str:
    assignments = " ".join(f"SET {_quoted(table.names[role])}=?" for role in roles)
    return f"UPDATE {_quoted(table.name)} {assignments}{_where(table, wanted)}"


@lru_cache
def _delete(table: Table, wanted: tuple[Role, ...]) -> str:
    return f"DELETE FROM {_quoted(table.name)}{_where(table, wanted)}"  # noqa: S608 - names are quoted


def _where(table: Table, roles: tuple[Role, ...]) -> str:
    key = [table.partition_attribute, *([table.sort_attribute] if table.sort_attribute else [])]
    return " WHERE " + " AND ".join(f"{_quoted(name)}=?" for name in (*key, *(table.names[role] for role in roles)))


def _quoted(name: str, *, mark: str = '"') -> str:
    """Quote a name. The quotation mark is doubled inside, or a table's name could change the statement."""
    return f"{mark}{name.replace(mark, 2 * mark)}{mark}"
