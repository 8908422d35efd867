"""Operations as DynamoDB requests, and responses as replies.

Expressions are constant texts for each kind of condition. Placeholders have the names of roles, so
`#owner = :owner` reads the same in every log, whatever the names of the table's attributes.

`_write` makes the parameters of every write. Most requests are one of three writes: a put when `Absent`, or an update
or a delete when `HeldBy`. In one table, two such requests of one kind differ only in key, item and values. So a
`Template` stores the other parameters, which `_write` has made once. With and without a template, a request is the
same, because `conditions.requirements` alone states what a condition requires.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, assert_never, cast, final

from msgspec import Struct

from aioidempotency import _attributes as attributes
from aioidempotency._core import conditions
from aioidempotency._core.conditions import Absent, HeldBy
from aioidempotency._core.model import AttributeValue, Item, Location, Role, Table
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
    Effect,
    Found,
    FoundAll,
    Get,
    GetAll,
    Operation,
    Put,
    Query,
    Reply,
    Transact,
    TransactionFailed,
    Update,
    Write,
)
from aioidempotency.backends.dynamodb.answers import NO_ANSWER, NoAnswerError
from aioidempotency.backends.dynamodb.transport import encode
from aioidempotency.exceptions import Reason

REFUSAL: Final = "ConditionalCheckFailedException"
"""DynamoDB's error code for a conditional write with a failed condition."""

CANCELLATION: Final = "TransactionCanceledException"
"""DynamoDB's error code for a cancelled transaction, whatever the reasons."""

NAMES: Final[Mapping[type[Operation], str]] = {
    Put: "PutItem",
    Update: "UpdateItem",
    Delete: "DeleteItem",
    Get: "GetItem",
    Transact: "TransactWriteItems",
    GetAll: "TransactGetItems",
    Query: "Query",
}
"""The DynamoDB operation for each operation of the library."""

MOST_TEMPLATES: Final = 1024
"""The most templates in memory; a table has about six. Without a limit, a new `Table` for each call would fill memory."""

_REFUSED: Final = "ConditionalCheckFailed"
"""The code of a transaction's part with a failed condition."""

_NOT_REFUSED: Final = "None"
"""The code of a transaction's part without a failure."""

_DIFFERENT: Final = frozenset({"Item", "Key", "ExpressionAttributeValues"})
"""The parameters that differ between two writes of one kind in one table."""

_APPLIED: Final = Applied()
_ABSENT: Final = Absent()
_NO_CHANGES: Final[Mapping[Role, AttributeValue]] = {}


@final
class Request(Struct, frozen=True):
    """One call of DynamoDB's API: the operation's name and the parameters.

    Beside a body, which is the parameters as JSON, the parameters have only what leads to the table.
    """

    operation: str
    parameters: Mapping[str, object]
    body: bytes | None = None

    # The parameters hold items, and so does the body.
    def __repr__(self) -> str:
        return f"<Request {self.operation}>"


@final
class Template(Struct, frozen=True, eq=False):
    """The parameters shared by all writes of one kind in one table.

    Attributes:
        table: The table.
        parameters: The parameters of a sample. Each request replaces the item or the key, and the values.
        names: The attributes' names by placeholder.
        values: The values by placeholder. Each request replaces the owner, the lease's end and the new values.
        changed: The placeholders of the new values, in the order of the changes.
        pieces: The parameters as JSON, without the item or the key, and without the values.
        routing: The parameters that lead to the table.
    """

    table: Table
    parameters: dict[str, object]
    names: dict[str, str]
    values: dict[str, AttributeValue]
    changed: tuple[str, ...]
    pieces: tuple[bytes, ...]
    routing: dict[str, object]

    # The sample holds the item of one call.
    def __repr__(self) -> str:
        return f"<Template of writes to {self.table.name}>"


# Keyed by `id(table)`: every call reads this mapping, and the hash of a table would run Python code. A template holds
# its table, so no other table can get the same id during the life of the template.
_templates: Final[dict[tuple[object, ...], Template]] = {}


def request(operation: Operation) -> Request:  # noqa: PLR0911 - one for each kind
    """Make the request of an operation."""
    name = NAMES[type(operation)]
    match operation:
        case Put(_, _, Absent()):
            return _put_if_absent(operation)
        case Update(_, changes, HeldBy() as condition):
            return _write_of_owner(name, operation, condition, changes)
        case Delete(_, HeldBy() as condition):
            return _write_of_owner(name, operation, condition, _NO_CHANGES)
        case Put() | Update() | Delete():
            return Request(name, _write(operation))
        # Strongly consistent: a stale read would show a claimed key as free, or an old lease as over.
        case Get(location):
            return Request(name, {**_key(location), "ConsistentRead": True})
        case Transact(writes, effects, token):
            parameters = {"TransactItems": [_part(each) for each in (*writes, *effects)]}
            return Request(name, parameters | ({} if token is None else {"ClientRequestToken": token}))
        case GetAll(locations):
            return Request(name, {"TransactItems": [{"Get": _key(location)} for location in locations]})
        case Query(location, limit):
            return Request(name, {**_partition(location), "Limit": limit, "ConsistentRead": True})
        case _ as never:
            assert_never(never)


