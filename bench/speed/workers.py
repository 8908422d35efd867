"""Workers as processes: started, asked, and ended by their handles."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, final

from bench.speed.contest import Contestant

_ROOT: Final = Path(__file__).resolve().parents[2]
_KEPT: Final = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR")
_AWS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_ANSWER_LIMIT: Final = 120.0
"""Seconds for one job. A worker that takes longer is ended."""

_STOP_LIMIT: Final = 5.0


class WorkerError(Exception):
    """A worker ended, or gave no answer in time; what it had to say is on standard error."""


@final
class Worker:
    """One contestant's process."""

    def __init__(self, contestant: Contestant, process: "subprocess.Popen[str]") -> None:
        self.contestant = contestant
        self._process = process

    def ask(self, **job: Any) -> Any:
        """Send one job and wait for its answer.

        Raises:
            WorkerError: There is none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        limit = threading.Timer(_ANSWER_LIMIT, self._process.kill)
        limit.start()
        try:
            print(json.dumps(job), file=self._process.stdin, flush=True)
            return json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise WorkerError(f"{self.contestant.name} gave no answer to {job}") from error
        finally:
            limit.cancel()


@contextmanager
def working(contestant: Contestant, url: str) -> Iterator[Worker]:
    """Run a contestant's worker until the block ends."""
    process = subprocess.Popen(
        [*contestant.command, url],
        cwd=_ROOT,
        env={name: os.environ[name] for name in _KEPT if name in os.environ} | _AWS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Worker(contestant, process)
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[str]") -> None:
    try:
        process.communicate(timeout=_STOP_LIMIT)
    except (subprocess.TimeoutExpired, OSError):
        process.kill()
        process.wait()
