"""The result in the terminal."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.speed.contest import ORDER
from bench.speed.figures import Cell
from bench.speed.goals import Outcome
from bench.speed.jobs import MIXED, WORKLOADS, Workload
from bench.speed.rounds import Row
from bench.spread import Spread

_TITLES: Final[Mapping[Workload, str]] = {
    "fresh": "Fresh calls: every key is new",
    "duplicates": "Duplicates: every key is finished",
    "mix": f"A mix: of {MIXED} calls one is a duplicate",
}
_COLUMNS: Final = (
    "contestant",
    "at once",
    "processor time, us",
    "least to most",
    "per s",
    "p50, ms",
    "p99, ms",
    "requests",
    "write units",
    "peak, MB",
)


def show(
    console: Console, found: Mapping[Cell, Mapping[str, Spread]], memory: Sequence[Row], outcomes: Sequence[Outcome]
) -> None:
    """Print what was measured, and the goals."""
    for workload in WORKLOADS:
        of_workload = {cell: figures for cell, figures in found.items() if cell[1] == workload}
        if of_workload:
            console.print(_measurements(_TITLES[workload], of_workload))
    for row in memory:
        kept, body = row["bytes_per_call"] / 1024, row["bytes_of_the_body"] / 1024
        console.print(f"A call in flight keeps, {row['contestant']}: {kept:.1f} KB, and its body {body:.1f} KB.")
    console.print(_goals(outcomes))
    busiest = max(figures["server_share"].most for figures in found.values())
    console.print(f"The model's process was busy {busiest:.0%} of the time at most.")


def _measurements(title: str, found: Mapping[Cell, Mapping[str, Spread]]) -> Table:
    table = Table(*_COLUMNS, title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    ordered = sorted(found, key=lambda cell: (ORDER.index(cell[0]), cell[2]))
    for contestant, cells in groupby(ordered, key=lambda cell: cell[0]):
        for number, cell in enumerate(cells):
            table.add_row("" if number else contestant, str(cell[2]), *_texts(found[cell]))
        table.add_section()
    return table


def _texts(figures: Mapping[str, Spread]) -> Sequence[str]:
    cost = figures["processor_us"]
    return (
        f"{cost.median:,.0f}",
        f"{cost.least:,.0f} to {cost.most:,.0f}",
        f"{figures['per_second'].median:,.0f}",
        f"{figures['p50_ms'].median:.2f}",
        f"{figures['p99_ms'].median:.2f}",
        f"{figures['requests'].median:.2f}",
        f"{figures['write_units'].median:.2f}",
        f"{figures['peak_mb'].most:.0f}",
    )


def _goals(outcomes: Sequence[Outcome]) -> Table:
    table = Table("goal", "wanted", "measured", "least to most", "", title="Goals")
    for each in outcomes:
        wanted = f"{each.goal.sense} {each.goal.bound:g}"
        if each.measured is None:
            table.add_row(each.goal.name, wanted, "not measured", "", "")
            continue
        spread = f"{each.measured.least:.2f} to {each.measured.most:.2f}"
        table.add_row(each.goal.name, wanted, f"{each.measured.median:.2f}", spread, "met" if each.met else "missed")
    return table