def written(operation: Operation) -> Request:
    """Make the request of an operation for a transport that takes bodies: as `request`, and for the usual writes as bytes.

    Raises:
        ValueError: A value has no form in JSON, such as half of a surrogate pair.
    """
    if isinstance(operation, Put):
        if isinstance(operation.condition, Absent):
            template = _templates.get((Put, id(operation.location.table))) or _template(operation, _ABSENT)
            head, tail = template.pieces
            return Request("PutItem", template.routing, b"%b%b%b" % (head, encode(operation.item), tail))
    elif isinstance(operation, Update) and isinstance(operation.condition, HeldBy):
        template, values = _of_owner(operation, operation.condition, operation.changes)
        head, middle, tail = template.pieces
        body = b"%b%b%b%b%b" % (head, encode(operation.location.item), middle, encode(values), tail)
        return Request("UpdateItem", template.routing, body)
    return request(operation)


def reply(operation: Operation, response: Mapping[str, object]) -> Reply:
    """Read the response to a successful operation.

    Raises:
        NoAnswerError: The response is no answer of DynamoDB, or lacks the items.
    """
    if NO_ANSWER in response:
        raise NoAnswerError
    match operation:
        case Put() | Update() | Delete() | Transact():
            return _APPLIED
        case Get():
            return Found(_item(response))
        case GetAll():
            responses = cast("Sequence[Mapping[str, object]]", response.get("Responses", ()))
            if len(responses) != len(operation.locations):
                raise NoAnswerError
            return FoundAll(tuple(_item(each) for each in responses))
        case Query():
            if "Items" not in response:
                raise NoAnswerError
            return FoundAll(tuple(cast("Sequence[Item]", response["Items"])))
        case _ as never:
            assert_never(never)


def refusal(
    operation: Operation, code: str, response: Mapping[str, object]
) -> ConditionFailed | TransactionFailed | None:
    """Read the response to a write with a failed condition. None for any other error.

    If a condition of the record has failed, the transaction has failed, whatever the other reasons. If only effects
    have failed, the record's part must be free of failures of any kind. After a conflict, for example, DynamoDB did not
    evaluate the record's condition, and an effect may have failed because an earlier attempt applied the effect.
    """
    if code == REFUSAL:
        return ConditionFailed(_item(response))
    if code != CANCELLATION or not isinstance(operation, Transact):
        return None
    given = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons") or ())
    records, effects = given[: len(operation.writes)], given[len(operation.writes) :]
    failures = tuple(ConditionFailed(_item(each)) if each.get("Code") == _REFUSED else None for each in records)
    why = tuple(_reason(each) for each in effects)
    evaluated = all(each.get("Code", _NOT_REFUSED) == _NOT_REFUSED for each in records)
    return TransactionFailed(failures, why) if any(failures) or (evaluated and any(why)) else None


def is_permanent(refused: ConditionFailed | TransactionFailed) -> bool:
    """Tell whether a repetition would fail in the same way. Only conflicts and throttling pass by themselves."""
    if isinstance(refused, ConditionFailed) or any(refused.failures):
        return True
    return not all(each is None or each.passing for each in refused.reasons)


def reasons(response: Mapping[str, object]) -> tuple[str, ...]:
    """Read the reasons of a cancelled transaction: a code for each part, "None" for a part without a failure."""
    given = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons") or ())
    return tuple(str(each.get("Code", _NOT_REFUSED)) for each in given)


def _put_if_absent(write: Put) -> Request:
    """Make the request of a put when `Absent`, from the template."""
    template = _templates.get((Put, id(write.location.table))) or _template(write, _ABSENT)
    # The names are copied, because a client of the caller's may change its arguments.
    parameters = {**template.parameters, "Item": write.item, "ExpressionAttributeNames": template.names.copy()}
    return Request("PutItem", parameters)


def _write_of_owner(
    name: str, write: Update | Delete, condition: HeldBy, changes: Mapping[Role, AttributeValue]
) -> Request:
    """Make the request of an update or a delete when `HeldBy`, from the template."""
    template, values = _of_owner(write, condition, changes)
    parameters = {
        **template.parameters,
        "Key": write.location.item,
        "ExpressionAttributeNames": template.names.copy(),
        "ExpressionAttributeValues": values,
    }
    return Request(name, parameters)


def _of_owner(
    write: Update | Delete, condition: HeldBy, changes: Mapping[Role, AttributeValue]
) -> tuple[Template, dict[str, AttributeValue]]:
    """Find the template of an update or a delete when `HeldBy`, and make the values."""
    until = condition.until
    key = type(write), id(write.location.table), tuple(changes), until is None
    template = _templates.get(key) or _template(write, HeldBy("", until))
    # A replaced value keeps its place in the dictionary, so the order is the same as in `_condition`.
    values = template.values.copy()
    # Every call must set the owner of its own condition: the owner of an earlier call would let a stale owner write.
    values[":owner"] = {"S": condition.owner}
    if until is not None:
        values[":in_progress_expiration"] = {"N": str(until)}
    values.update(zip(template.changed, changes.values(), strict=True))
    return template, values


