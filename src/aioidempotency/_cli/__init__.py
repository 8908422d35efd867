"""The command `aioidempotency`. What it needs beyond the library comes with the extras `cli`, `demo` and `plot`."""

import sys

_EXTRA = {"typer", "rich"}


def main() -> None:
    """Run the command; without its extra, say which one to install, and exit with 2."""
    try:
        from aioidempotency._cli.app import app  # noqa: PLC0415 - the library works without the extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        sys.stderr.write(
            f"aioidempotency: the command needs {error.name}, which is not installed; "
            'install aioidempotency[cli] (or aioidempotency[demo] for the demo), in a clone: pip install ".[cli]"\n'
        )
        sys.exit(2)
    app(prog_name="aioidempotency")
