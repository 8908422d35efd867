"""HTTP 200 is not yet an answer of DynamoDB, and a request's body goes into no other request."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore, AttributeNames, DynamoDBBackend, StoreError
from aioidempotency.backends import (
    Absent,
    Applied,
    Check,
    Delete,
    Found,
    FoundAll,
    Get,
    GetAll,
    HeldBy,
    Location,
    Operation,
    Put,
    Query,
    Table,
    Transact,
    Update,
)
from tests.support.raw_server import RawServer, response

TABLE = Table("orders", "pk", "sk", AttributeNames())
HERE, THERE = (Location(table=TABLE, partition="shop", sort=sort) for sort in ("a", "b"))
PUT = Put(HERE, {**HERE.item, "owner": {"S": "me"}}, Absent())
OPERATIONS: list[Operation] = [
    PUT,
    Update(HERE, {"data": {"S": "1"}}, HeldBy("me")),
    Delete(HERE, HeldBy("me")),
    Get(HERE),
    Transact((PUT, Check(THERE, Absent()))),
    GetAll((HERE, THERE)),
    Query(HERE, 3),
]
ITEM = b'{"Item": {"pk": {"S": "shop"}, "sk": {"S": "a"}, "owner": {"S": "me"}}}'
PAGE = b"<html><body>Please log in</body></html>"
NO_ANSWERS = {
    "an empty body": response(b""),
    "no content": response(b"", status="204 No Content"),
    "a page": response(PAGE, kind="text/html"),
    "a page that says it is JSON": response(PAGE),
    "a plain word": response(b"OK", kind="text/plain"),
    "half of a document": response(ITEM[:30]),
    "a document but for its last character": response(ITEM[:-1]),
    "an opening brace": response(b"{"),
    "null": response(b"null"),
    "a list": response(b"[]"),
    "a number": response(b"1"),
    "a text": response(b'"fine"'),
    "bytes that are no text": response(b'{"Item": "\xff\xfe"}'),
    "the object of another service": response(b'{"status": "ok"}'),
    "more brackets than anybody closes": response(b'{"Item":' + b"[" * 100_000),
}


@asynccontextmanager
async def backend(url: str, session: AioSession, whose: str, **options: Any) -> AsyncIterator[DynamoDBBackend]:
    given: Any = {"region_name": "eu-central-1", "endpoint_url": url}
    if whose == "own":
        made = DynamoDBBackend(session=session, **given, **options)
        yield made
        await made.aclose()
    else:
        config = AioConfig(retries={"total_max_attempts": 1})
        async with session.create_client("dynamodb", config=config, **given) as client:
            yield DynamoDBBackend(client, **options)


async def failure(call: Any) -> BaseException | None:
    try:
        await call
    except Exception as error:  # noqa: BLE001 - the test looks at its class
        return error
    return None


@pytest.mark.parametrize("whose", ["own", "given"])
@pytest.mark.parametrize("no_answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
async def test_what_is_no_answer_fails_like_a_lost_one(session: AioSession, no_answer: bytes, whose: str) -> None:
    """O25: whatever was asked, the store did not answer, and a later attempt may be answered."""
    async with RawServer(lambda *_: no_answer) as server, backend(server.url, session, whose) as here:
        calls: list[Awaitable[object]] = [here.execute(each) for each in OPERATIONS]
        calls += [here.execute_many([each]) for each in (PUT, Get(HERE))]
        calls += [here.key_of("orders"), here.count(TABLE, "shop", now=0)]
        failures = await asyncio.gather(*map(failure, calls))
        assert [type(each) for each in failures] == [StoreError] * len(calls)
        assert {str(each).partition(" failed: ")[2] for each in failures} == {
            "HTTP 200 without an answer of DynamoDB; does a proxy answer for the endpoint?"
        }


@pytest.mark.parametrize("whose", ["own", "given"])
async def test_every_part_of_an_answer_is_no_answer(session: AioSession, whose: str) -> None:
    """O25: a document that breaks off anywhere is none, for whichever request."""
    left = iter(range(len(ITEM)))
    async with (
        RawServer(lambda *_: response(ITEM[: next(left)])) as server,
        backend(server.url, session, whose) as here,
    ):
        for _ in range(len(ITEM) // 3):
            assert isinstance(await failure(here.execute(Get(HERE))), StoreError)
    assert len(server.requests) == len(ITEM) // 3 * 3


@pytest.mark.parametrize("whose", ["own", "given"])
async def test_a_redirect_to_a_page_is_no_answer(session: AioSession, whose: str) -> None:
    """O25: the client follows a login page's redirect by itself."""

    def answer(operation: str, _: object) -> bytes:
        if operation == "PutItem":
            return response(b"", status="302 Found", more="Location: /login\r\n")
        return response(PAGE, kind="text/html")

    async with RawServer(answer) as server, backend(server.url, session, whose) as here:
        assert isinstance(await failure(here.execute(PUT)), StoreError)


