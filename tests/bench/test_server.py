"""The model as a process: what comes over the wire is what the service would send."""

import http.client
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore, Claimed, StoreError
from bench.model.service import Service
from bench.model.wire import Connection
from tests.bench.calls import ABSENT, TABLE
from tests.conftest import store_options
from tests.support.engines import Engine, client_options, model_engine, serving

ONCE = AioConfig(retries={"total_max_attempts": 1})
DEFINITION: dict[str, Any] = {
    "TableName": TABLE,
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "BillingMode": "PAY_PER_REQUEST",
}
HOT = {"partitions": 3, "scale": 0.001, "burst": 1}
"""One write unit a second and partition: a second write meets the limit, however slow the machine is."""


@pytest.fixture(scope="module")
def hot() -> Iterator[Engine]:
    """A model whose partitions are busy after one write."""
    with model_engine(**HOT) as engine:
        yield engine


def report(engine: Engine, method: str = "GET", **parameters: object) -> Any:
    """Ask for the report, as a browser or as a client of the API would."""
    connection = http.client.HTTPConnection(urlsplit(engine.endpoint_url).netloc, timeout=10)
    headers = {"X-Amz-Target": "AioidempotencyModel.Report"} if method == "POST" else {}
    connection.request(method, "/report", body=json.dumps(parameters) if method == "POST" else None, headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    found = json.load(answer)
    connection.close()
    return found


async def test_a_throttled_write_reaches_the_client_with_its_reason(hot: Engine, session: AioSession) -> None:
    """P6: botocore's parser finds the fields where the real service puts them, and the report counts the refusal."""
    async with session.create_client("dynamodb", config=ONCE, **client_options(hot)) as client:
        await client.create_table(**DEFINITION)
        with pytest.raises(ClientError) as raised:
            for _ in range(20):
                await client.put_item(TableName=TABLE, Item={"id": {"S": "a"}})
        with pytest.raises(ClientError) as cancelled:
            action = {"Put": {"TableName": TABLE, "Item": {"id": {"S": "a"}}}}
            for _ in range(20):
                await client.transact_write_items(TransactItems=[action])
    assert raised.value.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
    assert raised.value.response["ThrottlingReasons"][0]["reason"] == "TableWriteKeyRangeThroughputExceeded"
    assert cancelled.value.response["CancellationReasons"][0]["Code"] == "ThrottlingError"
    partitions = report(hot)["tables"][TABLE]["partitions"]
    assert len(partitions) == HOT["partitions"]
    assert sum(each["throttled_writes"] for each in partitions) >= 2
    assert report(hot, "POST", Reset=True)["tables"][TABLE]["partitions"] == partitions
    assert sum(each["throttled_writes"] for each in report(hot)["tables"][TABLE]["partitions"]) == 0


async def test_the_library_tells_its_user_that_a_partition_is_too_hot(hot: Engine, session: AioSession) -> None:
    """The advice is what this library is for."""
    async with AsyncIdempotencyStore("advice", config=ONCE, **store_options(hot, session)) as store:
        await store.create_table()
        with pytest.raises(StoreError, match="HashBuckets"):
            for _ in range(20):
                await store.claim("invoice-42")


async def test_a_cancelled_transaction_reaches_the_client_with_its_items(session: AioSession) -> None:
    """A refusal by index carries what was there, and an engine without limits refuses nothing else."""
    with model_engine() as engine:
        async with session.create_client("dynamodb", config=ONCE, **client_options(engine)) as client:
            await client.create_table(**DEFINITION)
            await client.put_item(TableName=TABLE, Item={"id": {"S": "a"}, "blob": {"B": b"\x00\xff"}})
            check = {"ConditionCheck": {"TableName": TABLE, "Key": {"id": {"S": "a"}}, **ABSENT}}
            with pytest.raises(ClientError) as cancelled:
                put = {"Put": {"TableName": TABLE, "Item": {"id": {"S": "b"}}}}
                await client.transact_write_items(TransactItems=[put, check])
        async with AsyncIdempotencyStore("claims", **store_options(engine, session)) as store:
            await store.create_table()
            decisions = await store.claim_many(range(1, 301), limit=64)
        assert all(isinstance(each, Claimed) for each in decisions)
    reasons = cancelled.value.response["CancellationReasons"]
    assert [each["Code"] for each in reasons] == ["None", "ConditionalCheckFailed"]
    assert reasons[1]["Item"] == {"id": {"S": "a"}, "blob": {"B": b"\x00\xff"}}


def test_the_model_ends_when_its_input_does() -> None:
    """It outlives no test and no benchmark."""
    with serving("bench.model", "--no-limits") as (_, process):
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=5) == 0


class Recording:
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def connected() -> tuple[Connection, Recording]:
    transport = Recording()
    connection = Connection(Service(), lambda: 0.0)
    connection.connection_made(transport)  # type: ignore[arg-type] # all of one that a connection needs
    return connection, transport


def post(operation: str, body: bytes) -> bytes:
    head = f"POST / HTTP/1.1\r\nHost: here\r\nx-amz-target: DynamoDB_20120810.{operation}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def bodies(written: bytes) -> list[dict[str, Any]]:
    return [json.loads(each.split(b"\r\n\r\n")[1]) for each in written.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_requests_are_answered_in_order_however_they_are_cut(size: int) -> None:
    """One connection is kept for many requests, and a network cuts them anywhere."""
    connection, transport = connected()
    requests = [
        post("CreateTable", json.dumps(DEFINITION).encode()),
        post("ListTables", b"{}"),
        post("DeleteTable", json.dumps({"TableName": TABLE}).encode()),
        post("ListTables", b"{}"),
    ]
    stream = b"".join(requests)
    for start in range(0, len(stream), size):
        connection.data_received(stream[start : start + size])
    answers = bodies(transport.written)
    assert [answers[1], answers[3]] == [{"TableNames": [TABLE]}, {"TableNames": []}]
    assert len(answers) == 4
    assert transport.written.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("operation", "body", "name"),
    [
        ("PutItem", b"{", "SerializationException"),
        ("PutItem", b"[]", "SerializationException"),
        ("PutItem", b'{"TableName": 1}', "SerializationException"),
        ("Nothing", b"{}", "UnknownOperationException"),
    ],
)
def test_a_request_that_is_none_is_refused_and_the_next_is_answered(operation: str, body: bytes, name: str) -> None:
    """HTTP 400 with the service's name for it; the connection stays."""
    connection, transport = connected()
    connection.data_received(post(operation, body) + post("ListTables", b"{}"))
    refused, answered = bodies(transport.written)
    assert refused["__type"] == f"com.amazonaws.dynamodb.v20120810#{name}"
    assert answered == {"TableNames": []}
    assert transport.written.startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_body_of_unknown_length_ends_the_connection() -> None:
    """Where the next request begins cannot be told."""
    connection, transport = connected()
    connection.data_received(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert transport.closed
    assert transport.written.startswith(b"HTTP/1.1 501 Not Implemented\r\n")
