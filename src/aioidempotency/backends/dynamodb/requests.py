"""Operations as DynamoDB requests, and responses as replies.

Expressions are constant texts for each kind of condition. Placeholders are named after roles, so
`#owner = :owner` reads the same in every log, whatever the table calls its attributes.

Most requests are one of three writes: a put when `Absent`, an update or a deletion when `HeldBy`. In one
table, two of a kind differ in key, item and values only. So the rest is written once, by `_write`, which
writes every operation, and kept in a `Template`. What a condition requires is still said in one place, in
`conditions.requirements`, and both ways make the same request.
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
from aioidempotency.exceptions import Reason

REFUSAL: Final = "ConditionalCheckFailedException"
"""The error code with which DynamoDB refuses a conditional write."""

CANCELLATION: Final = "TransactionCanceledException"
"""The error code with which DynamoDB refuses a transaction, for whatever reasons."""

NAMES: Final[Mapping[type[Operation], str]] = {
    Put: "PutItem",
    Update: "UpdateItem",
    Delete: "DeleteItem",
    Get: "GetItem",
    Transact: "TransactWriteItems",
    GetAll: "TransactGetItems",
    Query: "Query",
}
"""The DynamoDB operation that executes each of ours."""

MOST_TEMPLATES: Final = 1024
"""Templates to keep; a table has about six. A process that makes a new `Table` for each call fills no memory."""

_REFUSED: Final = "ConditionalCheckFailed"
"""What a cancellation says of a part whose condition did not hold."""

_NOT_REFUSED: Final = "None"
"""What a cancellation says of a part that could have been applied."""

_APPLIED: Final = Applied()
_ABSENT: Final = Absent()
_NO_CHANGES: Final[Mapping[Role, AttributeValue]] = {}


@final
class Request(Struct, frozen=True):
    """One call of the DynamoDB API: the operation's name, and its parameters."""

    operation: str
    parameters: Mapping[str, object]


@final
class Template(Struct, frozen=True, eq=False):
    """The parameters that all writes of one kind share in one table.

    Attributes:
        table: The table.
        parameters: The parameters of a sample; each request replaces the item or the key, and the values.
        names: The attributes' names by placeholder.
        values: The values by placeholder; each request replaces the owner, the lease's end and the new values.
        changed: The placeholders of the new values, in the order of the changes.
    """

    table: Table
    parameters: dict[str, object]
    names: dict[str, str]
    values: dict[str, AttributeValue]
    changed: tuple[str, ...]


# Keyed by `id(table)`: this is looked up at every call, and to hash a table runs Python code. A template holds
# its table, so that no other table can get the same id while the template is here.
_templates: Final[dict[tuple[object, ...], Template]] = {}


def request(operation: Operation) -> Request:  # noqa: PLR0911 - one for each kind
    """Write an operation as the request that executes it."""
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


def reply(operation: Operation, response: Mapping[str, object]) -> Reply:
    """Read the response to an operation that was not refused."""
    match operation:
        case Put() | Update() | Delete() | Transact():
            return _APPLIED
        case Get():
            return Found(_item(response))
        case GetAll():
            responses = cast("Sequence[Mapping[str, object]]", response["Responses"])
            return FoundAll(tuple(_item(each) for each in responses))
        case Query():
            return FoundAll(tuple(cast("Sequence[Item]", response["Items"])))
        case _ as never:
            assert_never(never)


def refusal(
    operation: Operation, code: str, response: Mapping[str, object]
) -> ConditionFailed | TransactionFailed | None:
    """Read the response that refused a write because of a condition; None where the error is another one.

    A transaction that conditions of the record refuse is refused, whatever else it has met. One whose
    effects are refused is so only where nothing is the matter with the record's part: else that part was
    not judged, and what refuses the effects may be that they were applied before.
    """
    if code == REFUSAL:
        return ConditionFailed(_item(response))
    if code != CANCELLATION or not isinstance(operation, Transact):
        return None
    given = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons") or ())
    records, effects = given[: len(operation.writes)], given[len(operation.writes) :]
    failures = tuple(ConditionFailed(_item(each)) if each.get("Code") == _REFUSED else None for each in records)
    why = tuple(_reason(each) for each in effects)
    # Where another transaction stood in the way of the record's part, DynamoDB did not judge its condition.
    judged = all(each.get("Code", _NOT_REFUSED) == _NOT_REFUSED for each in records)
    return TransactionFailed(failures, why) if any(failures) or (judged and any(why)) else None


