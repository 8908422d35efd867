"""Operations as DynamoDB requests, and its responses as replies.

Expressions are constant texts for each shape of a condition: placeholders are named after roles, so
`#owner = :owner` reads the same in every log, whatever the table calls its attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never, cast, final

from aioidempotency._core import conditions
from aioidempotency._core.model import AttributeValue, Item, Location, Role, Table
from aioidempotency._core.operations import Applied, Delete, Found, Get, Operation, Put, Refused, Reply, Update, Write

REFUSAL = "ConditionalCheckFailedException"
"""The error code with which DynamoDB refuses a conditional write."""


@final
@dataclass(frozen=True, slots=True)
class Request:
    """One call of the DynamoDB API: the operation's name, and its parameters."""

    operation: str
    parameters: Mapping[str, object]


def request(operation: Operation) -> Request:
    """Write an operation as the request that executes it."""
    match operation:
        case Get(location):
            return Request("GetItem", {**_key(location), "ConsistentRead": True})
        case Put(location, item):
            return Request("PutItem", {"TableName": location.table.name, "Item": item, **_condition(operation)})
        case Delete(location):
            return Request("DeleteItem", {**_key(location), **_condition(operation)})
        case Update(location, changes):
            update = {"UpdateExpression": _update(tuple(changes))}
            return Request("UpdateItem", {**_key(location), **update, **_condition(operation, changes)})
        case _ as never:
            assert_never(never)


def reply(operation: Operation, response: Mapping[str, object]) -> Reply:
    """Read the response to an operation."""
    return Found(_item(response)) if isinstance(operation, Get) else Applied()


def refusal(response: Mapping[str, object]) -> Refused:
    """Read the response that refused a conditional write."""
    return Refused(_item(response))


def _item(response: Mapping[str, object]) -> Item | None:
    return cast("Item | None", response.get("Item"))


def _key(location: Location) -> dict[str, object]:
    return {"TableName": location.table.name, "Key": location.item}


def _condition(operation: Write, changes: Mapping[Role, AttributeValue] | None = None) -> dict[str, object]:
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
