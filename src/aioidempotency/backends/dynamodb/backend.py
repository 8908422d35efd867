"""The backend on DynamoDB: each operation is a request of aiobotocore's client, within a time limit.

A write may be sent again although it was applied: by botocore's retries, and here. That is safe, because an
owner recognises its own write (see `protocol`, rule 1).
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar, final

from botocore.exceptions import ClientError

from aioidempotency._backoff import Backoff
from aioidempotency._core.model import Table
from aioidempotency._core.operations import Get, Operation, Reply, Transact
from aioidempotency.backends.dynamodb import batches, errors, requests, tables
from aioidempotency.backends.dynamodb.batches import Outcome
from aioidempotency.backends.dynamodb.client import Call, Config, DynamoDBClient, OwnClients, Session, send
from aioidempotency.exceptions import ConfigurationError

T = TypeVar("T")

OPENING_LIMIT: Final = 10.0
"""Seconds to open a client in: the first one reads botocore's models, and credentials may have to be fetched."""

CREATION_LIMIT: Final = 120.0
"""Seconds to make a table in."""

CONFLICT_PAUSES: Final = (0.05, 0.8)
"""The first and the longest pause, in seconds, before a request that met a transaction is sent again."""

CONFLICT_TRIES: Final = 5
"""How often such a request is sent again. It was not applied, and no retry mode of botocore's repeats it."""

_METHODS: Final = {
    "GetItem": "get_item",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "TransactWriteItems": "transact_write_items",
    "TransactGetItems": "transact_get_items",
    "Query": "query",
}


@final
class DynamoDBBackend:
    """Executes operations on a DynamoDB table, or on anything that speaks its API.

    Without `client=` the backend opens a client of its own at the first call, one for each event loop it
    is used in; `aclose` closes that of the running loop.

    Args:
        time_limit: Seconds that one operation may take, with all its retries.
    """

    def __init__(
        self,
        client: DynamoDBClient | None = None,
        *,
        session: Session | None = None,
        endpoint_url: str | None = None,
        region_name: str | None = None,
        config: Config | None = None,
        time_limit: float = 10.0,
    ) -> None:
        given = {"session": session, "endpoint_url": endpoint_url, "region_name": region_name, "config": config}
        if client is not None and any(value is not None for value in given.values()):
            names = ", ".join(f"{name}=" for name, value in given.items() if value is not None)
            raise ConfigurationError(f"client= comes with settings of its own; leave {names} out, or client=")
        self.time_limit = time_limit
        self._given = client
        self._own = OwnClients(
            session, config, endpoint_url=endpoint_url, region_name=region_name, time_limit=time_limit
        )
        self._probed = False

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation.

        Raises:
            StoreError: DynamoDB did not answer within the time limit, or refused.
            ConfigurationError: It refused because of the table's name, its key, or permissions.
        """
        # Every call of the library passes here, so what `_answered` does for other requests stands in line.
        client: Any = self._given or self._own.opened() or await self._ready(operation.location.table.name)
        try:
            async with asyncio.timeout(self.time_limit):
                return await self._send(client, operation)
        except errors.RAISED as error:
            raise errors.translated(error, *errors.subject(operation), seconds=self.time_limit) from error

    async def _send(self, client: Any, operation: Operation) -> Reply:
        """Send an operation; again where it met a transaction, since it was not applied then."""
        request = requests.request(operation)
        call: Call = getattr(client, _METHODS[request.operation])
        backoff: Backoff | None = None
        while True:
            try:
                # botocore adds a token to a transaction's parameters, so that is written by botocore, too.
                if self._given is None and not isinstance(operation, Transact):
                    response = await send(call, request.parameters)
                else:
                    response = await call(**request.parameters)
                return requests.reply(operation, response)
            except ClientError as error:
                refused = requests.refusal(operation, errors.code(error), error.response)
                transient = (
                    errors.is_transient(error, operation) if refused is None else not requests.is_permanent(refused)
                )
                pause = None
                if transient:
                    backoff = backoff or Backoff(*CONFLICT_PAUSES, tries=CONFLICT_TRIES)
                    pause = backoff.next(asyncio.get_running_loop().time())
                if pause is None:
                    if refused is None:
                        raise
                    return refused
            # Outside of the handler: what is raised here, a cancellation, must not have DynamoDB's words as context.
            await asyncio.sleep(pause)

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Execute operations on different items of one table, all reads or all writes, each by itself.

        Raises:
            StoreError: DynamoDB did not answer within the time limit, or refused the whole.
            BatchError: It takes no batches, or not from these credentials.
        """
        table = operations[0].location.table
        own_client = self._given is None
        client = await self._ready(table.name)
        gets = [operation for operation in operations if isinstance(operation, Get)]
        if gets:
            reading = batches.read(client, gets, own_client=own_client)
            return await self._answered("BatchGetItem", table.name, reading)
        if not self._probed:
            await self._answered("BatchExecuteStatement", table.name, batches.probe(client, table))
            self._probed = True
        writing = batches.write(client, operations, own_client=own_client)
        return await self._answered("BatchExecuteStatement", table.name, writing)

    async def create_table(self, table: Table) -> None:
        """Create the table (on demand, TTL on its expiration), and wait until it can be used.

        A table that is there already keeps its settings, if its key fits; its TTL is turned on.

        Raises:
            ConfigurationError: A table of this name has another key, or TTL on another attribute.
        """
        client = await self._ready(table.name)
        await self._answered("CreateTable", table.name, tables.create(client, table), limit=CREATION_LIMIT)

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Read the names of a table's key attributes.

        Raises:
            StoreError: DynamoDB did not answer.
            ConfigurationError: There is no such table, or no permission to look at it.
        """
        client = await self._ready(table_name)
        return await self._answered("DescribeTable", table_name, tables.key_of(client, table_name))

    async def count(self, table: Table, partition: str, *, now: float) -> int:
        """Count the records of one partition that have not expired, by queries; each has the time limit.

        Raises:
            StoreError: DynamoDB did not answer.
            ConfigurationError: It refused because of the table's name, its key, or permissions.
        """
        client = await self._ready(table.name)
        counted, after = 0, None
        while True:
            counting = tables.count(client, table, partition, now=now, after=after)
            page, after = await self._answered("Query", table.name, counting)
            counted += page
            if after is None:
                return counted

    async def aclose(self) -> None:
        """Close the running loop's client, if the backend opened it. A later call opens a new one."""
        await self._own.aclose()

    async def _ready(self, table_name: str) -> Any:
        """Have a client; opening one has a time limit of its own."""
        client = self._given or self._own.opened()
        if client is not None:
            return client
        return await self._answered("opening a client", table_name, self._own.open(), limit=OPENING_LIMIT)

    async def _answered(self, operation: str, table_name: str, call: Awaitable[T], *, limit: float | None = None) -> T:
        """Bound a call in time, and turn what botocore raises into the library's errors."""
        seconds = self.time_limit if limit is None else limit
        try:
            async with asyncio.timeout(seconds):
                return await call
        except errors.RAISED as error:
            raise errors.translated(error, operation, table_name, seconds=seconds) from error

    def __repr__(self) -> str:
        whose = "the caller's" if self._given is not None else "open" if self._own.is_open else "not open"
        return f"<DynamoDBBackend: client {whose}>"
