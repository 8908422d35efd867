"""The backend on DynamoDB. Each operation is one request through an aiobotocore client, within a time limit.

A write may be sent again although already applied: by botocore's retries, and here. The repetition is safe, because
an owner recognises its own write (`protocol`, rule 1).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from typing import Any, Final, TypeVar, final

from botocore.exceptions import ClientError

from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PerLoop
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.model import Item, Table
from aioidempotency._core.operations import Delete, Get, Operation, Put, Reply, Transact, Update
from aioidempotency.backends.dynamodb import answers, batches, checks, credentials, errors, requests, tables
from aioidempotency.backends.dynamodb.answers import NoAnswerError
from aioidempotency.backends.dynamodb.batches import Outcome
from aioidempotency.backends.dynamodb.client import Call, Config, DynamoDBClient, OwnClients, Session, send
from aioidempotency.backends.dynamodb.room import Room
from aioidempotency.exceptions import ConfigurationError, IdempotencyError

T = TypeVar("T")

OPENING_LIMIT: Final = 10.0
"""Seconds to open a client. The first client reads botocore's models, and may have to fetch credentials."""

CREATION_LIMIT: Final = 120.0
"""Seconds to create a table."""

CONFLICT_PAUSES: Final = (0.05, 0.8)
"""Seconds of the first and of the longest pause before a request in conflict with a transaction is sent again."""

CONFLICT_TRIES: Final = 5
"""The most repetitions after a conflict, which DynamoDB did not apply and no retry mode of botocore repeats."""

NO_ANSWER_TRIES: Final = 2
"""The most repetitions after a response that is no answer: as many as botocore makes after a broken connection."""

