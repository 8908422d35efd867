"""botocore's exceptions, translated into the library's errors: the facts, and advice.

DynamoDB's messages may hold data of an item or a request. So the library's messages never repeat them: a message has
codes, names of exceptions, and advice from the tables below. The original is the error's `__cause__`.
"""

from typing import Final

from botocore import exceptions as botocore_exceptions
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
    InvalidEndpointDiscoveryConfigurationError,
    InvalidProxiesConfigError,
    InvalidRetryConfigurationError,
    InvalidSTSRegionalEndpointsConfigError,
    NoCredentialsError,
    NoRegionError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    UnknownCredentialError,
    UnknownSignatureVersionError,
    UnsupportedSignatureVersionError,
)

from aioidempotency._core.operations import Effect, Operation, Transact
from aioidempotency.backends.dynamodb import checks
from aioidempotency.backends.dynamodb.answers import NoAnswerError
from aioidempotency.backends.dynamodb.credentials import REFUSED, RENEWABLE
from aioidempotency.backends.dynamodb.requests import CANCELLATION, NAMES, reasons
from aioidempotency.backends.dynamodb.room import NotSentError
from aioidempotency.exceptions import PASSING, ConfigurationError, IdempotencyError, StoreError

RAISED: Final = (ClientError, BotoCoreError, OSError, ValueError, RuntimeError, TypeError, AttributeError)
"""The exceptions of a client's call that `translated` handles. A `TimeoutError` is an `OSError`.

Python's own errors come from what is no client of aiobotocore, and from a client in another event loop.
"""

UNWRITABLE: Final = (ValueError, TypeError, RecursionError)
"""The exceptions of the JSON encoder, for parameters that it cannot write."""

_WITHOUT: Final = (NoCredentialsError, PartialCredentialsError, ProfileNotFound)
"""The exceptions of a process without credentials."""

_LOGINS: Final = (SSOError, getattr(botocore_exceptions, "LoginError", SSOError))
"""The exceptions after the end of a login by a person. Older versions of botocore know one kind of login."""

_SETTINGS: Final = (
    ConfigNotFound,
    ConfigParseError,
    InvalidConfigError,
    InvalidEndpointDiscoveryConfigurationError,
    InvalidProxiesConfigError,
    InvalidRetryConfigurationError,
    InvalidSTSRegionalEndpointsConfigError,
    UnknownCredentialError,
    UnknownSignatureVersionError,
    UnsupportedSignatureVersionError,
)
"""The exceptions about settings in files, variables and `config=`."""

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
    "InvalidClientTokenId": "the credentials are not known here; check them, and the endpoint",
    "ExpiredTokenException": "the credentials have expired, and cannot be renewed; give new ones, or a role or a profile",
    "ExpiredToken": "the credentials have expired, and cannot be renewed; give new ones, or a role or a profile",
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

_UNKNOWN: Final = frozenset(
    {"NotImplemented", "NotImplementedException", "UnknownOperation", "UnknownOperationException"}
)
"""The error codes of an engine that does not know an operation."""

_NOT_IMPLEMENTED: Final = 501
"""The HTTP status of such an engine, whatever the code."""

_NEEDED_FOR: Final = {
    "TransactWriteItems": "records in several locations need transactions: take SimpleKey, or CompositeKey with "
    "HashBuckets or Static",
    WITH_EFFECTS: "execution.transaction and commit_once need transactions: write without them, under a key derived by "
    "execution.derive_key",
    "TransactGetItems": "records in several locations need transactions: take SimpleKey, or CompositeKey with "
    "HashBuckets or Static",
    "Query": "store.outbox, and counts of partitions, need queries: do without them",
    "CreateTable": "create the table by other means",
}
"""The settings or features that need an operation, and what to take instead."""

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


