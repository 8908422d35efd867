"""The goals, as ratios inside one run: what was wanted, what came out, and whether that is enough.

A ratio is taken in each round, of spans that were a few seconds apart, and the median of those counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from bench.speed import contest
from bench.speed.figures import Cell, by_round
from bench.speed.jobs import Workload
from bench.speed.rounds import Row
from bench.spread import Spread, spread

MANY: Final = 64
SOME: Final = 32
MOST: Final = 256
Values = Sequence[float]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One goal; `values` finds what was measured for it in the rows of all rounds and in those of memory."""

    name: str
    sense: Literal["at most", "at least"]
    bound: float
    values: Callable[[Sequence[Row], Sequence[Row]], Values]


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and what came out; None where nothing was measured for it."""

    goal: Goal
    measured: Spread | None

    @property
    def met(self) -> bool | None:
        """Tell whether the median is on the right side."""
        if self.measured is None:
            return None
        if self.goal.sense == "at most":
            return self.measured.median <= self.goal.bound
        return self.measured.median >= self.goal.bound

    def written(self) -> dict[str, Any]:
        """Write it as JSON has it."""
        measured = self.measured and [self.measured.median, self.measured.least, self.measured.most]
        return {"goal": self.goal.name, self.goal.sense: self.goal.bound, "measured": measured, "met": self.met}


def outcomes(rows: Sequence[Row], memory: Sequence[Row]) -> Sequence[Outcome]:
    """Hold what was measured against the goals."""
    found = [(goal, goal.values(rows, memory)) for goal in GOALS]
    return [Outcome(goal, spread(values) if values else None) for goal, values in found]


def _ratio(figure: str, one: Cell, other: Cell) -> Callable[[Sequence[Row], Sequence[Row]], Values]:
    def values(rows: Sequence[Row], _: Sequence[Row]) -> Values:
        above, below = by_round(rows, one, figure), by_round(rows, other, figure)
        return [above[number] / below[number] for number in above.keys() & below.keys()]

    return values


def _plainly(figure: str, cell: Cell) -> Callable[[Sequence[Row], Sequence[Row]], Values]:
    return lambda rows, _: list(by_round(rows, cell, figure).values())


def _kept(_: Sequence[Row], memory: Sequence[Row]) -> Values:
    return [max(row["bytes_per_call"] for row in memory) / 1024] if memory else []


def _fresh(contestant: contest.Contestant, concurrency: int) -> Cell:
    workload: Workload = "fresh"
    return contestant.name, workload, concurrency


_GROUPED: Final = _fresh(contest.GROUP_COMMIT, MANY)
_RATE: Final = "per_processor_second"
GOALS: Final = (
    Goal(
        name=f"plain path over two bare tuned calls, processor time, fresh, {MANY} at once",
        sense="at most",
        bound=1.10,
        values=_ratio("processor_us", _fresh(contest.PLAIN, MANY), _fresh(contest.BARE, MANY)),
    ),
    Goal(
        name=f"group commit, fresh, {MANY} at once, over Powertools on one thread, per processor second",
        sense="at least",
        bound=10,
        values=_ratio(_RATE, _GROUPED, _fresh(contest.POWERTOOLS, 1)),
    ),
    Goal(
        name=f"group commit, fresh, {MANY} at once, over Powertools on {contest.THREADS} threads",
        sense="at least",
        bound=18,
        values=_ratio(_RATE, _GROUPED, _fresh(contest.POWERTOOLS_THREADS, MANY)),
    ),
    Goal(
        name=f"group commit, fresh, {MANY} at once, over two bare tuned calls",
        sense="at least",
        bound=7,
        values=_ratio(_RATE, _GROUPED, _fresh(contest.BARE, MANY)),
    ),
    Goal(
        name="a lone call with group commit over the plain path, p50",
        sense="at most",
        bound=1.05,
        values=_ratio("p50_ms", _fresh(contest.GROUP_COMMIT, 1), _fresh(contest.PLAIN, 1)),
    ),
    Goal(
        name=f"group commit over the plain path, p99, {MANY} at once",
        sense="at most",
        bound=0.5,
        values=_ratio("p99_ms", _GROUPED, _fresh(contest.PLAIN, MANY)),
    ),
    Goal(
        name="a duplicate from the local cache, processor time in us",
        sense="at most",
        bound=25,
        values=_plainly("processor_us", (contest.CACHE.name, "duplicates", MANY)),
    ),
    Goal(name="memory of a call in flight beyond its body's, in KB", sense="at most", bound=8, values=_kept),
    Goal(
        name=f"group commit, fresh, {MOST} at once over {SOME} at once, per processor second",
        sense="at least",
        bound=1.0,
        values=_ratio(_RATE, _fresh(contest.GROUP_COMMIT, MOST), _fresh(contest.GROUP_COMMIT, SOME)),
    ),
)
