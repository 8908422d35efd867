"""Freeing a key, so that its next call runs: what is finished, what is over, and a running owner."""

import asyncio
import os
import socket
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    Claimed,
    CompositeKey,
    HashBuckets,
    InProgress,
    InProgressError,
    LeaseLostError,
    MemoryBackend,
    RandomBuckets,
    Replay,
    Reshard,
    ResultUnavailableError,
    Static,
    Status,
    TimeBuckets,
    Wait,
    idempotent,
    namespace_of,
)
from aioidempotency._core.operations import Delete, GetAll, Operation
from aioidempotency.events import Event, LeaseLost, RecordForgotten
from aioidempotency.partitioning import Partitioning
from aioidempotency.testing import FakeClock
from tests.conftest import MakeStore, stores
from tests.support.scripted import Fault, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time

KEY = "invoice-42"


class DeclinedError(Exception):
    """A result that is an error."""


class Bodies:
    """A body that counts its runs."""

    def __init__(self) -> None:
        self.ran = 0

    async def __call__(self) -> int:
        self.ran += 1
        return self.ran


async def once(store: AsyncIdempotencyStore, body: Bodies) -> object:
    """Run a body once for the key, without a namespace."""
    async with store.execute(KEY) as execution:
        if not execution.replayed:
            execution.complete(await body())
    return execution.result


async def test_what_run_has_stored_is_under_the_namespace_of_its_function(make_store: MakeStore) -> None:
    """C21: `namespace_of` tells it."""
    store = make_store()

    async def charge() -> str:
        return "receipt"

    await store.run(KEY, charge)
    assert not await store.forget(KEY)
    assert await store.forget(KEY, namespace=namespace_of(charge))


async def test_the_next_call_of_a_forgotten_key_runs(make_store: MakeStore) -> None:
    """C21: a finished record is deleted; forgetting twice finds nothing."""
    events: list[Event] = []
    store, body = make_store(on_event=events.append), Bodies()
    assert [await once(store, body) for _ in range(2)] == [1, 1]
    assert await store.forget(KEY)
    record = await store.get(KEY)
    assert record is None
    assert not await store.forget(KEY)
    assert not await store.forget("another")
    assert await once(store, body) == 2
    (forgotten,) = (each for each in events if isinstance(each, RecordForgotten))
    assert not forgotten.fenced


async def test_a_namespace_has_its_own_keys(make_store: MakeStore) -> None:
    """C21: what is forgotten is what is named."""
    store, body = make_store(), Bodies()

    @idempotent(store, key="order_id", namespace="charges")
    async def charge(order_id: str) -> int:
        return await body()

    assert await charge(KEY) == 1
    assert not await store.forget(KEY)
    assert await store.forget(KEY, namespace="charges")
    assert await charge(KEY) == 2


async def test_stored_errors_and_tombstones_are_forgotten(make_store: MakeStore) -> None:
    """C21: the mistake was mended, and the key may run again."""
    store = make_store()
    options: dict[str, Any] = {"store_errors": (DeclinedError,)}
    with pytest.raises(DeclinedError):
        async with store.execute(KEY, **options):
            raise DeclinedError("no")
    with pytest.raises(DeclinedError):
        async with store.execute(KEY, **options):
            pass
    assert await store.forget(KEY)
    async with store.execute(KEY) as execution:
        assert not execution.replayed
        execution.complete(object())
    with pytest.raises(ResultUnavailableError):
        async with store.execute(KEY):
            pass
    assert await store.forget(KEY)
    assert isinstance(await store.claim(KEY), Claimed)


async def test_a_crashed_owners_record_is_forgotten(make_store: MakeStore) -> None:
    """C21: its lease is over, by more than clocks may differ."""
    clock = FakeClock()
    store = make_store(clock=clock)
    assert isinstance(await store.claim(KEY), Claimed)
    with pytest.raises(InProgressError):
        await store.forget(KEY)
    clock.advance(62)
    assert await store.forget(KEY)
    assert await store.get(KEY) is None


async def test_a_running_key_is_not_forgotten(make_store: MakeStore) -> None:
    """C21: the error brings the record, with who claimed; nothing has changed."""
    store = make_store(label="worker 7 of the billing service")
    decision = await store.claim(KEY)
    assert isinstance(decision, Claimed)
    with pytest.raises(InProgressError) as refused:
        await make_store().forget(KEY)
    assert refused.value.record.claimed_by == "worker 7 of the billing service"
    assert "billing" not in f"{refused.value}{refused.value!r}{refused.value.record!r}{decision!r}"
    assert (await store.complete(decision.lease, 1)).claimed_by == "worker 7 of the billing service"


