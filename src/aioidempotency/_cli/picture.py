"""The scene on a terminal: progress while it plays, then its figures, its buckets and its verdict."""

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aioidempotency._cli.scene import Figures, Tally
from aioidempotency._cli.script import Script

_COLUMNS: Final = 4


def opening(script: Script, *, workers: int, table_name: str) -> RenderableType:
    """Say what is going to be seen."""
    return Text(
        f"{len(script.payments)} payment orders arrive in {len(script.deliveries)} deliveries, at {workers} workers "
        "at once. A payment takes a while, and some fail at first. The workers share nothing but the table "
        f'{table_name}; their handler is decorated with @idempotent(store, key="order.order_id").\n'
    )


def progress(script: Script, tally: Tally) -> RenderableType:
    """Draw how far the scene is."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row(*_progress("Orders charged", tally.completed, len(script.payments)))
    lines.add_row(*_progress("Deliveries answered", tally.answered, len(script.deliveries)))
    counts = f"{tally.replayed} replays, {tally.refused} refused while running, {tally.failed} retried after failure"
    return Group(lines, Text(counts, style="dim"))


def result(figures: Figures) -> RenderableType:
    """Draw what happened."""
    return Group(
        _counts(figures),
        Text("Records in each bucket of the table\n", style="bold"),
        _buckets(figures.records_per_bucket),
        Text(),
        _verdict(figures),
    )


def _progress(name: str, done: int, total: int) -> tuple[RenderableType, ...]:
    return name, _bar(done, total, width=30), f"{done} of {total}"


def _counts(figures: Figures) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("What happened")
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for name, count, meaning in (
        ("Orders", figures.orders, "each to be charged once"),
        ("Deliveries", figures.deliveries, f"of these orders, all answered in {figures.seconds:g} s"),
        ("Refused while running", figures.refused, "the order was in other hands; delivered again"),
        ("Executions", figures.executions, "runs of the handler"),
        ("Retried after failure", figures.retried, "runs that failed and gave the order back"),
        ("Replays", figures.replays, "deliveries answered with the stored receipt"),
        ("Charges", figures.charges, "lines in the payment provider's own ledger"),
    ):
        table.add_row(name, str(count), meaning)
    return table


def _buckets(records: Sequence[int]) -> Table:
    """Draw one bar for each bucket, numbered down the columns."""
    grid = Table.grid(padding=(0, 1))
    rows = -(-len(records) // _COLUMNS)
    for row in range(rows):
        cells: list[RenderableType] = []
        for bucket in range(row, len(records), rows):
            bar = _bar(records[bucket], max(records), width=11)
            cells += Text(f"{bucket:>2}", style="dim"), bar, f"{records[bucket]:<3}"
        grid.add_row(*cells)
    return grid


def _bar(count: int, most: int, *, width: int) -> ProgressBar:
    return ProgressBar(total=max(most, 1), completed=count, width=width, complete_style="cyan", finished_style="cyan")


def _verdict(figures: Figures) -> Panel:
    """Say whether every order was charged exactly once; if not, which ones were not."""
    totals = f"{figures.orders} orders, {figures.charges} charges"
    if figures.exactly_once:
        return Panel.fit(f"Every order was charged exactly once: {totals}.", style="bold green")
    wrong = ", ".join(f"{order}: {count} charges" for order, count in figures.charged_otherwise.items())
    return Panel.fit(f"Not every order was charged exactly once: {totals}.\n{wrong}.", style="bold red")
