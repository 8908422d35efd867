"""botocore's exceptions, translated into the library's errors: the facts, and advice.

DynamoDB's messages may hold data of an item or a request. So the library's messages never repeat them: a message has
codes, names of exceptions, and advice from the tables below. The original is the error's `__cause__`.
"""

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)

from aioidempotency._core.operations import Effect, Operation, Transact
from aioidempotency.backends.dynamodb.answers import NoAnswerError
from aioidempotency.backends.dynamodb.requests import CANCELLATION, NAMES, reasons
from aioidempotency.exceptions import PASSING, ConfigurationError, IdempotencyError, StoreError

RAISED: Final = (ClientError, BotoCoreError, OSError, ValueError)
"""The exceptions of a client's call that `translated` handles. A `TimeoutError` is an `OSError`."""

UNWRITABLE: Final = (ValueError, TypeError, RecursionError)
"""The exceptions of the JSON encoder, for parameters that it cannot write."""

WITH_EFFECTS: Final = "a transaction with writes of yours"
"""The name of a transaction with effects, whose refusal may concern tables and expressions of the caller."""

_ADVICE: Final = {
    "ResourceNotFoundException": "there is no such table here; create it with `await store.create_table()`, "
    "or check table_name, region_name and endpoint_url",
    "AccessDeniedException": "these credentials may not do this; allow them {permission} on the table",
    "ValidationException": "the request does not fit the table: its key must be what layout= says "
    "(SimpleKey for one attribute, CompositeKey for two), and names and values keep DynamoDB's bounds",
    "SerializationException": "a value cannot be read; check that texts are whole",
    "IdempotentParameterMismatchException": "another transaction has the same token, by a bug of this library",
    "UnrecognizedClientException": "the credentials are not known here; check them, and the endpoint",
    "InvalidSignatureException": "the credentials' secret is wrong, or this machine's clock is",
    "MissingAuthenticationTokenException": "the request carried no credentials; check session= or client=",
    "IncompleteSignatureException": "the request's signature is incomplete; check session= or client=",
}
"""Advice for the codes of wrong settings. Every other code means a store that did not answer."""

_TEMPORARY: Final = _ADVICE.keys() - {
    "ValidationException",
    "SerializationException",
    "IdempotentParameterMismatchException",
}
"""The codes that others can mend while the program runs: they give a right, make a table, rotate credentials."""

_ADVICE_WITH_EFFECTS: Final = {
    "ValidationException": "one of the writes is not valid, or an expression; this error's cause says which",
    "ResourceNotFoundException": "one of the tables is not there: create it (the store's own, and that of its events, "
    "by `await store.create_table()`), or correct its name",
}

_WRITE_ACTIONS: Final = "dynamodb:PutItem, UpdateItem, DeleteItem and ConditionCheckItem"
_PERMISSIONS: Final = {
    "TransactWriteItems": _WRITE_ACTIONS,
    WITH_EFFECTS: _WRITE_ACTIONS,
    "TransactGetItems": "dynamodb:GetItem",
}
"""A transaction needs the permissions of its parts, and no permission for transactions."""


def subject(operation: Operation) -> tuple[str, str]:
    """Name the request and the table or tables of an operation, for an error."""
    table_name = operation.location.table.name
    if not isinstance(operation, Transact) or not operation.effects:
        return NAMES[type(operation)], table_name
    names = [each.table_name if isinstance(each, Effect) else each.location.table.name for each in operation.effects]
    bare = [name.rpartition("/")[2] for name in names]  # an ARN ends with the name
    return WITH_EFFECTS, ", ".join(dict.fromkeys((table_name, *bare)))


