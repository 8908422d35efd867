"""The server of the speed benchmark answers what it knows as MiniStack does, and refuses the rest."""

import json
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore, Claimed, GroupCommit, LeaseLostError
from aioidempotency.testing import FakeClock
from bench.speed.jobs import TABLE
from bench.speed.processes import Server, running
from bench.speed.server import Service
from tests.conftest import store_options
from tests.support.engines import Engine, client_options


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def engine_of(server: Server) -> Engine:
    return Engine(name="speed", endpoint_url=server.url, transactions=False, partiql=True)


@asynccontextmanager
async def clients(server: Server, ministack: Engine, session: AioSession) -> AsyncIterator[list[Any]]:
    """Reach an empty table on both."""
    server.renew_table()
    once = AioConfig(retries={"total_max_attempts": 1})
    ours, theirs = (client_options(engine) for engine in (engine_of(server), ministack))
    async with (
        session.create_client("dynamodb", config=once, **ours) as one,
        session.create_client("dynamodb", config=once, **theirs) as other,
    ):
        await other.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield [one, other]
        await other.delete_table(TableName=TABLE)


@pytest.mark.parametrize("group_commit", [None, GroupCommit()], ids=["plain", "group commit"])
async def test_the_library_gets_the_same_decisions(
    server: Server, ministack: Engine, session: AioSession, group_commit: GroupCommit | None
) -> None:
    """A claim, its duplicates, a completion, a release, and a takeover after whose claim the old owner is refused."""
    async with clients(server, ministack, session):
        told = []
        for engine in (engine_of(server), ministack):
            clock = FakeClock()
            options = {**store_options(engine, session), "clock": clock, "group_commit": group_commit}
            async with AsyncIdempotencyStore(TABLE, lease=60, **options) as store:
                told.append([each async for each in decisions(store, clock)])
    assert told[0] == told[1]
    assert told[0] == [
        *("Claimed", "InProgress", "Claimed", "replaced", "lost", "COMPLETED", "Replay", "released", "Claimed", "None")
    ]


async def decisions(store: AsyncIdempotencyStore, clock: FakeClock) -> AsyncIterator[str]:
    """Tell what becomes of two keys."""
    first = await store.claim("a")
    yield type(first).__name__
    yield type(await store.claim("a")).__name__
    clock.advance(600)
    second = await store.claim("a")
    yield type(second).__name__
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    yield "replaced" if second.lease.owner != first.lease.owner else "kept"
    try:
        await store.complete(first.lease, 1)
    except LeaseLostError:
        yield "lost"
    yield (await store.complete(second.lease, 2)).status.name
    yield type(await store.claim("a")).__name__
    third = await store.claim("b")
    assert isinstance(third, Claimed)
    await store.release(third.lease)
    yield "released"
    yield type(await store.claim("b")).__name__
    yield str(await store.get("c"))


def test_requests_in_pieces_and_in_a_row_are_answered_over_tls(server: Server) -> None:
    """A request is answered when it is whole, however it comes, and after a handshake that trusts its certificate."""
    host, port = server.secure_url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cafile=server.environment["SSL_CERT_FILE"])
    request = b"POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Length: 2\r\n\r\n{}"
    with (
        socket.create_connection((host, int(port)), timeout=10) as clear,
        context.wrap_socket(clear, server_hostname=host) as sent,
    ):
        for byte in request:
            sent.sendall(bytes([byte]))
        sent.sendall(2 * request)
        received = b""
        while received.count(b'"TableNames"') < 3:
            received += sent.recv(4096)
    assert received.count(b"HTTP/1.1 200") == 3


STATUSES = ("INPROGRESS", "COMPLETED")
EXPIRATIONS = ("4102444800", "4102444800.5", "5102444800", "4102444799")
LAPSED: list[dict[str, Any]] = [{}, {"in_progress_expiration": {"N": "4102444799999.5"}}]
POWERTOOLS: dict[str, Any] = {
    "TableName": TABLE,
    "ConditionExpression": (
        "attribute_not_exists(#id) OR #expiry < :now OR "
        "(#status = :inprogress AND attribute_exists(#in_progress_expiry) AND #in_progress_expiry < :now_in_millis)"
    ),
    "ExpressionAttributeNames": {
        "#id": "id",
        "#expiry": "expiration",
        "#in_progress_expiry": "in_progress_expiration",
        "#status": "status",
    },
    "ExpressionAttributeValues": {
        ":now": {"N": "4102444800"},
        ":now_in_millis": {"N": "4102444800000"},
        ":inprogress": {"S": "INPROGRESS"},
    },
    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
}


async def test_the_claim_of_powertools_is_answered_as_by_ministack(
    server: Server, ministack: Engine, session: AioSession
) -> None:
    """Each alternative of its condition, and numbers by their value."""
    async with clients(server, ministack, session) as both:
        for number, (status, expiration, lapsed) in enumerate(product(STATUSES, EXPIRATIONS, LAPSED)):
            key = {"id": {"S": str(number)}}
            stored = {**key, "status": {"S": status}, "expiration": {"N": expiration}, **lapsed}
            assert await answers(both, "put_item", TableName=TABLE, Item=stored) == {}
            await answers(both, "put_item", **POWERTOOLS, Item={**key, "status": {"S": "INPROGRESS"}})
            await answers(both, "get_item", TableName=TABLE, Key=key, ConsistentRead=True)


async def answers(both: list[Any], operation: str, **parameters: Any) -> dict[str, Any]:
    """Ask both, and give the answer if it is the same."""
    found = []
    for client in both:
        try:
            answer = await getattr(client, operation)(**parameters)
        except ClientError as error:
            answer = {name: error.response[name] for name in ("Error", "Item") if name in error.response}
        found.append({name: value for name, value in answer.items() if name != "ResponseMetadata"})
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("Scan", {"TableName": TABLE}),
        ("PutItem", {"TableName": TABLE, "Item": {"id": {"S": "k"}}, "ReturnValues": "ALL_OLD"}),
        ("PutItem", {"TableName": TABLE, "Item": {"id": {"S": "k"}, "data": {"S": "x" * 1024}}}),
        ("PutItem", {"TableName": TABLE, "Item": {"id": {"S": "k"}}, "ConditionExpression": "size(#a) > :b"}),
        ("BatchExecuteStatement", {"Statements": [{"Statement": f'SELECT * FROM "{TABLE}"', "Parameters": []}]}),
        ("GetItem", {"TableName": "other", "Key": {"id": {"S": "k"}}}),
    ],
    ids=["operation", "parameter", "large item", "condition", "statement", "table"],
)
def test_a_request_that_the_server_does_not_know_is_refused(operation: str, body: dict[str, Any]) -> None:
    """Nothing is answered by guesswork."""
    service = Service()
    schema = {"TableName": TABLE, "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}]}
    assert service.answer("DynamoDB_20120810.CreateTable", json.dumps(schema).encode())[0] == 200
    status, answer = service.answer(f"DynamoDB_20120810.{operation}", json.dumps(body).encode())
    assert status == 400
    assert json.loads(answer)["__type"].partition("#")[2] in {"ValidationException", "ResourceNotFoundException"}
