"""Duplicates of a running call: refused, or waiting for what comes of it."""

import asyncio
from datetime import timedelta
from typing import Any

import anyio
import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    ConfigurationError,
    InProgressError,
    MemoryBackend,
    MismatchError,
    StoreError,
    Wait,
    deadline,
    idempotent,
)
from aioidempotency._core.operations import Get, Put
from aioidempotency._waiting import InFlightCall
from tests.support.scripted import Down, ScriptedBackend, SlowlyDown, Stall
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


def make_store(backend: Any, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore("table", backend=backend, clock=epoch_seconds, **options)


async def run(store: AsyncIdempotencyStore, *, seconds: float, result: object = None, **options: Any) -> object:
    """Call for the key "key", with a body that takes so long."""
    async with store.execute("key", **options) as execution:
        if not execution.replayed:
            await pass_time(seconds)
            execution.complete(result)
    return execution.result


async def fail(store: AsyncIdempotencyStore, *, seconds: float) -> None:
    with pytest.raises(ValueError, match="body"):
        async with store.execute("key"):
            await pass_time(seconds)
            raise ValueError("body")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_waiting_duplicate_gets_the_owners_result(processes: int) -> None:
    """O12: in one process, and in two."""

    @in_virtual_time
    async def scene() -> None:
        stores = [make_store(MemoryBackend())] * 2
        if processes == 2:
            backend = MemoryBackend()
            stores = [make_store(backend), make_store(backend)]
        async with asyncio.TaskGroup() as tasks:
            owner = tasks.create_task(run(stores[0], seconds=100, result="first"))
            await pass_time(1)
            waiter = tasks.create_task(run(stores[1], seconds=0, result="second", on_in_progress=Wait(200)))
        assert (owner.result(), waiter.result()) == ("first", "first")

    scene()


@pytest.mark.parametrize("processes", [1, 2])
def test_when_the_owner_fails_one_of_ten_waiters_is_the_next(processes: int) -> None:
    """O12: the others wait for that one, and get its result."""

    @in_virtual_time
    async def scene() -> None:
        backend = MemoryBackend()
        first = make_store(backend)
        others = [first if processes == 1 else make_store(backend) for _ in range(10)]
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail(first, seconds=5))
            await pass_time(1)
            waiters = [
                tasks.create_task(run(store, seconds=3, result=number, on_in_progress=Wait(timedelta(seconds=60))))
                for number, store in enumerate(others)
            ]
        results = [waiter.result() for waiter in waiters]
        assert len(set(map(str, results))) == 1
        assert results[0] in range(10)

    scene()


@pytest.mark.parametrize("processes", [1, 2])
def test_patience_ends_with_the_error(processes: int) -> None:
    """O12: InProgressError at the time limit, carrying what is known of the owner."""

    @in_virtual_time
    async def scene() -> None:
        backend = MemoryBackend()
        owner = make_store(backend)
        other = owner if processes == 1 else make_store(backend)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(run(owner, seconds=100))
            await pass_time(1)
            with pytest.raises(InProgressError) as refused:
                await run(other, seconds=0, on_in_progress=Wait(10))
            assert 10.9 <= asyncio.get_running_loop().time() <= 11.1
            assert refused.value.retry_after > 0

    scene()


@in_virtual_time
async def test_a_dead_owners_key_goes_to_a_waiter_after_its_lease() -> None:
    """O6, O12: the waiter looks again when the lease is over, and runs."""
    backend = MemoryBackend()
    await make_store(backend, lease=20).claim("key")
    assert await run(make_store(backend), seconds=0, result="mine", on_in_progress=Wait(60)) == "mine"
    assert 21 <= asyncio.get_running_loop().time() < 25


