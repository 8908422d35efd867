"""Kept connections that carry one HTTP/1.1 request at a time, for one event loop.

Invariants:

1. A connection carries at most one request. A request that was given up, for whatever reason, closes its connection:
   an answer that comes late is never taken for the answer to the next request.
2. A connection is used again only after a whole answer that allows it, and without a byte behind that answer.
3. Each connection, open or being opened, holds one of `limit` slots. A slot that is freed while callers wait goes to
   the caller that waits the longest, together with the connection if it may be used again. So while anyone waits, no
   connection is idle and no slot is free.
4. One timer for each loop serves all time limits. It ends with the last connection.
5. A forked process has copies of the sockets. It must neither use nor close them: the loops of both processes may
   share what watches the sockets.
"""

import asyncio
import select
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple, cast, final

import httptools
from aiohappyeyeballs import start_connection
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)

from aioidempotency._concurrency import PROCESS

LARGEST_HEAD: Final = 64 * 1024
"""The most bytes of a response's head. DynamoDB's heads have about 300."""

LARGEST_BODY: Final = 64 * 1024 * 1024
"""The most bytes of a response's body. DynamoDB's answers end at 16 MB."""

SWEEP_INTERVAL: Final = 0.25
"""The most seconds between two looks at the time limits."""

SURELY_OPEN: Final = 1.0
"""Seconds after an answer during which a connection is used again without a look at its socket."""

CLOSING_LIMIT: Final = 1.0
"""Seconds that `aclose` waits for the end of its connections."""

HEAD_START: Final = 0.25
"""Seconds after which a host's next address is tried as well."""

ADDRESSES_HOLD: Final = 10.0
"""Seconds for which a host's addresses are used again, as in aiohttp."""

_FIRST_FINAL: Final = 200
"""The lowest status of a final response."""

_INHERITED: Final[list[object]] = []
"""Connections of the process that this one was forked from. Collecting them would close them."""


@final
class Origin(NamedTuple):
    """Where a connection leads to."""

    host: str
    port: int
    secure: bool

    @property
    def url(self) -> str:
        """The URL, for errors."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}/"


@final
class Response(NamedTuple):
    """A whole response.

    Attributes:
        headers: Names as received, and values.
        body: The body as received, which may be compressed.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    # The body holds items.
    def __repr__(self) -> str:
        return f"<Response {self.status}>"


@final
class Connection(asyncio.Protocol):
    """One connection. Reads one response for each request.

    Attributes:
        since: The loop's time of the last byte, or of the request.
        waiter: The response to the request under way, or to the last one. None before the first request.
    """

    __slots__ = (
        "_body", "_headed", "_headers", "_loop", "_parser", "_pool", "_reusable", "_size", "_transport", "origin",
        "since", "waiter",
    )  # fmt: skip

    def __init__(self, pool: "Connections", origin: Origin) -> None:
        self.origin = origin
        self.since = 0.0
        self.waiter: asyncio.Future[Response] | None = None
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._reusable = True
        self._headed = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0

    def exchange(self, request: bytes) -> asyncio.Future[Response]:
        """Send a request. The future gets the response, or an error."""
        transport = self._transport
        assert transport is not None  # noqa: S101 - a connection is made before it is used
        waiter = self.waiter = self._loop.create_future()
        self.since = self._loop.time()
        transport.write(request)
        return waiter

    def is_free(self) -> bool:
        """Tell whether another request may use the connection after this one."""
        transport = self._transport
        return (
            self._reusable
            and transport is not None
            and not transport.is_closing()
            # A response that came before the end of its request leaves a rest of the request behind.
            and not transport.get_write_buffer_size()
        )

    def has_ended(self, keep: float) -> bool:
        """Tell whether an idle connection was closed by the other side, or was idle too long."""
        if not self.is_free():
            return True
        idle = self._loop.time() - self.since
        if idle <= SURELY_OPEN:
            return False
        # The other side may have closed while this loop did nothing, as in a frozen AWS Lambda. The loop reads the end
        # of the stream only after the task that is running now.
        return idle > keep or _is_readable(cast("asyncio.Transport", self._transport))

    def abort(self) -> None:
        """Close without waiting."""
        self._reusable = False
        if self._transport is not None:
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """End the request under way with an error, and close."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(error)
        self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._pool.live.add(self)

    def data_received(self, data: bytes) -> None:
        """Read a part of a response."""
        waiter = self.waiter
        if waiter is None or waiter.done():
            # Nobody asked.
            self.abort()
            return
        self.since = self._loop.time()
        try:
            if not self._headed:
                self._size += len(data)
                # The head may end in this part. So only what surely belongs to the head counts.
                if self._size > LARGEST_HEAD and data.find(b"\r\n\r\n", 0, LARGEST_HEAD) < 0:
                    raise _TooLargeError  # noqa: TRY301 - one way out
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, _TooLargeError) as error:
            self._reusable = False
            cause = error.__context__ or error
            if isinstance(cause, _TooLargeError):
                self.fail(HTTPClientError(error="the response is larger than any of DynamoDB's"))
            else:
                self.fail(self._broken(error))

    def eof_received(self) -> None:
        """End a response without a length, whose end is that of the connection."""
        self._reusable = False
        lengths = {b"content-length", b"transfer-encoding"}
        if self._headed and lengths.isdisjoint(name.lower() for name, _ in self._headers):
            self.on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request under way."""
        self._reusable = False
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_exception(self._broken(exc))
        self._pool.lost(self)

    # What httptools calls.

    def on_message_begin(self) -> None:
        """Begin a response. A second one behind it was not asked for."""
        if self.waiter is None or self.waiter.done():
            self._reusable = False
        self._headed = False
        self._headers = []
        self._body = []
        self._size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin the body."""
        self._headed = True
        self._size = 0

    def on_body(self, body: bytes) -> None:
        """Collect a part of the body."""
        self._size += len(body)
        if self._size > LARGEST_BODY:
            raise _TooLargeError
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer the request."""
        waiter, parser = self.waiter, self._parser
        if waiter is None or waiter.done():
            return
        status = parser.get_status_code()
        if status < _FIRST_FINAL:
            # Nothing was asked for that a response before the response could answer.
            self._reusable = False
            waiter.set_exception(self._broken(None))
            return
        if not parser.should_keep_alive():
            self._reusable = False
        body = self._body
        waiter.set_result(Response(status, self._headers, body[0] if len(body) == 1 else b"".join(body)))

    def _broken(self, error: BaseException | None) -> ConnectionClosedError:
        return ConnectionClosedError(endpoint_url=self.origin.url, error=error)


