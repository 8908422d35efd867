"""The processes of the benchmark: the server, and a worker for each contestant. They end with their blocks.

The server's certificate is of an authority that exists for one run. Workers trust that authority alone, each by the
variable that its stack reads: botocore `AWS_CA_BUNDLE`, Python's `ssl` and rustls `SSL_CERT_FILE`, Node
`NODE_EXTRA_CA_CERTS`.
"""

import http.client
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final
from urllib.parse import urlsplit

import trustme

from bench.speed.contest import Contestant
from bench.speed.jobs import TABLE
from bench.speed.server import REPORT
from tests.support.engines import serving

ROOT: Final = Path(__file__).resolve().parents[2]
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
    """A running server with an empty table.

    Attributes:
        url: Where it answers in the clear.
        secure_url: Where it answers over TLS.
        environment: Variables of a process that trusts its certificate.
    """

    def __init__(self, url: str, authority: Path) -> None:
        self.url = url
        self.secure_url = f"https://127.0.0.1:{self._call(REPORT)['secure_port']}"
        trusting = dict.fromkeys(("AWS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"), str(authority))
        self.environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | AWS | trusting
        # Node's SDK says at each start until when it supports this version.
        self.environment["NODE_NO_WARNINGS"] = "1"
        self._call("DynamoDB_20120810.CreateTable", **_DEFINITION)

    def renew_table(self) -> None:
        """Start a round on an empty table, so that no round is slowed by the items of those before."""
        self._call("DynamoDB_20120810.DeleteTable", TableName=TABLE)
        self._call("DynamoDB_20120810.CreateTable", **_DEFINITION)

    def report(self) -> dict[str, float]:
        """Give what was counted since the last report, and the processor time since the start."""
        found: dict[str, float] = self._call(REPORT)
        return {name: each for name, each in found.items() if name != "secure_port"}

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
def running(seconds: float = 0) -> Iterator[Server]:
    """Run the server until the block ends; each of its answers waits so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        authority, certificate = Path(folder, "authority.pem"), Path(folder, "server.pem")
        made = trustme.CA()
        made.cert_pem.write_to_path(authority)
        made.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
        with serving("bench.speed.server", str(certificate), str(seconds)) as (url, _):
            yield Server(url, authority)


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
def working(contestant: Contestant, server: Server, *more: str, tls: bool = True) -> Iterator[Worker]:
    """Run a contestant's worker, with more arguments if there are any, until the block ends."""
    with subprocess.Popen(
        [*contestant.command, server.secure_url if tls else server.url, *more],
        cwd=ROOT,
        env=server.environment,
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
