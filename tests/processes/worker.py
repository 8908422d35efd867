"""A worker process: `python -m tests.processes.worker '{"endpoint_url": ...}'`.

It reads deliveries from standard input, one JSON object a line, handles them side by side, and writes
what came of each to standard output. `{"open": true}` opens the gate. SIGTERM cancels all that runs,
and so does the end of the input: however the parent ended, no worker outlives it.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.processes.deliveries import Delivery, Gate, Handle, Setup, answer, handler
from tests.processes.ledger import Ledger


async def main(setup: Setup) -> None:
    """Work until cancelled."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with Ledger(Path(setup.ledger)) as ledger:
        async with setup.store(ledger) as store:
            gate = Gate(began=lambda delivery: say({"began": delivery.number}))
            handle = handler(
                store,
                ledger,
                gate=gate,
                lease=setup.own_lease,
                heartbeat=setup.heartbeat,
                entities=setup.entities,
            )
            await work(handle, gate)


async def work(handle: Handle, gate: Gate) -> None:
    """Handle all that comes in; its end is a cancellation like SIGTERM's."""
    async with asyncio.TaskGroup() as running:
        say({"ready": os.getpid()})
        async for message in messages():
            if "open" in message:
                gate.opened.set()
            else:
                running.create_task(report(handle, Delivery(**message)))
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()


async def report(handle: Handle, delivery: Delivery) -> None:
    """Handle one delivery."""
    say({"number": delivery.number, **await answer(handle, delivery)})


async def messages() -> AsyncIterator[dict[str, Any]]:
    """Read standard input to its end."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async for line in reader:
        yield json.loads(line)


def say(message: dict[str, Any]) -> None:
    """Tell the parent, in one piece."""
    os.write(sys.stdout.fileno(), f"{json.dumps(message)}\n".encode())


if __name__ == "__main__":
    with suppress(asyncio.CancelledError):
        asyncio.run(main(Setup(**json.loads(sys.argv[1]))))
