"""Lambda's runtime API on loopback, and a process of Amazon's runtime interface client that asks it for work.

The client is the one that runs in Lambda: `awslambdaric`. So what a handler is called with, what becomes of its result
and errors, and when its process ends, is as there. Freezing is real: the process is stopped, as Lambda stops its own.
"""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

START_LIMIT: Final = 40.0
_KEPT: Final = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What the client posted for an invocation: a result, or an error document."""

    kind: str
    body: Any


@final
class Runtime:
    """One function's runtime API, and the process of its handler."""

    def __init__(self) -> None:
        self.said = ""
        self._invocations: asyncio.Queue[tuple[str, bytes, float]] = asyncio.Queue()
        self._answers: dict[str, asyncio.Future[Answer]] = {}
        self._failed_init: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def invoke(self, event: object, *, seconds: float = 30.0) -> Answer:
        """Invoke the function, and wait for its answer, or for the failure of its start."""
        request_id = f"request-{len(self._answers) + 1}"
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        self._invocations.put_nowait((request_id, json.dumps(event).encode(), seconds))
        async with asyncio.timeout(START_LIMIT):
            await asyncio.wait([answer, self._failed_init], return_when=asyncio.FIRST_COMPLETED)
        return (answer if answer.done() else self._failed_init).result()

    async def result(self, event: object, *, seconds: float = 30.0) -> Any:
        """Invoke the function, and have its result."""
        answer = await self.invoke(event, seconds=seconds)
        assert answer.kind == "response", (answer, self.said)
        return answer.body

    async def died(self) -> None:
        """Wait until the process has ended by itself."""
        assert self._process is not None
        async with asyncio.timeout(START_LIMIT):
            await self._process.wait()

    def freeze(self) -> None:
        """Stop the process, as Lambda does after an answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the process go on."""
        self._signal(signal.SIGCONT)

    async def start(self, handler: str, folder: Path, port: int, variables: Mapping[str, str]) -> None:
        """Start the client's process."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-u", "-X", "dev", "-m", "awslambdaric", handler),
            cwd=folder,
            env={
                **{name: os.environ[name] for name in _KEPT if name in os.environ},
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{port}",
                "AWS_LAMBDA_FUNCTION_NAME": "charges",
                "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123",
                **variables,
            },
            stdout=PIPE,
            stderr=STDOUT,
            start_new_session=True,
        )
        self._reading = asyncio.create_task(self._read())

    async def end(self) -> None:
        """Kill the process and its children, and hear what they have said."""
        assert self._process is not None
        assert self._reading is not None
        self._signal(signal.SIGKILL)
        await self._process.wait()
        await self._reading

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the client's requests on one connection."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                method, path, _ = head.split(b"\r\n")[0].decode().split(" ", 2)
                body = await self._body(head.decode().lower(), reader, writer)
                writer.write(await self._answered(method, path, body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _body(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        if "expect: 100-continue" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "transfer-encoding: chunked" not in head:
            length = head.partition("content-length:")[2].split("\r\n")[0]
            return await reader.readexactly(int(length or 0))
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
        return body

    async def _answered(self, method: str, path: str, body: bytes) -> bytes:
        name = path.rpartition("/runtime/")[2]
        if (method, name) == ("GET", "invocation/next"):
            request_id, event, seconds = await self._invocations.get()
            headers = {
                "Lambda-Runtime-Aws-Request-Id": request_id,
                "Lambda-Runtime-Deadline-Ms": int((time.time() + seconds) * 1000),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:123456789012:function:charges",
                "Content-Type": "application/json",
            }
            return _response("200 OK", event, headers)
        if name.startswith("invocation/"):
            request_id, kind = name.split("/")[1:]
            self._answers[request_id].set_result(Answer(kind, json.loads(body)))
        elif name == "init/error" and not self._failed_init.done():
            self._failed_init.set_result(Answer("init error", json.loads(body)))
        return _response("200 OK" if method == "GET" else "202 Accepted", b"{}", {"Content-Type": "application/json"})

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said += line.decode(errors="replace")

    def _signal(self, number: int) -> None:
        assert self._process is not None
        # The process leads a session of its own, and its workers are in the session.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _response(status: str, body: bytes, headers: Mapping[str, object]) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


@asynccontextmanager
async def running(handler: str, folder: Path, **variables: str) -> AsyncIterator[Runtime]:
    """Run a handler, `module.name` in a folder, until the block ends."""
    runtime = Runtime()
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(runtime.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        await runtime.start(handler, folder, server.sockets[0].getsockname()[1], variables)
        try:
            yield runtime
        finally:
            await runtime.end()
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()
