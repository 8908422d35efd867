"""The backend on DynamoDB. Each operation is one request through an aiobotocore client, within a time limit.

A write may be sent again although already applied: by botocore's retries, and here. The repetition is safe, because
an owner recognises its own write (`protocol`, rule 1).
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar, cast, final, get_args
from uuid import uuid4

from botocore.exceptions import ClientError
from msgspec import Struct

from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PerLoop
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.model import Item, Table
from aioidempotency._core.operations import Delete, Get, Operation, Put, Reply, Transact, Update
from aioidempotency.backends.dynamodb import answers, batches, checks, credentials, errors, requests, tables
from aioidempotency.backends.dynamodb.answers import NoAnswerError
from aioidempotency.backends.dynamodb.arguments import Config, DynamoDBClient, Session
from aioidempotency.backends.dynamodb.batches import Outcome
from aioidempotency.backends.dynamodb.client import METHODS, OwnClients
from aioidempotency.backends.dynamodb.room import Room
from aioidempotency.backends.dynamodb.transport import DEFAULT, Choice, Transport
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


def _log(reason: str) -> None:
    logging.getLogger("aioidempotency").info("requests go through aiobotocore's client: %s", reason)


@final
class _GivenClient:
    """Sends requests by the caller's client, in the ordinary way: the client writes the bodies."""

    takes_bodies: ClassVar[bool] = False

    def __init__(self, client: Any) -> None:
        self.client = client

    def send(
        self,
        operation: str,
        parameters: Mapping[str, Any],
        body: bytes | None = None,  # noqa: ARG002 - the client writes its own
    ) -> Awaitable[Mapping[str, Any]]:
        """Send a request."""
        sending: Awaitable[Mapping[str, Any]] = getattr(self.client, METHODS[operation])(**parameters)
        return sending


@final
class Limited(Struct, eq=False):
    """One operation under the limit.

    Attributes:
        task: The task that runs the operation.
        ends: The loop's time at which the operation is over.
        cancelling: How many cancellations of the task were not taken back at the beginning.
        is_over: Whether the limit has cancelled the task.
    """

    task: "asyncio.Task[Any]"
    ends: float
    cancelling: int
    is_over: bool = False


