"""Cancellation at every await of a call: each test names the state that it leaves."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import anyio
import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, MemoryBackend, Status
from aioidempotency._core.operations import Delete, Operation, Put, Update
from tests.support.gate import GateBackend
from tests.support.scripted import ScriptedBackend, Stall
from tests.support.virtual_time import in_virtual_time, pass_time

When = Literal["before", "after"]
Cancel = Callable[[Awaitable[None], asyncio.Event], Awaitable[None]]


async def natively(call: Awaitable[None], moment: asyncio.Event) -> None:
    """Cancel as asyncio does: once, with `Task.cancel`."""
    task = asyncio.ensure_future(call)
    await moment.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_scope(call: Awaitable[None], moment: asyncio.Event) -> None:
    """Cancel as anyio does: at every await from now on."""
    with anyio.CancelScope() as scope:

        async def watch() -> None:
            await moment.wait()
            scope.cancel()

        watching = asyncio.ensure_future(watch())
        await call
        pytest.fail("the call was not cancelled")
    assert scope.cancelled_caught
    await watching


async def cancelled_at(kind: type[Operation], when: When, cancel: Cancel, body: Callable[[], Awaitable[None]]) -> Any:
    """Cancel a call at one operation; answer with the table's state as another process sees it."""
    table = MemoryBackend()
    gate = GateBackend(table, kind, when)
    store = AsyncIdempotencyStore("table", backend=gate)

    async def call() -> None:
        async with store.execute("key", heartbeat=0.001) as execution:
            await body()
            execution.complete("done")

    await cancel(call(), gate.reached)
    gate.open()
    await store.aclose()
    return AsyncIdempotencyStore("table", backend=table)


async def nothing() -> None:
    """Do nothing: the body that succeeds at once."""


async def failing() -> None:
    raise ValueError("body")


async def for_ever() -> None:
    await asyncio.Event().wait()


every_cancellation = pytest.mark.parametrize("cancel", [natively, by_scope])
at_each_side = pytest.mark.parametrize("when", ["before", "after"])


@every_cancellation
@at_each_side
async def test_cancelled_while_claiming_the_key_is_free(when: When, cancel: Cancel) -> None:
    """O5: whether the claim was written or not, the next call owns the key at once."""
    other = await cancelled_at(Put, when, cancel, nothing)
    assert isinstance(await other.claim("key"), Claimed)


@every_cancellation
@at_each_side
async def test_cancelled_while_completing_the_record_is_finished(when: When, cancel: Cancel) -> None:
    """O5: the work was done, so its result is stored, even if the first try never arrived."""
    other = await cancelled_at(Update, when, cancel, nothing)
    record = await other.get("key")
    assert record is not None
    assert (record.status, record.result) == (Status.COMPLETED, "done")


@every_cancellation
@at_each_side
async def test_cancelled_while_releasing_the_key_is_free(when: When, cancel: Cancel) -> None:
    """O5: the body failed, the release was cancelled: the key is free all the same."""
    other = await cancelled_at(Delete, when, cancel, failing)
    assert isinstance(await other.claim("key"), Claimed)


@every_cancellation
@at_each_side
async def test_cancelled_while_renewing_the_key_is_free(when: When, cancel: Cancel) -> None:
    """O5: the body is cancelled while its renewal is on its way."""
    other = await cancelled_at(Update, when, cancel, for_ever)
    assert isinstance(await other.claim("key"), Claimed)


@every_cancellation
async def test_cancelled_while_running_the_key_is_free(cancel: Cancel) -> None:
    """O5: the cancellation passes through the body, and the key is given back."""
    moment = asyncio.Event()

    async def body() -> None:
        moment.set()
        await asyncio.Event().wait()

    table = MemoryBackend()
    store = AsyncIdempotencyStore("table", backend=table)

    async def call() -> None:
        async with store.execute("key"):
            await body()

    await cancel(call(), moment)
    assert isinstance(await AsyncIdempotencyStore("table", backend=table).claim("key"), Claimed)


@in_virtual_time
async def test_a_clean_up_that_hangs_ends_and_the_lease_frees_the_key() -> None:
    """O5: a cancelled call waits five seconds for its release, no longer."""
    stalling = ScriptedBackend(MemoryBackend(), lambda operation: Stall() if isinstance(operation, Delete) else None)
    store = AsyncIdempotencyStore("table", backend=stalling)
    with anyio.move_on_after(1) as scope:
        async with store.execute("key"):
            await pass_time(100)
    assert scope.cancelled_caught
    assert asyncio.get_running_loop().time() == pytest.approx(1 + 5)


async def test_cancelled_claims_of_many_are_all_given_back() -> None:
    """O5: `claim_many`, cancelled in the middle, leaves no key locked."""
    table = MemoryBackend()
    gate = GateBackend(table, Put, "before")
    store = AsyncIdempotencyStore("table", backend=gate)

    async def call() -> None:
        await store.claim_many(range(1, 11), limit=5)

    await natively(call(), gate.reached)
    decisions = await AsyncIdempotencyStore("table", backend=table).claim_many(range(1, 11))
    assert all(isinstance(decision, Claimed) for decision in decisions)