async def test_a_running_owner_is_shut_out(make_store: MakeStore) -> None:
    """C21, O13: whatever it asks is refused, before and after the next call, which has a larger token."""
    events: list[Event] = []
    old, store = make_store(), make_store(label="an operator", on_event=events.append)
    first = await old.claim(KEY, fingerprint="payload")
    assert isinstance(first, Claimed)
    assert await store.forget(KEY, running=True)
    (forgotten,) = (each for each in events if isinstance(each, RecordForgotten))
    assert forgotten.fenced
    await refused(old, first)
    left = await store.get(KEY)
    assert left is not None
    assert (left.vacant, left.freed_by, left.fingerprint) == (True, "an operator", None)
    assert left.fencing_token == first.lease.fencing_token + 1

    second = await store.claim(KEY, fingerprint="another payload")
    assert isinstance(second, Claimed)
    assert second.lease.fencing_token > left.fencing_token
    await refused(old, first)
    await store.release(second.lease)
    await refused(old, first)
    assert not await store.forget(KEY)
    await refused(old, first)

    third = await store.claim(KEY)
    assert isinstance(third, Claimed)
    await store.complete(third.lease, "third")
    await refused(old, first)
    assert await store.forget(KEY)
    await refused(old, first)
    assert isinstance(await store.claim(KEY), Claimed)


async def refused(store: AsyncIdempotencyStore, claimed: Claimed) -> None:
    """Insist that an owner is refused whatever it asks, and changes nothing."""
    before = await store.get(KEY)
    for asked in (store.complete(claimed.lease, "late"), store.renew(claimed.lease), store.release(claimed.lease)):
        with pytest.raises(LeaseLostError):
            await asked
    assert await store.get(KEY) == before


async def test_a_store_without_a_label_shuts_out_too(make_store: MakeStore) -> None:
    """C21: nobody is named, and the old owner is refused all the same after the next one has given up."""
    store = make_store(label=None)
    first = await store.claim(KEY)
    assert isinstance(first, Claimed)
    assert first.lease.claimed_by is None
    assert await store.forget(KEY, running=True)
    second = await store.claim(KEY)
    assert isinstance(second, Claimed)
    await store.release(second.lease)
    await refused(store, first)


@pytest.mark.parametrize(
    "partitioning",
    [
        TimeBuckets(600, buckets=2),
        RandomBuckets(4),
        Reshard(Static("old"), HashBuckets(2), "prepare"),
        Reshard(Static("old"), HashBuckets(2), "cutover"),
        Reshard(HashBuckets(2), TimeBuckets(600, buckets=2), "cutover"),
    ],
    ids=lambda it: type(it).__name__ if not isinstance(it, Reshard) else f"{it.phase} to {type(it.new).__name__}",
)
async def test_all_locations_of_a_key_are_looked_at(
    backend_options: dict[str, Any], partitioning: Partitioning
) -> None:
    """C21, P2: also in those into which a later claim would not write."""
    clock, body = FakeClock(), Bodies()
    async with stores({**backend_options, "layout": CompositeKey(partitioning=partitioning)}) as make:
        store = make(clock=clock)
        assert await once(store, body) == 1
        clock.advance(700)
        assert await store.forget(KEY)
        assert await once(store, body) == 2
        assert await store.forget(KEY)
        old = await store.claim(KEY, lease=2000)
        assert isinstance(old, Claimed)
        clock.advance(700)
        assert await store.forget(KEY, running=True)
        await refused(store, old)
        assert await once(store, body) == 3
        with pytest.raises(LeaseLostError):
            await store.complete(old.lease, "late")
        assert await once(store, body) == 3


async def test_a_move_forgets_what_the_other_phase_has_written(backend_options: dict[str, Any]) -> None:
    """C21, P4: a record is where its phase puts it, and nodes of the next one find it."""
    before, after = (
        CompositeKey(partitioning=Reshard(Static("old"), HashBuckets(2), phase)) for phase in ("prepare", "cutover")
    )
    async with stores({**backend_options, "layout": before}) as make:
        one, other = make(), make(layout=after)
        claimed = await one.claim(KEY)
        assert isinstance(claimed, Claimed)
        assert await other.forget(KEY, running=True)
        next_one = await other.claim(KEY)
        assert isinstance(next_one, Claimed)
        await other.release(next_one.lease)
        for asked in (one.complete(claimed.lease, "late"), one.renew(claimed.lease)):
            with pytest.raises(LeaseLostError):
                await asked
        left = await one.get(KEY)
        assert left is not None
        assert left.vacant


async def test_a_finished_key_costs_a_read_and_a_deletion() -> None:
    """C21: what is missing costs the read alone."""
    sent = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("orders", backend=sent)
    await once(store, Bodies())
    sent.operations.clear()
    await store.forget(KEY)
    assert [type(each).__name__ for each in sent.operations] == ["Get", "Delete"]
    await store.forget(KEY)
    assert [type(each).__name__ for each in sent.operations] == ["Get", "Delete", "Get"]
    assert not any(isinstance(each, GetAll) for each in sent.operations)


# In the process that runs the call, or keeps its result.


async def test_the_local_cache_drops_what_is_forgotten() -> None:
    """C21: the next call in this process asks the table."""
    store, body = AsyncIdempotencyStore.in_memory(local_cache=10), Bodies()
    assert [await once(store, body) for _ in range(2)] == [1, 1]
    assert await store.forget(KEY)
    assert [await once(store, body) for _ in range(2)] == [2, 2]


