"""A backend that sends every operation as a batch of one: what statements say is what plain calls say."""

from typing import final

from aioidempotency import DynamoDBBackend
from aioidempotency._core.model import Table
from aioidempotency._core.operations import ConditionFailed, Found, Get, Operation, Put, Reply
from aioidempotency.backends.dynamodb.batches import Alone
from aioidempotency.backends.dynamodb.partiql import has_statement


@final
class BatchedBackend:
    """Sends what PartiQL can say as a statement, a read as a batched read, and the rest as plain calls.

    A group commit sends lone calls plainly, so that a test which makes one call after the other would
    not see a statement. The item of a duplicate is read, as the protocol does it.
    """

    def __init__(self, inner: DynamoDBBackend, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self._inner = inner

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, as a batch if it can be."""
        if not isinstance(operation, Get) and not has_statement(operation):
            return await self._inner.execute(operation)
        (outcome,) = await self._inner.execute_many([operation])
        if isinstance(outcome, Alone):
            return await self._inner.execute(operation)
        if isinstance(outcome, Exception):
            raise outcome
        assert not isinstance(outcome, str), outcome
        if outcome == ConditionFailed(None) and isinstance(operation, Put):
            found = await self.execute(Get(operation.location))
            return ConditionFailed(found.item) if isinstance(found, Found) else found
        return outcome

    async def create_table(self, table: Table) -> None:
        """Create the table."""
        await self._inner.create_table(table)

    async def aclose(self) -> None:
        """Close the client."""
        await self._inner.aclose()

    def __repr__(self) -> str:
        return f"<BatchedBackend: on {self._inner!r}>"
