"""A proxy in front of an engine that loses, delays and refuses on demand.

One task serves each client connection, and it alone writes to it.
A fault that lets the request through always reads the engine's whole answer first:
what the client never learns has happened nevertheless.
Plain HTTP/1.1 with ``Content-Length`` bodies is understood, nothing more.
"""

import asyncio
import enum
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Final, Self, final
from urllib.parse import urlsplit

_END_OF_HEAD: Final = b"\r\n\r\n"
_BACKLOG: Final = 1024
_DYNAMODB: Final = "com.amazonaws.dynamodb.v20120810"


class Fault(enum.Enum):
    """What can go wrong with one request.

    ``CUT``: applied, then the connection is closed without an answer.
    ``STALL``: applied, then nothing, until the client gives up or the proxy closes.
    ``ERROR_500``: applied, then answered with an internal error.
    ``REFUSE``: not applied, the connection is closed.
    ``THROTTLE``: not applied, answered with a throttling error.
    ``DENY``: not applied, answered with a missing permission.
    ``CONFLICT``: not applied, answered with a transaction's conflict.
    ``HOT_PARTITION``: not applied, answered with throttling of one partition.
    ``CANCELLED_BY_CONFLICT``: not applied, a transaction that another one was in the way of.
    ``CANCELLED_BY_BOTH``: not applied, in the way of its first part, and the condition of its second did not hold.
    ``CANCELLED_AS_INVALID``: not applied, a transaction with an invalid part.
    ``IN_PROGRESS``: not applied, a transaction whose token is another's that is under way.
    ``EFFECT_CONFLICTS``: not applied, a transaction that another one was in the way of at its second part.
    ``UNKNOWN_CREDENTIALS``, ``BAD_SIGNATURE``, ``EXPIRED``: not applied, answered with a refusal of the credentials.
    ``BREAK_DOWN``: not applied, answered with an internal error.
    ``UNKNOWN_OPERATION``: not applied, answered as by an engine that does not know the request.
    ``INVALID``: not applied, answered as a request that is not valid.
    ``DELAY``: applied when the proxy's ``release`` is called, even if the client has left.
    """

    CUT = enum.auto()
    STALL = enum.auto()
    ERROR_500 = enum.auto()
    REFUSE = enum.auto()
    THROTTLE = enum.auto()
    DENY = enum.auto()
    DELAY = enum.auto()
    CONFLICT = enum.auto()
    HOT_PARTITION = enum.auto()
    CANCELLED_BY_CONFLICT = enum.auto()
    CANCELLED_BY_BOTH = enum.auto()
    CANCELLED_AS_INVALID = enum.auto()
    UNKNOWN_CREDENTIALS = enum.auto()
    BAD_SIGNATURE = enum.auto()
    EXPIRED = enum.auto()
    IN_PROGRESS = enum.auto()
    EFFECT_CONFLICTS = enum.auto()
    BREAK_DOWN = enum.auto()
    UNKNOWN_OPERATION = enum.auto()
    INVALID = enum.auto()


@final
@dataclass(slots=True)
class Seen:
    """One request, in order of arrival.

    ``status`` is the engine's, not the client's: None until the engine has answered,
    and for good when the request was not forwarded.
    """

    operation: str
    body: dict[str, Any]
    fault: Fault | None
    status: int | None = None


@dataclass(slots=True, kw_only=True)
class _Rule:
    fault: Fault
    operation: str | None
    times: int
    skip: int

    def takes(self, operation: str) -> bool:
        if self.times == 0 or self.operation not in {None, operation}:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass(frozen=True, slots=True)
