"""The rounds: every measurement of every contestant in turn, again and again, in one run.

The machine's speed changes while a benchmark runs. So contestants take turns at each measurement,
in another order each round, and what counts are ratios inside a round.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, final

from bench.speed import jobs
from bench.speed.contest import Contestant
from bench.speed.jobs import WORKLOADS, Workload
from bench.speed.server import Server, serving
from bench.speed.workers import Worker, working

KNOWN: Final = 320
"""Keys that duplicates come for: more than there are calls at once, and fewer than a cache holds."""

_PROBED: Final = 4
_FEWEST: Final = 64
_MOST: Final = 20_000
Row = dict[str, Any]
"""One span: contestant, workload, concurrency, round, and its figures."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How much is measured.

    Attributes:
        concurrencies: Calls under way at once.
        rounds: Measured rounds; one more comes first, tells how many calls fill a span, and is dropped.
        seconds: What a span should take.
    """

    concurrencies: tuple[int, ...] = (1, 8, 32, 64, 128, 256)
    rounds: int = 5
    seconds: float = 0.5
    workloads: tuple[Workload, ...] = WORKLOADS

    @property
    def cells(self) -> Sequence[tuple[Workload, int]]:
        """Name the measurements."""
        return [(workload, concurrency) for workload in self.workloads for concurrency in self.concurrencies]


def run(
    contestants: Sequence[Contestant], settings: Settings, progress: Callable[[str], object]
) -> tuple[list[Row], list[Row]]:
    """Measure, and give the rows of all rounds, and the memory of calls in flight."""
    with serving() as server, ExitStack() as processes:
        server.renew_table()
        memory = _memory(contestants, max(settings.concurrencies), server.url)
        workers = [processes.enter_context(working(each, server.url)) for each in contestants]
        contest = _Contest(server, workers, settings)
        for number in range(settings.rounds + 1):
            progress(f"round {number} of {settings.rounds}" if number else "warming up")
            contest.round(number)
    return contest.rows, memory


def _memory(contestants: Sequence[Contestant], concurrency: int, url: str) -> list[Row]:
    rows = []
    for each in contestants:
        if each.memory:
            with working(each, url) as worker:
                answer = worker.ask(do="memory", concurrency=concurrency, **_named(worker, "memory"))
            rows.append({"contestant": each.name, "concurrency": concurrency, **answer})
    return rows


@final
class _Contest:
    """The rows so far, and how many calls fill a span."""

    def __init__(self, server: Server, workers: Sequence[Worker], settings: Settings) -> None:
        self.rows: list[Row] = []
        self._server = server
        self._workers = workers
        self._settings = settings
        self._calls: dict[tuple[str, Workload, int], int] = {}

    def round(self, number: int) -> None:
        """Let every contestant take its turn at every measurement."""
        self._server.renew_table()
        for worker in self._workers:
            worker.ask(do="prepare", concurrency=1 if worker.contestant.alone else 64, **_named(worker, number))
        cells = self._settings.cells if number % 2 else self._settings.cells[::-1]
        for workload, concurrency in cells:
            first = number % len(self._workers)
            for worker in (*self._workers[first:], *self._workers[:first]):
                if worker.contestant.takes(workload, concurrency):
                    self._turn(worker, workload, concurrency, number)

    def _turn(self, worker: Worker, workload: Workload, concurrency: int, number: int) -> None:
        cell = (worker.contestant.name, workload, concurrency)
        job = {**_named(worker, number), "workload": workload, "concurrency": concurrency}
        calls = self._calls.get(cell, max(_FEWEST, _PROBED * concurrency))
        worker.ask(do="warm", **job)
        before = self._server.report()["processor"]
        answer = worker.ask(do="measure", calls=calls, **job)
        counted = self._server.report()
        counted["processor"] -= before
        if answer["bodies"] != jobs.fresh({**job, "calls": calls}):
            raise ValueError(f"{cell[0]} ran its body {answer['bodies']} times in {job}")
        if not number:
            fitting = round(self._settings.seconds * calls / answer["wall"])
            self._calls[cell] = min(_MOST, max(fitting, _FEWEST, _PROBED * concurrency))
            return
        row = dict(zip(("contestant", "workload", "concurrency"), cell, strict=True))
        self.rows.append({**row, "round": number, **answer, "server": counted})


def _named(worker: Worker, number: int | str) -> Row:
    name = worker.contestant.name.replace(" ", "-")
    return {"prefix": f"{name}-{number}", "known": KNOWN}
