"""The proxy forwards faithfully and fails exactly as asked."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.support.engines import Engine, client_options, ministack_engine
from tests.support.proxy import Fault, FaultProxy
from tests.support.values import replace

# The first client of a session is slow, the others are not.
_SESSION = get_session()
_TABLE = "proxied"
_CROWD = 300


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """The quicker of the engines, with a table."""
    with ministack_engine() as running:
        asyncio.run(_create_table(running))
        yield running


async def _create_table(engine: Engine) -> None:
    async with _calling(engine, engine.endpoint_url) as caller:
        await caller.client.create_table(
            TableName=_TABLE,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


class Caller:
    """One client, one key of its own."""

    def __init__(self, client: Any) -> None:
        """Choose a key that no other test has used."""
        self.client = client
        self.key = {"id": {"S": uuid.uuid4().hex}}

    async def put(self) -> None:
        """Claim the key."""
        await self.client.put_item(
            TableName=_TABLE,
            Item=self.key,
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )

    async def stored(self) -> bool:
        """Whether the engine has the item."""
        answer = await self.client.get_item(TableName=_TABLE, Key=self.key, ConsistentRead=True)
        return "Item" in answer


@asynccontextmanager
async def _calling(engine: Engine, url: str, *, attempts: int = 1) -> AsyncIterator[Caller]:
    config = AioConfig(max_pool_connections=_CROWD, retries={"total_max_attempts": attempts})
    options = client_options(replace(engine, endpoint_url=url))
    async with _SESSION.create_client("dynamodb", config=config, **options) as client:
        yield Caller(client)


@pytest.fixture
async def proxy(engine: Engine) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the engine, without faults."""
    async with FaultProxy(engine.endpoint_url) as running:
        yield running


@pytest.fixture
async def caller(engine: Engine, proxy: FaultProxy) -> AsyncIterator[Caller]:
    """A client of the proxy that tries once."""
    async with _calling(engine, proxy.url) as calling:
        yield calling


def _code(failure: pytest.ExceptionInfo[ClientError]) -> str:
    return str(failure.value.response["Error"]["Code"])


async def test_requests_pass_and_are_noted(proxy: FaultProxy, caller: Caller) -> None:
    """Operation, body and the engine's status are kept in order, failures included."""
    await caller.put()
    with pytest.raises(ClientError) as refusal:
        await caller.put()
    assert await caller.stored()
    assert refusal.value.response["Item"] == caller.key
    put, refused, get = proxy.requests
    assert put.body["Item"] == caller.key
    assert (put.operation, put.status, put.fault) == ("PutItem", 200, None)
    assert (refused.operation, refused.status) == ("PutItem", 400)
    assert (get.operation, get.status) == ("GetItem", 200)


async def test_a_cut_write_is_applied(proxy: FaultProxy, caller: Caller) -> None:
    """The client sees a closed connection, the engine has the item."""
    proxy.inject(Fault.CUT)
    with pytest.raises(ConnectionClosedError):
        await caller.put()
    assert await caller.stored()


async def test_a_retry_after_a_cut_meets_its_own_item(engine: Engine, proxy: FaultProxy) -> None:
    """The SDK's retry is refused by the write that the client never heard of."""
    proxy.inject(Fault.CUT)
    async with _calling(engine, proxy.url, attempts=2) as caller:
        with pytest.raises(ClientError) as refusal:
            await caller.put()
    assert refusal.value.response["Item"] == caller.key
    assert [seen.status for seen in proxy.requests] == [200, 400]


async def test_a_stalled_write_is_applied_and_never_answered(proxy: FaultProxy, caller: Caller) -> None:
    """The call is still waiting when the item is already there."""
    proxy.inject(Fault.STALL, operation="PutItem")
    call = asyncio.create_task(caller.put())
    await proxy.wait_for("PutItem")
    assert await caller.stored()
    assert not call.done()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_an_error_500_hides_a_success(proxy: FaultProxy, caller: Caller) -> None:
    """The client sees an internal error, the engine has the item."""
    proxy.inject(Fault.ERROR_500)
    with pytest.raises(ClientError) as failure:
        await caller.put()
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert _code(failure) == "InternalServerError"
    assert proxy.requests[0].status == 200
    assert await caller.stored()


