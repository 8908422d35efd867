"""Answers that come late where the locations of a key change with time."""

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    LeaseLostError,
    MemoryBackend,
    Record,
    TimeBuckets,
)
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import ConditionFailed, Delete, Operation, Put, Reply, Transact, Update
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time

WINDOW = 60.0
"""Seconds; the virtual clock starts at the beginning of one."""


When = Literal["before", "after"]


class Slow:
    """Delays operations of one kind, each by so many seconds, before or after it is executed; later ones not."""

    def __init__(
        self, inner: MemoryBackend, kind: type[Operation], seconds: Iterable[float], *, when: When = "after"
    ) -> None:
        self.operations: list[Operation] = []
        self._inner, self._kind, self._seconds, self._when = inner, kind, iter(seconds), when

    async def execute(self, operation: Operation) -> Reply:
        self.operations.append(operation)
        delay = next(self._seconds, 0) if isinstance(operation, self._kind) else 0
        await pass_time(delay if self._when == "before" else 0)
        reply = await self._inner.execute(operation)
        await pass_time(delay if self._when == "after" else 0)
        return reply


def make_store(backend: Any, **options: Any) -> AsyncIdempotencyStore:
    layout = CompositeKey(partitioning=TimeBuckets(WINDOW, buckets=1))
    return AsyncIdempotencyStore(
        "table", backend=backend, layout=layout, clock=epoch_seconds, verify_layout=False, **options
    )


@in_virtual_time
async def test_cancelled_while_claiming_anew_in_the_next_window_the_key_is_free() -> None:
    """O5: the first answer came too late to be relied upon; the second try has another home, and is given back there."""
    table = MemoryBackend()
    backend = Slow(table, Transact, [70, 1000])
    call = asyncio.create_task(make_store(backend).claim("key"))
    await pass_time(75)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    claims = [each.location for each in backend.operations if isinstance(each, Transact)]
    assert len(set(claims)) == 2
    assert [each.location for each in backend.operations if isinstance(each, Delete)] == claims
    assert isinstance(await make_store(table).claim("key"), Claimed)


@in_virtual_time
async def test_what_is_taken_back_late_leaves_the_second_try_alone() -> None:
    """O4: a copy of that which arrives after the second claim finds another record than it is about."""
    backend = Slow(MemoryBackend(), Transact, [15])
    decision = await make_store(backend).claim("key")
    assert isinstance(decision, Claimed)
    (taken_back,) = (each for each in backend.operations if isinstance(each, Delete))
    assert taken_back.location == decision.lease.location, "both tries are in one window"
    assert isinstance(await backend.execute(taken_back), ConditionFailed)
    assert isinstance(await make_store(backend).complete(decision.lease, "done"), Record)


async def finish(store: AsyncIdempotencyStore, name: str, seconds: float) -> str:
    """Run a body that takes so many seconds, and return what the call comes to."""
    async with store.execute("key", heartbeat=False, result_type=str) as execution:
        if not execution.replayed:
            await pass_time(seconds)
            execution.complete(name)
    return str(execution.result)


@in_virtual_time
async def test_a_slow_completion_does_not_overlook_who_took_over_in_the_next_window() -> None:
    """O4: it was sent in one window and met nothing, and in the next one another call ran. One result is told."""
    table = MemoryBackend()
    late = asyncio.create_task(finish(make_store(Slow(table, Update, [60], when="before"), lease=20), "late", 10))
    await pass_time(65)
    assert await finish(make_store(table), "successor", 10) == "successor"
    with pytest.raises(LeaseLostError):
        await late
    assert await finish(make_store(table), "third", 0) == "successor"


@in_virtual_time
async def test_finished_work_whose_record_is_gone_is_told_as_lost() -> None:
    """O4: it cannot be put back where locations depend on the instant; its caller has the result all the same."""
    table = MemoryBackend()
    backend = Slow(table, Transact, [])
    call = asyncio.create_task(finish(make_store(backend), "done", 70))
    await pass_time(65)
    (claim,) = (each for each in backend.operations if isinstance(each, Transact))
    owners = [str(write.item["owner"]["S"]) for write in claim.writes if isinstance(write, Put)]
    await table.execute(Delete(claim.location, HeldBy(owners[0])))
    with pytest.raises(LeaseLostError) as lost:
        await call
    assert lost.value.result == "done"
    assert await finish(make_store(table), "again", 0) == "again"


@in_virtual_time
async def test_a_completion_that_is_answered_when_nobody_looks_any_more_is_lost() -> None:
    """O4: by then another call may have run in a window from which this record is not seen."""
    table = MemoryBackend()
    backend = Slow(table, Update, [20], when="before")
    with pytest.raises(LeaseLostError):
        await finish(make_store(backend, retention=60, lease=20), "late", WINDOW + 60 - 8)
