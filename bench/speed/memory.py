"""What a call in flight keeps in memory, beyond what its body keeps.

Counted by tracemalloc: bytes of Python objects. The resident memory of a process also grows by what
its allocator rounds up and never gives back, so it cannot tell a kilobyte from none.
"""

import asyncio
import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Final, final

from bench.speed.calls import Calls
from bench.speed.jobs import Answer

_ROUNDS: Final = 3
"""Of calls before those that are counted: pools and caches have their size then."""


@final
class Barrier:
    """Holds bodies until `open`; `full` says that all of them are here."""

    def __init__(self, size: int) -> None:
        self.full = asyncio.Event()
        self._opened = asyncio.Event()
        self._missing = size

    async def wait(self) -> None:
        """Arrive, and wait for the others' sake."""
        self._missing -= 1
        if not self._missing:
            self.full.set()
        await self._opened.wait()

    def open(self) -> None:
        """Let all go on."""
        self._opened.set()


async def per_call_in_flight(calls: Calls, concurrency: int, prefix: str) -> Answer:
    """Hold so many calls in their bodies, then as many bodies alone, and give the bytes of each."""
    tracemalloc.start()
    for number in range(_ROUNDS):
        await asyncio.gather(*(calls.call(f"{prefix}-warm-{number}-{each}") for each in range(concurrency)))
    whole = await _held(calls, concurrency, lambda number: calls.call(f"{prefix}-{number}"))
    body = await _held(calls, concurrency, lambda _: calls.body())
    tracemalloc.stop()
    return {"bytes_per_call": (whole - body) / concurrency, "bytes_of_the_body": body / concurrency}


async def _held(calls: Calls, concurrency: int, start: Callable[[int], Awaitable[object]]) -> int:
    """Count the bytes that appear while so many are held."""
    calls.gate = barrier = Barrier(concurrency)
    before = _allocated()
    running = [asyncio.ensure_future(start(number)) for number in range(concurrency)]
    await barrier.full.wait()
    grown = _allocated() - before
    barrier.open()
    await asyncio.gather(*running)
    calls.gate = None
    return grown


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