@pytest.mark.parametrize("whose", ["own", "given"])
async def test_a_body_that_breaks_off_is_no_answer(session: AioSession, whose: str) -> None:
    """O25: it is shorter than its length says."""
    broken = response(ITEM, more="Connection: close\r\n")[:-20]
    async with RawServer(lambda *_: broken) as server, backend(server.url, session, whose) as here:
        for operation in (PUT, Get(HERE)):
            assert isinstance(await failure(here.execute(operation)), StoreError)


@pytest.mark.parametrize("whose", ["own", "given"])
@pytest.mark.parametrize("body", [b"", PAGE, b"[]", b"null", b"\xff\xfe", b'{"__type'])
@pytest.mark.parametrize("status", ["403 Forbidden", "502 Bad Gateway"])
async def test_an_error_page_is_an_outage_and_no_setting(
    session: AioSession, status: str, body: bytes, whose: str
) -> None:
    """O14: whatever a proxy writes into its page."""
    page = response(body, status=status)
    async with RawServer(lambda *_: page) as server, backend(server.url, session, whose) as here:
        error = await failure(here.execute(PUT))
        assert isinstance(error, StoreError)
        assert status[:3] in str(error)


@pytest.mark.parametrize("whose", ["own", "given"])
async def test_an_answer_after_what_was_none_settles_the_write(session: AioSession, whose: str) -> None:
    """O2, O25: the write is sent again, as after a broken connection."""
    given = iter([b"", PAGE, b"{}"])
    async with RawServer(lambda *_: response(next(given))) as server, backend(server.url, session, whose) as here:
        assert await here.execute(PUT) == Applied()
        assert [operation for operation, _ in server.requests] == ["PutItem"] * 3


ANSWERS: list[tuple[Operation, bytes, object]] = [
    (PUT, b"{}", Applied()),
    (PUT, b'{"Attributes": {}}', Applied()),
    (PUT, b' {"ConsumedCapacity": {"TableName": "orders"}, "NewMember": 1}\n', Applied()),
    (PUT, b" {}\n", Applied()),
    (Get(HERE), b"{}", Found(None)),
    (Get(HERE), ITEM, Found({**HERE.item, "owner": {"S": "me"}})),
    (Get(HERE), b'{"Item": {"pk": {"S": "\\udcff"}}}', Found({"pk": {"S": "\udcff"}})),
    (GetAll((HERE, THERE)), b'{"Responses": [{}, {}]}', FoundAll((None, None))),
    (Query(HERE, 3), b'{"Items": [], "Count": 0}', FoundAll(())),
]


@pytest.mark.parametrize("whose", ["own", "given"])
@pytest.mark.parametrize(("operation", "body", "reply"), ANSWERS)
async def test_what_is_an_answer(
    session: AioSession, operation: Operation, body: bytes, reply: object, whose: str
) -> None:
    """O25: white space, members of later versions and half characters are no faults."""
    async with RawServer(lambda *_: response(body)) as server, backend(server.url, session, whose) as here:
        assert await here.execute(operation) == reply
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (GetAll((HERE, THERE)), b'{"Responses": [{}]}'),
        (GetAll((HERE, THERE)), b"{}"),
        (Query(HERE, 3), b"{}"),
    ],
)
async def test_an_answer_without_its_items_is_none(session: AioSession, operation: Operation, body: bytes) -> None:
    """O25: a read of several items is answered item by item."""
    async with RawServer(lambda *_: response(body)) as server, backend(server.url, session, "own") as here:
        assert isinstance(await failure(here.execute(operation)), StoreError)


async def test_a_batch_of_reads_without_its_items_is_not_answered(session: AioSession) -> None:
    """O25: the keys would look free."""
    async with RawServer(lambda *_: response(b"{}")) as server, backend(server.url, session, "own") as here:
        assert isinstance(await failure(here.execute_many([Get(HERE)])), StoreError)


