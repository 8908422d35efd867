"""Writes that were applied and whose answers never came: the owner knows its own write again."""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore, Claimed, InProgress, LeaseLostError, Status, StoreError, idempotent
from aioidempotency.testing import FakeClock
from tests.behaviours.conftest import Proxied
from tests.support.proxy import Fault, Seen

pytestmark = pytest.mark.backends()  # each engine answers a repeated write in its own way

IMPATIENT = AioConfig(read_timeout=0.4, retries={"mode": "legacy", "total_max_attempts": 3})
"""A client that gives up a stalled answer soon, and asks again soon."""

LOST = pytest.mark.parametrize("fault", [Fault.CUT, Fault.STALL, Fault.ERROR_500], ids=lambda fault: fault.name)


def options(fault: Fault) -> dict[str, Any]:
    """The store's own client where the connection is cut, an impatient one where it would wait."""
    return {} if fault is Fault.CUT else {"config": IMPATIENT}


def assert_applied_and_lost(first: Seen, fault: Fault) -> None:
    assert (first.fault, first.status) == (fault, 200)


@LOST
async def test_the_answer_to_a_claim_is_lost(proxied: Proxied, fault: Fault) -> None:
    """O2: the caller still owns the record: the body runs once, and its result is stored."""
    store, bodies = proxied.make_store(**options(fault)), []

    @idempotent(store, namespace="charge")
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        return "paid"

    start = len(proxied.proxy.requests)
    proxied.proxy.inject(fault, operation="PutItem")
    assert await charge("o-1") == "paid"
    puts = proxied.since(start, "PutItem")
    assert_applied_and_lost(puts[0], fault)
    assert puts[1].status == 400
    assert puts[0].body["Item"] == puts[1].body["Item"]
    assert await charge("o-1") == "paid"
    assert bodies == ["o-1"]


@LOST
async def test_the_answer_to_a_take_over_is_lost(proxied: Proxied, fault: Fault) -> None:
    """O2: the same for the second put of a claim, which takes a lapsed record over."""
    clock = FakeClock()
    store = proxied.make_store(**options(fault), clock=clock)
    stale = await store.claim("k")
    assert isinstance(stale, Claimed)
    clock.advance(120)

    start = len(proxied.proxy.requests)
    proxied.proxy.inject(fault, operation="PutItem", skip=1)
    claimed = await store.claim("k")
    assert isinstance(claimed, Claimed)
    refused, lost, again = proxied.since(start, "PutItem")[:3]
    assert refused.status == 400
    assert_applied_and_lost(lost, fault)
    assert again.status == 400
    assert claimed.lease.fencing_token > stale.lease.fencing_token
    assert (await store.complete(claimed.lease, "paid")).owner == claimed.lease.owner
    with pytest.raises(LeaseLostError):
        await store.complete(stale.lease, "stale")


@LOST
async def test_the_answer_to_a_completion_is_lost(proxied: Proxied, fault: Fault) -> None:
    """O3: the record is complete, and the caller gets its result."""
    store, bodies = proxied.make_store(**options(fault)), []

    @idempotent(store, key="order_id", namespace="charge")
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        return f"paid {len(bodies)}"

    start = len(proxied.proxy.requests)
    proxied.proxy.inject(fault, operation="UpdateItem")
    assert await charge("o-1") == "paid 1"
    updates = proxied.since(start, "UpdateItem")
    assert_applied_and_lost(updates[0], fault)
    assert updates[1].status == 400
    record = await store.get("o-1", namespace="charge")
    assert record is not None
    assert (record.status, record.result) == (Status.COMPLETED, "paid 1")
    assert await charge("o-1") == "paid 1"


@LOST
async def test_the_answer_to_a_renewal_is_lost(proxied: Proxied, fault: Fault) -> None:
    """O3: the lease is renewed, and its owner can go on and complete."""
    clock = FakeClock()
    store = proxied.make_store(**options(fault), clock=clock)
    claimed = await store.claim("k")
    assert isinstance(claimed, Claimed)
    clock.advance(30)
    start = len(proxied.proxy.requests)
    proxied.proxy.inject(fault, operation="UpdateItem")
    renewed = await store.renew(claimed.lease)
    assert_applied_and_lost(proxied.since(start, "UpdateItem")[0], fault)
    assert renewed.expires_at == clock() + 60
    record = await store.get("k")
    assert record is not None
    assert record.lease_ends_at == renewed.expires_at
    assert (await store.complete(renewed, "paid")).result == "paid"


