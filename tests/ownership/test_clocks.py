"""A wall clock that leaps, and a machine that sleeps, while a body runs."""

import asyncio
import time
from collections.abc import Callable
from typing import final

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    CompositeKey,
    InProgress,
    InProgressError,
    LeaseLostError,
    MemoryBackend,
    MismatchError,
    SimpleKey,
    TimeBuckets,
    Wait,
)
from aioidempotency._core.operations import ConditionFailed, Operation, Put, Reply, TransactionFailed, Update
from aioidempotency._lease import seconds_asleep
from tests.ownership.test_lost_blocks import result_of
from tests.support.scripted import ScriptedBackend, SlowlyDown, Stall
from tests.support.virtual_time import EPOCH, in_virtual_time, pass_time

LEASE = 60.0


class WallClock:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.off = 0.0

    def __call__(self) -> float:
        return EPOCH + self.off + asyncio.get_running_loop().time()


class Machine:
    """A machine that sleeps: its wall clock goes on, and its loop's clock does not."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self) -> float:
        return EPOCH + self.slept + asyncio.get_running_loop().time()


@pytest.mark.parametrize("leap", [120.0, 86_400.0, -120.0, 59.0])
def test_duplicates_in_the_process_still_wait_when_the_wall_clock_leaps(leap: float) -> None:
    """O20: the body of the first call still runs, whatever the clock says."""

    @in_virtual_time
    async def scene() -> None:
        clock, bodies = WallClock(), []
        store = AsyncIdempotencyStore.in_memory(clock=clock, lease=LEASE)

        async def call() -> object:
            async with store.execute("k", on_in_progress=Wait(50), heartbeat=False, retention=10**6) as execution:
                if not execution.replayed:
                    bodies.append("ran")
                    await pass_time(20)
                    execution.complete("done")
            return execution.result

        first = asyncio.ensure_future(call())
        await pass_time(1)
        early = asyncio.ensure_future(call())
        await pass_time(1)
        clock.off = leap
        late = asyncio.ensure_future(call())
        with pytest.raises(InProgressError) as refused:
            async with store.execute("k"):
                pass
        assert 57 < refused.value.retry_after < 60
        assert [await each for each in (first, early, late)] == ["done"] * 3
        assert bodies == ["ran"]

    scene()


@in_virtual_time
async def test_a_leap_changes_no_verdict_on_another_payload() -> None:
    """O15, O20: the record of this process's body counts."""
    clock = WallClock()
    store = AsyncIdempotencyStore.in_memory(clock=clock, lease=LEASE)

    async def hold() -> None:
        async with store.execute("k", fingerprint="a"):
            await pass_time(10)

    holding = asyncio.ensure_future(hold())
    await pass_time(1)
    clock.off = 120
    with pytest.raises(MismatchError):
        async with store.execute("k", fingerprint="b"):
            pass
    await holding


@pytest.mark.parametrize("windows", [False, True])
def test_a_call_of_another_loop_is_refused_as_well(*, windows: bool) -> None:
    """O20: a thread with a loop of its own, which finds the record in the table.

    Where records lie in windows of time, the body loses its lease all the same: others may look into later windows.
    """
    ahead = 0.0
    layout = CompositeKey(partitioning=TimeBuckets(100, buckets=2)) if windows else SimpleKey("id")
    store = AsyncIdempotencyStore.in_memory(clock=lambda: time.time() + ahead, lease=LEASE, layout=layout)

    async def elsewhere() -> str:
        try:
            async with store.execute("k"):
                return "ran"
        except InProgressError:
            return "refused"

    async def scene() -> None:
        nonlocal ahead
        async with store.execute("k"):
            ahead = 120.0
            assert await asyncio.to_thread(asyncio.run, elsewhere()) == "refused"

    if windows:
        with pytest.raises(LeaseLostError):
            asyncio.run(scene())
    else:
        asyncio.run(scene())


@final
class Reticent:
    """A backend whose refusals do not bring what they found."""

    def __init__(self) -> None:
        self._inner = MemoryBackend()

    async def execute(self, operation: Operation) -> Reply:
        reply = await self._inner.execute(operation)
        if isinstance(reply, TransactionFailed):
            return TransactionFailed((ConditionFailed(None),) * len(reply.failures), reply.reasons)
        return ConditionFailed(None) if isinstance(reply, ConditionFailed) else reply


