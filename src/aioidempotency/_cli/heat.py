"""`aioidempotency heat`: how many live records each partition value of a table has."""

import asyncio
import json
import time
from statistics import fmean
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from aioidempotency._cli.failure import CommandError
from aioidempotency._cli.strategies import parse_strategy
from aioidempotency._cli.tables import TableOptions, on_a_table
from aioidempotency.partitioning import Terms
from aioidempotency.partitioning import table_layout as layout

_MOST_BARS: Final = 64
_WIDTH: Final = 40
"""Characters of the longest bar."""


@on_a_table
def heat(
    options: TableOptions,
    *,
    strategy: Annotated[
        str | None, typer.Option("--layout", help='The strategy, as "HashBuckets(32)"; else what the table says.')
    ] = None,
    retention: Annotated[float, typer.Option(help="The retention of the stores, in seconds.", min=1)] = 3600,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts alone, as one JSON object.")] = False,
) -> None:
    """Count the live records in each partition value of a table, by queries, and draw them.

    A query reads the records: half a read unit for each 4 KB.

    Exits with 0, or with 2 when they cannot be counted; one line says why.
    """
    strategy, records = asyncio.run(_count(options, strategy, retention, Console(quiet=as_json)))
    total = sum(records.values())
    mean = fmean(records.values())
    hottest = max(records.values()) / mean if total else 0.0
    if as_json:
        found = {"layout": strategy, "records": records, "total": total, "hottest": round(hottest, 3)}
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{total:,} live records in {len(records):,} partition values: {strategy}")
    if total:
        typer.echo("\n" + _bars(records))
        typer.echo(f"\nthe fullest has {hottest:.2f} times the mean of {mean:,.1f}")


def _bars(records: dict[str, int]) -> str:
    shown = list(records.items())[:_MOST_BARS]
    width, most = max(len(partition) for partition, _ in shown), max(records.values())
    lines = [f"{partition:{width}} {'━' * round(_WIDTH * n / most):{_WIDTH}} {n:,}" for partition, n in shown]
    if len(records) > len(shown):
        lines.append(f"and {len(records) - len(shown):,} more, none of them fuller")
    return "\n".join(lines)


async def _count(
    options: TableOptions, strategy: str | None, retention: float, console: Console
) -> tuple[str, dict[str, int]]:
    """Count the records of each partition value, the fullest first; answer with the strategy, too."""
    async with options.opened() as table:
        if strategy is None:
            found = await table.run(layout.read(table.layout_item))
            if found is None:
                raise CommandError('the table has no layout item; give the strategy, as in --layout "HashBuckets(32)"')
            strategy = layout.as_code(found.description)
        now = time.time()
        partitions = parse_strategy(strategy).bound(Terms(retention=retention)).partitions(now)
        if partitions is None:
            raise CommandError(f"nobody can list the partition values of {strategy}")
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("Partition values counted", total=len(partitions))
            counts = await table.count(partitions, now=now, on_counted=lambda: progress.advance(task))
    return strategy, dict(sorted(zip(partitions, counts, strict=True), key=lambda each: -each[1]))