OF_OWNERS: Final = (Update, Delete)
"""Completions, renewals and releases: only an owner updates or deletes a record."""

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
    """Executes operations on DynamoDB, or on any engine with the same API.

    ```python
    from aioidempotency import AsyncIdempotencyStore, DynamoDBBackend

    backend = DynamoDBBackend(region_name="eu-central-1", time_limit=5.0)
    store = AsyncIdempotencyStore("idempotency", backend=backend)
    await store.create_table()
    assert await store.get("order-1") is None
    await backend.aclose()  # a store never closes a given backend
    ```

    Without `client=`, the backend opens a client at the first call, one for each event loop. `aclose` closes
    the client of the running loop.

    Args:
        client: An open aiobotocore client, instead of the settings below. The backend never closes the client.
        time_limit: Seconds for one operation, retries included.

    Raises:
        ConfigurationError: An argument is of a wrong kind, or `client=` is given together with settings of a client.
            `client=` takes an open client of aiobotocore for DynamoDB, or an object with the client's operations.
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
            raise ConfigurationError(f"client= has settings of its own; leave {names} out, or client=")
        if client is not None:
            checks.check_client(client)
        if session is not None:
            checks.check_session(session)
        if config is not None:
            checks.check_config(config)
        checks.check_address(endpoint_url, region_name)
        checks.check_time_limit(time_limit)
        self.time_limit = time_limit
        self._given = client
        answers.watch(client)
        credentials.watch(client)
        self._own = OwnClients(
            session, config, endpoint_url=endpoint_url, region_name=region_name, time_limit=time_limit
        )
        self._probed = False
        self._rooms: PerLoop[Room] = PerLoop(lambda: Room.of(self._given or self._own.opened()))

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation.

        Raises:
            StoreError: DynamoDB did not answer within the time limit, or refused for a temporary reason.
            ConfigurationError: The table's name, the table's key or the permissions do not fit.
        """
        # Every call of the library passes here, so the body of `_answered` is repeated inline.
        client: Any = self._given or self._own.opened() or await self._ready(operation.location.table.name)
        room: Room | None = None
        try:
            async with asyncio.timeout(self.time_limit):
                # Owners never wait for claims: see `room`. A transaction of an owner begins with an update, and a
                # release may leave a record behind.
                first = operation.writes[0] if isinstance(operation, Transact) else operation
                if not (
                    isinstance(first, OF_OWNERS) or (isinstance(first, Put) and isinstance(first.condition, HeldBy))
                ):
                    of_loop = self._rooms[asyncio.get_running_loop()]
                    if of_loop.free > 0:
                        of_loop.free -= 1
                    else:
                        await of_loop.wait()
                    room = of_loop
                return await self._send(client, operation)
        except errors.RAISED as error:
            raise self._translated(error, *errors.subject(operation), self.time_limit) from errors.cause(error)
        finally:
            if room is not None:
                if room.waiting:
                    room.leave()
                else:
                    room.free += 1

    async def _send(self, client: Any, operation: Operation) -> Reply:
        """Send an operation, and repeat the send after a conflict with a transaction, or without an answer."""
        request = requests.request(operation)
        call: Call = getattr(client, _METHODS[request.operation])
        backoff: Backoff | None = None
        while True:
            try:
                # botocore adds a token to the parameters of a transaction, so only botocore can write the body.
                if self._given is None and not isinstance(operation, Transact):
                    response = await send(call, request.operation, request.parameters)
                else:
                    response = await call(**request.parameters)
                return requests.reply(operation, response)
            except NoAnswerError:
                backoff = backoff or Backoff(*CONFLICT_PAUSES, tries=NO_ANSWER_TRIES)
                pause = backoff.next(asyncio.get_running_loop().time())
                if pause is None:
                    raise
            except ClientError as error:
                refused = requests.refusal(operation, errors.code(error), error.response)
                # A failed condition is a reply at once. A failure for a temporary reason is a reply, or an error,
                # only after the last attempt.
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
            # Outside the handler: a cancellation raised here must not carry DynamoDB's words as context, because
            # they may hold data.
            await asyncio.sleep(pause)

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Execute operations on different items of one table, all reads or all writes, each independently.

        Raises:
            StoreError: DynamoDB did not answer within the time limit, or is throttled.
            BatchError: The engine takes no batches, or the permissions are missing.
        """
        table = operations[0].location.table
        own_client = self._given is None
        client = await self._ready(table.name)
        gets = [operation for operation in operations if isinstance(operation, Get)]
        if gets:
            reading = batches.read(client, gets, own_client=own_client)
            return await self._answered("BatchGetItem", table.name, reading)
        if not self._probed:
            probing = batches.probe(client, table, own_client=own_client)
            doubt = await self._answered("BatchExecuteStatement", table.name, probing)
            if doubt is not None:
                return [doubt for _ in operations]
            self._probed = True
        writing = batches.write(client, operations, own_client=own_client)
        return await self._answered("BatchExecuteStatement", table.name, writing)

    async def create_table(self, table: Table) -> bool:
        """Create the table (on demand, TTL on the expiration), and wait until the table is usable.

        An existing table with a fitting key keeps its settings, and gets a TTL.

        Returns:
            Whether the table has a TTL. False on an engine without one, where expired records stay.

        Raises:
            StoreError: DynamoDB did not answer within 120 s.
            ConfigurationError: A table of this name has another key, or a TTL on another attribute.
        """
        client = await self._ready(table.name)
        return await self._answered("CreateTable", table.name, tables.create(client, table), limit=CREATION_LIMIT)

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Read the names of a table's key attributes.

        Raises:
            StoreError: DynamoDB did not answer.
            ConfigurationError: There is no such table, or no permission to describe the table.
        """
        client = await self._ready(table_name)
        return await self._answered("DescribeTable", table_name, tables.key_of(client, table_name))

    async def count(self, table: Table, partition: str, *, now: float) -> int:
        """Count the unexpired records of one partition, by queries. Each query has the time limit.

        Raises:
            StoreError: DynamoDB did not answer.
            ConfigurationError: The table's name, the table's key or the permissions do not fit.
        """
        client = await self._ready(table.name)
        counted, after = 0, None
        while True:
            counting = tables.count(client, table, partition, now=now, after=after)
            page, after = await self._answered("Query", table.name, counting)
            counted += page
            if after is None:
                return counted

    async def keys(self, table: Table, partition: str, *, now: float) -> AsyncGenerator[list[str], None]:
        """List the sort keys of one partition's unexpired records, a page of a query at a time.

        The errors are those of `count`.
        """
        client = await self._ready(table.name)
        after: Item | None = None
        while True:
            listing = tables.keys(client, table, partition, now=now, after=after)
            page, after = await self._answered("Query", table.name, listing)
            yield page
            if after is None:
                return

    async def aclose(self) -> None:
        """Close the running loop's client, if opened by the backend. A later call opens a new client."""
        self._rooms.pop(asyncio.get_running_loop(), None)
        await self._own.aclose()

    async def _ready(self, table_name: str) -> Any:
        """Return a client. Opening a client has a time limit of its own."""
        client = self._given or self._own.opened()
        if client is not None:
            return client
        return await self._answered("opening a client", table_name, self._own.open(), limit=OPENING_LIMIT)

    async def _answered(self, operation: str, table_name: str, call: Awaitable[T], *, limit: float | None = None) -> T:
        """Limit the time of a call, and translate botocore's errors into the library's."""
        seconds = self.time_limit if limit is None else limit
        try:
            async with asyncio.timeout(seconds):
                return await call
        except errors.RAISED as error:
            raise self._translated(error, operation, table_name, seconds) from errors.cause(error)

    def _translated(self, error: Exception, operation: str, table_name: str, seconds: float) -> IdempotencyError:
        """Translate an exception of a client's call. The caller's client may have been closed, or belong elsewhere."""
        if self._given is not None and not isinstance(error, ClientError):
            trouble = checks.trouble_of(self._given, error)
            if trouble is not None:
                return ConfigurationError(trouble)
        return errors.translated(error, operation, table_name, seconds=seconds)

    def __repr__(self) -> str:
        whose = "the caller's" if self._given is not None else "open" if self._own.is_open else "not open"
        return f"<DynamoDBBackend: client {whose}>"