class _Message:
    start: str
    headers: dict[str, str]
    raw: bytes
    body: bytes

    @property
    def operation(self) -> str:
        return self.headers.get("x-amz-target", "").rpartition(".")[2]

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class FaultProxy:
    """Forwards to an engine, as ``async with FaultProxy(engine.endpoint_url) as proxy``.

    Point the client at ``url`` and look at ``requests`` afterwards.
    """

    def __init__(self, upstream_url: str) -> None:
        """Nothing listens before the block is entered."""
        self.requests: list[Seen] = []
        self.url = ""
        self.held = 0
        self._upstream = _Upstream(upstream_url)
        self._rules: list[_Rule] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._gate = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=_BACKLOG)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection; a held request is dropped, and a bug in here is raised."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._upstream.aclose()
        await self._server.wait_closed()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def inject(self, fault: Fault, *, operation: str | None = None, times: int = 1, skip: int = 0) -> None:
        """Let ``fault`` meet the next ``times`` requests, after sparing ``skip``.

        Only requests of ``operation``, such as ``PutItem``, unless it is None.
        A request meets one fault at most, the first injected one that wants it,
        and only requests that no earlier fault took count towards ``skip``.
        """
        self._rules.append(_Rule(fault=fault, operation=operation, times=times, skip=skip))

    def release(self) -> None:
        """Forward every request that is held now; later ones are held again."""
        self._gate.set()
        self._gate = asyncio.Event()
        self.held = 0

    async def wait_for(self, operation: str, count: int = 1) -> None:
        """Wait until the engine has answered ``count`` requests of the operation."""
        await self._until(lambda: self._answered(operation) >= count)

    async def wait_until_held(self, count: int = 1) -> None:
        """Wait until ``count`` requests are held by ``Fault.DELAY``."""
        await self._until(lambda: self.held >= count)

    def _answered(self, operation: str) -> int:
        return sum(seen.operation == operation and seen.status is not None for seen in self.requests)

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(holds)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._server.is_serving():
            writer.transport.abort()
            return
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client or an engine that leaves is an ordinary end of a connection.
            with suppress(ConnectionError):
                await self._answer_all(reader, writer)
        finally:
            await _drop(writer)

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read_message(reader)) is not None:
            answer = await self._answer(request, reader)
            if answer is None:
                return
            writer.write(answer)
            await writer.drain()

    async def _answer(self, request: _Message, reader: asyncio.StreamReader) -> bytes | None:
        """The bytes to send, or None to close the connection."""
        seen = self._note(request)
        if seen.fault is Fault.EFFECT_CONFLICTS:
            return _conflicts_at_the_second(len(seen.body["TransactItems"]))
        if seen.fault in _NOT_FORWARDED:
            return _NOT_FORWARDED[seen.fault]
        if seen.fault is Fault.DELAY:
            await self._hold()
        answer = await self._forward(request, seen)
        if seen.fault is Fault.STALL:
            await reader.read()
        if seen.fault in {Fault.CUT, Fault.STALL}:
            return None
        return _FAILED if seen.fault is Fault.ERROR_500 else answer

    def _note(self, request: _Message) -> Seen:
        operation = request.operation
        fault = next((rule.fault for rule in self._rules if rule.takes(operation)), None)
        seen = Seen(operation, json.loads(request.body or b"{}"), fault)
        self.requests.append(seen)
        return seen

    async def _hold(self) -> None:
        gate = self._gate
        self.held += 1
        await self._tell()
        await gate.wait()

    async def _forward(self, request: _Message, seen: Seen) -> bytes:
        answer = await self._upstream.exchange(request.raw)
        seen.status = answer.status
        await self._tell()
        return answer.raw


