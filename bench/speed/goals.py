"""The goals, as ratios inside one run: what was wanted, what came out, and whether that is enough.

A ratio is taken in each round, of spans that were a few seconds apart, and the median of those counts.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

from bench.speed.contest import BARE, CACHE, GROUP_COMMIT, PLAIN, POWERTOOLS, POWERTOOLS_THREADS, THREADS, Contestant
from bench.speed.figures import Cell, Row, by_round
from bench.spread import spread

MANY: Final = 64
SOME: Final = 32
MOST: Final = 256
Sense = Literal["at most", "at least"]
Goal = tuple[str, Sense, float, str, Cell, Cell | None]
"""A name, a bound and its sense, and a figure: that of one measurement, or of one over another."""


def _fresh(contestant: Contestant, concurrency: int) -> Cell:
    return contestant.name, "fresh", concurrency


_RATE: Final = "per_processor_second"
_GROUPED: Final = _fresh(GROUP_COMMIT, MANY)
_OF_GROUPED: Final = f"group commit, fresh, {MANY} at once"
_OF_MEMORY: Final = "memory of a call in flight beyond its body's, in KB"
GOALS: Final[Sequence[Goal]] = (
    (
        f"plain path over two bare tuned calls, processor time, fresh, {MANY} at once",
        *("at most", 1.10, "processor_us", _fresh(PLAIN, MANY), _fresh(BARE, MANY)),
    ),
    (
        f"{_OF_GROUPED}, over Powertools on one thread, per processor second",
        *("at least", 10, _RATE, _GROUPED, _fresh(POWERTOOLS, 1)),
    ),
    (
        f"{_OF_GROUPED}, over Powertools on {THREADS} threads",
        *("at least", 18, _RATE, _GROUPED, _fresh(POWERTOOLS_THREADS, MANY)),
    ),
    (f"{_OF_GROUPED}, over two bare tuned calls", "at least", 7, _RATE, _GROUPED, _fresh(BARE, MANY)),
    (
        "a lone call with group commit over the plain path, p50",
        *("at most", 1.05, "p50_ms", _fresh(GROUP_COMMIT, 1), _fresh(PLAIN, 1)),
    ),
    (
        f"group commit over the plain path, p99, {MANY} at once",
        *("at most", 0.5, "p99_ms", _GROUPED, _fresh(PLAIN, MANY)),
    ),
    (
        "a duplicate from the local cache, processor time in us",
        *("at most", 25, "processor_us", (CACHE.name, "duplicates", MANY), None),
    ),
    (
        f"group commit, fresh, {MOST} at once over {SOME} at once, per processor second",
        *("at least", 1.0, _RATE, _fresh(GROUP_COMMIT, MOST), _fresh(GROUP_COMMIT, SOME)),
    ),
)


def outcomes(rows: Sequence[Row], memory: Sequence[Row]) -> list[dict[str, Any]]:
    """Say of each goal what was measured, and whether the median is on the right side; None where nothing was."""
    found = []
    for name, sense, bound, figure, one, other in GOALS:
        above, below = by_round(rows, one, figure), by_round(rows, other, figure) if other else None
        values = [
            above[each] / (below[each] if below is not None else 1) for each in above if below is None or each in below
        ]
        found.append(_outcome(name, sense, bound, values))
    of_memory = [max(row["bytes_per_call"] for row in memory) / 1024] if memory else []
    return [*found, _outcome(_OF_MEMORY, "at most", 8, of_memory)]


def _outcome(name: str, sense: Sense, bound: float, values: Sequence[float]) -> dict[str, Any]:
    measured = spread(values) if values else None
    met = None if measured is None else measured.median <= bound if sense == "at most" else measured.median >= bound
    return {"goal": name, sense: bound, "measured": measured, "met": met}
