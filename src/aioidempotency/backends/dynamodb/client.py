"""The clients opened by the library: one for each event loop, tuned for many small calls.

botocore's serializer walks every value of a request. The library's parameters are already in DynamoDB's wire format,
and the JSON encoder of `msgspec` writes them in a hundredth of the time (0.25 instead of 25 microseconds for a
statement). So `ClientTransport` puts the body into botocore's event `before-call`, ahead of signing and retries, which
stay botocore's. A client given by the caller is called in the ordinary way.

The body travels in a context variable, and names the operation that the body was made for. While a call is under way,
botocore may send other requests in the same context, such as `DescribeEndpoints`.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any, ClassVar, Final, final

from botocore.exceptions import ConfigParseError

from aioidempotency._concurrency import PerLoop, running_loop
from aioidempotency.backends.dynamodb import answers, credentials, early
from aioidempotency.backends.dynamodb.arguments import Call, Config, Session
from aioidempotency.backends.dynamodb.borrowed import obstacle
from aioidempotency.backends.dynamodb.configuration import Configuration
from aioidempotency.backends.dynamodb.early import EarlyClient
from aioidempotency.backends.dynamodb.lean import LeanTransport
from aioidempotency.backends.dynamodb.transport import Choice, Transport, encode
from aioidempotency.exceptions import ConfigurationError

_body: Final[ContextVar[tuple[str, bytes] | None]] = ContextVar("aioidempotency_request_body", default=None)
"""The operation's name and the body of the request that this context is about to send."""

_KIND_OF_START: Final = "AWS_LAMBDA_INITIALIZATION_TYPE"
"""The environment variable by which AWS Lambda says why it starts a process."""

METHODS: Final = {
    "GetItem": "get_item",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
    "DeleteItem": "delete_item",
    "TransactWriteItems": "transact_write_items",
    "TransactGetItems": "transact_get_items",
    "Query": "query",
    "BatchExecuteStatement": "batch_execute_statement",
    "BatchGetItem": "batch_get_item",
}
"""The client's method for each request of a transport."""


@final
class OwnClients:
    """The clients opened by one backend, one for each event loop, and what sends by them.

    Args:
        fell_back: Called with the reason when `auto` takes the client.
    """

    def __init__(
        self,
        session: Session | None,
        config: Config | None,
        *,
        endpoint_url: str | None,
        region_name: str | None,
        time_limit: float,
        transport: Choice,
        fell_back: Callable[[str], object],
    ) -> None:
        self._transport = transport
        self._fell_back = fell_back
        self._session = session
        self._early_session: Any = None
        self._config = Configuration(time_limit, config)
        self._options = {"endpoint_url": endpoint_url, "region_name": region_name}
        # A client is bound to one event loop: a connection from another loop fails, or hangs.
        self._connections: PerLoop[_Connection] = PerLoop(_Connection)
        if os.environ.get(_KIND_OF_START) == "snap-start":
            # The snapshot keeps what is loaded by now, and a restored process needs aiobotocore: it has no credentials
            # in its environment variables.
            self._aio_session()

    def opened(self) -> Transport | None:
        """Find the running loop's transport. None before `open`."""
        try:  # in line: a function would be one more frame for each call
            return self._connections[asyncio.get_running_loop()].transport
        except RuntimeError:
            running_loop()  # says what is wrong
            raise

    async def open(self) -> Transport:
        """Open the running loop's transport, only once for any number of tasks.

        Raises:
            ConfigurationError: botocore cannot make a client with these settings, or `lean` cannot serve the client.
        """
        connection = self._connections[running_loop()]
        async with connection.lock:
            if connection.transport is None:
                connection.transport = await self._begun(connection) or await self._by_client(connection)
            return connection.transport

    async def _begun(self, connection: "_Connection") -> Transport | None:
        """Begin without aiobotocore, by a client of botocore's own. None where aiobotocore's is needed, see `early`."""
        if self._session is not None or self._transport == "client" or not early.is_possible():
            return None
        self._early_session = self._early_session or early.session()

        async def full() -> Transport:
            async with connection.lock:
                if connection.client is None or connection.transport is None:
                    connection.transport = await self._by_client(connection)
                return connection.transport

        client = early.client(self._early_session, self._config, full, **self._options)
        if client is None or obstacle(client) is not None:
            return None
        lean = LeanTransport(client, lambda _: Following(client))
        connection.resources.push_async_callback(lean.aclose)
        await self._guarded(connection)
        return lean

    async def _by_client(self, connection: "_Connection") -> Transport:
        """Open aiobotocore's client, and choose what sends."""
        creating = self._aio_session().create_client("dynamodb", config=self._config.aio(), **self._options)
        try:
            connection.client = await connection.resources.enter_async_context(creating)
        except (ValueError, ConfigParseError) as error:
            trouble = f"no client could be made: {error}; check region_name=, endpoint_url= and AWS's own settings"
            raise ConfigurationError(trouble) from error
        connection.client.meta.events.register("before-call.dynamodb", _replace_body)
        answers.watch(connection.client)
        credentials.watch(connection.client)
        guard = await self._guarded(connection)
        try:
            return self._chosen(connection)
        except ConfigurationError:
            await guard.aclose()
            raise

    def _aio_session(self) -> Session:
        if self._session is None:
            from aiobotocore.session import get_session  # noqa: PLC0415 - loads aiohttp, and a system's authorities

            self._session = get_session()
        return self._session

    def _chosen(self, connection: "_Connection") -> Transport:
        """Choose the transport of an open client."""

        def instead(reason: str) -> Transport:
            if self._transport == "lean":
                raise ConfigurationError(
                    f'transport="lean" cannot serve this client: {reason}; take "auto" or "client"'
                )
            self._fell_back(reason)
            connection.transport = ClientTransport(connection.client)
            return connection.transport

        if self._transport == "client":
            return ClientTransport(connection.client)
        if (reason := obstacle(connection.client)) is not None:
            return instead(reason)
        lean = LeanTransport(connection.client, instead)
        connection.resources.push_async_callback(lean.aclose)
        return lean

    async def aclose(self) -> None:
        """Close the running loop's client."""
        connection = self._connections.pop(asyncio.get_running_loop(), None)
        if connection is None:
            return
        # Another task may be opening the client, and has the lock until the client can be closed.
        async with connection.lock:
            if connection.guard is not None:
                await connection.guard.aclose()

    async def _guarded(self, connection: "_Connection") -> AsyncGenerator[None]:
        # asyncio closes the generators of a loop that ends: so one closes the client, where nobody does.
        if connection.guard is None:
            connection.guard = self._guard(connection)
            await anext(connection.guard)
        return connection.guard

    async def _guard(self, connection: "_Connection") -> AsyncGenerator[None]:
        """Close a client when this generator is closed: by `aclose`, or with the loop, by `asyncio.run`."""
        try:
            yield
        finally:
            connection.client = connection.transport = connection.guard = None
            await connection.resources.aclose()

    @property
    def is_open(self) -> bool:
        """Whether any live event loop has an open client."""
        return any(each.transport is not None for loop, each in self._connections.items() if not loop.is_closed())


