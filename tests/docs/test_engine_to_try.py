"""The engine that the first page names starts as the page says, and answers the page's own settings."""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.blocks import blocks

FIRST_PAGE = Path(__file__).parents[2] / "docs" / "pages" / "index.md"
PORT = "4566"
CALL = """
import asyncio
from aioidempotency import AsyncIdempotencyStore

async def call():
    async with AsyncIdempotencyStore("idempotency") as store:
        await store.create_table()
        async with store.execute("invoice-42") as execution:
            execution.complete("sent")
        print(execution.result)

asyncio.run(call())
"""


def test_the_engine_of_the_first_page_answers_the_first_page(tmp_path: Path) -> None:
    """U2: somebody without an AWS account starts the engine, sets the variables, and makes a call."""
    start, settings = (block.text for block in blocks(FIRST_PAGE.read_text()) if PORT in block.text)
    port = _free_port()
    # Only the port is another one: the page's own may be taken on this machine.
    with _started(_words(start, port)[_words(start, port).index("SERVICES=dynamodb") :], tmp_path):
        ran = subprocess.run(
            [sys.executable, "-c", CALL],
            env={**_environment(tmp_path), **_variables(_words(settings, port))},
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
        )
    assert (ran.stdout, ran.stderr) == ("sent\n", "")


def _words(text: str, port: int) -> list[str]:
    return shlex.split(text.replace(PORT, str(port)).replace("\\\n", " "))


def _variables(words: list[str]) -> dict[str, str]:
    return dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))


@contextmanager
def _started(words: list[str], folder: Path) -> Iterator[None]:
    *settings, command = words
    process = subprocess.Popen(
        # An engine that is silent keeps its text in a buffer.
        [sys.executable, "-u", "-m", Path(command).name],
        env={**_environment(folder), **_variables(settings)},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if "Running on" in line:
                break
        else:
            raise AssertionError("".join(said))
        yield
    finally:
        process.terminate()
        process.communicate(timeout=20)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of this machine's own settings, and no container daemon."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    return {**kept, "HOME": str(folder), "TMPDIR": str(folder), "DOCKER_HOST": "unix:///nonexistent"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