@LOST
async def test_the_answer_to_a_release_is_lost(proxied: Proxied, fault: Fault) -> None:
    """O3: the key is free, and whoever released it hears no error but the body's."""
    store = proxied.make_store(**options(fault))

    @idempotent(store, key="order_id", namespace="charge")
    async def charge(order_id: str) -> str:
        raise KeyError(order_id)

    start = len(proxied.proxy.requests)
    proxied.proxy.inject(fault, operation="DeleteItem")
    with pytest.raises(KeyError, match="o-1"):
        await charge("o-1")
    assert_applied_and_lost(proxied.since(start, "DeleteItem")[0], fault)
    assert isinstance(await store.claim("o-1", namespace="charge"), Claimed)


@asynccontextmanager
async def own_client_store(
    proxied: Proxied, session: AioSession, mode: str, attempts: int
) -> AsyncIterator[AsyncIdempotencyStore]:
    """A store on a client that the user made."""
    config = AioConfig(retries={"mode": mode, "total_max_attempts": attempts})
    reached: dict[str, Any] = {"endpoint_url": proxied.engine.endpoint_url, "region_name": "eu-central-1"}
    async with session.create_client("dynamodb", config=config, **reached) as client:
        store = AsyncIdempotencyStore(f"test-{secrets.token_hex(6)}", client=client)
        await store.create_table()
        yield store


MODES = pytest.mark.parametrize("mode", ["legacy", "standard", "adaptive"])


@MODES
async def test_a_client_of_the_users_own_loses_answers(proxied: Proxied, session: AioSession, mode: str) -> None:
    """O2 and O3: in each of botocore's retry modes, with claim and completion cut on one call."""
    async with own_client_store(proxied, session, mode, attempts=3) as store:
        bodies = []

        @idempotent(store, namespace=mode)
        async def charge(order_id: str) -> str:
            bodies.append(order_id)
            return "paid"

        start = len(proxied.proxy.requests)
        for operation in ("PutItem", "UpdateItem"):
            proxied.proxy.inject(Fault.CUT, operation=operation)
        assert await charge("o-1") == "paid"
        sent = [(seen.operation, seen.status) for seen in proxied.since(start)]
        assert sent == [("PutItem", 200), ("PutItem", 400), ("UpdateItem", 200), ("UpdateItem", 400)]
        assert await charge("o-1") == "paid"
        assert len(bodies) == 1


@MODES
async def test_a_client_that_never_asks_again_loses_answers(proxied: Proxied, session: AioSession, mode: str) -> None:
    """O2 and O3: with one attempt a claim is `StoreError`, closed; a completion is settled by trying again."""
    async with own_client_store(proxied, session, mode, attempts=1) as store:
        bodies = []

        @idempotent(store, key="order_id", namespace="claim")
        async def charge(order_id: str) -> str:
            bodies.append(order_id)
            return "paid"

        proxied.proxy.inject(Fault.CUT, operation="PutItem")
        with pytest.raises(StoreError) as raised:
            await charge("o-1")
        assert raised.value.__cause__ is not None
        assert type(raised.value.__cause__).__module__.startswith("botocore")
        assert bodies == []
        assert isinstance(await store.claim("o-1", namespace="claim"), InProgress)

        proxied.proxy.inject(Fault.CUT, operation="UpdateItem")
        assert await charge("o-2") == "paid"
        assert await charge("o-2") == "paid"
        assert bodies == ["o-2"]


ENDINGS: dict[str, Callable[[AsyncIdempotencyStore, Claimed], Awaitable[object]]] = {
    "UpdateItem": lambda store, claimed: store.complete(claimed.lease, "paid"),
    "DeleteItem": lambda store, claimed: store.release(claimed.lease),
}


@pytest.mark.parametrize("operation", ENDINGS)
async def test_a_completion_or_release_may_be_repeated_after_an_error(
    proxied: Proxied, session: AioSession, operation: str
) -> None:
    """O3: `complete` and `release` that raised `StoreError` may be called again, and settle it."""
    async with own_client_store(proxied, session, "standard", attempts=1) as store:
        claimed = await store.claim("k")
        assert isinstance(claimed, Claimed)
        proxied.proxy.inject(Fault.CUT, operation=operation)
        with pytest.raises(StoreError):
            await ENDINGS[operation](store, claimed)
        await ENDINGS[operation](store, claimed)
        record = await store.get("k")
        assert (record is not None) == (operation == "UpdateItem")
