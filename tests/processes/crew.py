"""Worker processes from their parent's side."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, Self, final

from tests.processes.deliveries import Delivery, Setup

START_LIMIT = 30.0
END_LIMIT = 10.0

Answer = dict[str, Any]


@final
class Worker:
    """One running worker process. Whatever it cannot answer any more is answered with None."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._answers: dict[int, asyncio.Future[Answer | None]] = {}
        self._began: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
        self._ready = asyncio.Event()
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, setup: Setup) -> Self:
        """Start a process, and wait until it reads deliveries."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.processes.worker", json.dumps(asdict(setup))),
            cwd=Path(__file__).parents[2],
            # A profile or an endpoint of the user's own must not change what a worker does.
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        worker = cls(process)
        try:
            async with asyncio.timeout(START_LIMIT):
                await worker._ready.wait()
        except BaseException:
            await worker.end(SIGKILL)
            raise
        return worker

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def deliver(self, delivery: Delivery) -> asyncio.Future[Answer | None]:
        """Hand a delivery over; the future is its answer."""
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        if self._listening.done():
            answer.set_result(None)
        else:
            self._answers[delivery.number] = answer
            self._tell(asdict(delivery))
        return answer

    def open_gate(self) -> None:
        """Let the gated bodies go on."""
        self._tell({"open": True})

    async def began(self, delivery: Delivery) -> None:
        """Wait until a gated body has come to the gate."""
        async with asyncio.timeout(START_LIMIT):
            await self._began[delivery.number].wait()

    def send(self, number: Signals) -> None:
        """Send a signal to this process alone."""
        self._process.send_signal(number)

    async def end(self, number: Signals) -> int:
        """End the process by a signal, and have its exit code; what it had said until then is heard."""
        with suppress(ProcessLookupError):
            self.send(number)
        try:
            async with asyncio.timeout(END_LIMIT):
                code = await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise
        await self._listening
        return code

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(message)}\n".encode())

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._hear(json.loads(line))
        for number in list(self._answers):
            self._settle(number, None)

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready.set()
        elif "began" in message:
            self._began[message["began"]].set()
        else:
            self._settle(message["number"], message)

    def _settle(self, number: int, answer: Answer | None) -> None:
        asked = self._answers.pop(number)
        if not asked.done():
            asked.set_result(answer)


@asynccontextmanager
async def working(setup: Setup) -> AsyncIterator[Worker]:
    """A worker that is gone when the block ends."""
    worker = await Worker.start(setup)
    try:
        yield worker
    finally:
        await worker.end(SIGKILL)
