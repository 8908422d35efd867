"""A call that asks for its own key from inside would wait for its own end."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import pytest

from aioidempotency import AsyncIdempotencyStore, InProgressError, MemoryBackend, Wait, idempotent
from aioidempotency._core.operations import Get
from tests.support.scripted import ScriptedBackend

Ask = Callable[[], Coroutine[None, None, object]]


async def _by_task(ask: Ask) -> object:
    return await asyncio.create_task(ask())


async def _at_once(ask: Ask) -> object:
    return await ask()


async def _by_group(ask: Ask) -> object:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ask())
    return await task


async def _from_a_block_of_another_key(ask: Ask) -> object:
    async with AsyncIdempotencyStore.in_memory().execute("another"):
        return await ask()


@pytest.mark.parametrize("how", [_at_once, _by_task, _by_group, _from_a_block_of_another_key])
async def test_a_call_that_asks_for_its_own_key_is_refused_at_once(
    how: Callable[[Ask], Awaitable[object]],
) -> None:
    """C23: also with `Wait`, and from a task that it started; nothing is polled."""
    backend = ScriptedBackend(MemoryBackend(), lambda operation: None)
    store = AsyncIdempotencyStore("orders", backend=backend)
    bodies = []

    async def ask() -> None:
        async with store.execute("key", on_in_progress=Wait(3600)):
            bodies.append("inner")

    async with store.execute("key") as execution:
        with pytest.raises((InProgressError, ExceptionGroup)) as caught:
            await how(ask)
        execution.complete("outer")
    error = caught.value.exceptions[0] if isinstance(caught.value, ExceptionGroup) else caught.value
    assert isinstance(error, InProgressError)
    assert error.from_inside
    assert "made a call with the same key" in str(error)
    assert 0 < error.retry_after <= 61
    assert (bodies, backend.count(Get)) == ([], 0)
    record = await store.get("key")
    assert record is not None
    assert record.result == "outer"


async def test_a_function_that_calls_itself_with_its_own_key_is_refused() -> None:
    """C23: recursion with another key is a call like any other."""

    @idempotent(AsyncIdempotencyStore.in_memory(), key="number", on_in_progress=Wait(3600))
    async def count(number: int, step: int) -> int:
        return 0 if number == 0 else 1 + await count(number - step, step)

    assert await count(3, 1) == 3
    with pytest.raises(InProgressError, match="made a call with the same key"):
        await count(7, 0)


async def test_a_task_that_outlives_its_call_asks_like_any_other() -> None:
    """C23: the call is over, and the task gets its result."""
    store = AsyncIdempotencyStore.in_memory()
    over = asyncio.Event()

    async def ask() -> object:
        await over.wait()
        async with store.execute("key", on_in_progress=Wait(1)) as execution:
            return execution.result

    async with store.execute("key") as execution:
        task = asyncio.create_task(ask())
        execution.complete("done")
    over.set()
    assert await task == "done"


async def test_a_neighbour_still_waits() -> None:
    """C23: only what runs inside of the call is refused."""
    store = AsyncIdempotencyStore.in_memory()
    started = asyncio.Event()

    async def ask() -> object:
        started.set()
        async with store.execute("key", on_in_progress=Wait(60)) as execution:
            return execution.result

    async def own() -> None:
        async with store.execute("key") as execution:
            await started.wait()
            execution.complete("done")

    owner = asyncio.create_task(own())
    await asyncio.sleep(0)
    _, answer = await asyncio.gather(owner, ask())
    assert answer == "done"
