"""The model that all contestants talk to, in a process of its own and without limits, and what it counts."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, final
from urllib.parse import urlsplit

from bench.speed.jobs import TABLE
from tests.support.engines import model_engine

_LIMIT: Final = 60.0
_DEFINITION: Final = {
    "TableName": TABLE,
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}


@final
class Server:
    """The model's process, as the one that runs the benchmark sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_LIMIT)

    def renew_table(self) -> None:
        """Start a round on an empty table, so that no round is slowed by the items of those before."""
        if TABLE in self._call("DynamoDB_20120810.ListTables")["TableNames"]:
            self._call("DynamoDB_20120810.DeleteTable", TableName=TABLE)
        self._call("DynamoDB_20120810.CreateTable", **_DEFINITION)

    def report(self) -> dict[str, float]:
        """Give what was counted since the last report: requests, write units, read units, processor time."""
        found = self._call("AioidempotencyModel.Report", Reset=True)
        partitions = found["tables"][TABLE]["partitions"]
        return {
            "requests": sum(found["requests"].values()),
            "write_units": sum(each["consumed_writes"] for each in partitions),
            "read_units": sum(each["consumed_reads"] for each in partitions),
            "processor": found["processor_seconds"],
        }

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, target: str, **parameters: Any) -> Any:
        self._connection.request("POST", "/", body=json.dumps(parameters), headers={"X-Amz-Target": target})
        answer = self._connection.getresponse()
        body = json.load(answer)
        if answer.status != http.client.OK:
            raise ValueError(f"{target} was answered with {body}")
        return body


@contextmanager
def serving() -> Iterator[Server]:
    """Run the model until the block ends."""
    with model_engine() as engine:
        server = Server(engine.endpoint_url)
        try:
            yield server
        finally:
            server.close()
