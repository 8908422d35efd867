"""A DynamoDB of the demo's own: moto's server as a child process, and surroundings that do not interfere."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import IO, Final

_SERVER: Final = "aioidempotency._cli.server"
_NEEDED: Final = ("moto", "flask", "flask_cors")
_START_LIMIT: Final = 60.0
_STOP_LIMIT: Final = 5.0

_SETTINGS: Final = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # The lower-case name wins over the other one, and an asterisk over the system's own proxy settings.
    "no_proxy": "*",
}


class EmbeddedServerError(Exception):
    """The server cannot be started here; the message says why."""


@contextmanager
def embedded_dynamodb() -> Iterator[str]:
    """Run moto's server until the block ends; yields its URL.

    Inside the block the process has the environment of the demo alone.

    Raises:
        EmbeddedServerError: moto is not installed, or its server does not start.
    """
    if not all(find_spec(name) for name in _NEEDED):
        raise EmbeddedServerError(
            'the demo needs moto\'s server, which is not installed; run: pip install "aioidempotency[demo]", '
            "or give --endpoint-url"
        )
    with _own_environment(), tempfile.TemporaryFile() as errors, _spawn(errors) as process:
        try:
            yield f"http://127.0.0.1:{_announced_port(process, errors)}"
        finally:
            _stop(process)


@contextmanager
def _own_environment() -> Iterator[None]:
    """Hide the user's AWS settings and proxies from every client and process that the block starts.

    A session with credentials of its own would not do: the profile, the configuration file and
    proxies are read from the environment even then.
    """
    kept = dict(os.environ)
    for name in kept:
        if name.upper().startswith(("AWS_", "MOTO_")):
            del os.environ[name]
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)


def _spawn(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - this interpreter, and a module of ours
        # -P: a file in the working directory must not stand in for a module.
        [sys.executable, "-P", "-m", _SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        # Ctrl-C is for the parent, which stops the server last.
        start_new_session=True,
    )


def _announced_port(process: subprocess.Popen[bytes], errors: IO[bytes]) -> int:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    limit = threading.Timer(_START_LIMIT, process.kill)
    limit.start()
    try:
        return int(process.stdout.readline())
    except ValueError as error:
        raise EmbeddedServerError(f"the embedded server did not start: {_last_line(errors)}") from error
    finally:
        limit.cancel()


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(0)
    lines = errors.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    process.stdin.close()
    try:
        process.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
