"""Operations as DynamoDB requests, and its responses as replies.

Expressions are constant texts for each shape of a condition: placeholders are named after roles, so
`#owner = :owner` reads the same in every log, whatever the table calls its attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never, cast, final

from aioidempotency._core import attributes, conditions
from aioidempotency._core.model import AttributeValue, Item, Location, Role, Table
from aioidempotency._core.operations import (
    Applied,
    Check,
    Declined,
    Delete,
    Effect,
    Found,
    FoundAll,
    Get,
    GetAll,
    Operation,
    Put,
    Query,
    Refused,
    Reply,
    Transact,
    Update,
    Write,
)
from aioidempotency.exceptions import Reason

REFUSAL = "ConditionalCheckFailedException"
"""The error code with which DynamoDB refuses a conditional write."""

CANCELLATION = "TransactionCanceledException"
"""The error code with which DynamoDB refuses a transaction, for whatever reasons."""

_REFUSED = "ConditionalCheckFailed"
"""What a cancellation says of a part whose condition did not hold."""

_FINE = "None"
"""What it says of a part that could have been applied."""


@final
@dataclass(frozen=True, slots=True)
class Request:
    """One call of the DynamoDB API: the operation's name, and its parameters."""

    operation: str
    parameters: Mapping[str, object]


def request(operation: Operation) -> Request:
    """Write an operation as the request that executes it."""
    match operation:
        case Transact(writes, effects, token):
            parameters = {"TransactItems": [_part(each) for each in (*writes, *effects)]}
            return Request("TransactWriteItems", parameters | ({} if token is None else {"ClientRequestToken": token}))
        case GetAll(locations):
            gets = [{"Get": _key(location)} for location in locations]
            return Request("TransactGetItems", {"TransactItems": gets})
        case Get(location):
            return Request("GetItem", {**_key(location), "ConsistentRead": True})
        case Query(location, limit):
            return Request("Query", {**_partition(location), "Limit": limit, "ConsistentRead": True})
        case Put() | Update() | Delete():
            return Request(f"{type(operation).__name__}Item", _write(operation))
        case _ as never:
            assert_never(never)


def reply(operation: Operation, response: Mapping[str, object]) -> Reply:
    """Read the response to an operation."""
    match operation:
        case Get():
            return Found(_item(response))
        case GetAll():
            responses = cast("Sequence[Mapping[str, object]]", response["Responses"])
            return FoundAll(tuple(_item(each) for each in responses))
        case Query():
            return FoundAll(tuple(cast("Sequence[Item]", response["Items"])))
        case _:
            return Applied()


def refusal(operation: Operation, code: str, response: Mapping[str, object]) -> Refused | Declined | None:
    """Read the response that refused a write because of a condition; None where the trouble is another.

    A transaction that conditions of the record refuse is refused, whatever else it has met. One whose
    effects are refused is so only where nothing is the matter with the record's part: else that part was
    not judged, and what refuses the effects may be that they were applied before.
    """
    if code == REFUSAL:
        return Refused(_item(response))
    if code != CANCELLATION or not isinstance(operation, Transact):
        return None
    given = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons") or ())
    records, effects = given[: len(operation.writes)], given[len(operation.writes) :]
    refusals = tuple(Refused(_item(each)) if each.get("Code") == _REFUSED else None for each in records)
    why = tuple(_reason(each) for each in effects)
    judged = all(each.get("Code", _FINE) == _FINE for each in records)
    return Declined(refusals, why) if any(refusals) or (judged and any(why)) else None


def lasts(refused: Refused | Declined) -> bool:
    """Tell whether a refusal would be the same a moment later: it is no other transaction's, and no throttling's."""
    if isinstance(refused, Refused) or any(refused.refusals):
        return True
    return not all(each is None or each.passing for each in refused.reasons)


def reasons(response: Mapping[str, object]) -> tuple[str, ...]:
    """Read why a transaction was cancelled: a code for each of its parts, "None" where that part was fine."""
    given = cast("Sequence[Mapping[str, object]]", response.get("CancellationReasons") or ())
    return tuple(str(each.get("Code", _FINE)) for each in given)


def _reason(given: Mapping[str, object]) -> Reason | None:
    """Read why an effect could not be applied; None where it could."""
    code = str(given.get("Code", _FINE))
    item = _item(given)
    message = str(given.get("Message") or "")
    return None if code == _FINE else Reason(code, None if item is None else attributes.read_item(item), message)


def _part(write: Write | Check | Effect) -> dict[str, object]:
    if isinstance(write, Effect):
        return {write.kind: write.parameters}
    return {_PARTS[type(write)]: _write(write)}


_PARTS: dict[type, str] = {Put: "Put", Update: "Update", Delete: "Delete", Check: "ConditionCheck"}


def _write(write: Write | Check) -> dict[str, object]:
    """Write the parameters of one write, which are the same alone and in a transaction."""
    match write:
        case Put(location, item):
            return {"TableName": location.table.name, "Item": item, **_condition(write)}
        case Delete(location) | Check(location):
            return {**_key(location), **_condition(write)}
        case Update(location, changes):
            return {**_key(location), "UpdateExpression": _update(tuple(changes)), **_condition(write, changes)}
        case _ as never:
            assert_never(never)


def _item(response: Mapping[str, object]) -> Item | None:
    return cast("Item | None", response.get("Item") or None)


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


def _condition(operation: Write | Check, changes: Mapping[Role, AttributeValue] | None = None) -> dict[str, object]:
    """Write the condition, with the names and values that it and the changes need."""
    table = operation.location.table
    wanted = conditions.requirements(operation.condition, table)
    changed = changes or {}
    values = {f":{role}": value for role, value in wanted if value is not None}
    values |= {f":new_{role}": value for role, value in changed.items()}
    parameters: dict[str, object] = {
        "ConditionExpression": conditions.expression(tuple((role, value is not None) for role, value in wanted)),
        "ExpressionAttributeNames": dict(_names(table, (*(role for role, _ in wanted), *changed))),
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    return {**parameters, "ExpressionAttributeValues": values} if values else parameters


@lru_cache
def _names(table: Table, roles: tuple[Role, ...]) -> dict[str, str]:
    return {f"#{role}": table.names[role] for role in roles}


@lru_cache
def _update(roles: tuple[Role, ...]) -> str:
    return "SET " + ", ".join(f"#{role} = :new_{role}" for role in roles)