async def test_the_callers_own_calls_on_the_given_client_stay_as_they_are(session: AioSession) -> None:
    """O25: the caller's requests are not ours to judge: none is refused, and an answer has no member of ours."""
    given = iter([response(b"{}"), response(ITEM), response(PAGE), response(PAGE, status="403 Forbidden")])
    async with RawServer(lambda *_: next(given)) as server:
        options = {"region_name": "eu-central-1", "endpoint_url": server.url}
        async with session.create_client("dynamodb", **options) as client:
            DynamoDBBackend(client)
            DynamoDBBackend(client)
            found = [await client.get_item(TableName="orders", Key=HERE.item) for _ in range(3)]
            with pytest.raises(ClientError) as refused:
                await client.get_item(TableName="orders", Key=HERE.item)
    assert set(refused.value.response) == {"Error", "ResponseMetadata"}
    assert [set(each) - {"ResponseMetadata"} for each in found[:2]] == [set(), {"Item"}]
    assert "Item" not in found[2]


def discovering(url: Callable[[], str]) -> Callable[[str, dict[str, Any]], bytes]:
    """Answer like DynamoDB with endpoint discovery."""

    def answer(operation: str, _: dict[str, Any]) -> bytes:
        if operation == "DescribeEndpoints":
            return response(b'{"Endpoints": [{"Address": "%s", "CachePeriodInMinutes": 1}]}' % url().encode())
        if operation == "BatchGetItem":
            return response(b'{"Responses": {"orders": []}}')
        return response(b"{}")

    return answer


@pytest.mark.parametrize(
    "operation", [PUT, Update(HERE, {"data": {"S": "1"}}, HeldBy("me")), Get(HERE), Query(HERE, 1)]
)
async def test_a_body_goes_into_the_request_that_it_was_made_for(operation: Operation) -> None:
    """Endpoint discovery asks in the middle of a call, and asks for nothing of ours."""
    server = RawServer(discovering(lambda: server.url))
    session = get_session()
    session.set_credentials("testing", "testing")
    session.register(
        "request-created.dynamodb.DescribeEndpoints", lambda request, **_: setattr(request, "url", server.url)
    )
    config = AioConfig(endpoint_discovery_enabled=True)
    async with server:
        async with session.create_client("dynamodb", region_name="eu-central-1", endpoint_url=server.url) as plain:
            await failure(DynamoDBBackend(plain).execute(operation))
        sent = server.requests[0]
        server.requests.clear()
        # With an endpoint of one's own, the client would discover none.
        here = DynamoDBBackend(session=session, region_name="eu-central-1", config=config)
        await failure(here.execute(operation))
        await here.execute_many([Get(HERE)])
        await here.aclose()
    asked = [body for operation, body in server.requests if operation == "DescribeEndpoints"]
    assert asked
    assert all(body == {} for body in asked)
    assert sent in server.requests


async def test_another_request_of_the_same_context_has_its_own_body(session: AioSession) -> None:
    """A hook of the caller's on the session may ask with the client that sends, in the middle of a call."""
    async with RawServer(lambda *_: response(b"{}")) as server:
        here = DynamoDBBackend(session=session, region_name="eu-central-1", endpoint_url=server.url)
        client: Any = (await here._ready("orders")).client
        asked: list[object] = []

        async def ask(**_: object) -> None:
            if not asked:
                asked.append(await client.delete_item(TableName="others", Key={"id": {"S": "x"}}))

        client.meta.events.register("before-parameter-build.dynamodb.PutItem", ask)
        await here.execute(PUT)
        await here.aclose()
    assert [operation for operation, _ in server.requests] == ["DeleteItem", "PutItem"]
    assert server.requests[0][1] == {"TableName": "others", "Key": {"id": {"S": "x"}}}
    assert server.requests[1][1]["Item"] == PUT.item


async def test_a_claim_whose_answer_is_none_is_the_callers_all_the_same(session: AioSession) -> None:
    """O2, O25: the record that refuses the repeated claim has this call's owner."""
    kept: dict[str, Any] = {}

    def answer(operation: str, body: dict[str, Any]) -> bytes:
        if operation == "PutItem" and not kept:
            kept.update(body["Item"])
            return response(PAGE, kind="text/html")
        if operation == "PutItem":
            item = str({"Item": kept}).replace("'", '"')[1:]
            refused = '{"__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", ' + item
            return response(refused.encode(), status="400 Bad Request")
        return response(b"{}")

    async with RawServer(answer) as server:
        options: Any = {"session": session, "region_name": "eu-central-1", "endpoint_url": server.url}
        store = AsyncIdempotencyStore("orders", verify_layout=False, **options)
        async with store, store.execute("order-1") as execution:
            assert not execution.replayed
    assert [operation for operation, _ in server.requests] == ["PutItem", "PutItem", "UpdateItem"]
