"""The clients opened by the library: one for each event loop, tuned for many small calls.

botocore's serializer walks every value of a request. The library's parameters are already in DynamoDB's wire format,
and the JSON encoder of `msgspec` writes them in a hundredth of the time (0.25 instead of 25 microseconds for a
statement). So `ClientTransport` puts the body into botocore's event `before-call`, ahead of signing and retries, which
stay botocore's. A client given by the caller is called in the ordinary way.

The body travels in a context variable, and names the operation that the body was made for. While a call is under way,
botocore may send other requests in the same context, such as `DescribeEndpoints`.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from contextvars import ContextVar
from importlib.metadata import version
from typing import Any, Final, Protocol, TypeAlias, final

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import ConfigParseError

from aioidempotency._concurrency import PerLoop, running_loop
from aioidempotency.backends.dynamodb import answers, credentials
from aioidempotency.backends.dynamodb.borrowed import obstacle
from aioidempotency.backends.dynamodb.lean import LeanTransport
from aioidempotency.backends.dynamodb.transport import Choice, Transport, encode
from aioidempotency.exceptions import ConfigurationError

Call = Callable[..., Awaitable[Mapping[str, Any]]]
Session: TypeAlias = AioSession

_body: Final[ContextVar[tuple[str, bytes] | None]] = ContextVar("aioidempotency_request_body", default=None)
"""The operation's name and the body of the request that this context is about to send."""

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


class DynamoDBClient(Protocol):
    """An open aiobotocore client for DynamoDB, reduced to the operations of the library."""

    @property
    def put_item(self) -> Call:
        """Send PutItem."""
        ...

    @property
    def get_item(self) -> Call:
        """Send GetItem."""
        ...

    @property
    def update_item(self) -> Call:
        """Send UpdateItem."""
        ...

    @property
    def delete_item(self) -> Call:
        """Send DeleteItem."""
        ...

    @property
    def transact_write_items(self) -> Call:
        """Send TransactWriteItems."""
        ...

    @property
    def transact_get_items(self) -> Call:
        """Send TransactGetItems."""
        ...


class Config(Protocol):
    """A botocore or aiobotocore configuration."""

    def merge(self, other_config: Any) -> Any:
        """Merge two configurations. The other one wins."""
        ...


@final
class OwnClients:
    """The clients opened by one backend, one for each event loop, and what sends by them.

    Args:
        fell_back: Called with the reason when `auto` takes the client.
    """

    def __init__(
        self,
        session: AioSession | None,
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
        self._session = session or get_session()
        self._config = tuned(time_limit) if config is None else merged(tuned(time_limit), config)
        self._options = {"endpoint_url": endpoint_url, "region_name": region_name}
        # A client is bound to one event loop: a connection from another loop fails, or hangs.
        self._connections: PerLoop[_Connection] = PerLoop(_Connection)

    def opened(self) -> Transport | None:
        """Find the running loop's transport. None before `open`."""
        try:  # in line: a function would be one more frame for each call
            return self._connections[asyncio.get_running_loop()].transport
        except RuntimeError:
            running_loop()  # says what is wrong
            raise

    async def open(self) -> Transport:
        """Open the running loop's client, only once for any number of tasks.

        Raises:
            ConfigurationError: botocore cannot make a client with these settings, or `lean` cannot serve the client.
        """
        connection = self._connections[running_loop()]
        async with connection.lock:
            if connection.transport is None:
                creating = self._session.create_client("dynamodb", config=self._config, **self._options)
                try:
                    connection.client = await connection.resources.enter_async_context(creating)
                except (ValueError, ConfigParseError) as error:
                    trouble = (
                        f"no client could be made: {error}; check region_name=, endpoint_url= and AWS's own settings"
                    )
                    raise ConfigurationError(trouble) from error
                connection.client.meta.events.register("before-call.dynamodb", _replace_body)
                answers.watch(connection.client)
                credentials.watch(connection.client)
                # asyncio closes the generators of a loop that ends: so one closes the client, where nobody does.
                connection.guard = self._guard(connection)
                await anext(connection.guard)
                try:
                    connection.transport = self._chosen(connection)
                except ConfigurationError:
                    await connection.guard.aclose()
                    raise
            return connection.transport

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

    async def _guard(self, connection: "_Connection") -> AsyncGenerator[None]:
        """Close a client when this generator is closed: by `aclose`, or with the loop, by `asyncio.run`."""
        try:
            yield
        finally:
            connection.client = connection.transport = None
            await connection.resources.aclose()

    @property
    def is_open(self) -> bool:
        """Whether any live event loop has an open client."""
        return any(each.transport is not None for loop, each in self._connections.items() if not loop.is_closed())


@final
class _Connection:
    """The client of one event loop, with its lock and its resources."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.resources = AsyncExitStack()
        self.client: Any = None
        self.transport: Transport | None = None
        self.guard: AsyncGenerator[None] | None = None


def tuned(time_limit: float) -> AioConfig:
    """Make the configuration of a client for many small calls.

    Parameter validation, and botocore's user agent, which is built twice in each call, take a fifth of the processor
    time of a call (477 instead of 613 microseconds, measured on two cores).
    """
    return AioConfig(
        parameter_validation=False,
        user_agent=f"aioidempotency/{version('aioidempotency')}",
        # botocore's ten connections would be a queue without a time limit.
        max_pool_connections=256,
        # Short enough for a second attempt within the time limit. botocore's own limit is 60 s.
        connect_timeout=min(1.0, time_limit / 3),
        read_timeout=min(3.0, time_limit / 3),
        # Not botocore's ten attempts in 25 s: the caller's time limit would end the call in the middle of a pause.
        retries={"mode": "standard", "total_max_attempts": 3},
        connector_args={"keepalive_timeout": 60},
    )


def merged(ours: AioConfig, given: Config) -> AioConfig:
    """Put the caller's configuration over the tuned one, member by member: one of `retries` leaves the others.

    `merge` of aiobotocore would take the caller's `retries` as a whole, and older versions ignore `connector_args`.
    """
    options, theirs = _options(ours), _options(given)
    # Two names of one setting, and botocore would take ours.
    if "max_attempts" in (theirs.get("retries") or {}):
        options["retries"] = {name: value for name, value in options["retries"].items() if name != "total_max_attempts"}
    return AioConfig(**_over(options, theirs))


def _options(config: Any) -> dict[str, Any]:
    """List the options of a configuration that were set."""
    options = dict(config._user_provided_options)  # noqa: SLF001 - botocore tells it nowhere else
    # aiobotocore before version 3 does not count its own options among them, and fills in defaults.
    if isinstance(config, AioConfig):
        usual = AioConfig()
        set_ones = {
            name: value for name, value in config.connector_args.items() if usual.connector_args.get(name) != value
        }
        options.setdefault("connector_args", set_ones)
        options.setdefault("http_session_cls", config.http_session_cls)
    return options


def _over(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings, and the mappings inside. Theirs win."""
    nested = {
        name: _over(ours[name], value)
        for name, value in theirs.items()
        if isinstance(value, Mapping) and isinstance(ours.get(name), Mapping)
    }
    return {**ours, **theirs, **nested}


@final
class ClientTransport:
    """Sends requests by an aiobotocore client that the library has opened, with bodies of the library's."""

    takes_bodies: Final = True

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
