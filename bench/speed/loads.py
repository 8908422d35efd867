"""What no closed loop shows: calls that come when they come, all at once, and the first one of a process."""

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from bench.speed import bare, cold
from bench.speed.contest import BARE_DEFAULT, PLAIN, POWERTOOLS, Contestant
from bench.speed.figures import Row
from bench.speed.processes import ROOT, Server, running, working
from bench.speed.rounds import Settings, span

DELAY: Final = 0.004
"""Seconds that the server waits before each answer."""

KEPT_UP: Final = 100.0
"""A contestant keeps up if its last answer comes within so many milliseconds of the last arrival."""

_WAVES: Final = 10
"""Of a small burst there are as many calls as in the largest one, by this number: a few of them follow each other."""

_ARRIVALS: Final = 200
_COLD: Final = {PLAIN.name: "plain", BARE_DEFAULT.name: "bare-default", POWERTOOLS.name: "powertools"}
Progress = Callable[[str], object]


def arrivals(rate: int, seconds: float, seed: str) -> list[float]:
    """Draw the times of a Poisson process: gaps are independent of each other."""
    dice = random.Random(f"{seed} {rate}")  # noqa: S311 - arrivals, no secret

    def times() -> Iterator[float]:
        at = dice.expovariate(rate)
        while at < seconds:
            yield at
            at += dice.expovariate(rate)

    return list(times())


def open_loads(contestants: Sequence[Contestant], settings: Settings, progress: Progress) -> list[Row]:
    """Let calls come at each rate, to a server that answers late. All contestants get the same arrivals."""
    rows = []
    with running(DELAY) as server, ExitStack() as processes:
        workers = [processes.enter_context(working(each, server, "open")) for each in contestants if each.loaded]
        for worker in workers:
            worker.ask(do="run", keys=[f"{worker.contestant.name}-{each}" for each in range(256)], concurrency=64)
        for number in range(1, settings.rounds + 1):
            progress(f"open load, round {number} of {settings.rounds}")
            server.renew_table()
            for rate in settings.rates:
                times = arrivals(rate, max(settings.seconds * 3, _ARRIVALS / rate), f"round {number}")
                for worker in workers:
                    name = worker.contestant.name
                    keys = [f"{name}-{rate}-{each}" for each in range(len(times))]
                    job = {"do": "measure", "keys": keys, "concurrency": 0, "times": times}
                    row = span(server, worker, (name, "open load", rate), number, len(keys), **job)
                    rows.append({**row, "drain": row["wall"] - times[-1]})
    return rows


def bursts(contestants: Sequence[Contestant], settings: Settings, progress: Progress) -> list[Row]:
    """Begin many calls at once, and count those that fail."""
    rows = []
    ours = [each for each in contestants if each.memory]
    with running() as server, ExitStack() as processes:
        workers = [processes.enter_context(working(each, server)) for each in ours]
        for number in range(settings.rounds + 1):
            progress(f"bursts, round {number} of {settings.rounds}" if number else "bursts, warming up")
            server.renew_table()
            for worker in workers:
                name = worker.contestant.name
                for at_once in settings.bursts if number else settings.bursts[:1]:
                    keys = [f"{name}-{at_once}-{each}" for each in range(max(at_once, settings.bursts[-1] // _WAVES))]
                    job = {"do": "measure", "keys": keys, "concurrency": at_once, "strict": False}
                    row = span(server, worker, (name, "burst", at_once), number, len(keys), **job)
                    rows += [row] if number else []
    return rows


def cold_starts(contestants: Sequence[Contestant], settings: Settings, progress: Progress) -> list[Row]:
    """Start processes that make one call each."""
    progress("cold starts")
    asked = json.dumps(asyncio.run(bare.recorded()))
    with running() as server:
        rows = [
            _cold_start(each.name, number, server, asked)
            for number in range(settings.rounds + 1)
            for each in contestants
            if each.name in _COLD
        ]
    # The first round writes the files of bytecode.
    return [row for row in rows if row["round"]]


def _cold_start(name: str, number: int, server: Server, asked: str) -> Row:
    server.renew_table()
    server.report()
    command = cold.command(_COLD[name], server.secure_url)
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, env=server.environment, input=asked, stdout=subprocess.PIPE, text=True, check=True
    )
    wall, counted = time.perf_counter() - start, server.report()
    figures = {"calls": 1, "wall": wall, "p50": wall, "p99": wall, **json.loads(done.stdout)}
    return {"contestant": name, "workload": "cold start", "level": 1, "round": number, **figures, "server": counted}
