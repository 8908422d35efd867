"""A claim whose answer comes late: the lease counts from when it was asked for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, Backend, Claimed, LeaseLostError, MemoryBackend, deadline
from aioidempotency._core.operations import Operation, Put, Reply, Update
from aioidempotency.events import Event, LeaseLost
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


class Slow:
    """Executes at once, and answers a put late: the first one, or those that `is_slow` names."""

    def __init__(self, inner: Backend, seconds: float, is_slow: Callable[[int], bool] = lambda nth: nth == 1) -> None:
        self.operations: list[Operation] = []
        self._inner, self._seconds, self._is_slow = inner, seconds, is_slow

    async def execute(self, operation: Operation) -> Reply:
        self.operations.append(operation)
        reply = await self._inner.execute(operation)
        if isinstance(operation, Put) and self._is_slow(sum(isinstance(each, Put) for each in self.operations)):
            await pass_time(self._seconds)
        return reply


def make_store(backend: Any, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore("table", backend=backend, lease=10, clock=epoch_seconds, **options)


@in_virtual_time
async def test_a_body_does_not_begin_on_a_lease_that_is_over() -> None:
    """O7: another call took the key over before the claim's answer came; one body runs, not two."""
    table = MemoryBackend()
    began: list[str] = []
    events: list[Event] = []

    async def call(name: str, backend: Backend) -> str:
        async with make_store(backend, on_event=events.append).execute("key", result_type=str) as execution:
            if not execution.replayed:
                began.append(name)
                await pass_time(30)
                execution.complete(name)
        return str(execution.result)

    late = asyncio.create_task(call("late", Slow(table, 60)))
    await pass_time(12)
    assert await call("successor", table) == "successor"
    assert await late == "successor"
    assert began == ["successor"]
    assert not any(isinstance(event, LeaseLost) for event in events)  # no body relied on the lease that was over


@in_virtual_time
async def test_a_late_claim_that_nobody_replaced_is_renewed_before_its_body_begins() -> None:
    """O8: the lease of a slow claim starts anew, and its body is not cancelled."""
    backend = Slow(MemoryBackend(), 9.5)
    async with make_store(backend).execute("key") as execution:
        assert isinstance(backend.operations[-1], Update)
        assert execution.lease is not None
        assert execution.lease.expires_at == epoch_seconds() + 10
        await pass_time(25)
        execution.complete("done")
    record = await make_store(backend).get("key")
    assert record is not None
    assert record.result == "done"


@in_virtual_time
async def test_the_first_renewal_is_due_a_third_of_the_lease_after_the_claim_was_asked_for() -> None:
    """O8: a claim that took four seconds of ten is renewed at once."""
    backend = Slow(MemoryBackend(), 4)
    async with make_store(backend).execute("key"):
        await pass_time(0.01)
        assert sum(isinstance(operation, Update) for operation in backend.operations) == 1


@in_virtual_time
async def test_a_claim_says_when_its_lease_ends_from_now_on() -> None:
    """The same for `claim`: a lease that is half over is renewed before it is handed out."""
    decision = await make_store(Slow(MemoryBackend(), 6)).claim("key")
    assert isinstance(decision, Claimed)
    assert decision.lease.expires_at == epoch_seconds() + 10


@in_virtual_time
async def test_inside_a_deadline_a_slow_claim_is_not_renewed() -> None:
    """O9: the time that was left is all there is."""
    backend = Slow(MemoryBackend(), 6)
    with deadline(1):
        decision = await make_store(backend).claim("key")
    assert isinstance(decision, Claimed)
    assert [type(operation) for operation in backend.operations] == [Put]


@in_virtual_time
async def test_a_loop_that_was_blocked_tries_one_renewal_before_it_gives_up() -> None:
    """O8: past its safe point, but not past its end, a lease is worth one try."""
    table = MemoryBackend()
    async with make_store(table).execute("key", heartbeat=3) as execution:
        asyncio.get_running_loop()._now += 9.5  # type: ignore[attr-defined] # the process was paused so long
        await pass_time(5)
        execution.complete("done")
    record = await make_store(table).get("key")
    assert record is not None
    assert record.result == "done"


@in_virtual_time
async def test_a_loop_that_was_blocked_for_longer_than_the_lease_cancels_its_body() -> None:
    """O8: others may have run; the body does not go on."""
    with pytest.raises(LeaseLostError):
        async with make_store(MemoryBackend()).execute("key", heartbeat=3):
            asyncio.get_running_loop()._now += 30  # type: ignore[attr-defined] # the process was paused so long
            await pass_time(5)
            pytest.fail("the body went on")