def is_permanent(refused: ConditionFailed | TransactionFailed) -> bool:
    """Tell whether a refusal would be the same a moment later: no other transaction caused it, and no throttling."""
    if isinstance(refused, ConditionFailed) or any(refused.failures):
        return True
    return not all(each is None or each.passing for each in refused.reasons)


def reasons(response: Mapping[str, object]) -> tuple[str, ...]:
    """Read why a transaction was cancelled: a code for each of its parts, "None" where that part was fine."""
    given = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons") or ())
    return tuple(str(each.get("Code", _NOT_REFUSED)) for each in given)


def _put_if_absent(write: Put) -> Request:
    """Write a put when `Absent`, from its template."""
    key = Put, id(write.location.table)
    template = _templates.get(key) or _template(key, write, _ABSENT)
    # The names are copied, because a client of the caller's own may change what it is given.
    parameters = {**template.parameters, "Item": write.item, "ExpressionAttributeNames": template.names.copy()}
    return Request("PutItem", parameters)


def _write_of_owner(
    name: str, write: Update | Delete, condition: HeldBy, changes: Mapping[Role, AttributeValue]
) -> Request:
    """Write an update or a deletion when `HeldBy`, from its template."""
    location, until = write.location, condition.until
    key = name, id(location.table), tuple(changes), until is None
    template = _templates.get(key) or _template(key, write, HeldBy("", until))
    # A value that is replaced keeps its location, so their order is that of `_condition`.
    values = template.values.copy()
    values[":owner"] = {"S": condition.owner}
    if until is not None:
        values[":in_progress_expiration"] = {"N": str(until)}
    values.update(zip(template.changed, changes.values(), strict=True))
    parameters = {
        **template.parameters,
        "Key": location.item,
        "ExpressionAttributeNames": template.names.copy(),
        "ExpressionAttributeValues": values,
    }
    return Request(name, parameters)


def _template(key: tuple[object, ...], like: Write, condition: Absent | HeldBy) -> Template:
    """Make the template of all writes like this one, and keep it.

    It is made of a sample: a template must keep neither a key nor a value of a caller's.
    """
    location = Location(table=like.location.table, partition="")
    changed: tuple[Role, ...] = ()
    sample: Write
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
    parameters = _write(sample)
    template = Template(
        table=location.table,
        parameters=parameters,
        names=cast("dict[str, str]", parameters["ExpressionAttributeNames"]),
        values=cast("dict[str, AttributeValue]", parameters.get("ExpressionAttributeValues", {})),
        changed=tuple([f":new_{role}" for role in changed]),
    )
    if len(_templates) >= MOST_TEMPLATES:
        _templates.clear()
    _templates[key] = template
    return template


def _write(write: Write | Check) -> dict[str, object]:
    """Write the parameters of any write, which are the same alone and in a transaction."""
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
    """Write the condition, with the names and values that the condition and the changes need."""
    table = write.location.table
    wanted = conditions.requirements(write.condition, table)
    values = {f":{role}": value for role, value in wanted if value is not None}
    values |= {f":new_{role}": value for role, value in changes.items()}
    parameters: dict[str, object] = {
        "ConditionExpression": conditions.expression(tuple((role, value is not None) for role, value in wanted)),
        "ExpressionAttributeNames": dict(_names(table, (*(role for role, _ in wanted), *changes))),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    # DynamoDB refuses an empty mapping of values, as it does a value that no expression uses.
    return {**parameters, "ExpressionAttributeValues": values} if values else parameters


def _part(write: Write | Check | Effect) -> dict[str, object]:
    """Write one part of a transaction."""
    if isinstance(write, Effect):
        return {write.kind: write.parameters}
    return {"ConditionCheck" if isinstance(write, Check) else type(write).__name__: _write(write)}


def _key(location: Location) -> dict[str, object]:
    return {"TableName": location.table.name, "Key": location.item}


def _partition(location: Location) -> dict[str, object]:
    """Write the parameters that read a whole partition."""
    return {
        "TableName": location.table.name,
        "KeyConditionExpression": "#key = :key",
        "ExpressionAttributeNames": dict(_names(location.table, ("key",))),
        "ExpressionAttributeValues": {":key": {"S": location.partition}},
    }


def _item(response: Mapping[str, object]) -> Item | None:
    return cast("Item | None", response.get("Item") or None)


def _reason(given: Mapping[str, object]) -> Reason | None:
    """Read why an effect could not be applied; None where it could."""
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
