"""Many operations in one request: statements of PartiQL for writes, and a batched read.

Whether an engine speaks PartiQL, and these credentials may, is found out by one statement that changes
nothing, before the first batch: some engines take statements and do something else.
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
"""A reply; the reason for which an operation may be sent again; or an error."""

_TRANSIENT: Final = {
    "InternalServerError",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "ThrottlingError",
    "TransactionConflict",
}
"""Codes of a statement's that may be gone a moment later."""

_THROTTLED: Final = {"ThrottlingException", "ProvisionedThroughputExceededException", "RequestLimitExceeded"}
"""Codes of a whole request's that say nothing of what the engine can do."""

_BATCH_PERMISSIONS: Final = "dynamodb:PartiQLInsert, PartiQLUpdate, PartiQLDelete and BatchGetItem"


class BatchError(ConfigurationError):
    """There is no batch to be had: the engine has no PartiQL, or the permissions are missing (`denied`)."""

    def __init__(self, message: str, denied: bool) -> None:  # noqa: FBT001 - errors are copied by their arguments
        super().__init__(message, denied)
        self.denied = denied

    def __str__(self) -> str:
        return str(self.args[0])


@runtime_checkable
class Batches(Protocol):
    """A backend that takes many operations at once."""

    @property
    def time_limit(self) -> float:
        """Seconds that one operation may take."""
        ...

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation."""
        ...

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Execute operations on different items of one table, all reads or all writes, each by itself.

        Raises:
            BatchError: There is no batch to be had here.
        """
        ...

    async def create_table(self, table: Table) -> None:
        """Create the table."""
        ...

    async def aclose(self) -> None:
        """Close what the backend opened."""
        ...


async def probe(client: Any, table: Table) -> None:
    """Send a statement that must be refused, since it is about an item that is not there.

    Raises:
        BatchError: The statement is answered otherwise.
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
            # It says nothing of the engine, so the next batch tries again.
            raise
        raise _unsupported(table, code) from error
    outcome = partiql.answer(answer.get("Error"))
    if isinstance(outcome, str) and _is_denied(outcome):
        raise _denied(table)
    # moto, for one, takes statements and does something else: records must not be sent to such an engine in batches.
    if outcome != ConditionFailed(None):
        raise _unsupported(table, outcome if isinstance(outcome, str) else type(outcome).__name__)


async def write(client: Any, operations: Sequence[Operation], *, own_client: bool) -> list[Outcome]:
    """Send writes of one table as one request; each succeeds or fails by itself.

    Raises:
        BatchError: The permission is missing.
    """
    table = operations[0].location.table
    parameters: dict[str, object] = {"Statements": [partiql.statement(operation) for operation in operations]}
    response = await _call(client.batch_execute_statement, parameters, table, own_client=own_client)
    return [_outcome(answer.get("Error"), table) for answer in response["Responses"]]


async def read(client: Any, gets: Sequence[Get], *, own_client: bool) -> list[Outcome]:
    """Send reads of one table as one request.

    Raises:
        BatchError: The permission is missing.
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
    """Read what a statement of a batch came to.

    Raises:
        BatchError: The permission is missing: then it is so for every statement.
    """
    outcome = partiql.answer(error)
    if not isinstance(outcome, str) or outcome in _TRANSIENT:
        return outcome
    if _is_denied(outcome):
        raise _denied(table)
    return ConfigurationError(
        f"BatchExecuteStatement on table {table.name!r} was refused ({outcome}): the statement does not fit the table; "
        "check table_name, layout= and attributes=, and that no item is over 400 KB"
    )


def _is_denied(code: str) -> bool:
    return code in {"AccessDenied", "AccessDeniedException"}


def _denied(table: Table) -> BatchError:
    """Say which permissions a batch needs."""
    return BatchError(
        f"group_commit= needs the permissions {_BATCH_PERMISSIONS} on table {table.name!r}, and these credentials have not all of "
        "them; allow them, leave group_commit= out, or take GroupCommit(fallback=True)",
        True,  # noqa: FBT003 - see `BatchError`
    )


def _unsupported(table: Table, answer: str) -> BatchError:
    """Say that the engine has no PartiQL, as far as its answer tells."""
    return BatchError(
        f"group_commit= needs an engine with PartiQL, and the one of table {table.name!r} answers a statement with "
        f"{answer}; leave group_commit= out. If this is DynamoDB itself, try again",
        False,  # noqa: FBT003 - see `BatchError`
    )
