"""The worker of a contestant that is a coroutine: `python -m bench.speed.worker NAME URL [open]`.

With `open` its loop waits by `select`. Python's epoll rounds each wait up to whole milliseconds, and so would begin calls
late that come from no socket.
"""

import asyncio
import gc
import logging
import selectors
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from bench.speed import bare, jobs, ours
from bench.speed.calls import Calls
from bench.speed.jobs import Answer, Job

Opening = Callable[[str], Coroutine[Any, Any, Calls]]
CONTESTANTS: Final[Mapping[str, Opening]] = {
    "plain": ours.plain,
    "group-commit": ours.group_commit,
    "local-cache": ours.local_cache,
    "own-code": ours.own_code,
    "bare-tuned": bare.tuned,
    "bare-default": bare.default,
    "lean": bare.lean,
}

_WARMING: Final = (16, 4, 2, 1, 1)
"""Parts of the calls that are made before those whose memory is counted: pools and caches have their size then.

The parts grow, since a client that is slowed by the counting may not open all connections in time at once.
"""


def main(contestants: Mapping[str, Opening], name: str, url: str, load: str = "closed") -> None:
    """Open the contestant's client, and answer jobs on one event loop."""
    # Failures are counted where they are expected, and raised elsewhere; thousands of lines would say no more.
    logging.getLogger("aioidempotency").addHandler(logging.NullHandler())
    selector = selectors.SelectSelector() if load == "open" else None
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        calls = runner.run(contestants[name](url))

        def answer(job: Job) -> Answer:
            if job["do"] == "memory":
                return runner.run(memory_in_flight(calls, job["concurrency"]))

            def work(keys: Sequence[str], concurrency: int) -> Sequence[float]:
                if "times" in job:
                    return runner.run(run_open(calls, keys, job["times"]))
                return runner.run(run(calls, keys, concurrency, strict=job.get("strict", True)))

            return jobs.answered(job, work, lambda: calls.bodies)

        try:
            jobs.serve(answer)
        finally:
            runner.run(calls.aclose())


async def run(calls: Calls, keys: Sequence[str], concurrency: int, *, strict: bool = True) -> list[float]:
    """Keep so many calls under way: each task takes the next key when its call is over.

    A call that fails ends all of it, or has no latency, if it is not strict.
    """
    latencies = []
    rest = iter(keys)

    async def one_after_the_other() -> None:
        for key in rest:
            start = time.perf_counter()
            try:
                result = await calls.call(key)
            except Exception:
                if strict:
                    raise
                continue
            latencies.append(time.perf_counter() - start)
            if result != jobs.RESULT:
                raise ValueError(f"{key} was answered with {result!r}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_the_other())
    return latencies


async def run_open(calls: Calls, keys: Sequence[str], times: Sequence[float]) -> list[float]:
    """Begin each call at its time, whatever became of the earlier ones. Latencies count from those times."""
    loop = asyncio.get_running_loop()
    start, latencies = loop.time(), []

    async def one(key: str, at: float) -> None:
        result = await calls.call(key)
        latencies.append(loop.time() - start - at)
        if result != jobs.RESULT:
            raise ValueError(f"{key} was answered with {result!r}")

    async with asyncio.TaskGroup() as tasks:
        for key, at in zip(keys, times, strict=True):
            await asyncio.sleep(start + at - loop.time())
            tasks.create_task(one(key, at))
    return latencies


async def memory_in_flight(calls: Calls, concurrency: int) -> Answer:
    """Count the bytes that a call in flight keeps, beyond what its body keeps.

    They are bytes of Python objects, which tracemalloc counts. The resident memory of a process also grows by what
    its allocator rounds up and never gives back, so it cannot tell a kilobyte from none.
    """
    for number, part in enumerate(_WARMING):
        if number == len(_WARMING) - 1:
            tracemalloc.start()
        await asyncio.gather(*(calls.call(f"{number}-{each}") for each in range(-(-concurrency // part))))
    whole = await _bytes_of(calls, concurrency, lambda number: calls.call(f"waiting-{number}"))
    body = await _bytes_of(calls, concurrency, lambda _: calls.body())
    tracemalloc.stop()
    return {"bytes_per_call": (whole - body) / concurrency, "bytes_of_the_body": body / concurrency}


async def _bytes_of(calls: Calls, concurrency: int, start: Callable[[int], Awaitable[object]]) -> int:
    """Count the bytes that appear while so many wait at the barrier in their bodies."""
    calls.barrier = barrier = asyncio.Barrier(concurrency + 1)
    before = _allocated()
    running = [asyncio.ensure_future(start(number)) for number in range(concurrency)]
    while barrier.n_waiting < concurrency:
        # There is no event for this, and one of our own would be memory of each call.
        await asyncio.sleep(0.001)
        for each in running:
            if each.done():
                raise ValueError(f"a call ended with {each.result()!r}, and did not wait in its body")
    grown = _allocated() - before
    await barrier.wait()
    await asyncio.gather(*running)
    calls.barrier = None
    return grown


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


if __name__ == "__main__":
    main(CONTESTANTS, *sys.argv[1:])
