"""The worker of a contestant that is a coroutine: `python -m bench.speed.worker NAME URL`."""

import asyncio
import gc
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

from bench.speed import bare, jobs, ours
from bench.speed.calls import Calls
from bench.speed.jobs import Answer, Job
from bench.speed.memory import per_call_in_flight

CONTESTANTS: Final[dict[str, Callable[[str], Coroutine[Any, Any, Calls]]]] = {
    "plain": ours.plain,
    "group-commit": ours.group_commit,
    "local-cache": ours.local_cache,
    "bare-tuned": bare.tuned,
    "bare-default": bare.default,
}


def main(name: str, url: str) -> None:
    """Open the contestant's client, and answer jobs on one event loop."""
    with asyncio.Runner() as runner:
        calls = runner.run(CONTESTANTS[name](url))
        try:
            jobs.serve(lambda job: runner.run(_answer(calls, job)))
        finally:
            runner.run(calls.aclose())


async def _answer(calls: Calls, job: Job) -> Answer:
    concurrency: int = job["concurrency"]
    if job["do"] == "memory":
        return await per_call_in_flight(calls, concurrency, job["prefix"])
    if job["do"] == "measure":
        before = calls.bodies
        answer = await _span(calls, jobs.keys(job), concurrency)
        return {**answer, "bodies": calls.bodies - before}
    keys = jobs.known(job)
    await _all(calls, iter(keys if job["do"] == "prepare" else keys[:concurrency]), concurrency, [])
    return {}


async def _span(calls: Calls, keys: Sequence[str], concurrency: int) -> Answer:
    latencies: list[float] = []
    gc.collect()
    wall, processor = time.perf_counter(), time.process_time()
    await _all(calls, iter(keys), concurrency, latencies)
    return jobs.measured(latencies, wall=time.perf_counter() - wall, processor=time.process_time() - processor)


async def _all(calls: Calls, keys: Iterator[str], concurrency: int, latencies: list[float]) -> None:
    """Keep so many calls under way: each task takes the next key when its call is over."""

    async def one_after_the_other() -> None:
        for key in keys:
            start = time.perf_counter()
            result = await calls.call(key)
            latencies.append(time.perf_counter() - start)
            if result != jobs.RESULT:
                raise ValueError(f"{key} was answered with {result!r}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(concurrency):
            tasks.create_task(one_after_the_other())


if __name__ == "__main__":
    main(*sys.argv[1:])