def _template(like: Write, condition: Absent | HeldBy) -> Template:
    """Make and store the template of all writes of one kind.

    The template is made from a sample, so that no key and no value of a caller stays in memory.
    """
    location = Location(table=like.location.table, partition="")
    changed: tuple[Role, ...] = ()
    sample: Write
    key: tuple[object, ...] = type(like), id(location.table)
    match like:
        case Put():
            sample = Put(location, {}, condition)
        case Update(_, changes):
            changed = tuple(changes)
            sample = Update(location, {role: {} for role in changed}, condition)
        case Delete():
            sample = Delete(location, condition)
        case _ as never:
            assert_never(never)
    if isinstance(condition, HeldBy):
        key = *key, changed, condition.until is None
    parameters = _write(sample)
    template = Template(
        table=location.table,
        parameters=parameters,
        names=cast("dict[str, str]", parameters["ExpressionAttributeNames"]),
        values=cast("dict[str, AttributeValue]", parameters.get("ExpressionAttributeValues", {})),
        changed=tuple([f":new_{role}" for role in changed]),
        pieces=_pieces(parameters),
        routing={"TableName": location.table.name},
    )
    if len(_templates) >= MOST_TEMPLATES:
        _templates.clear()
    _templates[key] = template
    return template


def _pieces(parameters: Mapping[str, object]) -> tuple[bytes, ...]:
    """Write parameters as JSON, and leave out what differs from request to request."""
    pieces, text = [], b"{"
    for number, (name, value) in enumerate(parameters.items()):
        text += (b"," if number else b"") + encode(name) + b":"
        if name in _DIFFERENT:
            pieces.append(text)
            text = b""
        else:
            text += encode(value)
    return (*pieces, text + b"}")


def _write(write: Write | Check) -> dict[str, object]:
    """Make the parameters of a write. A transaction takes the same parameters as a single request."""
    match write:
        case Put(location, item):
            return {"TableName": location.table.name, "Item": item, **_condition(write)}
        case Delete(location) | Check(location):
            return {**_key(location), **_condition(write)}
        case Update(location, changes):
            return {**_key(location), "UpdateExpression": _update(tuple(changes)), **_condition(write, changes)}
        case _ as never:
            assert_never(never)


def _condition(write: Write | Check, changes: Mapping[Role, AttributeValue] = _NO_CHANGES) -> dict[str, object]:
    """Make the parameters of a condition, with the names and values for the condition and for the changes."""
    table = write.location.table
    wanted = conditions.requirements(write.condition, table)
    values = {f":{role}": value for role, value in wanted if value is not None}
    values |= {f":new_{role}": value for role, value in changes.items()}
    parameters: dict[str, object] = {
        "ConditionExpression": conditions.expression(tuple((role, value is not None) for role, value in wanted)),
        "ExpressionAttributeNames": dict(_names(table, (*(role for role, _ in wanted), *changes))),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    # DynamoDB refuses an empty mapping of values, and a value that no expression uses.
    return {**parameters, "ExpressionAttributeValues": values} if values else parameters


def _part(write: Write | Check | Effect) -> dict[str, object]:
    """Make one part of a transaction."""
    if isinstance(write, Effect):
        return {write.kind: write.parameters}
    return {"ConditionCheck" if isinstance(write, Check) else type(write).__name__: _write(write)}


def _key(location: Location) -> dict[str, object]:
    return {"TableName": location.table.name, "Key": location.item}


def _partition(location: Location) -> dict[str, object]:
    """Make the parameters of a query for the records of a partition, after the sort key of the location."""
    names, values = dict(_names(location.table, ("key",))), {":key": {"S": location.partition}}
    condition = "#key = :key"
    # DynamoDB refuses an empty text as the value of a key.
    if location.sort:
        names["#sort"], values[":sort"] = location.table.names["sort"], {"S": location.sort}
        condition += " AND #sort > :sort"
    return {
        "TableName": location.table.name,
        "KeyConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }


def _item(response: Mapping[str, object]) -> Item | None:
    return cast("Item | None", response.get("Item") or None)


def _reason(given: Mapping[str, object]) -> Reason | None:
    """Read the reason of an effect's failure. None for an effect without failure."""
    code = str(given.get("Code", _NOT_REFUSED))
    item = _item(given)
    message = str(given.get("Message") or "")
    return None if code == _NOT_REFUSED else Reason(code, None if item is None else attributes.read_item(item), message)


@lru_cache
def _names(table: Table, roles: tuple[Role, ...]) -> dict[str, str]:
    return {f"#{role}": table.names[role] for role in roles}


@lru_cache
def _update(roles: tuple[Role, ...]) -> str:
    return "SET " + ", ".join(f"#{role} = :new_{role}" for role in roles)
