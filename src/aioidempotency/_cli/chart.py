"""The plan on a terminal: the answer, and what other numbers of buckets would do."""

from collections.abc import Iterator
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aioidempotency._cli.billing import PARTS
from aioidempotency._cli.capacity import NEW_TABLE
from aioidempotency._cli.planning import DEFAULT, MOST_TRIED, Plan, Row
from aioidempotency._cli.workload import Workload

QUOTA: Final = 40_000
"""Write or read units a second that Amazon allows one table, unless asked for more."""

_NEW_TABLE_WRITES: Final = NEW_TABLE * 1000
_NEW_TABLE_READS: Final = NEW_TABLE * PARTS

_HARDLY: Final = 0.0005

_LIMIT: Final = 13
"""Characters of a bar that reaches the limit."""

_SCALE: Final = 2
"""How many times the limit the bars can show."""


def answer(plan: Plan) -> RenderableType:
    """Draw the plan."""
    return Group(
        Text(_question(plan.workload), style="bold"),
        _facts(plan),
        _rows(plan),
        *(Text(f"\n{note}") for note in notes(plan)),
    )


def likelihood(probability: float) -> str:
    """Write a probability in per cent, and none that is not 0 or 1 as if it were."""
    if probability > 1 - _HARDLY:
        return "> 99.9 %"
    return "< 0.1 %" if 0 < probability < _HARDLY else per_cent(probability)


def per_cent(share: float) -> str:
    """Write a share."""
    return f"{share * 100:.3g} %"


def notes(plan: Plan) -> Iterator[str]:
    """Say what a user must know who acts on the plan."""
    if plan.enough_together is None:
        yield (
            f"No power of two up to {MOST_TRIED:,} is enough for {plan.partitions:,} partitions. Expect throttling "
            "until DynamoDB has split the hot ones, or warm the table up for more; more buckets help as far as shown."
        )
    if plan.write_units > _NEW_TABLE_WRITES or plan.read_units > _NEW_TABLE_READS:
        yield (
            f"A new on-demand table takes {_NEW_TABLE_WRITES:,} write or {_NEW_TABLE_READS:,} read units a second: "
            "warm it up first, or let the load grow; it takes up to twice its last peak."
        )
    if max(plan.write_units, plan.read_units) > QUOTA:
        yield f"Amazon allows one table {QUOTA:,} write or read units a second unless you ask for more: ask first."
    if plan.default_is_enough:
        yield f"The default of CompositeKey, HashBuckets({DEFAULT}), is enough for this."
    yield (
        "Changing the number on live data is a move in four steps, and a bucket costs nothing: when in doubt, take more. "
        "A table with one key (SimpleKey) needs no buckets."
    )


def _question(workload: Workload) -> str:
    question = (
        f"{workload.calls_per_second:,g} calls a second, {workload.duplicates * 100:g} % of them duplicates, "
        f"results of {workload.result_bytes:,} bytes"
    )
    reading = ", reading first" if workload.read_first else ""
    return question + reading + (f", {workload.places} places" if workload.places > 1 else "")


def _facts(plan: Plan) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim")
    for name, value, meaning in _lines(plan):
        table.add_row(name, value, meaning)
    return table


def _lines(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Say each number with its name and its meaning."""
    terms, fresh, duplicate = plan.terms, plan.fresh, plan.duplicate
    together = "none" if plan.enough_together is None else f"{plan.enough_together:,}"
    yield "Take", plan.name, _reason(plan)
    yield "Enough after splits", f"{plan.enough_alone:,}", "each bucket alone on a partition"
    yield "Enough before splits", together, f"over {plan.partitions:,} partitions, {_origin(plan)}"
    yield (
        "Write units a second",
        f"{plan.write_units:,.0f}",
        f"a fresh call {fresh.write}, a duplicate {duplicate.write}",
    )
    yield "Read units a second", f"{plan.read_units:,.0f}", f"a fresh call {fresh.read}, a duplicate {duplicate.read}"
    yield "A finished record", f"{plan.finished_bytes:,} bytes", f"{plan.running_bytes:,} bytes while it runs"
    yield "Static would take", per_cent(plan.static), "of this load, on one partition"
    yield "Requests a month", f"${plan.cost:,.2f}", f"${terms.write_price:g} and ${terms.read_price:g} a million units"


def _reason(plan: Plan) -> str:
    if plan.enough_together is None:
        return "the next power of two"
    return "a power of two, enough for both"


def _origin(plan: Plan) -> str:
    if plan.terms.partitions is not None:
        return "as given"
    return "a new table's" if plan.partitions == NEW_TABLE else "twice the need"


def _rows(plan: Plan) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"How likely no partition passes its limit in a second ({plan.terms.probability * 100:g} % asked for)",
        title_style="bold",
        title_justify="left",
        caption=f"◁ enough after splits   ◀ {plan.name}",
        caption_justify="left",
    )
    table.add_column("\nBuckets", justify="right")
    table.add_column("After\nsplits", justify="right")
    table.add_column("Before splits,\nat least", justify="right")
    table.add_column(f"Hottest partition before splits\n0 %{'limit':>{_LIMIT}}", no_wrap=True)
    for row in plan.rows:
        style = "bold" if row.buckets == plan.buckets else ""
        table.add_row(f"{row.buckets:,}", likelihood(row.alone), likelihood(row.together), _bar(row, plan), style=style)
    return table


def _bar(row: Row, plan: Plan) -> Text:
    """Draw the load, and the place of the limit."""
    filled = min(_SCALE * _LIMIT, round(row.hottest * _LIMIT))
    cells = ["█"] * filled + [" "] * (_SCALE * _LIMIT - filled)
    cells[_LIMIT] = "┃" if filled > _LIMIT else "│"
    cut = "▶" if row.hottest > _SCALE else " "
    load = f"{row.hottest:>8,.0%}".replace("%", " %")
    mark = "◀" if row.buckets == plan.buckets else "◁" if row.buckets == plan.enough_alone else ""
    return Text.assemble(("".join(cells) + cut, "red" if row.hottest > 1 else "green"), load, f" {mark}")