async def test_a_refused_request_never_arrives(proxy: FaultProxy, caller: Caller) -> None:
    """The client sees the same as after a cut, the engine has nothing."""
    proxy.inject(Fault.REFUSE)
    with pytest.raises(ConnectionClosedError):
        await caller.put()
    assert proxy.requests[0].status is None
    assert not await caller.stored()


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.THROTTLE, "ProvisionedThroughputExceededException"),
        (Fault.DENY, "AccessDeniedException"),
    ],
)
async def test_an_answered_refusal_never_arrives(proxy: FaultProxy, caller: Caller, fault: Fault, code: str) -> None:
    """The client sees the error's code and a message, the engine has nothing."""
    proxy.inject(fault)
    with pytest.raises(ClientError) as failure:
        await caller.put()
    assert _code(failure) == code
    assert failure.value.response["Error"]["Message"]
    assert not await caller.stored()


async def test_a_delayed_write_is_applied_after_its_client_left(proxy: FaultProxy, caller: Caller) -> None:
    """A held write surfaces when released, although nobody waits for it."""
    proxy.inject(Fault.DELAY, operation="PutItem")
    call = asyncio.create_task(caller.put())
    await proxy.wait_until_held()
    assert not await caller.stored()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    proxy.release()
    await proxy.wait_for("PutItem")
    assert await caller.stored()


async def test_a_released_write_answers_its_client(proxy: FaultProxy, caller: Caller) -> None:
    """A client that kept waiting gets the ordinary answer, and the next one is held again."""
    proxy.inject(Fault.DELAY, operation="PutItem", times=2)
    for _ in range(2):
        caller.key = {"id": {"S": uuid.uuid4().hex}}
        call = asyncio.create_task(caller.put())
        await proxy.wait_until_held()
        proxy.release()
        await call


async def test_a_fault_meets_only_the_requests_it_names(proxy: FaultProxy, caller: Caller) -> None:
    """Other operations pass, and so do the first ``skip`` and those after ``times``."""
    proxy.inject(Fault.DENY, operation="GetItem", skip=1, times=2)
    await caller.put()
    for _ in range(4):
        await asyncio.gather(caller.stored(), return_exceptions=True)
    assert [seen.fault for seen in proxy.requests] == [None, None, Fault.DENY, Fault.DENY, None]


async def test_the_first_injected_fault_takes_the_request(proxy: FaultProxy, caller: Caller) -> None:
    """Two faults for one operation come one after the other."""
    proxy.inject(Fault.DENY)
    proxy.inject(Fault.THROTTLE)
    for code in ("AccessDeniedException", "ProvisionedThroughputExceededException"):
        with pytest.raises(ClientError) as failure:
            await caller.put()
        assert _code(failure) == code


async def test_hundreds_of_connections_are_served_at_once(proxy: FaultProxy, caller: Caller) -> None:
    """All requests are held together, each on a connection of its own, and all are answered."""
    proxy.inject(Fault.DELAY, times=_CROWD)
    calls = [asyncio.create_task(caller.stored()) for _ in range(_CROWD)]
    await proxy.wait_until_held(_CROWD)
    proxy.release()
    assert await asyncio.gather(*calls) == [False] * _CROWD


async def test_closing_ends_what_is_stalled_or_held(engine: Engine) -> None:
    """Clients are cut off, no task is left, and a held write is dropped."""
    before = asyncio.all_tasks()
    async with FaultProxy(engine.endpoint_url) as proxy, _calling(engine, proxy.url) as caller:
        proxy.inject(Fault.STALL, operation="GetItem")
        proxy.inject(Fault.DELAY, operation="PutItem")
        calls = asyncio.gather(caller.stored(), caller.put(), return_exceptions=True)
        await proxy.wait_for("GetItem")
        await proxy.wait_until_held()
        await proxy.__aexit__(None, None, None)
        assert all(isinstance(end, ConnectionClosedError) for end in await calls)
    assert asyncio.all_tasks() == before
    async with _calling(engine, engine.endpoint_url) as direct:
        direct.key = caller.key
        assert not await direct.stored()


async def test_what_the_proxy_does_not_understand_is_raised(engine: Engine) -> None:
    """A request without a length is a mistake of the test, so the block fails."""
    proxy = await FaultProxy(engine.endpoint_url).__aenter__()
    host, port = proxy.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST / HTTP/1.1\r\n\r\n")
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    with pytest.raises(ValueError, match="Content-Length"):
        await proxy.__aexit__(None, None, None)


def test_an_encrypted_engine_is_rejected() -> None:
    """The proxy could not read the requests."""
    with pytest.raises(ValueError, match="plain HTTP"):
        FaultProxy("https://127.0.0.1:1")
