"""Group commit on real engines: what is sent, what gets lost, what is refused, and where it cannot be had."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.session import AioSession

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    ConfigurationError,
    GroupCommit,
    HashBuckets,
    InProgress,
    MemoryBackend,
    Record,
    Replay,
    StoreError,
    idempotent,
)
from aioidempotency.events import Event, GroupCommitUnavailable
from tests.conftest import MakeStore, store_options, stores
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy
from tests.support.values import replace

CALLS = 60


class Grouped:
    """Stores with group commit on a table of their own, behind a proxy."""

    def __init__(self, proxy: FaultProxy, make: MakeStore) -> None:
        self.proxy = proxy
        self.make = make
        self.ran: Counter[str] = Counter()
        self.begun = len(proxy.requests)

    def sent(self) -> Counter[str]:
        """Count what was sent since the table was made."""
        return Counter(seen.operation for seen in self.proxy.requests[self.begun :])

    async def charge_all(self, store: AsyncIdempotencyStore, calls: int = CALLS) -> list[Any]:
        """Charge orders at once, each with a key of its own."""

        @idempotent(store, namespace="charge")
        async def charge(order_id: str) -> str:
            self.ran[order_id] += 1
            return f"receipt {order_id}"

        orders = (charge(f"order-{number}") for number in range(calls))
        return list(await asyncio.gather(*orders, return_exceptions=True))


RECEIPTS = [f"receipt order-{number}" for number in range(CALLS)]


@asynccontextmanager
async def grouped(engine: Engine, session: AioSession, **options: Any) -> AsyncIterator[Grouped]:
    async with FaultProxy(engine.endpoint_url) as proxy:
        given = {**store_options(replace(engine, endpoint_url=proxy.url), session), "group_commit": GroupCommit()}
        async with stores({**given, **options}) as make:
            yield Grouped(proxy, make)


async def test_concurrent_calls_share_requests(ministack: Engine, session: AioSession) -> None:
    """G1, C1: each body once; duplicates replay, by one refused statement and one read for each."""
    async with grouped(ministack, session) as crowd:
        store = crowd.make()
        assert await crowd.charge_all(store) == RECEIPTS
        assert set(crowd.ran.values()) == {1}
        fresh = crowd.sent()
        assert fresh.total() < CALLS / 2, "plain calls would be two for each"
        assert fresh.keys() == {"PutItem", "BatchExecuteStatement"}
        assert await crowd.charge_all(crowd.make()) == RECEIPTS
        assert set(crowd.ran.values()) == {1}
        assert crowd.sent()["BatchGetItem"] >= 2


async def test_a_lone_call_is_two_plain_requests(ministack: Engine, session: AioSession) -> None:
    """G2: as without it."""
    async with grouped(ministack, session) as crowd:
        store = crowd.make()
        await crowd.charge_all(store, calls=1)
        assert crowd.sent() == {"PutItem": 1, "UpdateItem": 1}
        await crowd.charge_all(store, calls=1)
        assert crowd.sent() == {"PutItem": 2, "UpdateItem": 1}, "a duplicate is one refused put"


async def test_a_layout_with_a_sort_key_and_odd_names(ministack: Engine, session: AioSession) -> None:
    """G1: names are quoted in statements, wherever they stand."""
    layout = CompositeKey("the key", 'so"rt', partitioning=HashBuckets(4))
    async with grouped(ministack, session, layout=layout) as crowd:
        assert await crowd.charge_all(crowd.make()) == RECEIPTS
        assert await crowd.charge_all(crowd.make()) == RECEIPTS
        assert set(crowd.ran.values()) == {1}


@pytest.mark.parametrize("fault", [Fault.CUT, Fault.ERROR_500])
async def test_the_answers_of_a_batch_are_lost(ministack: Engine, session: AioSession, fault: Fault) -> None:
    """O2, O3: it was applied and is sent again; each owner recognises its own write, and each body runs once."""
    async with grouped(ministack, session) as crowd:
        store = crowd.make()
        await crowd.charge_all(store, calls=2)
        crowd.ran.clear()
        crowd.proxy.inject(fault, operation="BatchExecuteStatement", times=2)

        @idempotent(store, namespace="lost")
        async def charge(order_id: str) -> str:
            crowd.ran[order_id] += 1
            return order_id

        orders = [f"order-{number}" for number in range(CALLS)]
        assert await asyncio.gather(*map(charge, orders)) == orders
        assert crowd.ran == Counter(orders)
        assert await asyncio.gather(*map(charge, orders)) == orders
        assert crowd.ran == Counter(orders)


async def test_a_batch_that_is_throttled_as_a_whole_is_a_store_that_does_not_answer(
    ministack: Engine, session: AioSession
) -> None:
    """O14: after the client's own retries."""
    async with grouped(ministack, session) as crowd:
        store = crowd.make()
        await crowd.charge_all(store, calls=3)
        crowd.proxy.inject(Fault.THROTTLE, operation="BatchExecuteStatement", times=3)
        outcomes = await asyncio.gather(*(store.claim(number) for number in range(10)), return_exceptions=True)
        assert isinstance(outcomes[0], Claimed)
        assert all(isinstance(each, StoreError) for each in outcomes[1:])


