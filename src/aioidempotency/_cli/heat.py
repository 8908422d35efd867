"""`aioidempotency heat`: how the live records of a table are distributed over its partitions."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Annotated, Final, final

import typer
from rich.console import Console, Group, RenderableType
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from aioidempotency._cli.spelling import strategy
from aioidempotency._cli.tables import Choice, Opened, on_a_table
from aioidempotency.exceptions import ConfigurationError
from aioidempotency.partitioning import Terms
from aioidempotency.partitioning import table_layout as layout

_MOST_BARS: Final = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Heat:
    """What was counted.

    Attributes:
        layout: The strategy whose partitions were asked.
        records: Live records of each partition value, the fullest first.
    """

    layout: str
    records: Mapping[str, int]

    @property
    def total(self) -> int:
        """All live records."""
        return sum(self.records.values())

    @property
    def hottest(self) -> float:
        """How many times the mean the fullest partition value has; 0 where there are no records."""
        return max(self.records.values()) / fmean(self.records.values()) if self.total else 0.0


@on_a_table
def heat(
    choice: Choice,
    *,
    wanted: Annotated[
        str | None, typer.Option("--layout", help='The strategy, as "HashBuckets(32)"; else what the table says.')
    ] = None,
    retention: Annotated[float, typer.Option(help="The retention of the stores, in seconds.", min=1)] = 3600,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts alone, as one JSON object.")] = False,
) -> None:
    """Count the live records in each partition value of a table, by queries, and draw them.

    A query reads the records: half a read unit for each 4 KB.

    Exits with 0, or with 2 when they cannot be counted; one line says why.
    """
    console = Console(quiet=as_json)
    found = asyncio.run(_counted(choice, wanted, retention, console))
    if as_json:
        typer.echo(json.dumps({**asdict(found), "total": found.total, "hottest": round(found.hottest, 3)}))
    else:
        console.print(_drawn(found))


async def _counted(choice: Choice, wanted: str | None, retention: float, console: Console) -> Heat:
    async with choice.opened() as table:
        spelled = await _said(table) if wanted is None else wanted
        now = time.time()
        partitions = strategy(spelled).bound(Terms(retention=retention)).partitions(now)
        if partitions is None:  # a strategy that can be spelled lists its partitions, unless a later one does not
            raise ConfigurationError(f"the partitions of {spelled} cannot be listed")
        progress = Progress(console=console, transient=True)
        task = progress.add_task("Partitions asked", total=len(partitions))
        advance: Callable[[], object] = lambda: progress.advance(task)  # noqa: E731 - it names the call
        with progress if console.is_terminal else nullcontext():
            counts = await table.counted(partitions, now=now, tell=advance)
    ordered = sorted(zip(partitions, counts, strict=True), key=lambda each: -each[1])
    return Heat(layout=spelled, records=dict(ordered))


async def _said(table: Opened) -> str:
    said = await table.drive(layout.read(table.place))
    if said is None:
        raise ConfigurationError('the table says nothing of its layout; give --layout, as "HashBuckets(32)"')
    return layout.as_code(said.description)


def _drawn(found: Heat) -> RenderableType:
    title = Text(f"{found.total:,} live records in {len(found.records):,} partition values: {found.layout}\n")
    if not found.total:
        return title
    grid = Table.grid(padding=(0, 1))
    most = max(found.records.values())
    for partition, count in list(found.records.items())[:_MOST_BARS]:
        bar = ProgressBar(total=most, completed=count, width=40, complete_style="cyan", finished_style="cyan")
        grid.add_row(Text(partition, style="dim"), bar, f"{count:,}")
    mean = found.total / len(found.records)
    verdict = f"\nthe fullest has {found.hottest:.2f} times the mean of {mean:,.1f}"
    rest = len(found.records) - _MOST_BARS
    return Group(title, grid, Text((f"and {rest:,} more, none of them fuller" if rest > 0 else "") + verdict))