@in_virtual_time
async def test_a_wait_is_counted_out_of_the_lease_it_ends_with() -> None:
    """O8: after a long wait the new owner's heartbeat starts with its own lease, not with its patience."""
    backend = MemoryBackend()
    await make_store(backend, lease=50).claim("key")
    store = make_store(backend, lease=10)
    assert await run(store, seconds=45, result="mine", on_in_progress=Wait(100)) == "mine"


@in_virtual_time
async def test_waiting_ends_at_the_deadline() -> None:
    """Bad input: a `Wait` longer than the deadline around it waits until the deadline only."""
    backend = MemoryBackend()
    await make_store(backend).claim("key")
    with deadline(-1), pytest.raises(InProgressError):
        await run(make_store(backend), seconds=0, on_in_progress=Wait(1000))
    assert asyncio.get_running_loop().time() < 1


@in_virtual_time
async def test_duplicates_in_one_process_send_nothing() -> None:
    """Coalescing: 100 duplicates of a running call are refused, or wait, without a request."""
    backend = ScriptedBackend(MemoryBackend())
    store = make_store(backend)

    async def refused() -> None:
        with pytest.raises(InProgressError):
            await run(store, seconds=0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run(store, seconds=5, result="first"))
        await pass_time(1)
        for _ in range(50):
            tasks.create_task(refused())
        waiters = [tasks.create_task(run(store, seconds=0, on_in_progress=Wait(30))) for _ in range(50)]
    assert {waiter.result() for waiter in waiters} == {"first"}
    assert [type(operation).__name__ for operation in backend.operations] == ["Put", "Update"]


@in_virtual_time
async def test_duplicates_that_come_while_the_claim_is_under_way_share_its_answer() -> None:
    """Coalescing: of 50 calls of a finished key at one moment, one asks, all replay."""
    backend = ScriptedBackend(MemoryBackend())
    store = make_store(backend)
    await run(store, seconds=0, result="first")
    results = await asyncio.gather(*(run(store, seconds=0) for _ in range(50)))
    assert set(results) == {"first"}
    assert (backend.count(Put), backend.count(Get)) == (2, 0)


@in_virtual_time
async def test_a_duplicate_with_another_payload_is_told_so_without_a_request() -> None:
    """O15: a mismatch is found in the process, too, and nobody waits for it."""
    backend = ScriptedBackend(MemoryBackend())
    store = make_store(backend)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(run(store, seconds=5, fingerprint="a"))
        await pass_time(1)
        with pytest.raises(MismatchError):
            await run(store, seconds=0, fingerprint="b", on_in_progress=Wait(30))
    assert backend.count(Put) == 1


