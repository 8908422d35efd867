"""`aioidempotency layout`: the layout item of a table, and the steps of a move."""

import asyncio
import json
import time
from datetime import UTC, datetime
from typing import Annotated, Final, NoReturn, cast

import typer

from aioidempotency._cli.failure import fail
from aioidempotency._cli.strategies import parse_strategy
from aioidempotency._cli.tables import Table, TableOptions, on_a_table
from aioidempotency.partitioning import Partitioning, Reshard, Static, Terms
from aioidempotency.partitioning import table_layout as layout
from aioidempotency.partitioning.table_layout import Description, Differs, TableLayout, WantedLayout

app = typer.Typer(help="Show, check and set by which strategy a table's records are placed.", no_args_is_help=True)

_NO_LAYOUT: Final = (
    'the table has no layout item; the first store that opens it writes one, or: aioidempotency layout set "STRATEGY"'
)

Strategy = Annotated[str, typer.Argument(help='The strategy, as Python has it: "HashBuckets(32)".')]
Retention = Annotated[float | None, typer.Option(help="The longest retention= of stores and calls, in seconds.", min=1)]


@app.command()
@on_a_table
def show(
    options: TableOptions, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show the table's layout. Exits with 0, with 1 when it has none, with 2 when it cannot be read."""
    found = asyncio.run(_read(options))
    if found is None:
        fail(_NO_LAYOUT, code=1)
    if as_json:
        before = None if found.before is None else layout.as_code(found.before)
        facts = {"layout": layout.as_code(found.description), "since": found.since, "before": before}
        promises = {"promised": found.promised, "promised_before": found.promised_before}
        facts = {**facts, "beside": found.beside, "changes": found.changes, **promises}
        typer.echo(json.dumps({**facts, "promised_until": found.promised_until}))
    else:
        typer.echo(_text(found))


@app.command()
@on_a_table
def check(options: TableOptions, strategy: Strategy, *, retention: Retention = None) -> None:
    """Say whether a store with this strategy may open the table, and if not yet, from when on. Change nothing.

    Count the live records that the store would not find, by their keys. --retention counts for windows without a
    retention, and where the table does not know the longest retention: 3600 by default.

    Exits with 0 when it may, with 1 when not, with 2 when the table cannot be read.
    """
    asyncio.run(_check(options, _bound(strategy, retention), retention))


@app.command(name="set")
@on_a_table
def set_(
    options: TableOptions,
    strategy: Strategy,
    *,
    retention: Retention = None,
    force: Annotated[
        bool, typer.Option("--force", help="Whatever the table says: for a table without records.")
    ] = False,
) -> None:
    """Write this strategy into the table's layout item: at most one phase of a move from the strategy there.

    Stores move the item on by themselves. This command is for going back; for beginning a wait anew, by setting
    the same strategy again when the last node of the phase before has ended; for telling a longer --retention of
    stores with verify_layout=False, which write nothing; and for a table without the item.

    Exits with 0 when it was set, with 1 when it may not be, with 2 when the table cannot be reached.
    """
    asyncio.run(_set(options, _bound(strategy, retention), retention, force=force))


async def _read(options: TableOptions) -> TableLayout | None:
    async with options.opened() as table:
        return await table.run(layout.read(table.layout_item))


def _bound(strategy: str, retention: float | None) -> Partitioning:
    return parse_strategy(strategy).bound(Terms() if retention is None else Terms(retention=retention))


async def _check(options: TableOptions, strategy: Partitioning, retention: float | None) -> None:
    async with options.opened() as table:
        found = await table.run(layout.read(table.layout_item))
        if found is None:
            fail(_NO_LAYOUT, code=1)
        missed = await _missed(table, found, strategy)
        verdict = layout.judge(found, _wanted(table, strategy, retention), now=time.time())
    if missed is not None:
        typer.echo(f"live records that {layout.as_code(strategy.description())} would not find: {missed}")
    if isinstance(verdict, Differs):
        _refuse(verdict, strategy)
    typer.echo(f"a store with {layout.as_code(strategy.description())} may open the table")


async def _missed(table: Table, found: TableLayout, strategy: Partitioning) -> int | None:
    """Count the records that a store would not find. None if it looks at both strategies, or nobody can tell."""
    if isinstance(strategy, Reshard):
        return None
    now, moving = time.time(), found.description
    written = (moving["old"], moving["new"]) if moving["strategy"] == "Reshard" else (moving,)
    # What the strategy itself has put is where the strategy looks.
    others = [cast("Description", each) for each in written if each != strategy.description()]
    others += [Static(value).description() for value in found.beside if Static(value) != strategy]
    if not others or any(each["strategy"] == "CustomPartition" for each in others):  # its function is not here
        return None
    partitions = [parse_strategy(layout.as_code(each)).partitions(now) for each in others]
    return await table.count_missed(sorted({name for each in partitions for name in each or ()}), strategy, now=now)


async def _set(options: TableOptions, strategy: Partitioning, retention: float | None, *, force: bool) -> None:
    async with options.opened() as table:
        wanted = _wanted(table, strategy, retention)
        verdict = await table.run(layout.move(wanted, now=time.time(), forced=force))
    if isinstance(verdict, Differs):
        _refuse(verdict, strategy)
    typer.echo(_text(verdict.layout))


def _wanted(table: Table, strategy: Partitioning, retention: float | None) -> WantedLayout:
    return WantedLayout(
        location=table.layout_item,
        description=strategy.description(),
        retention=Terms().retention if retention is None else retention,
        promises=retention is not None,
    )


def _refuse(verdict: Differs, strategy: Partitioning) -> NoReturn:
    found, wanted = layout.as_code(verdict.layout.description), layout.as_code(strategy.description())
    if verdict.until is not None:
        fail(
            f"the table is at {found}, and records that {wanted} does not find may live until "
            f"{_instant(verdict.until)}: keep the phase before until then",
            code=1,
        )
    fail(
        f"the table is at {found}, and {wanted} is not one phase from that: go one phase at a time, with "
        "aioidempotency layout set \"Reshard(OLD, NEW, 'prepare')\"; or give --force if the table has no live record",
        code=1,
    )


def _text(found: TableLayout) -> str:
    lines = [layout.as_code(found.description), f"since {_instant(found.since)}"]
    if found.before is not None:
        lines.append(f"before: {layout.as_code(found.before)}")
    if found.promised is not None:
        lines.append(f"records answer for up to {found.promised:g} s")
    if found.beside:
        lines.append(f"beside: {', '.join(f'Static({value!r})' for value in found.beside)}")
    move = found.description
    if move["strategy"] == "Reshard":
        old, new = (layout.as_code(cast("Description", move[name])) for name in ("old", "new"))
        cutover = {**move, "phase": "cutover"}
        if move["phase"] == "prepare":
            lines.append(f"next: {layout.as_code(cutover)}, once all nodes are on this one")
            if found.before == cutover:
                lines.append(f"back: {old}, {_after_the_wait(found)}")
        elif found.before == move["new"]:
            lines.append(f"next: {new}, at any time")
        else:
            lines.append(f"next: {new}, {_after_the_wait(found)}")
    return "\n".join(lines)


def _after_the_wait(found: TableLayout) -> str:
    if found.promised_until is None:
        return "a retention after the last node before this one has ended"
    return (
        f"from {_instant(found.promised_until)} on, if no node before this one has run since {_instant(found.since)}; "
        "else set this layout again when the last one has ended"
    )


def _instant(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
