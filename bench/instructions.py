"""What an execution costs in instructions: the guard of the library's speed, which noise does not move.

    python -m bench.instructions --output bench/results/instructions.json

It needs valgrind, and takes about six minutes. An execution's instructions are the difference between a long and a short
run, divided by the calls between them; those of a cold start are of a whole process, which imports and makes one call.
The server is `bench.speed`'s, without TLS: under valgrind OpenSSL finds other instructions of the processor than outside.

The run is compared with the numbers in `bench/results`. If one of the library's own grew by more than 3 %, the command
says so and fails.
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, final

from aiobotocore.config import AioConfig

from bench import cachegrind
from bench.machine import machine, versions
from bench.pages import say, table
from bench.speed import bare, cold, contest, ours, rounds, worker
from bench.speed.calls import Calls
from bench.speed.processes import Server, running

RESULTS: Final = Path(__file__).parent / "results" / "instructions.json"
ALLOWED: Final = 0.03
_RUNS: Final = 2
"""Processes for each count of the library's own. The least counts: what comes by chance is always more."""

_PATIENT: Final = AioConfig(connect_timeout=60, read_timeout=60)
_WORKERS: Final[Mapping[str, worker.Opening]] = {
    "plain": partial(ours.plain, config=_PATIENT),
    "group-commit": partial(ours.group_commit, config=_PATIENT),
    "local-cache": ours.local_cache,
    "own-code": ours.own_code,
    "bare-tuned": partial(bare.tuned, config=_PATIENT),
    "lean": partial(bare.lean, config=_PATIENT),
}
_PACKAGES: Final = ("aioidempotency", "aiobotocore", "aiodynamo", "aiohttp", "anyio", "botocore", "msgspec")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One number.

    Attributes:
        worker: Who makes the calls.
        calls: In the short and in the long run; none: a cold start.
        own: The library's, which must not grow.
    """

    worker: str
    calls: tuple[int, int] | None = None
    workload: contest.Workload = "fresh"
    own: bool = False


COUNTS: Final[Mapping[str, Count]] = {
    "plain path": Count(worker="plain", calls=(640, 1920), own=True),
    "group commit": Count(worker="group-commit", calls=(1600, 6400), own=True),
    "own code alone": Count(worker="own-code", calls=(2000, 10_000), own=True),
    "two requests alone": Count(worker="lean", calls=(640, 1920), own=True),
    "duplicate from the local cache": Count(
        worker="local-cache", calls=(2000, 10_000), workload="duplicates", own=True
    ),
    "two bare calls, tuned": Count(worker="bare-tuned", calls=(320, 960)),
    "aiodynamo": Count(worker="aiodynamo", calls=(320, 960)),
    "cold start": Count(worker="plain", own=True),
    "cold start of two bare calls": Count(worker="bare-default"),
}


def main(arguments: Sequence[str]) -> int:
    """Count, or be the process whose instructions are counted."""
    if arguments[:1] == ["work"]:
        worker.main({name: partial(_frozen, make) for name, make in _WORKERS.items()}, *arguments[1:])
        return 0
    parser = argparse.ArgumentParser("python -m bench.instructions", description=__doc__)
    parser.add_argument("--output", type=Path, help="write the numbers into this file")
    parser.add_argument("--only", nargs="+", choices=COUNTS, default=list(COUNTS), metavar="NAME")
    options = parser.parse_args(arguments)
    if not cachegrind.available():
        parser.error("valgrind is not installed")
    if options.output is not None and options.only != list(COUNTS):
        parser.error("--output is for a whole run")
    before = json.loads(RESULTS.read_text(encoding="utf-8"))["thousands"] if RESULTS.exists() else {}
    with running() as server:
        found = {name: _counted(COUNTS[name], server) for name in options.only}
    if options.output is not None:
        result = {"machine": machine(), "versions": versions(_PACKAGES), "thousands": found}
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    say(table(("thousand instructions", "before", "now"), rows(before, found)))
    dearer = grown(before, found)
    for name in dearer:
        say(f"{name} takes more than {ALLOWED:.0%} more instructions than in {RESULTS.name}")
    return 1 if dearer else 0


def rows(before: Mapping[str, float], found: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Write each number beside the earlier one."""
    return [(name, f"{before[name]:,.0f}" if name in before else "", f"{each:,.0f}") for name, each in found.items()]


def grown(before: Mapping[str, float], found: Mapping[str, float]) -> list[str]:
    """Name the library's own numbers that grew by more than is allowed."""
    own = [name for name, each in COUNTS.items() if each.own and name in before and name in found]
    return [name for name in own if found[name] > before[name] * (1 + ALLOWED)]


async def _frozen(make: worker.Opening, url: str) -> Calls:
    """Make a call, and keep what is loaded by then from the garbage collector.

    A collection of all generations takes as many instructions as a hundred calls, and comes when it comes.
    """
    calls = await make(url)
    await calls.call("first")
    gc.collect()
    gc.freeze()
    return calls


def _counted(count: Count, server: Server) -> float:
    """Count thousands of instructions."""
    if count.calls is None:
        asked = json.dumps(asyncio.run(bare.recorded()))
        command = cold.command(count.worker, server.url)
        return round(_taken(count, command, server, asked) / 1e3)
    work = ("bench.instructions", "work") if count.worker in _WORKERS else ("bench.speed.peers",)
    command = [sys.executable, "-m", *work, count.worker, server.url]
    short, long = (_taken(count, command, server, _jobs(count, calls)) for calls in count.calls)
    return round((long - short) / (count.calls[1] - count.calls[0]) / 1e3, 2)


def _taken(count: Count, command: Sequence[str], server: Server, given: str) -> int:
    """Let a process run, which compiles what it imports, and count the instructions of others."""
    subprocess.run(command, input=given, env=server.environment, capture_output=True, text=True, check=True)
    taken = []
    for _ in range(_RUNS if count.own else 1):
        server.renew_table()
        taken.append(cachegrind.counted(command, server.environment, given))
    server.renew_table()
    return min(taken)


def _jobs(count: Count, calls: int) -> str:
    """Write what a worker is asked: to open its connections, and to make so many calls."""
    prefix = count.worker
    asked: list[dict[str, Any]] = [
        {"do": "run", "keys": rounds.known(prefix), "concurrency": contest.MANY},
        {"do": "run", "keys": rounds.keys(count.workload, prefix, contest.MANY, calls), "concurrency": contest.MANY},
    ]
    return "".join(f"{json.dumps(job)}\n" for job in asked)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
