"""`aioidempotency demo`: the scene, on a table of its own or on the user's."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from aioidempotency._cli import picture
from aioidempotency._cli.embedded import EmbeddedServerError, embedded_dynamodb
from aioidempotency._cli.failure import in_one_line
from aioidempotency._cli.scene import Figures, Tally
from aioidempotency._cli.script import Settings, write_script
from aioidempotency._cli.stage import Stage, perform


def demo(
    *,
    orders: Annotated[int, typer.Option(min=1, max=200, help="Payment orders.")] = 20,
    deliveries: Annotated[int, typer.Option(min=1, max=100, help="Deliveries of one order, at the most.")] = 25,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Workers, each with a store of its own.")] = 4,
    seed: Annotated[int, typer.Option(help="The seed of the scene's chance.")] = 1,
    endpoint_url: Annotated[str | None, typer.Option(help="Play at this DynamoDB endpoint of yours.")] = None,
    region: Annotated[str | None, typer.Option(help="Play in this AWS region of yours.")] = None,
    table_name: Annotated[
        str | None,
        typer.Option(help="Play on this table of yours, with the keys pk and sk; it is created if it is missing."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures alone, as one JSON object.")] = False,
) -> None:
    """Deliver payment orders many times over, and count how often each was charged.

    Plays on a DynamoDB server of its own, which ends with it.

    --endpoint-url, --region and --table-name make it play on a table of yours, with your AWS settings.

    What it writes there expires after an hour.

    Exits with 0 when every order was charged exactly once, 1 when not, 2 when it cannot play.
    """
    settings = Settings(orders=orders, deliveries=deliveries, workers=workers, seed=seed)
    console = Console(quiet=as_json)
    with in_one_line(EmbeddedServerError), _stage(endpoint_url, region, table_name) as stage:
        figures = _watched(stage, settings, console)
    raise typer.Exit(_conclude(figures, console, as_json=as_json))


def _conclude(figures: Figures, console: Console, *, as_json: bool) -> int:
    """Print the figures, and answer with the exit code."""
    if as_json:
        typer.echo(json.dumps({**asdict(figures), "exactly_once": figures.exactly_once}))
    else:
        console.print(picture.result(figures))
    return 0 if figures.exactly_once else 1


@contextmanager
def _stage(endpoint_url: str | None, region: str | None, table_name: str | None) -> Iterator[Stage]:
    """Take the user's table if any of its settings is given, else one on a server of the demo's own."""
    own = {"endpoint_url": endpoint_url, "region_name": region, "table_name": table_name}
    given = {name: value for name, value in own.items() if value is not None}
    if given:
        yield Stage(**given)
        return
    with embedded_dynamodb() as url:
        yield Stage(endpoint_url=url)


def _watched(stage: Stage, settings: Settings, console: Console) -> Figures:
    """Play the scene; on a terminal, show how far it is."""
    script, tally = write_script(settings), Tally()
    console.print(picture.opening(script, workers=settings.workers, table_name=stage.table_name))
    live = Live(
        get_renderable=lambda: picture.progress(script, tally),
        console=console,
        transient=True,
        refresh_per_second=10,
    )
    with live if console.is_terminal else nullcontext():
        return asyncio.run(perform(stage, script, tally, workers=settings.workers))
