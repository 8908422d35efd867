"""How the command ends when it cannot do what it was asked: one line in the words of a shell, and a code."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import typer

from aioidempotency.exceptions import IdempotencyError

_INTERRUPTED: Final = 130

_OPTIONS: Final = {"region_name": "--region", "endpoint_url": "--endpoint-url", "table_name": "--table-name"}
_IN_A_SHELL: Final = {
    "create it with `await store.create_table()`": "the first store that calls create_table() makes it",
    ", or give session= or client=": "",
    "a namespace is a text": "--namespace takes a text",
}
"""What the library's errors say to a programmer, and what that means to someone at a shell."""


class CommandError(Exception):
    """The command cannot do what it was asked; the message says what to do."""


def fail(message: str, *, code: int) -> NoReturn:
    """Say why on one line, and exit."""
    typer.echo(f"aioidempotency: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


@contextmanager
def in_one_line() -> Iterator[None]:
    """End with 2 and one line on errors of the library and of the command; with 130 when interrupted."""
    try:
        yield
    except CommandError as error:
        fail(str(error), code=2)
    except IdempotencyError as error:
        message = str(error)
        for words, at_a_shell in _IN_A_SHELL.items():
            message = message.replace(words, at_a_shell)
        fail(re.sub(rf"\b({'|'.join(_OPTIONS)})\b=?", lambda found: _OPTIONS[found[1]], message), code=2)
    except KeyboardInterrupt:
        fail("stopped", code=_INTERRUPTED)
