"""The goals, as ratios inside one run: what was wanted, what came out, and whether that is enough.

A ratio is taken in each round, of spans that were a few seconds apart, and the median of those counts. Instructions are
counted once: they are the same in each round.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from bench.speed.contest import (
    BARE,
    BARE_DEFAULT,
    CACHE,
    GROUP_COMMIT,
    MANY,
    OWN_CODE,
    PLAIN,
    POWERTOOLS,
    POWERTOOLS_THREADS,
    THREADS,
    Contestant,
    Workload,
)
from bench.speed.figures import Cell, Row, by_round
from bench.speed.loads import DELAY
from bench.spread import spread

_ROUND_TRIPS: Final = 2 * DELAY * 1e3
"""Milliseconds that the two requests of a fresh call wait for their answers."""

_FIRST_MEASURED: Final = 61.6
"""Microseconds that the library's own code took when it was first measured."""

_ARRIVALS: Final = 400
_BURSTS: Final = (1000, 50_000)
Sense = Literal["at most", "at least"]
Goal = tuple[str, Sense, float, str, Cell, Cell | float]
"""A name, a bound and its sense, and a figure: that of one measurement, over that of another one or over a number."""


def _fresh(contestant: Contestant, level: int = MANY) -> Cell:
    return contestant.name, "fresh", level


def _burst(contestant: Contestant) -> Goal:
    few, many = _BURSTS
    cells = [(contestant.name, _BURST, level) for level in (many, few)]
    name = f"{contestant.name}, {many:,} calls at once over {few:,}, processor time for each"
    return name, "at most", 3, "processor_us", cells[0], cells[1]


_BURST: Final[Workload] = "burst"
_RATE: Final = "per_processor_second"
_GROUPED: Final = _fresh(GROUP_COMMIT)
_OF_GROUPED: Final = f"group commit, fresh, {MANY} at once"
_OF_MEMORY: Final = "memory of a call in flight beyond its body's, in KB"
GOALS: Final[Sequence[Goal]] = (
    (
        f"plain path over two bare tuned calls, processor time, fresh, {MANY} at once",
        *("at most", 0.15, "processor_us", _fresh(PLAIN), _fresh(BARE)),
    ),
    (
        f"{_OF_GROUPED}, over Powertools on one thread, per processor second",
        *("at least", 40, _RATE, _GROUPED, _fresh(POWERTOOLS, 1)),
    ),
    (
        f"{_OF_GROUPED}, over Powertools on {THREADS} threads",
        *("at least", 55, _RATE, _GROUPED, _fresh(POWERTOOLS_THREADS)),
    ),
    (
        f"plain path, {_ARRIVALS} arrivals a second, p50 over two round trips of {DELAY * 1e3:g} ms",
        *("at most", 1.2, "p50_ms", (PLAIN.name, "open load", _ARRIVALS), _ROUND_TRIPS),
    ),
    _burst(PLAIN),
    _burst(GROUP_COMMIT),
    (
        "cold start over that of aiobotocore, processor time",
        *("at most", 1.0, "processor_us", (PLAIN.name, "cold start", 1), (BARE_DEFAULT.name, "cold start", 1)),
    ),
    (
        "a duplicate from the local cache, processor time in us",
        *("at most", 10, "processor_us", (CACHE.name, "duplicates", MANY), 1.0),
    ),
    (
        f"own code on a backend that does nothing, over the {_FIRST_MEASURED} us of the first measurement",
        *("at most", 0.333, "processor_us", _fresh(OWN_CODE), _FIRST_MEASURED),
    ),
    (
        "a lone call with group commit over the plain path, p50",
        *("at most", 1.05, "p50_ms", _fresh(GROUP_COMMIT, 1), _fresh(PLAIN, 1)),
    ),
    (
        f"group commit over the plain path, p99, {MANY} at once",
        *("at most", 0.5, "p99_ms", _GROUPED, _fresh(PLAIN)),
    ),
)
IN_INSTRUCTIONS: Final[Sequence[tuple[str, Sense, float, str, str]]] = (
    (
        f"plain path over two bare tuned calls, instructions, fresh, {MANY} at once",
        *("at most", 0.12, PLAIN.name, BARE.name),
    ),
    (
        f"two bare tuned calls over group commit, instructions, fresh, {MANY} at once",
        "at least",
        25,
        BARE.name,
        "group commit",
    ),
)


def outcomes(rows: Sequence[Row], memory: Sequence[Row], instructions: Mapping[str, float]) -> list[dict[str, Any]]:
    """Say of each goal what was measured, and whether the median is on the right side; None where nothing was."""
    found = []
    for name, sense, bound, figure, one, other in GOALS:
        above = by_round(rows, one, figure)
        below = dict.fromkeys(above, other) if isinstance(other, float) else by_round(rows, other, figure)
        found.append(_outcome(name, sense, bound, [above[each] / below[each] for each in above if each in below]))
    of_memory = [max(row["bytes_per_call"] for row in memory) / 1024] if memory else []
    counted = [
        _outcome(
            name, sense, bound, [instructions[one] / instructions[other]] if {one, other} <= instructions.keys() else []
        )
        for name, sense, bound, one, other in IN_INSTRUCTIONS
    ]
    return [found[0], *counted, *found[1:], _outcome(_OF_MEMORY, "at most", 8, of_memory)]


def _outcome(name: str, sense: Sense, bound: float, values: Sequence[float]) -> dict[str, Any]:
    measured = spread(values) if values else None
    met = None if measured is None else measured.median <= bound if sense == "at most" else measured.median >= bound
    return {"goal": name, sense: bound, "measured": measured, "met": met}