@pytest.mark.parametrize("read_first", [False, True])
@pytest.mark.parametrize("how", ["a claim", "a commit without a claim"])
@pytest.mark.parametrize("backend", [MemoryBackend, Reticent])
def test_nothing_takes_over_a_body_of_the_process_when_the_wall_clock_leaps(
    backend: Callable[[], Backend], how: str, *, read_first: bool
) -> None:
    """O20: nor does what reads the record later, or commits without a claim."""

    @in_virtual_time
    async def scene() -> None:
        clock = WallClock()
        store = AsyncIdempotencyStore("orders", backend=backend(), clock=clock, lease=LEASE, read_first=read_first)
        async with store.execute("k") as execution:
            clock.off = 120
            if how == "a claim":
                decision = await store.claim("k")
                assert isinstance(decision, InProgress)
                assert 59 < decision.retry_after < 62
            else:
                with pytest.raises(InProgressError):
                    await store.commit_once("k", "theirs", [])
            execution.complete("done")
        assert await result_of(store, "k") == "done"

    scene()


@pytest.mark.parametrize("slept", [LEASE, 2 * LEASE, 86_400.0])
def test_a_machine_that_slept_past_the_lease_cancels_its_body_within_a_second(slept: float) -> None:
    """O20: another process may own the key since."""

    @in_virtual_time
    async def scene() -> None:
        machine, inner = Machine(), MemoryBackend()
        backend = ScriptedBackend(inner)
        store = AsyncIdempotencyStore("orders", backend=backend, clock=machine, lease=LEASE)
        store._parts.records.asleep = lambda: machine.slept
        loop = asyncio.get_running_loop()
        with pytest.raises(LeaseLostError) as lost:
            async with store.execute("k"):
                await pass_time(5)
                machine.slept += slept
                woke = loop.time()
                try:
                    await pass_time(10 * LEASE)
                finally:
                    assert loop.time() - woke <= 1
        assert lost.value.reason == "unanswered"

    scene()


@pytest.mark.parametrize("slept", [5.0, 30.0, 55.0])
def test_a_machine_that_slept_for_less_renews_its_leases(slept: float) -> None:
    """O20: the body goes on, under a lease that was renewed as soon as it was due."""

    @in_virtual_time
    async def scene() -> None:
        machine = Machine()
        backend = ScriptedBackend(MemoryBackend())
        store = AsyncIdempotencyStore("orders", backend=backend, clock=machine, lease=LEASE)
        store._parts.records.asleep = lambda: machine.slept
        async with store.execute("k") as execution:
            await pass_time(2)
            machine.slept += slept
            await pass_time(1.5)
            assert backend.count(Update) == (1 if slept > 18 else 0)
            await pass_time(40)
            assert not execution.lost
            execution.complete("done")
        assert await result_of(store, "k") == "done"
        assert backend.count(Put) == 1

    scene()


@in_virtual_time
async def test_a_sleep_during_a_renewal_counts() -> None:
    """O20: the renewed lease is as old as its request, the sleep included: half of it is over, so it is renewed again."""
    machine, updates = Machine(), []
    slept = False

    class Sleepy:
        def __init__(self) -> None:
            self.inner = MemoryBackend()

        async def execute(self, operation: object) -> object:
            nonlocal slept
            if isinstance(operation, Update):
                updates.append(asyncio.get_running_loop().time())
                machine.slept += 0 if slept else 30
                slept = True
            return await self.inner.execute(operation)  # type: ignore[arg-type]

    store = AsyncIdempotencyStore("orders", backend=Sleepy(), clock=machine, lease=LEASE)  # type: ignore[arg-type]
    store._parts.records.asleep = lambda: machine.slept
    async with store.execute("k") as execution:
        await pass_time(45)
        assert updates == [20, 20, 40]
        execution.complete("done")
    assert await result_of(store, "k") == "done"


def test_this_machine_tells_how_long_it_slept() -> None:
    """O20: a number that never falls."""
    first = seconds_asleep()
    assert first > -0.05
    assert seconds_asleep() >= first - 0.05


