"""`aioidempotency layout`: what a table says of how its records lie, and the steps of a move."""

import asyncio
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, NoReturn, cast

import typer

from aioidempotency._cli.failure import fail
from aioidempotency._cli.spelling import strategy
from aioidempotency._cli.tables import Choice, Opened, on_a_table
from aioidempotency.partitioning import Partitioning, Reshard, Terms
from aioidempotency.partitioning import table_layout as layout
from aioidempotency.partitioning.table_layout import Description, Differs, TableLayout, WantedLayout

app = typer.Typer(help="Show, check and set what a table says of how its records lie.", no_args_is_help=True)

_SAYS_NOTHING: Final = "the table says nothing of its layout; the first store that opens it does, or `layout set`"

Strategy = Annotated[str, typer.Argument(help='The strategy, as Python has it: "HashBuckets(32)".')]
Retention = Annotated[float, typer.Option(help="The longest that records of the stores answer, in seconds.", min=1)]


@app.command()
@on_a_table
def show(
    choice: Choice, *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Show what the table says. Exits with 0, with 1 when it says nothing, with 2 when it cannot be read."""
    said = asyncio.run(_read(choice))
    if said is None:
        fail(_SAYS_NOTHING, code=1)
    typer.echo(json.dumps(_facts(said)) if as_json else _told(said))


@app.command()
@on_a_table
def check(choice: Choice, wanted: Strategy, *, retention: Retention = 3600) -> None:
    """Say whether a store with this strategy may open the table, and change nothing.

    Where that would leave a move, count the live records in the places that are not looked at any more.

    Exits with 0 when it may, with 1 when not, with 2 when the table cannot be read.
    """
    asyncio.run(_check(choice, strategy(wanted).bound(Terms(retention=retention)), retention))


@app.command(name="set")
@on_a_table
def set_(
    choice: Choice,
    wanted: Strategy,
    *,
    retention: Retention = 3600,
    force: Annotated[
        bool, typer.Option("--force", help="Whatever the table says: for a table without records.")
    ] = False,
) -> None:
    """Have the table say this strategy: at most one phase of a move from what it says.

    Stores move it on by themselves. This is for going back; for beginning a wait anew, by saying the same again
    when the last node of the phase before has ended; and for a table that says nothing.

    Exits with 0 when it was set, with 1 when it may not be, with 2 when the table cannot be reached.
    """
    asyncio.run(_set(choice, strategy(wanted).bound(Terms(retention=retention)), retention, force=force))


async def _read(choice: Choice) -> TableLayout | None:
    async with choice.opened() as table:
        return await table.drive(layout.read(table.place))


async def _check(choice: Choice, wanted: Partitioning, retention: float) -> None:
    async with choice.opened() as table:
        said = await table.drive(layout.read(table.place))
        if said is None:
            fail(_SAYS_NOTHING, code=1)
        left = await _left_behind(table, said, wanted)
        verdict = layout.judge(said, _laid(table, wanted, retention), now=time.time())
    if left is not None:
        typer.echo(f"live records in places that only the other strategy looks at: {left}")
    if isinstance(verdict, Differs):
        _refuse(verdict, wanted)
    typer.echo(f"a store with {layout.as_code(wanted.description())} may open the table")


async def _left_behind(table: Opened, said: TableLayout, wanted: Partitioning) -> int | None:
    """Count what leaving a move would leave behind; None where the store wants no such step."""
    if isinstance(wanted, Reshard) or said.description["strategy"] != "Reshard":
        return None
    now = time.time()
    both = strategy(layout.as_code(said.description)).partitions(now)
    kept = wanted.partitions(now)
    if both is None or kept is None:
        return None
    return sum(await table.counted(sorted({*both} - {*kept}), now=now))


async def _set(choice: Choice, wanted: Partitioning, retention: float, *, force: bool) -> None:
    async with choice.opened() as table:
        laid = _laid(table, wanted, retention)
        verdict = await table.drive(layout.move(laid, now=time.time(), forced=force))
    if isinstance(verdict, Differs):
        _refuse(verdict, wanted)
    typer.echo(_told(verdict.layout))


def _laid(table: Opened, wanted: Partitioning, retention: float) -> WantedLayout:
    return WantedLayout(location=table.place, description=wanted.description(), retention=retention)


def _refuse(verdict: Differs, wanted: Partitioning) -> NoReturn:
    said, asked = layout.as_code(verdict.layout.description), layout.as_code(wanted.description())
    fail(f"the table says {said}, which is not {asked} or one phase from it. {layout.advice(verdict)}", code=1)


def _facts(said: TableLayout) -> dict[str, object]:
    return {
        "layout": layout.as_code(said.description),
        "since": said.since,
        "before": None if said.before is None else layout.as_code(said.before),
        "beside": list(said.beside),
        "changes": said.changes,
    }


def _told(said: TableLayout) -> str:
    since = datetime.fromtimestamp(said.since, UTC)
    lines = [layout.as_code(said.description), f"since {since:%Y-%m-%d %H:%M:%S} UTC"]
    if said.before is not None:
        lines.append(f"before: {layout.as_code(said.before)}")
    if said.beside:
        lines.append(f"beside: {', '.join(f'Static({value!r})' for value in said.beside)}")
    if following := _following(said.description):
        lines.append(f"next: {following}")
    return "\n".join(lines)


def _following(description: Description) -> str | None:
    """Say what comes next in a move."""
    if description["strategy"] != "Reshard":
        return None
    if description["phase"] == "prepare":
        return f"{layout.as_code({**description, 'phase': 'cutover'})}, once all nodes are on this one"
    new = cast("Mapping[str, object]", description["new"])
    return f"{layout.as_code(new)}, a retention after the last node before this one has ended"
