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

_WARMING: Final = (16, 4, 2, 1, 1)
"""Rounds before the one that counts, as parts of its calls: pools and caches have their size then.

They grow, since a client that is slowed by the counting may not open all connections in time at once.
"""


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
    for number, part in enumerate(_WARMING):
        if number == len(_WARMING) - 1:
            tracemalloc.start()
        warming = range(-(-concurrency // part))
        await asyncio.gather(*(calls.call(f"{prefix}-{number}-{each}") for each in warming))
    whole = await _held(calls, concurrency, lambda number: calls.call(f"{prefix}-held-{number}"))
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