@in_virtual_time
async def test_one_timer_serves_all_leases_and_ends_with_them() -> None:
    """O20: it costs one call a second, and nothing when nothing runs."""
    store = AsyncIdempotencyStore.in_memory(lease=LEASE)
    leases = store._parts.running[asyncio.get_running_loop()].leases
    async with store.execute("a"), store.execute("b"):
        assert leases._timer is not None
        timer = leases._timer
        async with store.execute("c"):
            assert leases._timer is timer
    await pass_time(3)
    assert leases._timer is None


@in_virtual_time
async def test_a_sleep_that_no_lease_saw_shortens_no_later_one() -> None:
    """O20: the machine slept while nothing ran; what is claimed afterwards has its whole lease."""
    machine = Machine()
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("orders", backend=backend, clock=machine, lease=LEASE)
    store._parts.records.asleep = lambda: machine.slept
    async with store.execute("before") as execution:
        execution.complete("done")
    await pass_time(5)
    machine.slept += 10 * LEASE
    async with store.execute("after") as execution:
        await pass_time(5)
        assert not execution.lost
        execution.complete("done")
    assert await result_of(store, "after") == "done"


@in_virtual_time
async def test_a_lease_that_was_claimed_after_waking_has_not_slept() -> None:
    """O20: only the leases that were held while the machine slept are shortened, although one look finds out for all."""
    machine = Machine()
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("orders", backend=backend, clock=machine, lease=LEASE)
    store._parts.records.asleep = lambda: machine.slept
    with pytest.raises(LeaseLostError):
        async with store.execute("held"):
            await pass_time(5.2)
            machine.slept += 2 * LEASE
            later = asyncio.ensure_future(_holding(store, 10))
            await pass_time(100)
    assert await later is False


async def _holding(store: AsyncIdempotencyStore, seconds: float) -> bool:
    async with store.execute("later") as execution:
        await pass_time(seconds)
        execution.complete("done")
        return execution.lost


@in_virtual_time
async def test_a_renewal_that_is_due_when_the_machine_wakes_finds_out_first() -> None:
    """O20: it must not renew a lease that has lapsed in the meantime, and perhaps another owner's body began under."""
    machine = Machine()
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("orders", backend=backend, clock=machine, lease=LEASE)
    store._parts.records.asleep = lambda: machine.slept
    loop = asyncio.get_running_loop()
    with pytest.raises(LeaseLostError):
        async with store.execute("k"):
            await pass_time(19.995)
            machine.slept += 2 * LEASE
            try:
                await pass_time(100)
            finally:
                assert loop.time() <= 20.01
    assert backend.count(Update) == 0


@in_virtual_time
async def test_a_claim_during_which_the_clock_is_set_back_begins_on_a_renewed_lease() -> None:
    """O20: the clock then tells nothing of how long the answer took."""
    clock = WallClock()

    class Setting:
        def __init__(self) -> None:
            self.inner = MemoryBackend()
            self.updates = 0

        async def execute(self, operation: object) -> object:
            if isinstance(operation, Put):
                clock.off = -120
            self.updates += isinstance(operation, Update)
            return await self.inner.execute(operation)  # type: ignore[arg-type]

    backend = Setting()
    store = AsyncIdempotencyStore("orders", backend=backend, clock=clock, lease=LEASE)  # type: ignore[arg-type]
    async with store.execute("k") as execution:
        assert backend.updates == 1
        execution.complete("done")
    assert await result_of(store, "k") == "done"


@pytest.mark.parametrize("stalls", [True, False])
def test_a_renewal_during_which_the_machine_slept_is_not_tried_past_the_end_of_the_lease(*, stalls: bool) -> None:
    """O20: its time limits were reckoned before, by a clock that has stood still since."""

    @in_virtual_time
    async def scene() -> None:
        machine = Machine()
        fault = Stall() if stalls else SlowlyDown()
        backend = ScriptedBackend(MemoryBackend(), lambda op: fault if isinstance(op, Update) else None)
        store = AsyncIdempotencyStore("orders", backend=backend, clock=machine, lease=LEASE)
        store._parts.records.asleep = lambda: machine.slept
        with pytest.raises(LeaseLostError):
            async with store.execute("k"):
                await pass_time(21)
                machine.slept += 30
                try:
                    await pass_time(100)
                finally:
                    assert machine() <= EPOCH + LEASE

    scene()