def translated(  # noqa: PLR0911 - one for each kind
    error: Exception, operation: str, table_name: str, *, seconds: float
) -> IdempotencyError:
    """Translate a client's exception after a call with a limit of `seconds`."""
    match error:
        case TimeoutError():
            return StoreError(operation, table_name, f"no answer within {seconds:g} s")
        case NoAnswerError():
            reason = "HTTP 200 without an answer of DynamoDB; does a proxy answer for the endpoint?"
            return StoreError(operation, table_name, reason)
        case NoRegionError():
            return ConfigurationError("no AWS region is set; give region_name=, or set AWS_DEFAULT_REGION")
        # Settings, not an outage: with `fail_open`, an outage would run every body.
        case NoCredentialsError() | PartialCredentialsError() | ProfileNotFound():
            return _temporary(
                f"no usable AWS credentials were found ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile or a role, or give session= or client="
            )
        case ClientError() if (found := _code(error)) in _ADVICE:
            permission = _PERMISSIONS.get(operation, f"dynamodb:{operation}")
            advice = _ADVICE_WITH_EFFECTS.get(found) if operation == WITH_EFFECTS else None
            advice = (advice or _ADVICE[found]).format(permission=permission)
            message = f"{operation} on table {table_name!r} was refused ({found}): {advice}"
            return _temporary(message) if found in _TEMPORARY else ConfigurationError(message)
        case ClientError():
            return StoreError(operation, table_name, f"{_causes(error)}; {_advice(error)}")
        case UnicodeEncodeError():
            return ConfigurationError(
                f"{operation} on table {table_name!r} could not be written as JSON: a text holds half of a character; "
                "let codec= escape it, and check keys, partition values and attributes="
            )
        case BotoCoreError() | OSError() if not isinstance(error, ParamValidationError):
            return StoreError(operation, table_name, f"no answer ({type(error).__name__}); is the endpoint reachable?")
        case _:
            trouble = f"{operation} on table {table_name!r} could not be sent ({type(error).__name__})"
            return ConfigurationError(f"{trouble}; check endpoint_url= and client=")


def cause(error: Exception) -> Exception | None:
    """Return the cause of a translated error. Python's error for a text without bytes holds the whole text: no cause."""
    return None if isinstance(error, UnicodeError) else error


def _temporary(message: str) -> ConfigurationError:
    """Make an error whose cause others can mend while the program runs."""
    error = ConfigurationError(message)
    error.temporary = True
    return error


def code(error: ClientError) -> str:
    """Read the code of DynamoDB's error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_transient(error: ClientError, operation: Operation) -> bool:
    """Tell whether a repetition may succeed where a request was not applied: after a conflict, or throttling.

    In a transaction with effects, the record's part decides. `TransactionInProgressException` means that an earlier
    attempt with the same token is still under way.
    """
    # Only if every reason is temporary: a repetition beside a failed condition would fail again, and cost write
    # units.
    if code(error) == CANCELLATION:
        parts = len(operation.writes) if isinstance(operation, Transact) else None
        return set(reasons(error.response)[:parts]) <= {"None", *PASSING}
    return code(error) in {"TransactionConflictException", "TransactionInProgressException"}


def _code(error: ClientError) -> str:
    """Read an error's code. A transaction cancelled as invalid counts as a `ValidationException`."""
    return "ValidationException" if "ValidationError" in reasons(error.response) else code(error)


def _causes(error: ClientError) -> str:
    """Name an error, and the reasons of a cancelled transaction."""
    met = dict.fromkeys(reason for reason in reasons(error.response) if reason != "None")
    return f"{_code(error)} ({', '.join(met)})" if met else _code(error)


def _advice(error: ClientError) -> str:
    """Advise on a temporary refusal. Throttling of one hot partition gets advice of its own."""
    if _code(error) == "ExpiredTokenException":
        return "renew the credentials"
    # The case of the field's first letter differs between DynamoDB's exceptions.
    given = error.response.get("ThrottlingReasons") or error.response.get("throttlingReasons") or []
    if any("KeyRangeThroughputExceeded" in str(each.get("reason")) for each in given):
        return "one partition is too hot; spread the records with layout=CompositeKey(partitioning=HashBuckets(n))"
    return "try again later"