async def test_claims_of_one_key_in_two_stores_have_one_winner(ministack: Engine, session: AioSession) -> None:
    """G4, O1: they never share a batch."""
    async with grouped(ministack, session) as crowd:
        first, second = crowd.make(), crowd.make()
        claims = [store.claim(number % 20) for number in range(100) for store in (first, second)]
        decisions = await asyncio.gather(*claims)
        assert sum(isinstance(each, Claimed) for each in decisions) == 20
        assert sum(isinstance(each, InProgress) for each in decisions) == 180
        for seen in crowd.proxy.requests:
            if seen.operation == "BatchExecuteStatement":
                keys = [statement["Parameters"][0]["S"] for statement in seen.body["Statements"]]
                assert len(set(keys)) == len(keys)


async def test_a_result_that_is_too_large_harms_nobody(ministack: Engine, session: AioSession) -> None:
    """G3, O10: it leaves a tombstone, beside completions of the usual size."""
    async with grouped(ministack, session, compress_over=None) as crowd:
        store = crowd.make()
        leases = [each.lease for each in await store.claim_many(range(10)) if isinstance(each, Claimed)]
        results = ["x" * (500_000 if number == 5 else 10) for number in range(10)]
        finished = await asyncio.gather(*(store.complete(*each) for each in zip(leases, results, strict=True)))
        assert [isinstance(each, Record) for each in finished] == [True] * 10
        assert [each.encoding for each in finished] == [None] * 5 + ["tombstone"] + [None] * 4
        replayed = [await store.claim(number) for number in range(10) if number != 5]
        assert all(isinstance(each, Replay) and len(str(each.result)) == 10 for each in replayed)


async def test_missing_permissions_name_what_is_missing(ministack: Engine, session: AioSession) -> None:
    """A lone call needs none of them, so this is seen when there are many; reads have one of their own."""
    async with grouped(ministack, session) as crowd:
        store = crowd.make()
        crowd.proxy.inject(Fault.DENY, operation="BatchExecuteStatement", times=50)
        crowd.proxy.inject(Fault.DENY, operation="BatchGetItem", times=50)
        claimed, *refused = await asyncio.gather(*(store.claim(n) for n in range(5)), return_exceptions=True)
        assert isinstance(claimed, Claimed)
        for each in refused:
            assert isinstance(each, ConfigurationError)
            assert "dynamodb:PartiQLInsert, PartiQLUpdate, PartiQLDelete and BatchGetItem" in str(each)
            assert "GroupCommit(fallback=True)" in str(each)
        found, *unread = await asyncio.gather(*(store.get(n) for n in range(5)), return_exceptions=True)
        assert isinstance(found, Record)
        assert all(isinstance(each, ConfigurationError) for each in unread)


async def test_missing_permissions_fall_back_to_plain_calls(ministack: Engine, session: AioSession) -> None:
    """One warning event; every call goes on as without it."""
    events: list[Event] = []
    options = {"group_commit": GroupCommit(fallback=True), "on_event": events.append}
    async with grouped(ministack, session, **options) as crowd:
        crowd.proxy.inject(Fault.DENY, operation="BatchExecuteStatement", times=50)
        assert await crowd.charge_all(crowd.make()) == RECEIPTS
        warnings = [event for event in events if isinstance(event, GroupCommitUnavailable)]
        assert len(warnings) == 1
        assert crowd.sent()["UpdateItem"] > CALLS - 3
        assert "dynamodb:PartiQLInsert" in str(warnings[0].cause)
        assert 1 <= crowd.sent()["BatchExecuteStatement"] <= 8, "as many of each kind as were under way"


async def test_an_engine_without_partiql_is_named_at_once(moto: Engine, session: AioSession) -> None:
    """Moto takes statements and does something else: nothing is sent that it could do it with."""
    async with grouped(moto, session) as crowd:
        outcomes = await crowd.charge_all(crowd.make(), calls=10)
        assert all(isinstance(each, ConfigurationError) for each in outcomes[1:])
        assert "group_commit= needs an engine with PartiQL" in str(outcomes[1])
        statements = [
            seen.body["Statements"] for seen in crowd.proxy.requests if seen.operation == "BatchExecuteStatement"
        ]
        assert {len(each) for each in statements} == {1}, "only the harmless one"
        assert set(crowd.ran) <= {"order-0"}


def test_a_backend_that_takes_no_batches_is_refused() -> None:
    """When the store is made."""
    with pytest.raises(ConfigurationError, match="group_commit= sends batches, and <MemoryBackend"):
        AsyncIdempotencyStore("orders", backend=MemoryBackend(), group_commit=GroupCommit())
    with pytest.raises(ConfigurationError, match="group_commit= takes an instance of GroupCommit: not True"):
        AsyncIdempotencyStore("orders", group_commit=True)  # type: ignore[arg-type] # that is the test
