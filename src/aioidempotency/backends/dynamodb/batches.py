"""Many operations in one request: PartiQL statements for writes, `BatchGetItem` for reads.

1. Before the first batch, one harmless statement probes the engine. The probe is needed because some engines accept
   statements and do something else. Only the expected answer counts as PartiQL. Only an engine that does not know the
   request, or that applied the harmless statement, counts as an engine without PartiQL; anything else may pass.
2. Each statement is written, measured and judged alone. A statement that cannot be written, or that is too large to
   share a request, is not sent. What a statement comes to is an outcome of this statement, never a raised error.
3. A refused request does not say which statement was at fault. So each operation is to be sent alone (`Alone`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast, final, runtime_checkable

import msgspec
from botocore.exceptions import ClientError

from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.model import Location, Status, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Found, Get, Operation, Put, Reply, Update
from aioidempotency.backends.dynamodb import answers, errors, partiql
from aioidempotency.backends.dynamodb.answers import NoAnswerError
from aioidempotency.backends.dynamodb.transport import Transport
from aioidempotency.exceptions import ConfigurationError, IdempotencyError

LARGEST_STATEMENT: Final = 8192
"""The most characters of a statement, by DynamoDB's limit."""

LARGEST_SHARED: Final = 40_000
"""The most bytes of a statement that shares a request: 25 of them stay under 1 MB.

aiohttp warns of larger bodies, because their write keeps the event loop busy, and DynamoDB's limits are above.

The share of a request that a larger operation would save is nothing beside the operation itself.
"""

_TRANSIENT: Final = {
    "InternalServerError",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "ThrottlingError",
    "TransactionConflict",
}
"""Error codes of a statement that a later attempt may cure."""

_THROTTLED: Final = {"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"}
"""Error codes of a whole request that must not be followed by a request for each of its operations."""

_BATCH_PERMISSIONS: Final = "dynamodb:PartiQLInsert, PartiQLUpdate, PartiQLDelete and BatchGetItem"
_WRITING: Final = "BatchExecuteStatement"
_READING: Final = "BatchGetItem"


class BatchError(ConfigurationError):
    """Batches are unavailable: the engine has no PartiQL, or the permissions are missing (`denied`)."""

    def __init__(self, message: str, denied: bool) -> None:  # noqa: FBT001 - errors are copied by their arguments
        super().__init__(message, denied)
        self.denied = denied
        self.temporary = denied

    def __str__(self) -> str:
        return str(self.args[0])


@final
class Alone(msgspec.Struct, frozen=True):
    """The operation is to be sent as a plain call.

    Attributes:
        cause: Why the batch was refused. None for an operation that cannot share a request.
    """

    cause: IdempotencyError | None = None


_ALONE: Final = Alone()
_APPLIED: Final = Applied()

Outcome = Reply | str | IdempotencyError | Alone
"""A reply; the code of a failure that a later attempt may cure; an error; or a plain call to make instead."""


@runtime_checkable
class Batches(Protocol):
    """A backend that executes many operations in one request."""

    @property
    def time_limit(self) -> float:
        """Seconds for one operation, retries included."""
        ...

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation."""
        ...

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Execute operations on different items of one table, all reads or all writes, each independently.

        Raises:
            BatchError: Batches are unavailable.
        """
        ...

    async def create_table(self, table: Table) -> bool | None:
        """Create the table."""
        ...

    async def aclose(self) -> None:
        """Close the clients opened by the backend."""
        ...


async def probe(transport: Transport, table: Table) -> str | Alone | None:
    """Send one statement that must be refused: an update of an absent item.

    None: the engine takes statements. Any other outcome is that of each operation of the batch at hand, and the next
    batch probes again.

    Raises:
        BatchError: The engine has no PartiQL, or a permission is missing.
    """
    key = "aioidempotency#partiql"
    location = Location(table=table, partition=key, sort=key if table.sort_attribute else None)
    harmless = Update(location, {"status": {"S": Status.INPROGRESS.value}}, HeldBy("nobody"))
    parameters: dict[str, object] = {"Statements": [partiql.statement(harmless)]}
    try:
        response = answers.checked(await transport.send(_WRITING, parameters))
    except ClientError as error:
        if errors.is_unknown(error):
            raise _unsupported(table, errors.code(error)) from error
        return _refused(error, _WRITING, table)
    outcome = _outcome(_responses(response, count=1)[0].get("Error"), table)
    if outcome == ConditionFailed(None):
        return None
    match outcome:
        case BatchError():
            raise outcome
        case str() | Alone():
            return outcome
        # moto answers every statement with success and overwrites duplicates: a claim would run twice. So only the
        # expected refusal counts as PartiQL, and never a mere HTTP 200.
        case _:
            raise _unsupported(table, type(outcome).__name__)