@final
class _Connection:
    """The client of one event loop, with its lock and its resources."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.resources = AsyncExitStack()
        self.client: Any = None
        self.transport: Transport | None = None
        self.guard: AsyncGenerator[None] | None = None


@final
class Following:
    """Sends by what follows on an early client: the client of aiobotocore, or the lean transport on it."""

    takes_bodies: ClassVar[bool] = True

    def __init__(self, client: EarlyClient) -> None:
        self.client = client

    async def send(self, operation: str, parameters: Mapping[str, Any], body: bytes | None = None) -> Mapping[str, Any]:
        """Send a request."""
        following = await self.client.full()
        return await following.send(operation, parameters, body)


@final
class ClientTransport:
    """Sends requests by an aiobotocore client that the library has opened, with bodies of the library's."""

    takes_bodies: ClassVar[bool] = True

    def __init__(self, client: Any) -> None:
        self.client = client

    def send(
        self, operation: str, parameters: Mapping[str, Any], body: bytes | None = None
    ) -> Awaitable[Mapping[str, Any]]:
        """Send a request. A response that is no answer is marked, see `answers`.

        Raises:
            ClientError: DynamoDB refused the request.
            BotoCoreError: There was no answer.
        """
        call: Call = getattr(self.client, METHODS[operation])
        return _send(call, operation, encode(parameters) if body is None else body, _routing(parameters))


async def _send(call: Call, operation: str, body: bytes, routing: Mapping[str, object]) -> Mapping[str, Any]:
    """Call an operation of a client opened by the library, with a body.

    Args:
        routing: The parameters that botocore's endpoint rules need.
    """
    written = _body.set((operation, body))
    try:
        return await call(**routing)
    finally:
        # A later call in this task without a body of ours, such as DescribeTable, would else send this body.
        _body.reset(written)


def _routing(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Keep only the names of tables. botocore's endpoint rules need the names."""
    if "TableName" in parameters:
        return {"TableName": parameters["TableName"]}
    if "TransactItems" in parameters:
        parts: Sequence[Mapping[str, Any]] = parameters["TransactItems"]
        named = [{kind: {"TableName": each["TableName"]} for kind, each in part.items()} for part in parts]
        return {"TransactItems": named}
    tables: Mapping[str, Any] = parameters.get("RequestItems", {})
    return {"RequestItems": {name: {} for name in tables}} if tables else {}


def _replace_body(params: dict[str, Any], model: Any, **_: object) -> None:
    made = _body.get()
    if made is not None and made[0] == model.name:
        params["body"] = made[1]
