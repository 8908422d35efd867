"""Why a lease is lost: `LeaseLostError.reason`, its cause, and what the caller may do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    Lease,
    LeaseLostError,
    MemoryBackend,
    StoreError,
    TimeBuckets,
)
from aioidempotency._core.operations import Operation, Transact, Update
from aioidempotency.testing import FakeClock
from tests.support.scripted import Down, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time

ByLease = Callable[[AsyncIdempotencyStore, Lease], Awaitable[object]]

STEPS: dict[str, ByLease] = {
    "complete": lambda store, lease: store.complete(lease, "done"),
    "renew": lambda store, lease: store.renew(lease),
    "release": lambda store, lease: store.release(lease),
}


async def claimed(store: AsyncIdempotencyStore) -> Lease:
    decision = await store.claim("key")
    assert isinstance(decision, Claimed)
    return decision.lease


async def loss(work: Awaitable[object]) -> LeaseLostError:
    with pytest.raises(LeaseLostError) as lost:
        await work
    assert lost.value.retryable
    assert lost.value.status_hint == 409
    return lost.value


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_after_a_take_over_names_the_other_owner(step: str) -> None:
    """O4: with the other one's record."""
    store = AsyncIdempotencyStore.in_memory(clock=(clock := FakeClock()), lease=60)
    lease = await claimed(store)
    clock.advance(62)
    other = await claimed(store)
    lost = await loss(STEPS[step](store, lease))
    assert lost.reason == "another_owner"
    assert lost.record is not None
    assert lost.record.owner == other.owner
    assert "another call has claimed" in str(lost)


async def test_a_renewal_of_a_deleted_record_says_that_it_is_gone() -> None:
    """O4: a completion would put the record anew."""
    store = AsyncIdempotencyStore("orders", backend=(backend := MemoryBackend()))
    lease = await claimed(store)
    backend._items.clear()
    lost = await loss(store.renew(lease))
    assert (lost.reason, lost.record) == ("gone", None)
    assert "the record is gone" in str(lost)


@pytest.mark.parametrize("step", ["complete", "renew"])
async def test_a_lease_that_ended_with_its_window_was_not_renewed_in_time(step: str) -> None:
    """O4: nobody looked into the table, where the record may well be."""
    clock = FakeClock()
    backend = ScriptedBackend(MemoryBackend())
    layout = CompositeKey(partitioning=TimeBuckets(window=3600))
    store = AsyncIdempotencyStore("orders", backend=backend, layout=layout, clock=clock, lease=60)
    lease = await claimed(store)
    sent = len(backend.operations)
    clock.advance(61)
    assert (await loss(STEPS[step](store, lease))).reason == "unanswered"
    assert len(backend.operations) == sent


async def test_a_transaction_after_the_end_of_its_lease_was_not_renewed_in_time() -> None:
    """X2: in a layout by time; nothing is written."""
    clock = FakeClock()
    layout = CompositeKey(partitioning=TimeBuckets(window=3600))
    store = AsyncIdempotencyStore.in_memory(layout=layout, clock=clock, lease=60)

    async def call() -> None:
        async with store.execute("key", heartbeat=False) as execution:
            execution.transaction.emit({"n": 1}, key="key")
            execution.complete("done")
            clock.advance(61)

    lost = await loss(call())
    assert (lost.reason, lost.result) == ("unanswered", "done")
    assert [event async for event in store.outbox(poll=None)] == []


async def test_a_transaction_without_its_record_says_that_it_is_gone() -> None:
    """X2: nothing is written."""
    backend = MemoryBackend()
    store = AsyncIdempotencyStore("orders", backend=backend, layout=CompositeKey())

    async def call() -> None:
        async with store.execute("key") as execution:
            execution.transaction.emit({"n": 1}, key="key")
            backend._items.clear()

    assert (await loss(call())).reason == "gone"
    assert [event async for event in store.outbox(poll=None)] == []


def heartbeats(take: Callable[[AsyncIdempotencyStore, MemoryBackend], Awaitable[object]]) -> Any:
    """A body whose lease is lost in the way given, as its heartbeat notices."""

    async def lose() -> LeaseLostError:
        memory = MemoryBackend()
        store = AsyncIdempotencyStore("orders", backend=memory, clock=epoch_seconds, lease=6)

        async def call() -> None:
            async with store.execute("key"):
                await pass_time(60)

        task = asyncio.ensure_future(call())
        await pass_time(1)
        await take(store, memory)
        return await loss(task)

    return lose