@final
class Connections:
    """The connections of one event loop.

    Attributes:
        closed: Whether `aclose` was called.
        live: The connections with a socket, also those that nobody may use any more.

    Args:
        limit: The most connections, as in `max_pool_connections`.
        connect_timeout: Seconds to connect, TLS included and the look-up of the name not. None is no limit.
        read_timeout: Seconds between two parts of a response. None is no limit.
        keep: Seconds that an idle connection is kept.
        tls: Makes the TLS settings.
    """

    def __init__(
        self,
        *,
        limit: int,
        connect_timeout: float | None,
        read_timeout: float | None,
        keep: float,
        tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        self.closed = False
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._keep = keep
        self._tls = tls
        self._addresses: dict[Origin, tuple[float, list[Any]]] = {}
        self._resolving = asyncio.Lock()
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._interval = min(SWEEP_INTERVAL, (read_timeout or 1.0) / 4)
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._was_late = False
        self._ended: asyncio.Future[None] | None = None
        self._begin()

    def _begin(self) -> None:
        self._forks = PROCESS.forks
        self._free = self._limit
        self._all: set[Connection] = set()
        self.live: set[Connection] = set()
        self._idle: dict[Origin, list[Connection]] = {}
        self._waiting: deque[tuple[asyncio.Future[Connection | None], Origin]] = deque()

    async def exchange(self, origin: Origin, request: bytes) -> Response:
        """Send a request and return the response.

        Raises:
            ConnectionError: botocore's, where no connection could be made.
            HTTPClientError: The connection ended before the end of the response, or the response is none.
        """
        if self._forks != PROCESS.forks:
            _INHERITED.append(self.live)
            self._begin()
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if not connection.has_ended(self._keep):
                break
            self._drop(connection)
        else:
            connection = await self._opened(origin)
        waiter = connection.exchange(request)
        try:
            response = await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                waiter.exception()  # both came at once: the cancellation is raised, and the other error is told to none
            self._drop(connection)
            raise
        if self._waiting or not connection.is_free():
            self._pass_on(connection)
        else:
            # The list may be another one by now.
            self._idle.setdefault(origin, []).append(connection)
        return response

    async def aclose(self) -> None:
        """Close all connections. Requests under way fail."""
        self.closed = True
        for turn, origin in self._waiting:
            if not turn.done():
                turn.set_exception(ConnectionClosedError(endpoint_url=origin.url))
        self._waiting.clear()
        ending = list(self._all)
        for connection in ending:
            connection.fail(ConnectionClosedError(endpoint_url=connection.origin.url))
        # A transport that does not learn its end before the end of the loop warns of an open socket.
        if self.live:
            self._ended = self._loop.create_future()
            await asyncio.wait([self._ended], timeout=CLOSING_LIMIT)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def lost(self, connection: Connection) -> None:
        """Take note that a connection has ended."""
        self.live.discard(connection)
        if not self.live and self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if connection not in self._all:
            return
        self._all.discard(connection)
        idle = self._idle.get(connection.origin, [])
        if connection in idle:
            idle.remove(connection)
        self._give_slot()

    async def _opened(self, origin: Origin) -> Connection:
        """Open a connection, or wait for one."""
        if self.closed:
            raise ConnectionClosedError(endpoint_url=origin.url)
        if not self._free:
            self._evict()
        if self._free:
            self._free -= 1
        else:
            turn: asyncio.Future[Connection | None] = self._loop.create_future()
            self._waiting.append((turn, origin))
            try:
                given = await turn
            except asyncio.CancelledError:
                # The turn may have come at the same moment: it is passed on.
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    given = turn.result()
                    if given is None:
                        self._give_slot()
                    else:
                        self._pass_on(given)
                raise
            if given is not None:
                if given.is_free():
                    return given
                given.abort()
                if given not in self._all:
                    # Its end has given the slot away.
                    return await self._opened(origin)
                self._all.discard(given)
        return await self._connected(origin)

    async def _connected(self, origin: Origin) -> Connection:
        """Connect. The slot is the caller's."""
        connection = Connection(self, origin)
        try:
            context = await self._tls() if origin.secure else None
            name = origin.host if origin.secure else None
            addresses = await self._resolved(origin)
            async with asyncio.timeout(self._connect_timeout):
                # asyncio's own race between addresses loses sockets when cancelled, and uvloop has none.
                sock = await start_connection(addresses, happy_eyeballs_delay=HEAD_START, interleave=1, loop=self._loop)
                await self._loop.create_connection(lambda: connection, sock=sock, ssl=context, server_hostname=name)
            if self.closed:
                raise ConnectionClosedError(endpoint_url=origin.url)  # noqa: TRY301 - one way out
        except BaseException as error:
            connection.abort()
            self._give_slot()
            if isinstance(error, TimeoutError):
                raise ConnectTimeoutError(endpoint_url=origin.url, error=error) from error
            if isinstance(error, ssl.SSLError):
                raise SSLError(endpoint_url=origin.url, error=error) from error
            if isinstance(error, OSError):
                raise EndpointConnectionError(endpoint_url=origin.url, error=error) from error
            raise
        self._all.add(connection)
        if self._timer is None:
            self._sweep_later()
        return connection

    async def _resolved(self, origin: Origin) -> list[Any]:
        """Look up the addresses of a host, once for all connections that are being opened."""
        with suppress(socket.gaierror):
            # Digits need no look-up, which would take a thread.
            return socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        async with self._resolving:
            known = self._addresses.get(origin)
            if known is None or known[0] < self._loop.time():
                found = await self._loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
                known = self._addresses[origin] = self._loop.time() + ADDRESSES_HOLD, found
            return known[1]

    def _pass_on(self, connection: Connection) -> None:
        """Give a connection to the caller that waits the longest, if it may be used again, or its slot."""
        if not connection.is_free():
            self._drop(connection)
            return
        while self._waiting:
            turn, origin = self._waiting.popleft()
            if turn.done():
                continue
            if origin == connection.origin:
                turn.set_result(connection)
            else:
                self._all.discard(connection)
                connection.abort()
                turn.set_result(None)
            return
        self._idle.setdefault(connection.origin, []).append(connection)

    def _drop(self, connection: Connection) -> None:
        """Close a connection, and give its slot away."""
        connection.abort()
        if connection in self._all:
            self._all.discard(connection)
            self._give_slot()

    def _give_slot(self) -> None:
        """Give a slot to the caller that waits the longest."""
        while self._waiting:
            turn, _ = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def _evict(self) -> None:
        """Close an idle connection to another origin."""
        for idle in self._idle.values():
            if idle:
                self._drop(idle.pop(0))
                return

    def _sweep(self) -> None:
        """End requests and idle connections whose time is over."""
        self._timer = None
        now = self._loop.time()
        limit = self._read_timeout
        if now > self._due + self._interval and not self._was_late:
            # The loop was busy with something else, and answers may have come meanwhile, which the loop reads next.
            self._was_late = True
            self._sweep_later()
            return
        self._was_late = False
        for connection in list(self._all):
            waiter = connection.waiter
            is_waiting = waiter is not None and not waiter.done()
            if is_waiting and limit is not None and now - connection.since > limit:
                connection.fail(ReadTimeoutError(endpoint_url=connection.origin.url))
        for idle in self._idle.values():
            while idle and now - idle[0].since > self._keep:
                self._drop(idle.pop(0))
        if self._all:
            self._sweep_later()

    def _sweep_later(self) -> None:
        self._due = self._loop.time() + self._interval
        self._timer = self._loop.call_at(self._due, self._sweep)


class _TooLargeError(Exception):
    """A head or a body is larger than any of DynamoDB's."""


def _is_readable(transport: asyncio.Transport) -> bool:
    """Tell whether an idle socket has something to read: its end, or bytes that nobody asked for."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() < 0:
        return True
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))
