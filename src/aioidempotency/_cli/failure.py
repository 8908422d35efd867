"""How the command ends when it cannot do what it was asked: one line, and a code."""

from typing import NoReturn

import typer


def fail(message: str, *, code: int) -> NoReturn:
    """Say why on one line, and exit."""
    typer.echo(f"aioidempotency: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)
