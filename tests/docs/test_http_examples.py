"""The examples for FastAPI and aiohttp: their pages show them, their tests pass, and they start by one command."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.docs.blocks import blocks

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
EACH = pytest.mark.parametrize("name", ["fastapi", "aiohttp"])
HEADERS = {
    "Authorization": "Bearer token-of-anna",
    "Idempotency-Key": "k-1",
    "Content-Type": "application/json",
}


@EACH
def test_the_page_shows_the_example(name: str) -> None:
    """U2: to the letter."""
    shown = {
        block.title: block.text
        for block in blocks((ROOT / "docs" / "pages" / f"{name}.md").read_text(encoding="utf-8"))
        if block.title
    }
    assert shown["app.py"] == (EXAMPLES / name / "app.py").read_text(encoding="utf-8")


@EACH
def test_the_tests_of_the_example_pass(name: str, pytester: pytest.Pytester) -> None:
    """U2: with records in memory."""
    for path in (EXAMPLES / name).glob("*.py"):
        pytester.path.joinpath(path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)


@EACH
def test_the_example_starts_by_one_command(name: str) -> None:
    """U2, H5: on a DynamoDB inside its own process."""
    with started(name) as port:
        answers = [post(port, b'{"article": "chair", "cents": 4200}') for _ in range(2)]
        assert [answer[0] for answer in answers] == [201, 201]
        assert answers[0][2] == answers[1][2]
        assert [answer[1] for answer in answers] == [None, "true"]


@contextmanager
def started(name: str) -> Iterator[int]:
    """Start an example on a free port, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / name / "run.py"), str(port)],
        env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield answering(port, process)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def answering(port: int, process: subprocess.Popen[str]) -> int:
    """Wait until the port takes connections."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise AssertionError(process.communicate()[0]) from None
            time.sleep(0.05)
        else:
            return port


def post(port: int, body: bytes) -> tuple[int, str | None, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/payments", body, HEADERS)
    response = connection.getresponse()
    answer = response.status, response.getheader("Idempotent-Replayed"), response.read()
    connection.close()
    return answer