class _Upstream:
    """Connections to the engine, reused when the engine keeps them open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            message = f"the proxy speaks plain HTTP only, not {url!r}"
            raise ValueError(message)
        self._host, self._port = parts.hostname, parts.port or 80
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def exchange(self, request: bytes) -> _Message:
        reader, writer = await self._connection()
        kept = False
        try:
            writer.write(request)
            answer = await _read_message(reader)
            if answer is None:
                raise ConnectionResetError
            if kept := not answer.closes:
                self._idle.append((reader, writer))
            return answer
        finally:
            if not kept:
                await _drop(writer)

    async def aclose(self) -> None:
        while self._idle:
            await _drop(self._idle.pop()[1])

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        # No request is ever sent twice, so a connection the engine closed is found out first.
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            await _drop(writer)
        return await asyncio.open_connection(self._host, self._port)


async def _read_message(reader: asyncio.StreamReader) -> _Message | None:
    """The next request or answer, or None when the peer left instead."""
    try:
        head = await reader.readuntil(_END_OF_HEAD)
        start, *lines = head.removesuffix(_END_OF_HEAD).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in _fields(lines)}
        body = await reader.readexactly(_length(headers))
    except asyncio.IncompleteReadError:
        return None
    return _Message(start, headers, head + body, body)


def _length(headers: dict[str, str]) -> int:
    length = headers.get("content-length")
    if length is None:
        message = "the proxy understands bodies with a Content-Length only"
        raise ValueError(message)
    return int(length)


def _fields(lines: list[str]) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in lines]


async def _drop(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()


def _error(status: HTTPStatus, kind: str, message: str, **more: object) -> bytes:
    body = json.dumps({"__type": kind, "message": message, **more}).encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/x-amz-json-1.0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _cancelled(*reasons: dict[str, object]) -> bytes:
    codes = ", ".join(str(reason["Code"]) for reason in reasons)
    message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    kind = f"{_DYNAMODB}#TransactionCanceledException"
    # The service spells the message of this error with a capital.
    return _error(HTTPStatus.BAD_REQUEST, kind, message, Message=message, CancellationReasons=reasons)


def _conflicts_at_the_second(parts: int) -> bytes:
    """A reason for each part of the transaction, as the service has it."""
    reasons: list[dict[str, object]] = [{"Code": "None"} for _ in range(parts)]
    reasons[1] = {"Code": "TransactionConflict"}
    return _cancelled(*reasons)


_FAILED: Final = _error(
    HTTPStatus.INTERNAL_SERVER_ERROR,
    f"{_DYNAMODB}#InternalServerError",
    "The request was carried out and its answer was lost.",
)
# What the client gets instead of the engine's answer; None closes its connection.
_NOT_FORWARDED: Final = {
    Fault.REFUSE: None,
    Fault.THROTTLE: _error(
        HTTPStatus.BAD_REQUEST,
        f"{_DYNAMODB}#ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded.",
    ),
    Fault.DENY: _error(
        HTTPStatus.BAD_REQUEST,
        "com.amazon.coral.service#AccessDeniedException",
        "User is not authorized to perform this operation.",
    ),
    Fault.CONFLICT: _error(
        HTTPStatus.BAD_REQUEST, f"{_DYNAMODB}#TransactionConflictException", "Transaction is ongoing for the item"
    ),
    Fault.HOT_PARTITION: _error(
        HTTPStatus.BAD_REQUEST,
        f"{_DYNAMODB}#ProvisionedThroughputExceededException",
        "Throughput exceeds the capacity of one partition.",
        ThrottlingReasons=[{"reason": "TableWriteKeyRangeThroughputExceeded", "resource": "table"}],
    ),
    Fault.CANCELLED_BY_CONFLICT: _cancelled({"Code": "TransactionConflict"}, {"Code": "None"}),
    Fault.CANCELLED_BY_BOTH: _cancelled(
        {"Code": "TransactionConflict"}, {"Code": "ConditionalCheckFailed", "Item": {"pk": {"S": "there"}}}
    ),
    Fault.IN_PROGRESS: _error(
        HTTPStatus.BAD_REQUEST,
        f"{_DYNAMODB}#TransactionInProgressException",
        "The transaction with the given request token is already in progress",
    ),
    Fault.CANCELLED_AS_INVALID: _cancelled({"Code": "None"}, {"Code": "ValidationError"}),
    Fault.BREAK_DOWN: _error(
        HTTPStatus.INTERNAL_SERVER_ERROR, f"{_DYNAMODB}#InternalServerError", "The request was not carried out."
    ),
    Fault.UNKNOWN_OPERATION: _error(HTTPStatus.BAD_REQUEST, "com.amazon.coral.service#UnknownOperationException", ""),
    Fault.INVALID: _error(
        HTTPStatus.BAD_REQUEST, "com.amazon.coral.validate#ValidationException", "One statement is not valid."
    ),
    Fault.UNKNOWN_CREDENTIALS: _error(
        HTTPStatus.BAD_REQUEST,
        "com.amazon.coral.service#UnrecognizedClientException",
        "The security token included in the request is invalid.",
    ),
    Fault.EXPIRED: _error(
        HTTPStatus.BAD_REQUEST,
        "com.amazon.coral.service#ExpiredTokenException",
        "The security token included in the request is expired",
    ),
    Fault.BAD_SIGNATURE: _error(
        HTTPStatus.BAD_REQUEST,
        "com.amazon.coral.service#InvalidSignatureException",
        "The request signature does not match.",
    ),
}
