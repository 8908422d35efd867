"""The command and its sub-commands."""

from importlib.metadata import version
from typing import Annotated

import typer

from aioidempotency._cli import layout
from aioidempotency._cli.demo import demo
from aioidempotency._cli.heat import heat
from aioidempotency._cli.plan import plan

app = typer.Typer(
    help="Idempotent coroutine handlers on DynamoDB.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(plan)
app.command()(heat)
app.add_typer(layout.app, name="layout")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag
    if wanted:
        typer.echo(version("aioidempotency"))
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a sub-command."""
