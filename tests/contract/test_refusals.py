"""Errors of DynamoDB's that are no refused condition: which pass, which do not, and what each advises."""

from dataclasses import replace

import pytest
from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore, Claimed, ConfigurationError, StoreError
from tests.contract.test_clients import make
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy


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
