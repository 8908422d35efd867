"""How the command ends when it cannot do what it was asked: one line, and a code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from aioidempotency.exceptions import IdempotencyError

_INTERRUPTED: Final = 130


def fail(message: str, *, code: int) -> NoReturn:
    """Say why on one line, and exit."""
    typer.echo(f"aioidempotency: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@contextmanager
def in_one_line(*more: type[Exception]) -> Iterator[None]:
    """End with 2 on the library's errors, and on `more`, with what they say; with 130 when interrupted."""
    expected: tuple[type[Exception], ...] = (IdempotencyError, *more)
    try:
        yield
    except expected as error:
        fail(str(error), code=2)
    except KeyboardInterrupt:
        fail("stopped", code=_INTERRUPTED)