@final
class TimeLimit:
    """The time limit of a backend's operations in the running event loop, with one timer.

    `asyncio.timeout` would make a timer for each operation, and leave it behind in the loop's heap. All operations of a backend have the same limit, so they are over in the order in which they
    began, and a timer for the oldest serves all.

    As with `asyncio.timeout`, an operation that is over is cancelled once, and who ends the operation takes that
    cancellation back. A cancellation by the caller passes, also if it comes at the same moment.

    Args:
        seconds: The time of one operation.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        # A dict for its order.
        self._under_way: dict[Limited, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Limited:
        """Begin an operation of the running task."""
        loop = self._loop
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("an operation has a time limit, and so runs inside a task")
        limited = Limited(task, loop.time() + self._seconds, task.cancelling())
        self._under_way[limited] = None
        if self._timer is None:
            self._timer = loop.call_at(limited.ends, self._look)
        return limited

    def end(self, limited: Limited) -> bool:
        """End an operation. Tell whether a cancellation that has ended the operation was the limit's alone."""
        self._under_way.pop(limited, None)
        if not limited.is_over:
            return False
        limited.is_over = False  # taken back once
        return limited.task.uncancel() <= limited.cancelling

    def _look(self) -> None:
        """Cancel the operations that are over, and look again when the oldest of the others is."""
        self._timer = None
        now = self._loop.time()
        for limited in tuple(self._under_way):
            if limited.ends > now:
                self._timer = self._loop.call_at(limited.ends, self._look)
                return
            del self._under_way[limited]
            limited.is_over = True
            limited.task.cancel()


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
        transport: What sends the requests. `"client"` is aiobotocore's client. `"lean"` signs and sends by itself, in less
            than a tenth of the processor time, and refuses what only the client can do, such as a proxy. `"auto"` is `"lean"`
            where possible, and else `"client"`. With `client=`, it is always the client.
        fell_back: Called with the reason when `"auto"` takes the client, once for each reason. The default logs.

    Raises:
        ConfigurationError: An argument is of a wrong kind, or `client=` is given together with settings of a client,
            or with `transport="lean"`. `client=` takes an open client of aiobotocore for DynamoDB, or an object with
            the client's operations.
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
        transport: Choice = DEFAULT,
        fell_back: Callable[[str], object] = _log,
    ) -> None:
        if transport not in get_args(Choice):
            raise ConfigurationError(f"transport= is {' or '.join(map(repr, get_args(Choice)))}: not {transport!r}")
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
        if client is not None and transport == "lean":
            raise ConfigurationError('client= sends by itself: leave transport="lean" out, or client=')
        self.time_limit = time_limit
        self._given = None if client is None else _GivenClient(client)
        answers.watch(client)
        told: set[str] = set()

        def tell_once(reason: str) -> None:
            # Each event loop has a client, and falls back for itself.
            if reason not in told:
                told.add(reason)
                fell_back(reason)

        credentials.watch(client)
        self._own = OwnClients(
            session,
            config,
            endpoint_url=endpoint_url,
            region_name=region_name,
            time_limit=time_limit,
            transport=transport,
            fell_back=tell_once,
        )
        self._probed = False
        self._rooms: PerLoop[Room] = PerLoop(self._room)
        self._limits: PerLoop[TimeLimit] = PerLoop(lambda: TimeLimit(time_limit))

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation.

        Raises:
            StoreError: DynamoDB did not answer within the time limit, or refused for a temporary reason.
            ConfigurationError: The table's name, the table's key or the permissions do not fit.
        """
        # Every call of the library passes here, so the body of `_answered` is repeated inline.
        transport = self._given or self._own.opened() or await self._ready(operation.location.table.name)
        room: Room | None = None
        loop = asyncio.get_running_loop()
        limit, limited = self._limits[loop], None
        try:
            # Owners never wait for claims: see `room`. A transaction of an owner begins with an update, and a
            # release may leave a record behind.
            first = operation.writes[0] if isinstance(operation, Transact) else operation
            if not (isinstance(first, OF_OWNERS) or (isinstance(first, Put) and isinstance(first.condition, HeldBy))):
                of_loop = self._rooms[loop]
                if of_loop.free > 0:
                    of_loop.free -= 1
                else:
                    await of_loop.wait()
                room = of_loop
            limited = limit.begin()
            reply = await self._send(transport, operation)
            if room is not None and room.waiting:
                room.answered()
            return reply  # noqa: TRY300 - an answer counts only here
        except asyncio.CancelledError as cancelled:
            if limited is None or not limit.end(limited):
                raise
            over = TimeoutError()
            over.__cause__ = cancelled
            raise self._translated(over, *errors.subject(operation), self.time_limit) from over
        except errors.RAISED as error:
            raise self._translated(error, *errors.subject(operation), self.time_limit) from errors.cause(error)
        finally:
            if limited is not None:
                limit.end(limited)
            if room is not None:
                if room.waiting:
                    room.leave()
                else:
                    room.free += 1

    async def _send(self, transport: Transport, operation: Operation) -> Reply:
        """Send an operation, and repeat the send after a conflict with a transaction, or without an answer."""
        request = requests.written(operation) if transport.takes_bodies else requests.request(operation)
        name, parameters, body = request.operation, request.parameters, request.body
        if isinstance(operation, Transact) and "ClientRequestToken" not in parameters:
            # One token for all attempts: a repetition of an applied transaction is answered as the first one would be.
            parameters = {**parameters, "ClientRequestToken": str(uuid4())}
        backoff: Backoff | None = None
        while True:
            try:
                return requests.reply(operation, await transport.send(name, parameters, body))
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
        transport = await self._ready(table.name)
        if isinstance(operations[0], Get):
            gets = [operation for operation in operations if isinstance(operation, Get)]
            reading = batches.read(transport, gets)
            return await self._answered("BatchGetItem", table.name, reading)
        if not self._probed:
            probing = batches.probe(transport, table)
            doubt = await self._answered("BatchExecuteStatement", table.name, probing)
            if doubt is not None:
                return [doubt for _ in operations]
            self._probed = True
        writing = batches.write(transport, cast("Sequence[Put | Update | Delete]", operations))
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
        client = (await self._ready(table.name)).client
        return await self._answered("CreateTable", table.name, tables.create(client, table), limit=CREATION_LIMIT)

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Read the names of a table's key attributes.

        Raises:
            StoreError: DynamoDB did not answer.
            ConfigurationError: There is no such table, or no permission to describe the table.
        """
        client = (await self._ready(table_name)).client
        return await self._answered("DescribeTable", table_name, tables.key_of(client, table_name))

    async def count(self, table: Table, partition: str, *, now: float) -> int:
        """Count the unexpired records of one partition, by queries. Each query has the time limit.

        Raises:
            StoreError: DynamoDB did not answer.
            ConfigurationError: The table's name, the table's key or the permissions do not fit.
        """
        client = (await self._ready(table.name)).client
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
        client = (await self._ready(table.name)).client
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

    def _room(self) -> Room:
        transport = self._given or self._own.opened()
        return Room.of(None if transport is None else transport.client, limit=self.time_limit)

    async def _ready(self, table_name: str) -> Transport:
        """Return a transport. Opening a client has a time limit of its own."""
        transport = self._given or self._own.opened()
        if transport is not None:
            return transport
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
            trouble = checks.trouble_of(self._given.client, error)
            if trouble is not None:
                return ConfigurationError(trouble)
        return errors.translated(error, operation, table_name, seconds=seconds)

    def __repr__(self) -> str:
        whose = "the caller's" if self._given is not None else "open" if self._own.is_open else "not open"
        return f"<DynamoDBBackend: client {whose}>"
