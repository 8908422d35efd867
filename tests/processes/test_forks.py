"""A process that is forked inside a block owns nothing of it."""

import subprocess
import sys

import pytest

FORKED = """
import asyncio, os, sys, time
from aioidempotency import AsyncIdempotencyStore, Claimed
from aioidempotency.backends.memory import MemoryBackend

sent = []

class Table(MemoryBackend):
    pass

class Backend:
    def __init__(self):
        self.inner = MemoryBackend()
    async def execute(self, operation):
        sent.append((os.getpid(), type(operation).__name__))
        return await self.inner.execute(operation)

async def main():
    store = AsyncIdempotencyStore("orders", backend=Backend(), lease=0.6)
    async with store.execute("k") as execution:
        execution.complete("done")
        child = os.fork()
        if not child:
            {child}
        await asyncio.sleep(1)  # renewals go on
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0, status
        assert not execution.lost
    record = await store.get("k")
    print(record.result, sum(name == "Update" for _, name in sent) >= 3)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    "child",
    [
        "os._exit(0)",
        "sys.exit(0)",
        "return os._exit(0) if sent[1:] else None",
        "time.sleep(1); os._exit(len(sent) - 1)",
    ],
    ids=["at once", "by unwinding", "by returning", "after sleeping"],
)
def test_a_fork_inside_a_block_sends_nothing_and_ends(child: str) -> None:
    """O19: it completes, releases and renews nothing, and does not spin; its parent's call is as before."""
    if child.startswith("return"):
        child = "return"
    done = subprocess.run(
        [sys.executable, "-c", FORKED.format(child=child)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["done True"], done.stderr