async def write(transport: Transport, operations: Sequence[Put | Update | Delete]) -> list[Outcome]:
    """Send writes of one table in one request. Each write succeeds or fails alone.

    Raises:
        BatchError: A permission is missing.
    """
    table = operations[0].location.table
    written: list[bytes] = []
    sent: list[int] = []
    for index, operation in enumerate(operations):
        try:
            text = partiql.text(operation)
        except errors.UNWRITABLE:
            continue
        if len(text) <= LARGEST_STATEMENT or not _is_large(operation, text):
            sent.append(index)
            written.append(text)
    outcomes: list[Outcome] = [_ALONE] * len(operations)
    if not sent:
        return outcomes
    parameters: dict[str, object] = {}
    if not transport.takes_bodies:
        parameters["Statements"] = [partiql.statement(operations[index]) for index in sent]
    try:
        body = b'{"Statements":[%b]}' % b",".join(written)
        response = answers.checked(await transport.send(_WRITING, parameters, body))
    except ClientError as error:
        refused = _refused(error, _WRITING, table)
        for index in sent:
            outcomes[index] = refused
        return outcomes
    for index, answer in zip(sent, _responses(response, count=len(sent)), strict=True):
        failure = answer.get("Error")
        outcomes[index] = _APPLIED if failure is None else _outcome(failure, table)
    return outcomes


async def read(transport: Transport, gets: Sequence[Get]) -> list[Outcome]:
    """Send reads of one table in one request.

    Raises:
        BatchError: A permission is missing.
    """
    table = gets[0].location.table
    try:
        response = answers.checked(await transport.send(_READING, partiql.reading(gets)))
    except ClientError as error:
        if errors.is_unknown(error):
            raise _unsupported(table, errors.code(error)) from error
        refused = _refused(error, _READING, table)
        return [refused for _ in gets]
    if "Responses" not in response:
        raise NoAnswerError
    return [item if isinstance(item, str) else Found(item) for item in partiql.found(gets, response)]


def _is_large(operation: Put | Update | Delete, text: bytes) -> bool:
    return len(text) > LARGEST_SHARED or len(str(partiql.statement(operation)["Statement"])) > LARGEST_STATEMENT


def _responses(response: Mapping[str, Any], *, count: int) -> Sequence[Mapping[str, Any]]:
    """Read the answers to the statements, one for each.

    Raises:
        NoAnswerError: An answer is missing: it would be taken for that of another statement.
    """
    found = response.get("Responses", ())
    if len(found) != count or None in found:
        raise NoAnswerError
    return cast("Sequence[Mapping[str, Any]]", found)


def _refused(error: ClientError, request: str, table: Table) -> Alone:
    """Judge the refusal of a whole request.

    Raises:
        BatchError: A permission is missing.
        ClientError: The table is throttled.
    """
    code = errors.code(error)
    if _is_denied(code):
        raise _denied(table) from error
    if code in _THROTTLED:
        raise error
    cause = errors.translated(error, request, table.name, seconds=0)
    cause.__cause__ = error
    return Alone(cause)


def _outcome(error: Mapping[str, Any] | None, table: Table) -> Outcome:
    """Read the result of one statement."""
    outcome = partiql.answer(error)
    if not isinstance(outcome, str) or outcome in _TRANSIENT:
        return outcome
    if _is_denied(outcome):
        return _denied(table)
    # The plain call is refused as well, with an error that says more; or it shows that only the statement was at fault.
    return Alone(ConfigurationError(f"{_WRITING} on table {table.name!r} refused a statement ({outcome})"))


def _is_denied(code: str) -> bool:
    return code in {"AccessDenied", "AccessDeniedException"}


def _denied(table: Table) -> BatchError:
    """Make the error that names the permissions for batches."""
    return BatchError(
        f"group_commit= needs the permissions {_BATCH_PERMISSIONS} on table {table.name!r}, and these credentials lack "
        "some; allow them, leave group_commit= out, or take GroupCommit(fallback=True)",
        True,  # noqa: FBT003 - see `BatchError`
    )


def _unsupported(table: Table, answer: str) -> BatchError:
    """Make the error for an engine without PartiQL."""
    return BatchError(
        f"group_commit= needs an engine with PartiQL, and the engine of table {table.name!r} answers a statement with "
        f"{answer}; leave group_commit= out. If this is DynamoDB itself, try again",
        False,  # noqa: FBT003 - see `BatchError`
    )
