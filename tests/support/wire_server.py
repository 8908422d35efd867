"""An HTTP server whose every byte a test decides, and when the bytes leave."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, final

from tests.support.raw_server import response

APPLIED = response(b"{}")
"""DynamoDB's answer to a write."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request.

    Attributes:
        connection: The number of its connection, in order of arrival.
        head: The head as received.
        headers: By lower-case names.
    """

    connection: int
    operation: str
    head: str
    headers: dict[str, str]
    body: bytes

    @property
    def parameters(self) -> dict[str, Any]:
        """The body as JSON."""
        found: dict[str, Any] = json.loads(self.body)
        return found


Handler = Callable[[Request, asyncio.StreamWriter], Awaitable[bytes | None]]
"""Answers a request: with bytes, which are sent, or with None, which closes the connection at once."""


def error(code: str, *, status: str = "400 Bad Request", more: str = "", **members: object) -> bytes:
    """Write an error of DynamoDB."""
    body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "no", **members}
    return response(json.dumps(body).encode(), status=status, more=more)


def scripted(*answers: bytes | Handler | None) -> Handler:
    """Answer by a script: each request takes the next answer, and the last one serves all others."""
    rest = list(answers)

    async def handler(request: Request, writer: asyncio.StreamWriter) -> bytes | None:
        answer = rest.pop(0) if len(rest) > 1 else rest[0]
        return await answer(request, writer) if callable(answer) else answer

    return handler


@final
@dataclass
class WireServer:
    """Serves each connection by `handler`, on a free loopback port.

    Attributes:
        requests: In order of arrival.
        connections: How many were accepted.
        url: Where to send requests.
    """

    handler: Handler
    tls: ssl.SSLContext | None = None
    host: str = "127.0.0.1"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    url: str = ""

    async def __aenter__(self) -> Self:
        """Listen."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024, ssl=self.tls)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://{self.host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection. An error of the handler is raised."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        self.drop_all()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        await self._server.wait_closed()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    @property
    def sockets(self) -> list[Any]:
        """The socket of each connection."""
        return [writer.get_extra_info("socket") for writer in self._writers]

    def drop_all(self) -> None:
        """Close every connection, without a word."""
        for writer in self._writers:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        self._tasks.add(asyncio.create_task(self._serve(self.connections, reader, writer)))

    async def _serve(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    headers = {
                        name.lower(): value
                        for name, _, value in (line.partition(": ") for line in head.splitlines()[1:])
                    }
                    body = await reader.readexactly(int(headers.get("content-length", "0")))
                    operation = headers.get("x-amz-target", "").rpartition(".")[2]
                    request = Request(connection=number, operation=operation, head=head, headers=headers, body=body)
                    self.requests.append(request)
                    answer = await self.handler(request, writer)
                    if answer is None:
                        return
                    if answer:
                        writer.write(answer)
                        await writer.drain()
                    if b"connection: close" in answer.lower():
                        return
        finally:
            # Closing says goodbye where the answer must arrive, and aborting would drop the answer.
            writer.close()