async def cleared(_: AsyncIdempotencyStore, backend: MemoryBackend) -> None:
    backend._items.clear()


@in_virtual_time
async def test_a_heartbeat_says_that_the_record_is_gone() -> None:
    """O8: its cause is the refused renewal."""
    lost = await heartbeats(cleared)()
    assert lost.reason == "gone"
    assert isinstance(lost.__cause__, LeaseLostError)


@in_virtual_time
async def test_a_heartbeat_names_the_other_owner() -> None:
    """O8: its cause is the refused renewal."""
    lost = await heartbeats(lambda store, _: store.forget("key", running=True))()
    assert lost.reason == "another_owner"
    assert isinstance(lost.__cause__, LeaseLostError)


@in_virtual_time
async def test_a_heartbeat_without_an_answer_has_the_last_failure_as_its_cause() -> None:
    """O8: the store is down from the first renewal on."""
    backend = ScriptedBackend(MemoryBackend(), lambda operation: Down() if isinstance(operation, Update) else None)
    store = AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds, lease=6)

    async def call() -> None:
        async with store.execute("key"):
            await pass_time(60)

    lost = await loss(call())
    assert lost.reason == "unanswered"
    assert isinstance(lost.__cause__, StoreError)


@in_virtual_time
async def test_a_body_that_goes_on_after_closing_is_told_at_its_safe_point() -> None:
    """O19: without renewals."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds, lease=6)

    async def call() -> None:
        async with store.execute("key"):
            await pass_time(60)

    task = asyncio.ensure_future(call())
    await pass_time(1)
    await store.aclose()
    assert (await loss(task)).reason == "unanswered"


@in_virtual_time
async def test_a_window_that_ends_under_a_body_is_told_by_the_heartbeat_and_by_leaving() -> None:
    """O8: the heartbeat's own refusal has the reason, and leaving says the same."""
    layout = CompositeKey(partitioning=TimeBuckets(window=3600, retention=60))
    store = AsyncIdempotencyStore.in_memory(layout=layout, clock=epoch_seconds, lease=60, retention=60)

    async def call() -> None:
        async with store.execute("key"):
            await pass_time(10_000)

    lost = await loss(call())
    assert lost.reason == "unanswered"
    assert isinstance(lost.__cause__, LeaseLostError)


@in_virtual_time
async def test_a_completion_that_lost_its_lease_while_it_was_tried_again_says_why_it_was_late() -> None:
    """O18: the cause is the last failure of the store."""
    memory = MemoryBackend()
    backend = ScriptedBackend(memory)
    store = AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds, lease=6)
    other = AsyncIdempotencyStore("orders", backend=memory, clock=epoch_seconds)

    async def call() -> None:
        async with store.execute("key", heartbeat=False) as execution:
            execution.complete("done")
            backend.rule = down_once

    def down_once(operation: Operation) -> Any:
        if isinstance(operation, Update):
            backend.rule = lambda _: None
            memory._items.clear()
            return Down()
        return None

    async def takes_over() -> None:
        while not isinstance(await other.claim("key"), Claimed):
            await pass_time(0.01)

    taking = asyncio.ensure_future(takes_over())
    lost = await loss(call())
    await taking
    assert (lost.reason, lost.result) == ("another_owner", "done")
    assert isinstance(lost.__cause__, StoreError)


@in_virtual_time
async def test_a_transaction_that_lost_its_lease_while_it_was_tried_again_says_why_it_was_late() -> None:
    """O18: the cause is the last failure of the store."""
    memory = MemoryBackend()
    backend = ScriptedBackend(memory)
    store = AsyncIdempotencyStore("orders", backend=backend, layout=CompositeKey(), clock=epoch_seconds, lease=6)

    def down_once(operation: Operation) -> Any:
        if isinstance(operation, Transact):
            backend.rule = lambda _: None
            memory._items.clear()
            return Down()
        return None

    async def call() -> None:
        async with store.execute("key", heartbeat=False) as execution:
            execution.transaction.emit({"n": 1}, key="key")
            backend.rule = down_once

    lost = await loss(call())
    assert lost.reason == "gone"
    assert isinstance(lost.__cause__, StoreError)