@in_virtual_time
async def test_when_the_store_does_not_answer_a_claim_its_duplicates_do_not_queue_up() -> None:
    """O14: twenty calls of one key fail after one time limit, not after twenty."""
    slow = iter([SlowlyDown()])
    backend = ScriptedBackend(MemoryBackend(), lambda _: next(slow, None))
    store = make_store(backend)
    calls = [run(store, seconds=1, on_in_progress=Wait(60)) for _ in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {StoreError}
    assert asyncio.get_running_loop().time() == pytest.approx(10)
    assert await run(store, seconds=1, result="later") == "later"


@in_virtual_time
async def test_when_a_claim_is_cancelled_its_duplicates_ask_for_themselves() -> None:
    """Coalescing: one caller's cancellation is not another's."""
    stalled = iter([Stall()])
    backend = ScriptedBackend(MemoryBackend(), lambda _: next(stalled, None))
    store = make_store(backend)
    first = asyncio.create_task(run(store, seconds=1, result="a"))
    await pass_time(1)
    second = asyncio.create_task(run(store, seconds=1, result="b"))
    await pass_time(1)
    first.cancel()
    assert await second == "b"


@in_virtual_time
async def test_a_look_that_the_store_does_not_answer_does_not_end_a_wait() -> None:
    """O12: and it does not let a call in beside the owner, not even when failing open."""
    table = MemoryBackend()
    owner = asyncio.create_task(run(make_store(table), seconds=5, result="first"))
    await pass_time(1)
    down = iter([Down(), Down()])
    backend = ScriptedBackend(table, lambda operation: next(down, None) if isinstance(operation, Get) else None)
    waiting = make_store(backend, fail_open=True)
    assert await run(waiting, seconds=0, result="second", on_in_progress=Wait(60)) == "first"
    assert waiting.failed_open == 0
    await owner


@in_virtual_time
async def test_a_call_whose_lease_lapsed_in_this_process_does_not_hold_up_others() -> None:
    """Coalescing: the table decides again once the lease of the call under way is over."""
    store = make_store(MemoryBackend(), lease=10)
    async with asyncio.TaskGroup() as tasks:
        stale = tasks.create_task(run(store, seconds=100, result="stale", heartbeat=False))
        await pass_time(12)
        assert await run(store, seconds=0, result="successor") == "successor"
        stale.cancel()


def test_a_call_that_a_closed_loop_left_behind_holds_up_nobody() -> None:
    """Coalescing: a flight of a dead event loop is not waited for."""
    store = AsyncIdempotencyStore.in_memory(lease=0.001, clock_skew=0)

    async def enter() -> None:
        await store.execute("key", heartbeat=False).__aenter__()

    asyncio.run(enter())

    async def run_once() -> object:
        async with store.execute("key", on_in_progress=Wait(5)) as execution:
            execution.complete("mine")
        return execution.result

    assert asyncio.run(run_once()) == "mine"


@in_virtual_time
async def test_a_cancelled_waiter_leaves_the_owner_alone() -> None:
    """O5, O11: cancelled while waiting: the owner goes on, and nothing was written."""
    backend = MemoryBackend()
    store, other = make_store(backend), make_store(backend)
    owner = asyncio.create_task(run(store, seconds=5, result="first"))
    await pass_time(1)
    for waiting in store, other:
        with anyio.move_on_after(1) as scope:
            await run(waiting, seconds=0, on_in_progress=Wait(60))
        assert scope.cancelled_caught
    assert await owner == "first"


@in_virtual_time
async def test_the_decorator_waits_as_it_is_told() -> None:
    """O12: `on_in_progress=Wait(...)` on a decorator."""
    calls = 0

    @idempotent(make_store(MemoryBackend()), on_in_progress=Wait(10))
    async def slow(number: int) -> int:
        nonlocal calls
        calls += 1
        await pass_time(5)
        return number + 1

    assert list(await asyncio.gather(slow(1), slow(1), slow(1))) == [2, 2, 2]
    assert calls == 1


@pytest.mark.parametrize("choice", ["wait", 5, None])
def test_what_is_neither_raise_nor_wait_is_refused(choice: Any) -> None:
    """Bad input: on_in_progress= says what it takes."""
    with pytest.raises(ConfigurationError, match="on_in_progress"):
        AsyncIdempotencyStore.in_memory().execute("key", on_in_progress=choice)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), True])
def test_a_wait_needs_a_time(timeout: float) -> None:
    """Bad input: Wait(0) is 'raise'."""
    with pytest.raises(ConfigurationError, match="Wait"):
        Wait(timeout)


@in_virtual_time
async def test_a_duplicate_whose_own_late_claim_another_call_met_begins_on_a_fresh_lease() -> None:
    """It follows a call of its process that was refused by a copy of its own claim: that lease has nearly passed."""
    backend = MemoryBackend()
    store = make_store(backend)
    block: Any = store.execute("key", lease=10, on_in_progress=Wait(60))
    copied = block.attempt()
    decision = await make_store(backend)._parts.records.claim(copied)
    assert isinstance(decision, Claimed)
    await pass_time(9)
    other = InFlightCall(left=await store.get("key"))
    store._parts.running[asyncio.get_running_loop()].in_flight[copied.route.key] = other
    async with block as execution:
        assert execution.lease.expires_at > epoch_seconds() + 9
        other.end(None)
