"""Many operations in one request: PartiQL statements for writes, `BatchGetItem` for reads.

Before the first batch, one harmless statement probes the engine and the permissions. The probe is needed
because some engines accept statements and do something else.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from botocore.exceptions import ClientError

from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.model import Location, Status, Table
from aioidempotency._core.operations import ConditionFailed, Found, Get, Operation, Reply, Update
from aioidempotency.backends.dynamodb import errors, partiql
from aioidempotency.backends.dynamodb.client import send
from aioidempotency.exceptions import ConfigurationError, IdempotencyError

Outcome = Reply | str | IdempotencyError
"""A reply; or the code of a failure that a later attempt may cure; or an error."""

_TRANSIENT: Final = {
    "InternalServerError",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "ThrottlingError",
    "TransactionConflict",
}
"""Error codes of a statement that a later attempt may cure."""

_THROTTLED: Final = {"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"}
"""Error codes of a whole request that prove nothing about PartiQL."""

_BATCH_PERMISSIONS: Final = "dynamodb:PartiQLInsert, PartiQLUpdate, PartiQLDelete and BatchGetItem"


class BatchError(ConfigurationError):
    """Batches are unavailable: the engine has no PartiQL, or the permissions are missing (`denied`)."""

    def __init__(self, message: str, denied: bool) -> None:  # noqa: FBT001 - errors are copied by their arguments
        super().__init__(message, denied)
        self.denied = denied

    def __str__(self) -> str:
        return str(self.args[0])


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

    async def create_table(self, table: Table) -> None:
        """Create the table."""
        ...

    async def aclose(self) -> None:
        """Close the clients opened by the backend."""
        ...


async def probe(client: Any, table: Table) -> None:
    """Send one statement that must be refused: an update of an absent item.

    Raises:
        BatchError: The engine gave another answer.
    """
    key = "aioidempotency#partiql"
    location = Location(table=table, partition=key, sort=key if table.sort_attribute else None)
    harmless = Update(location, {"status": {"S": Status.INPROGRESS.value}}, HeldBy("nobody"))
    try:
        response = await client.batch_execute_statement(Statements=[partiql.statement(harmless)])
        (answer,) = response["Responses"]
    except ClientError as error:
        code = errors.code(error)
        if _is_denied(code):
            raise _denied(table) from error
        if code in _THROTTLED:
            # Throttling proves nothing about the engine, so the next batch probes again.
            raise
        raise _unsupported(table, code) from error
    outcome = partiql.answer(answer.get("Error"))
    if isinstance(outcome, str) and _is_denied(outcome):
        raise _denied(table)
    # moto answers every statement with success and overwrites duplicates: a claim would run twice. So only the
    # expected refusal counts as PartiQL, and never a mere HTTP 200.
    if outcome != ConditionFailed(None):
        raise _unsupported(table, outcome if isinstance(outcome, str) else type(outcome).__name__)


async def write(client: Any, operations: Sequence[Operation], *, own_client: bool) -> list[Outcome]:
    """Send writes of one table in one request. Each write succeeds or fails alone.

    Raises:
        BatchError: A permission is missing.
    """
    table = operations[0].location.table
    parameters: dict[str, object] = {"Statements": [partiql.statement(operation) for operation in operations]}
    response = await _call(client.batch_execute_statement, parameters, table, own_client=own_client)
    return [_outcome(answer.get("Error"), table) for answer in response["Responses"]]


async def read(client: Any, gets: Sequence[Get], *, own_client: bool) -> list[Outcome]:
    """Send reads of one table in one request.

    Raises:
        BatchError: A permission is missing.
    """
    table = gets[0].location.table
    response = await _call(client.batch_get_item, partiql.reading(gets), table, own_client=own_client)
    return [item if isinstance(item, str) else Found(item) for item in partiql.found(gets, response)]


async def _call(call: Any, parameters: dict[str, object], table: Table, *, own_client: bool) -> Any:
    try:
        return await (send(call, parameters) if own_client else call(**parameters))
    except ClientError as error:
        if _is_denied(errors.code(error)):
            raise _denied(table) from error
        raise


def _outcome(error: Mapping[str, Any] | None, table: Table) -> Outcome:
    """Read the result of one statement.

    Raises:
        BatchError: A permission is missing, so every statement would fail.
    """
    outcome = partiql.answer(error)
    if not isinstance(outcome, str) or outcome in _TRANSIENT:
        return outcome
    if _is_denied(outcome):
        raise _denied(table)
    # One bad statement is an outcome, not a raised error: a raise would fail the neighbours, too.
    return ConfigurationError(
        f"BatchExecuteStatement on table {table.name!r} was refused ({outcome}): the statement does not fit the table; "
        "check table_name, layout= and attributes=, and that no item is over 400 KB"
    )


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
