"""A lease is kept while its body runs, and a body ends before its lease does."""

import asyncio
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    ConfigurationError,
    InProgress,
    InProgressError,
    LeaseLostError,
    MemoryBackend,
    Status,
    TimeBuckets,
    idempotent,
)
from aioidempotency._core import model
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import Put, Update
from tests.support.scripted import Broken, Down, Fault, ScriptedBackend, Stall
from tests.support.values import replace
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time

LEASE = 60.0


def make_store(backend: Any, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore("table", backend=backend, lease=LEASE, clock=epoch_seconds, **options)


def updates_fail(fault: Fault, *, times: int = 1_000_000) -> Any:
    """Fail the first updates: renewals, while a body runs."""
    left = iter(range(times))
    return lambda operation: fault if isinstance(operation, Update) and next(left, None) is not None else None


@in_virtual_time
async def test_a_body_of_five_leases_stays_the_owner() -> None:
    """O8: nobody else gets the key while the body runs, and its result is stored."""
    backend = MemoryBackend()
    store, other = make_store(backend), make_store(backend)
    async with store.execute("key") as execution:
        for _ in range(5):
            await pass_time(LEASE)
            with pytest.raises(InProgressError) as refused:
                async with other.execute("key"):
                    pytest.fail("two owners")
            assert 0 < refused.value.retry_after <= LEASE + 1
        execution.complete("done")
    async with other.execute("key") as again:
        assert again.result == "done"


@in_virtual_time
async def test_a_body_ends_before_claims_stop_to_look_at_its_window() -> None:
    """O8, P2: its lease cannot go on for ever in one window of time; nobody else runs before it has ended."""
    backend = MemoryBackend()
    layout = CompositeKey(partitioning=TimeBuckets(30, buckets=1))
    store, other = (make_store(backend, layout=layout, retention=100) for _ in range(2))
    began = epoch_seconds()
    with pytest.raises(LeaseLostError) as lost:
        async with store.execute("key"):
            while True:
                await pass_time(0.25)
                assert isinstance(await other.claim("key"), InProgress)
    assert lost.value.record is None
    assert 100 - LEASE / 3 <= epoch_seconds() - began <= 130
    assert isinstance(await other.claim("key"), Claimed)


@in_virtual_time
async def test_renewals_come_every_third_of_the_lease_and_end_with_the_body() -> None:
    """O8: in 100 seconds a lease of 60 is renewed at 20, 40, 60 and 80 (and not at all after the end)."""
    backend = ScriptedBackend(MemoryBackend())
    store = make_store(backend)
    async with store.execute("key"):
        await pass_time(99)
        assert backend.count(Update) == 4
    sent = len(backend.operations)
    await pass_time(10 * LEASE)
    assert len(backend.operations) == sent
    assert "0 leases kept" in repr(store)


@in_virtual_time
async def test_a_call_that_ends_before_its_first_renewal_costs_no_task() -> None:
    """O8: the heartbeat of a short call is a timer, nothing more."""
    store = make_store(MemoryBackend())
    before = asyncio.all_tasks()
    async with store.execute("key"):
        await pass_time(LEASE / 3 - 1)
        assert asyncio.all_tasks() == before


@in_virtual_time
async def test_an_interval_of_ones_own_is_kept() -> None:
    """O8: heartbeat=5 renews every five seconds; heartbeat=False never."""
    backend = ScriptedBackend(MemoryBackend())
    store = make_store(backend)
    async with store.execute("often", heartbeat=5):
        await pass_time(23)
        assert backend.count(Update) == 4
    async with store.execute("never", heartbeat=False):
        await pass_time(23)
        assert backend.count(Update) == 5  # the completion of the first


@in_virtual_time
async def test_without_a_heartbeat_a_lapsed_owner_that_nobody_replaced_still_completes() -> None:
    """O8: the lease only says when others may come; nobody did."""
    store = make_store(MemoryBackend())
    async with store.execute("key", heartbeat=False) as execution:
        await pass_time(3 * LEASE)
        execution.complete("late")
    record = await store.get("key")
    assert record is not None
    assert record.result == "late"


@in_virtual_time
async def test_without_a_heartbeat_a_replaced_owner_is_told() -> None:
    """O4: the successor's record stays as it is, and the stale owner gets LeaseLostError."""
    backend = MemoryBackend()
    store, other = make_store(backend), make_store(backend)
    with pytest.raises(LeaseLostError) as lost:
        async with store.execute("key", heartbeat=False):
            await pass_time(LEASE + 2)
            async with other.execute("key") as successor:
                successor.complete("second")
    assert lost.value.record is not None
    assert lost.value.record.status is Status.COMPLETED
    record = await store.get("key")
    assert record is not None
    assert record.result == "second"


@pytest.mark.parametrize("fault", [Down(), Stall()], ids=["down", "stall"])
def test_a_failing_heartbeat_cancels_the_body_before_its_lease_ends(fault: Fault) -> None:
    """O8: the body ends in time, its caller gets LeaseLostError, and the key is free at once."""

    @in_virtual_time
    async def scene() -> None:
        backend = ScriptedBackend(MemoryBackend(), updates_fail(fault))
        store = make_store(backend)
        with pytest.raises(LeaseLostError) as lost:
            async with store.execute("key"):
                try:
                    await pass_time(10 * LEASE)
                finally:
                    assert LEASE / 3 < asyncio.get_running_loop().time() < LEASE
        assert lost.value.record is None
        assert isinstance(await make_store(backend).claim("key"), Claimed)

    scene()


@in_virtual_time
async def test_one_failed_renewal_is_tried_again() -> None:
    """O8: a heartbeat has time for more than one try."""
    backend = ScriptedBackend(MemoryBackend(), updates_fail(Down(), times=2))
    async with make_store(backend).execute("key") as execution:
        await pass_time(2 * LEASE)
        execution.complete("done")
    record = await make_store(backend).get("key")
    assert record is not None
    assert record.result == "done"


@in_virtual_time
async def test_a_lost_lease_cancels_the_body_at_the_next_renewal() -> None:
    """O8: the error carries the successor's record, which stays as it is."""
    backend = MemoryBackend()
    store = make_store(backend)
    with pytest.raises(LeaseLostError) as lost:
        async with store.execute("key") as execution:
            assert execution.lease is not None
            thief = replace(execution.lease, owner="f" * 32, fencing_token=execution.lease.fencing_token + 1)
            await backend.execute(Put(thief.location, model.running(thief), HeldBy(execution.lease.owner)))
            await pass_time(10 * LEASE)
            pytest.fail("the body went on")
    assert lost.value.record is not None
    assert lost.value.record.owner == "f" * 32
    record = await store.get("key")
    assert record == lost.value.record


@in_virtual_time
async def test_a_late_renewal_never_revives_a_finished_record() -> None:
    """O8: renewing after completion is refused, and the result stays."""
    store = make_store(MemoryBackend())
    decision = await store.claim("key")
    assert isinstance(decision, Claimed)
    finished = await store.complete(decision.lease, "done")
    with pytest.raises(LeaseLostError):
        await store.renew(decision.lease)
    assert await store.get("key") == finished


@in_virtual_time
async def test_an_error_in_a_renewed_body_passes_on_as_itself() -> None:
    """C11: no exception group, no cause that was not there."""
    store = make_store(MemoryBackend())
    error = ValueError("mine")

    @idempotent(store)
    async def fails(number: int) -> None:
        await pass_time(2 * LEASE)
        raise error

    with pytest.raises(ValueError, match="mine") as raised:
        await fails(1)
    assert raised.value is error
    assert raised.value.__cause__ is None
    assert await store.get({"number": 1}, namespace=f"{__name__}.{fails.__qualname__}") is None


@in_virtual_time
async def test_closing_the_store_ends_renewals_that_are_on_their_way() -> None:
    """O8: `aclose` leaves no task behind; a body that still runs is cancelled before its lease ends."""
    backend = ScriptedBackend(MemoryBackend(), updates_fail(Stall()))
    store = make_store(backend)
    before = asyncio.all_tasks()
    with pytest.raises(LeaseLostError):
        async with store.execute("key"):
            await pass_time(LEASE / 2)
            assert asyncio.all_tasks() != before
            await store.aclose()
            assert asyncio.all_tasks() == before
            backend.rule = lambda _: None
            await pass_time(2 * LEASE)
    assert asyncio.get_running_loop().time() == pytest.approx(0.9 * LEASE)
    assert backend.count(Update) == 1


@in_virtual_time
async def test_a_body_that_ends_soon_after_its_store_was_closed_is_completed() -> None:
    """O8: its lease still stands, and a later call of the store opens what it needs."""
    store = make_store(MemoryBackend())
    async with store.execute("key") as execution:
        await store.aclose()
        await pass_time(LEASE / 2)
        execution.complete("done")
    record = await store.get("key")
    assert record is not None
    assert record.result == "done"


@in_virtual_time
async def test_a_heartbeat_survives_what_a_backend_should_not_raise() -> None:
    """O8: a foreign exception is a renewal that was not answered: the body is cancelled in time."""
    backend = ScriptedBackend(MemoryBackend(), updates_fail(Broken()))
    store = make_store(backend)
    with pytest.raises(LeaseLostError):
        async with store.execute("key"):
            await pass_time(10 * LEASE)
    assert asyncio.get_running_loop().time() < LEASE


@in_virtual_time
async def test_a_renewal_on_its_way_when_the_body_ends_changes_nothing() -> None:
    """O8: the body is done; a renewal that fails late cancels nobody."""
    backend = ScriptedBackend(MemoryBackend(), updates_fail(Stall(), times=1))
    store = make_store(backend)
    async with store.execute("key") as execution:
        await pass_time(LEASE / 3 + 1)
        execution.complete("done")
    await pass_time(2 * LEASE)
    record = await store.get("key")
    assert record is not None
    assert record.result == "done"
    await store.aclose()


@pytest.mark.parametrize("heartbeat", [LEASE, LEASE / 2, 0, -1])
def test_a_heartbeat_that_could_not_keep_the_lease_is_refused(heartbeat: float) -> None:
    """Bad input: a heartbeat longer than a third of the lease, for a block and for a decorator."""
    store = AsyncIdempotencyStore.in_memory(lease=LEASE)
    with pytest.raises(ConfigurationError, match="heartbeat"):
        store.execute("key", heartbeat=heartbeat)

    async def function(number: int) -> None: ...

    with pytest.raises(ConfigurationError, match="heartbeat"):
        idempotent(store, heartbeat=heartbeat)(function)
