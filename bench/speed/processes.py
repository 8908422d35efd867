"""The processes of the benchmark: the server, and a worker for each contestant. They end with their blocks."""

import http.client
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

from bench.speed.contest import Contestant
from bench.speed.jobs import TABLE
from bench.speed.server import REPORT
from tests.support.engines import serving

_ROOT: Final = Path(__file__).resolve().parents[2]
_KEPT: Final = ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR")
AWS: Final = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_ANSWER_LIMIT: Final = 120.0
"""Seconds for one job, or one request. A worker that takes longer is ended."""

_STOP_LIMIT: Final = 5.0
_DEFINITION: Final = {
    "TableName": TABLE,
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


@final
class Server:
    """A running server with an empty table."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._call("DynamoDB_20120810.CreateTable", **_DEFINITION)

    def renew_table(self) -> None:
        """Start a round on an empty table, so that no round is slowed by the items of those before."""
        self._call("DynamoDB_20120810.DeleteTable", TableName=TABLE)
        self._call("DynamoDB_20120810.CreateTable", **_DEFINITION)

    def report(self) -> dict[str, float]:
        """Give what was counted since the last report, and the processor time since the start."""
        found: dict[str, float] = self._call(REPORT)
        return found

    def _call(self, target: str, **parameters: Any) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_ANSWER_LIMIT)
        with closing(connection):
            connection.request("POST", "/", body=json.dumps(parameters), headers={"X-Amz-Target": target})
            answer = connection.getresponse()
            body = json.load(answer)
        if answer.status != http.client.OK:
            raise ValueError(f"{target} was answered with {body}")
        return body


@contextmanager
def running() -> Iterator[Server]:
    """Run the server until the block ends."""
    with serving("bench.speed.server") as (url, _):
        yield Server(url)


@final
class Worker:
    """One contestant's process."""

    def __init__(self, contestant: Contestant, process: "subprocess.Popen[str]") -> None:
        self.contestant = contestant
        self._process = process

    def ask(self, **job: Any) -> Any:
        """Send one job and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        limit = threading.Timer(_ANSWER_LIMIT, self._process.kill)
        limit.start()
        try:
            print(json.dumps(job), file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        finally:
            limit.cancel()
        if not answer:
            raise ValueError(f"{self.contestant.name} ended, or gave no answer in {_ANSWER_LIMIT:g} s")
        return json.loads(answer)


@contextmanager
def working(contestant: Contestant, url: str) -> Iterator[Worker]:
    """Run a contestant's worker until the block ends."""
    with subprocess.Popen(
        [*contestant.command, url],
        cwd=_ROOT,
        env={name: os.environ[name] for name in _KEPT if name in os.environ} | AWS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Worker(contestant, process)
        finally:
            # The worker ends with its standard input.
            with suppress(subprocess.TimeoutExpired, OSError):
                process.communicate(timeout=_STOP_LIMIT)
            process.kill()
