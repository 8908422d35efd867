"""The rounds: every measurement of every contestant in turn, again and again, in one run.

The machine's speed changes while a benchmark runs. So contestants take turns at each measurement,
in another order each round, and what counts are ratios inside a round. `loads.py` has what no closed loop shows.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice, product
from typing import Any, Final, final

from bench.speed.contest import MANY, WORKLOADS, Contestant, Workload
from bench.speed.figures import Cell, Row
from bench.speed.processes import Server, Worker, running, working

KNOWN: Final = 320
"""Keys that duplicates come for: more than there are calls at once, and fewer than a cache holds."""

MIXED: Final = 4
"""In a mix, of so many calls one is a duplicate."""

_PROBED: Final = 2
_FEWEST: Final = 64
_MOST: Final = 20_000
_WEIGHED: Final = 256
"""Calls in flight whose memory is counted."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        concurrencies: Calls under way at once.
        rounds: Measured rounds; one more comes first, tells how many calls fill a span, and is dropped.
        seconds: What a span should take; three times as long, one of open load.
        rates: Arrivals in a second.
        bursts: Calls that begin at once.
    """

    concurrencies: tuple[int, ...] = (1, 8, 64, 256, 1024)
    rounds: int = 5
    seconds: float = 0.5
    rates: tuple[int, ...] = (50, 100, 400, 800, 1500)
    bursts: tuple[int, ...] = (1000, 50_000)


def run(
    contestants: Sequence[Contestant], settings: Settings, progress: Callable[[str], object]
) -> tuple[list[Row], list[Row]]:
    """Measure, and give the rows of all rounds, and the memory of calls in flight."""
    with running() as server, ExitStack() as processes:
        memory = _memory(contestants, min(_WEIGHED, *settings.concurrencies[-1:]), server)
        workers = [processes.enter_context(working(each, server)) for each in contestants]
        contest = _Contest(server, workers, settings)
        for number in range(settings.rounds + 1):
            progress(f"round {number} of {settings.rounds}" if number else "warming up")
            contest.round(number)
    return contest.rows, memory


def known(prefix: str) -> list[str]:
    """Name the keys that are executed before those calls come that repeat them."""
    return [f"{prefix}-known-{number}" for number in range(KNOWN)]


def keys(workload: Workload, prefix: str, concurrency: int, calls: int) -> list[str]:
    """Name the key of each call, in order."""
    old, every = known(prefix), {"fresh": 0, "duplicates": 1, "mix": MIXED}[workload]
    return [
        old[number % KNOWN] if every and number % every == 0 else f"{prefix}-{workload}-{concurrency}-{number}"
        for number in range(calls)
    ]


def _memory(contestants: Sequence[Contestant], concurrency: int, server: Server) -> list[Row]:
    rows = []
    for each in contestants:
        if each.memory:
            # All use the same keys: after one contestant, the calls of the next would replay, and not wait in their bodies.
            server.renew_table()
            with working(each, server) as worker:
                answer = worker.ask(do="memory", keys=[], concurrency=concurrency)
            rows.append({"contestant": each.name, "level": concurrency, **answer})
    return rows


def span(server: Server, worker: Worker, cell: Cell, number: int, fresh: int, **job: Any) -> Row:
    """Measure one span of calls, of which so many are fresh.

    Raises:
        ValueError: The body ran another number of times.
    """
    before = server.report()["processor"]
    answer = worker.ask(**job)
    counted = server.report()
    counted["processor"] -= before
    if answer["bodies"] != fresh and not answer.get("failed"):
        raise ValueError(f"{cell} ran its body {answer['bodies']} times for {fresh} fresh calls")
    named = dict(zip(("contestant", "workload", "level"), cell, strict=True))
    return {**named, "round": number, **answer, "server": counted}


@final
class _Contest:
    """The rows so far, and how many calls fill a span."""

    def __init__(self, server: Server, workers: Sequence[Worker], settings: Settings) -> None:
        self.rows: list[Row] = []
        self._server = server
        self._workers = workers
        self._settings = settings
        self._calls: dict[Cell, int] = {}

    def round(self, number: int) -> None:
        """Let every contestant take its turn at every measurement, on a table that is empty before."""
        self._server.renew_table()
        for worker in self._workers:
            worker.ask(do="run", keys=known(_prefix(worker, number)), concurrency=worker.contestant.usual)
        cells = list(product(WORKLOADS, self._settings.concurrencies))
        first = number % len(self._workers)
        for workload, concurrency in cells if number % 2 else cells[::-1]:
            for worker in (*self._workers[first:], *self._workers[:first]):
                if worker.contestant.takes(workload, concurrency):
                    self._turn(worker, workload, concurrency, number)

    def _turn(self, worker: Worker, workload: Workload, concurrency: int, number: int) -> None:
        cell, prefix = (worker.contestant.name, workload, concurrency), _prefix(worker, number)
        calls = self._calls.get(cell, max(_FEWEST, _PROBED * concurrency))
        asked = keys(workload, prefix, concurrency, calls)
        # So many calls open as many connections as are needed. All at once they could exceed a client's time limit.
        for some in sorted({min(level, concurrency) for level in (MANY, 4 * MANY, concurrency)}):
            worker.ask(do="run", keys=list(islice(cycle(known(prefix)), some)), concurrency=some)
        fresh = len(set(asked) - set(known(prefix)))
        row = span(self._server, worker, cell, number, fresh, do="measure", keys=asked, concurrency=concurrency)
        if number:
            self.rows.append(row)
        else:
            fitting = round(self._settings.seconds * calls / row["wall"])
            self._calls[cell] = min(_MOST, max(fitting, _FEWEST, _PROBED * concurrency))


def _prefix(worker: Worker, number: int) -> str:
    return f"{worker.contestant.name.replace(' ', '-')}-{number}"
