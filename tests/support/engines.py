"""The DynamoDB-compatible engines that the tests run against.

Each is a process on a free loopback port, stopped when its ``with`` block ends.
"""

import http.client
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, final
from urllib.parse import urlsplit

_ENDPOINT_VARIABLE: Final = "AIOIDEMPOTENCY_TEST_ENDPOINT"
_REGION: Final = "eu-central-1"
_ROOT: Final = Path(__file__).resolve().parents[2]
_START_LIMIT: Final = 60.0
_STOP_LIMIT: Final = 5.0
# A variable such as PERSIST_STATE or AWS_PROFILE must not change what an engine does.
_KEPT_VARIABLES: Final = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR", "TEMP", "SYSTEMROOT")
_LIST_TABLES: Final = {
    "Content-Type": "application/x-amz-json-1.0",
    "X-Amz-Target": "DynamoDB_20120810.ListTables",
    "Authorization": (
        f"AWS4-HMAC-SHA256 Credential=test/20260101/{_REGION}/dynamodb/aws4_request, SignedHeaders=host, Signature=0"
    ),
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A running DynamoDB-compatible endpoint and what it can do.

    To reach it through a proxy: ``dataclasses.replace(engine, endpoint_url=proxy.url)``.
    """

    name: str
    endpoint_url: str
    transactions: bool
    partiql: bool


class EngineStartError(RuntimeError):
    """An engine did not answer its first request."""

    def __init__(self, module: str, output: str) -> None:
        """Keep what the engine's process wrote."""
        super().__init__(f"{module} did not start; it wrote:\n{output}")
        self.module = module
        self.output = output


@contextmanager
def moto_engine() -> Iterator[Engine]:
    """Moto's server. Its PartiQL is unusable and its request tokens are ignored."""
    with serving("tests.support.moto_server") as (url, _):
        yield Engine(name="moto", endpoint_url=url, transactions=True, partiql=False)


@contextmanager
def ministack_engine() -> Iterator[Engine]:
    """MiniStack's DynamoDB, empty at every start."""
    with serving("tests.support.ministack_server") as (url, _):
        yield Engine(name="ministack", endpoint_url=url, transactions=True, partiql=True)


def user_engine() -> Engine | None:
    """The endpoint named by ``AIOIDEMPOTENCY_TEST_ENDPOINT``, if any; nothing is started."""
    url = os.environ.get(_ENDPOINT_VARIABLE)
    if not url:
        return None
    return Engine(name="user", endpoint_url=url, transactions=True, partiql=True)


def client_options(engine: Engine) -> dict[str, str]:
    """Keyword arguments for ``create_client("dynamodb", ...)``, with dummy credentials."""
    return {
        "endpoint_url": engine.endpoint_url,
        "region_name": _REGION,
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run an engine's module, with these arguments, until the block ends.

    Yields its URL and process, once it has answered a request.

    Raises:
        EngineStartError: it ended, or was silent for a minute; carries its output.
    """
    with tempfile.TemporaryFile() as output, _spawn((module, *arguments), output) as process:
        try:
            url = f"http://127.0.0.1:{_announced_port(process)}"
            _await_first_answer(url)
        except (OSError, ValueError, http.client.HTTPException) as error:
            _stop(process)
            raise EngineStartError(module, _read_back(output)) from error
        try:
            yield url, process
        finally:
            _stop(process)


def _spawn(command: Sequence[str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=_ROOT,
        env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=output,
        # An interrupt from the keyboard is for the parent; the child sees its input end.
        start_new_session=True,
    )


def _announced_port(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    limit = threading.Timer(_START_LIMIT, process.kill)
    limit.start()
    try:
        return int(process.stdout.readline())
    finally:
        limit.cancel()


def _await_first_answer(url: str) -> None:
    # The socket listens already: the connection waits in its queue, or breaks with the process.
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_START_LIMIT)
    try:
        connection.request("POST", "/", body=b"{}", headers=_LIST_TABLES)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.client.OK:
        message = f"ListTables was answered with {status}"
        raise ValueError(message)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read_back(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read().decode(errors="replace")
