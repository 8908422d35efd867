"""The parameters of requests: which ones an operation knows, and of what JSON type each is.

A parameter that is not known is refused: an answer that silently left something out would be worse.
"""

from collections.abc import Mapping
from typing import Any, Final

from bench.model.refusals import invalid, malformed

_TYPES: Final[Mapping[str, type]] = {
    "AttributeDefinitions": list,
    "ClientRequestToken": str,
    "ConditionExpression": str,
    "ConsistentRead": bool,
    "ExclusiveStartKey": dict,
    "ExclusiveStartTableName": str,
    "ExpressionAttributeNames": dict,
    "ExpressionAttributeValues": dict,
    "FilterExpression": str,
    "Item": dict,
    "Key": dict,
    "KeyConditionExpression": str,
    "Keys": list,
    "KeySchema": list,
    "Limit": int,
    "Parameters": list,
    "RequestItems": dict,
    "Statement": str,
    "Statements": list,
    "TableName": str,
    "TimeToLiveSpecification": dict,
    "TransactItems": list,
    "UpdateExpression": str,
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "ReturnValuesOnConditionCheckFailure": ("NONE", "ALL_OLD"),
    "Select": ("ALL_ATTRIBUTES", "COUNT"),
}
_MOST: Final = 100
"""Keys or actions in one request."""


def check(request: Any, known: frozenset[str]) -> None:
    """Refuse parameters that are not known, or of a wrong type."""
    if type(request) is not dict:
        raise malformed("A request is a map of parameters")
    for name, value in request.items():
        if name not in known:
            raise invalid(f"This model does not know the parameter {name}")
        wanted = _TYPES.get(name)
        if wanted is not None and type(value) is not wanted:
            raise malformed(f"{name} cannot be a {type(value).__name__}")
        if name in _CHOICES and value not in _CHOICES[name]:
            raise invalid(f"{name} can only be {' or '.join(_CHOICES[name])} in this model")


def check_number(given: int, what: str, most: int = _MOST) -> None:
    """Refuse a request for nothing, or for too much at once."""
    if not 1 <= given <= most:
        raise invalid(
            f"1 validation error detected: Value at '{what}' failed to satisfy constraint: "
            f"Member must have length less than or equal to {most}, and greater than or equal to 1"
        )
