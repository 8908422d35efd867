"""What the rounds come to: of each figure the median, the least and the most."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench.speed.contest import Workload
from bench.spread import spread

Row = dict[str, Any]
"""One span: contestant, workload, level, round, and what was measured."""

Cell = tuple[str, Workload, int]
"""Contestant, workload, and its level: calls at once, or arrivals in a second."""

FIGURES: Final[Mapping[str, Callable[[Row], float]]] = {
    "processor_us": lambda row: row["processor"] / row["calls"] * 1e6,
    "per_second": lambda row: row["calls"] / row["wall"],
    "per_processor_second": lambda row: row["calls"] / row["processor"],
    "p50_ms": lambda row: row["p50"] * 1e3,
    "p99_ms": lambda row: row["p99"] * 1e3,
    "requests": lambda row: row["server"]["requests"] / row["calls"],
    "write_units": lambda row: row["server"]["write_units"] / row["calls"],
    "read_units": lambda row: row["server"]["read_units"] / row["calls"],
    "peak_mb": lambda row: row["peak_bytes"] / 1e6,
    "failed": lambda row: row.get("failed", 0),
    "drain_ms": lambda row: row.get("drain", 0.0) * 1e3,
    "server_share": lambda row: row["server"]["processor"] / row["wall"],
}
"""How each figure of a span is computed; requests and units are those of one execution."""


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Compute all figures of all measurements, each as a median, a least and a most."""
    return [
        {"contestant": cell[0], "workload": cell[1], "level": cell[2]}
        | {
            name: [_short(each) for each in spread([figure(row) for row in of_cell])]
            for name, figure in FIGURES.items()
        }
        for cell, of_cell in _by_cell(rows).items()
    ]


def by_round(rows: Sequence[Row], cell: Cell, figure: str) -> dict[int, float]:
    """Give one figure of one measurement in each round; empty where there was none, and infinite where calls failed."""
    return {
        row["round"]: math.inf if row.get("failed") else FIGURES[figure](row) for row in _by_cell(rows).get(cell, ())
    }


def _by_cell(rows: Sequence[Row]) -> dict[Cell, list[Row]]:
    cells: dict[Cell, list[Row]] = {}
    for row in rows:
        cells.setdefault((row["contestant"], row["workload"], row["level"]), []).append(row)
    return cells


def _short(value: float) -> float:
    return float(f"{value:.4g}")