def translated(  # noqa: C901, PLR0911, PLR0912 - one for each kind
    error: Exception, operation: str, table_name: str, *, seconds: float
) -> IdempotencyError:
    """Translate a client's exception after a call with a limit of `seconds`."""
    match error:
        # Above all other outages: a process without credentials must not run bodies unprotected.
        case _ if _arises_from_credentials(error) and not isinstance(error, (*_WITHOUT, *_LOGINS, *_SETTINGS)):
            reason = f"no credentials could be had ({type(error).__name__}); check their source, and try again later"
            return StoreError(operation, table_name, reason, refused=True)
        case NotSentError():
            return StoreError(operation, table_name, str(error))
        case TimeoutError():
            return StoreError(operation, table_name, f"no answer within {seconds:g} s")
        case NoAnswerError():
            reason = "HTTP 200 without an answer of DynamoDB; does a proxy answer for the endpoint?"
            return StoreError(operation, table_name, reason)
        case NoRegionError():
            return ConfigurationError("no AWS region is set; give region_name=, or set AWS_DEFAULT_REGION")
        # Settings, not an outage: with `fail_open`, an outage would run every body.
        case _ if isinstance(error, _WITHOUT):
            return _temporary(
                f"no usable AWS credentials were found ({type(error).__name__}); set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, a profile or a role, or give session= or client="
            )
        case _ if isinstance(error, _LOGINS):
            return _temporary(
                f"the login that gives the AWS credentials has ended ({type(error).__name__}); log in again"
            )
        case _ if isinstance(error, _SETTINGS):
            trouble = f"a setting cannot be used ({type(error).__name__}): {error}"
            return ConfigurationError(f"{trouble}; check config=, and AWS's own settings")
        case ClientError() if code(error) in REFUSED and RENEWABLE in error.response:
            reason = (
                f"the credentials were refused ({code(error)}), also after a renewal; check their role, and try again"
            )
            return StoreError(operation, table_name, reason, refused=True)
        case ClientError() if is_unknown(error):
            needed = _NEEDED_FOR.get(
                operation, "check endpoint_url=: does DynamoDB, or an engine like it, answer there?"
            )
            name = "TransactWriteItems" if operation == WITH_EFFECTS else operation
            return ConfigurationError(
                f"the engine of table {table_name!r} does not know {name} ({code(error)}); {needed}"
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
        case RuntimeError():
            return StoreError(operation, table_name, f"no answer ({type(error).__name__})")
        case TypeError() | AttributeError() if checks.is_mocked():
            return ConfigurationError(
                "moto's mock_aws is active, and its answers cannot be awaited; start moto's server in place of it, "
                "`ThreadedMotoServer`, and give endpoint_url="
            )
        case _:
            trouble = f"{operation} on table {table_name!r} could not be sent ({type(error).__name__})"
            return ConfigurationError(f"{trouble}; check endpoint_url= and client=")


def cause(error: Exception) -> Exception | None:
    """Return the cause of a translated error. Python's error for a text without bytes holds the whole text: no cause."""
    return None if isinstance(error, UnicodeError) else error


def _arises_from_credentials(error: BaseException) -> bool:
    """Tell whether credentials were being fetched. Their source may be the user's own, and raise anything."""
    # After the time limit, the cause is the cancellation, and shows where the call was.
    for each in (error, error.__cause__):
        trace = None if each is None else each.__traceback__
        while trace is not None:
            if trace.tb_frame.f_globals.get("__name__") in {"aiobotocore.credentials", "botocore.credentials"}:
                return True
            trace = trace.tb_next
    return False


def _temporary(message: str) -> ConfigurationError:
    """Make an error whose cause others can mend while the program runs."""
    error = ConfigurationError(message)
    error.temporary = True
    return error


def code(error: ClientError) -> str:
    """Read the code of DynamoDB's error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_unknown(error: ClientError) -> bool:
    """Tell whether the engine does not know the operation. DynamoDB knows every operation of this library."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return code(error) in _UNKNOWN or status == _NOT_IMPLEMENTED


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
    # The case of the field's first letter differs between DynamoDB's exceptions.
    given = error.response.get("ThrottlingReasons") or error.response.get("throttlingReasons") or []
    if any("KeyRangeThroughputExceeded" in str(each.get("reason")) for each in given):
        return "one partition is too hot; spread the records with layout=CompositeKey(partitioning=HashBuckets(n))"
    return "try again later"
