"""An HTTP server that answers with whatever bytes a test gives it."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, final

Answer = Callable[[str, dict[str, Any]], bytes]


def response(body: bytes, *, status: str = "200 OK", kind: str = "application/x-amz-json-1.0", more: str = "") -> bytes:
    """Write a whole response."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


@final
class RawServer:
    """Answers each request with the bytes that `answer` makes of its operation and body.

    Attributes:
        requests: The operation and the body of each request; a text that is no JSON counts as an empty body.
        url: Where to send requests.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Self:
        """Listen on a free loopback port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A task that is cancelled before its first step closes nothing.
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
                fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                body = await reader.readexactly(int(fields.get("content-length", "0")))
                operation = fields.get("x-amz-target", start).rpartition(".")[2]
                given = json.loads(body) if body.startswith(b"{") else {}
                self.requests.append((operation, given))
                answer = self.answer(operation, given)
                writer.write(answer)
                await writer.drain()
                if b"Connection: close" in answer:
                    break
        writer.transport.abort()