class Late(Fault):
    """The answer comes when a test says so."""

    def __init__(self) -> None:
        self.asked, self.answered = asyncio.Event(), asyncio.Event()

    async def answer(self, backend: Backend, operation: Operation) -> Any:
        reply = await backend.execute(operation)
        self.asked.set()
        await self.answered.wait()
        return reply


async def test_an_answer_that_comes_late_brings_nothing_back_into_the_cache() -> None:
    """C21: a duplicate was refused by the record, and hears of it when that is forgotten."""
    memory, body = MemoryBackend(), Bodies()
    sent = ScriptedBackend(memory)
    store = AsyncIdempotencyStore("orders", backend=sent, local_cache=10)
    assert await once(AsyncIdempotencyStore("orders", backend=memory), body) == 1
    late = Late()
    sent.rule = lambda _: late
    duplicate = asyncio.create_task(once(store, body))
    await late.asked.wait()
    sent.rule = lambda _: None
    assert await store.forget(KEY)
    late.answered.set()
    assert await duplicate == 1
    assert [await once(store, body) for _ in range(2)] == [2, 2]


async def test_the_cache_remembers_few_of_the_keys_that_were_forgotten() -> None:
    """C21: as many as it keeps records."""
    store = AsyncIdempotencyStore.in_memory(local_cache=2)
    for number in range(5):
        async with store.execute(f"{KEY}-{number}"):
            pass
        await store.forget(f"{KEY}-{number}")
    cache = store._parts.records.cache
    assert cache is not None
    assert len(cache._forgotten) == 2


@pytest.mark.parametrize("on_in_progress", ["raise", Wait(20)])
async def test_the_next_call_in_the_same_process_runs_beside_the_one_that_was_shut_out(on_in_progress: Any) -> None:
    """C21: it looks at the table; the old one hears at its end that its lease is lost."""
    events: list[Event] = []
    store = AsyncIdempotencyStore.in_memory(on_event=events.append)
    with pytest.raises(LeaseLostError):
        async with store.execute(KEY):
            assert await store.forget(KEY, running=True)
            async with store.execute(KEY, on_in_progress=on_in_progress) as execution:
                assert not execution.replayed
                execution.complete("second")
    assert isinstance(await store.claim(KEY), Replay)
    assert sum(isinstance(each, LeaseLost) for each in events) == 1


@in_virtual_time
async def test_the_body_of_an_owner_that_is_shut_out_is_cancelled_at_its_next_renewal() -> None:
    """C21, O8: a third of its lease later at the latest."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds, lease=30)

    async def body() -> None:
        await asyncio.sleep(1000)

    running = asyncio.create_task(store.run(KEY, body))
    await asyncio.sleep(5)
    assert await store.forget(KEY, namespace=namespace_of(body), running=True)
    shut_out_at = asyncio.get_running_loop().time()
    with pytest.raises(LeaseLostError):
        await running
    assert asyncio.get_running_loop().time() - shut_out_at <= 10


async def test_a_claim_that_is_cancelled_while_it_takes_over_keeps_the_old_owner_out() -> None:
    """C21, O5: the key is given back, and the vacant record stays."""
    memory = MemoryBackend()
    sent = ScriptedBackend(memory)
    store, other = (AsyncIdempotencyStore("orders", backend=each) for each in (sent, memory))
    first = await other.claim(KEY)
    assert isinstance(first, Claimed)
    assert await other.forget(KEY, running=True)
    late = Late()
    sent.rule = lambda _: late if len(sent.operations) == 2 else None
    cancelled = asyncio.create_task(store.claim(KEY))
    await late.asked.wait()
    sent.rule = lambda _: None
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    left = await other.get(KEY)
    assert left is not None
    assert left.vacant
    await refused(other, first)
    assert not any(isinstance(each, Delete) for each in sent.operations)


# Who claimed.


async def test_a_record_says_who_claimed(make_store: MakeStore) -> None:
    """C21: this process, unless a label says otherwise."""
    store = make_store()
    decision = await store.claim(KEY)
    assert isinstance(decision, Claimed)
    here = f"{socket.gethostname()} {os.getpid()}"
    assert decision.lease.claimed_by == here
    refusal = await store.claim(KEY)
    assert isinstance(refusal, InProgress)
    assert refusal.record.claimed_by == here
    with pytest.raises(InProgressError) as raised:
        async with store.execute(KEY):
            pass
    assert raised.value.record.claimed_by == here
    record = await store.complete(decision.lease, 1)
    assert (record.claimed_by, record.status) == (here, Status.COMPLETED)
    assert await store.get(KEY) == record


async def test_a_label_can_be_left_out(make_store: MakeStore) -> None:
    """C21: nobody needs to know."""
    store = make_store(label=None)
    assert isinstance(await store.claim(KEY), Claimed)
    record = await store.get(KEY)
    assert record is not None
    assert record.claimed_by is None


async def test_a_duplicate_in_the_same_process_is_told_who_claimed() -> None:
    """C21: though it sends nothing."""
    store = AsyncIdempotencyStore.in_memory(label="this one")
    async with store.execute(KEY):
        with pytest.raises(InProgressError) as raised:
            async with store.execute(KEY):
                pass
    assert raised.value.record.claimed_by == "this one"
