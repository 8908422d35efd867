"""Errors of DynamoDB's that are no refused condition: which pass, which do not, and what each advises."""

import asyncio
from typing import Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    ConfigurationError,
    DynamoDBBackend,
    StoreError,
)
from aioidempotency.backends import Absent, Location, Put, Table
from tests.contract.test_clients import make
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy
from tests.support.values import replace
from tests.support.virtual_time import in_virtual_time, pass_time


async def test_a_write_that_meets_a_transaction_is_sent_again(ministack: Engine, session: AioSession) -> None:
    """No retry mode repeats it, and it was certainly not applied."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        store: AsyncIdempotencyStore = make(replace(ministack, endpoint_url=proxy.url), session)
        await store.create_table()
        proxy.inject(Fault.CONFLICT, operation="PutItem", times=2)
        assert isinstance(await store.claim("invoice-42"), Claimed)
        proxy.inject(Fault.CONFLICT, operation="PutItem", times=6)
        with pytest.raises(StoreError, match="TransactionConflictException"):
            await store.claim("invoice-43")
        await store.aclose()


class Conflicting:
    """A client whose writes always meet a transaction; `sent` has the loop's time of each."""

    def __init__(self) -> None:
        self.sent: list[float] = []

    async def put_item(self, **_: Any) -> Any:
        self.sent.append(asyncio.get_running_loop().time())
        raise ClientError({"Error": {"Code": "TransactionConflictException", "Message": "canary"}}, "PutItem")


CLAIM = Put(Location(table=Table("orders", "id", None, AttributeNames()), partition="shop#1"), {}, Absent())


@in_virtual_time
async def test_the_pauses_between_conflicts_grow_to_a_bound() -> None:
    """Five more tries, after pauses of up to 0.05 s to 0.8 s, and of the half at the least."""
    client: Any = Conflicting()
    with pytest.raises(StoreError, match="TransactionConflictException"):
        await DynamoDBBackend(client).execute(CLAIM)
    pauses = [later - earlier for earlier, later in zip(client.sent, client.sent[1:], strict=False)]
    assert len(pauses) == 5
    for pause, longest in zip(pauses, (0.05, 0.1, 0.2, 0.4, 0.8), strict=True):
        assert longest / 2 <= pause <= longest + 1e-9


@in_virtual_time
async def test_the_pauses_between_conflicts_end_with_the_time_limit() -> None:
    """O14: the caller hears within its limit."""
    client: Any = Conflicting()
    with pytest.raises(StoreError, match=r"no answer within 0\.1 s"):
        await DynamoDBBackend(client, time_limit=0.1).execute(CLAIM)
    assert asyncio.get_running_loop().time() == pytest.approx(0.1)


@in_virtual_time
async def test_a_call_that_is_cancelled_in_a_pause_shows_nothing_of_the_conflict() -> None:
    """DynamoDB's words may hold data, and a cancellation's context is printed with it."""
    client: Any = Conflicting()
    calling = asyncio.create_task(DynamoDBBackend(client).execute(CLAIM))
    await pass_time(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await calling
    assert cancelled.value.__context__ is None
    assert len(client.sent) == 1


async def test_a_hot_partition_is_told_from_a_busy_table(ministack: Engine, session: AioSession) -> None:
    """The advice is what this library is for."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        store = make(replace(ministack, endpoint_url=proxy.url), session)
        await store.create_table()
        proxy.inject(Fault.HOT_PARTITION, operation="PutItem", times=3)
        with pytest.raises(StoreError, match="HashBuckets"):
            await store.claim("invoice-42")
        proxy.inject(Fault.THROTTLE, operation="PutItem", times=3)
        with pytest.raises(StoreError, match="try again later"):
            await store.claim("invoice-42")
        await store.aclose()


@pytest.mark.parametrize("fault", [Fault.UNKNOWN_CREDENTIALS, Fault.BAD_SIGNATURE])
async def test_wrong_credentials_do_not_fail_open(ministack: Engine, session: AioSession, fault: Fault) -> None:
    """They are a setting, which waiting does not mend."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        store = make(replace(ministack, endpoint_url=proxy.url), session, fail_open=True)
        proxy.inject(fault, operation="PutItem", times=3)
        with pytest.raises(ConfigurationError, match="credentials"):
            async with store.execute("invoice-42"):
                pytest.fail("ran unprotected")
        await store.aclose()
