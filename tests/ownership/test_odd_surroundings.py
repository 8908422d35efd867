"""Blocks that are left, cancelled or fed in ways that a handler seldom sees."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import pytest
from pydantic import BaseModel, field_validator

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    ConfigurationError,
    IdempotencyError,
    MemoryBackend,
    Record,
    ResultUnavailableError,
    Status,
    idempotent,
)
from aioidempotency._core.operations import Delete, Update
from aioidempotency.events import CompletionFailed, Event, ReleaseFailed, ResultDropped
from tests.support.scripted import Broken, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


async def record_of(store: AsyncIdempotencyStore) -> Record:
    record = await store.get("key")
    assert record is not None
    return record


async def test_a_block_may_be_left_in_another_task_than_it_was_entered_in() -> None:
    """A test's fixture does so: the record is completed, and nothing stays behind."""
    store = AsyncIdempotencyStore.in_memory()
    block = store.execute("key")
    execution = await asyncio.create_task(block.__aenter__())
    execution.complete("done")
    await asyncio.create_task(block.__aexit__(None, None, None))
    assert (await record_of(store)).result == "done"
    assert "0 calls under way, 0 leases kept" in repr(store)


async def test_a_block_is_entered_once() -> None:
    """A second entry would find its own claim, and run beside the first."""
    block = AsyncIdempotencyStore.in_memory().execute("key")
    async with block:
        with pytest.raises(RuntimeError, match="entered once"):
            await block.__aenter__()


async def test_a_generator_that_is_closed_in_a_block_gives_its_key_back() -> None:
    """C11: leaving a loop over an async generator early is no error, and no result."""
    store = AsyncIdempotencyStore.in_memory()

    async def pages() -> AsyncGenerator[int]:
        async with store.execute("key"):
            yield 1
            yield 2

    async with contextlib.aclosing(pages()) as numbers:
        async for _ in numbers:
            break
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        await task  # the release, which could not be awaited in the generator
    assert isinstance(await store.claim("key"), Claimed)


def test_a_coroutine_that_is_closed_after_its_loop_is_left_to_its_lease() -> None:
    """C11: nothing can be sent any more, and nothing is raised over it."""
    store = AsyncIdempotencyStore.in_memory()

    async def call() -> None:
        async with store.execute("key", heartbeat=False):
            await asyncio.Event().wait()

    coroutine = call()

    async def begin() -> None:
        while coroutine.send(None) is None:  # until it waits for its event
            pass

    asyncio.run(begin())
    coroutine.close()
    assert "1 calls under way" not in repr(store)


@in_virtual_time
async def test_a_second_cancellation_does_not_stop_a_completion() -> None:
    """O5: cancelled twice while completing, the work that was done is remembered."""
    store = AsyncIdempotencyStore("t", backend=Slow(MemoryBackend()), clock=epoch_seconds)

    async def call() -> None:
        async with store.execute("key", heartbeat=False) as execution:
            execution.complete("done")

    task = asyncio.create_task(call())
    for _ in range(3):
        await pass_time(1.5)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await record_of(store)).result == "done"


class Slow:
    """Takes a second for each operation."""

    def __init__(self, inner: MemoryBackend) -> None:
        self._inner = inner

    async def execute(self, operation: Any) -> Any:
        await pass_time(1)
        return await self._inner.execute(operation)


@in_virtual_time
async def test_what_goes_wrong_in_a_clean_up_does_not_replace_the_cancellation() -> None:
    """O5: the caller was cancelled, and that is what it is told."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore(
        "t", backend=backend, clock=epoch_seconds, on_completion_failure="raise", on_event=events.append, lease=2
    )
    with anyio.move_on_after(1) as scope:
        async with store.execute("key", heartbeat=False):
            backend.rule = lambda operation: Broken() if isinstance(operation, Update) else None
    assert scope.cancelled_caught
    assert isinstance(events[-1], CompletionFailed)


async def test_a_release_that_a_backend_breaks_does_not_replace_the_bodys_error() -> None:
    """C11: the body's error, as itself."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda operation: Broken() if isinstance(operation, Delete) else None)
    store = AsyncIdempotencyStore("t", backend=backend, on_event=events.append)
    with pytest.raises(ValueError, match="mine"):
        async with store.execute("key"):
            raise ValueError("mine")
    assert isinstance(events[-1], ReleaseFailed)


class Price(BaseModel):
    """A model whose validator does not take what it made."""

    amount: int

    @field_validator("amount", mode="before")
    @classmethod
    def look_up(cls, value: str) -> int:
        return {"small": 1}[value]


class BrokenCodec:
    """Raises what no codec should."""

    def encode(self, result: object) -> str:
        if result == "broken":
            raise RuntimeError("no encoding")
        return str(result)

    def decode(self, text: str, result_type: object) -> object:
        raise RuntimeError("no decoding")


async def test_an_encoding_that_raises_anything_leaves_a_tombstone() -> None:
    """O10: a model whose validators fail on their own result; the call does not run again."""
    events: list[Event] = []
    store = AsyncIdempotencyStore.in_memory(on_event=events.append)
    calls = 0

    @idempotent(store)
    async def price(number: int) -> Price:
        nonlocal calls
        calls += 1
        return Price.model_validate({"amount": "small"})

    assert (await price(1)).amount == 1
    with pytest.raises(ResultUnavailableError):
        await price(1)
    assert calls == 1
    assert any(isinstance(event, ResultDropped) for event in events)


async def test_a_codec_that_raises_anything_is_told_from_a_failed_call() -> None:
    """O10: encoding leaves a tombstone, decoding a result that is not available."""
    store = AsyncIdempotencyStore.in_memory(codec=BrokenCodec())
    for result in "broken", "fine":
        async with store.execute(result) as execution:
            execution.complete(result)
        with pytest.raises(ResultUnavailableError):
            async with store.execute(result):
                pytest.fail("ran again")


class DeclinedError(Exception):
    """Keeps a fact that is none of its arguments."""

    def __init__(self, code: int, *, reason: str = "none") -> None:
        super().__init__(code)
        self.reason: object = reason


async def test_an_error_comes_back_with_all_its_facts_or_is_named() -> None:
    """C12, C22: equal arguments are not enough; a fact that JSON cannot hold leaves the name alone."""
    store = AsyncIdempotencyStore.in_memory()

    @idempotent(store, store_errors=(DeclinedError,))
    async def pay(reason: str) -> None:
        error = DeclinedError(1, reason=reason)
        if reason == "secret":
            error.reason = object()
        raise error

    for reason in "fraud", "secret":
        with pytest.raises(DeclinedError):
            await pay(reason)
    with pytest.raises(DeclinedError) as again:
        await pay("fraud")
    assert again.value.reason == "fraud"
    with pytest.raises(IdempotencyError, match="DeclinedError"):
        await pay("secret")


async def test_a_stored_error_is_never_too_large() -> None:
    """C12: an error with a long story is stored by its name."""
    store = AsyncIdempotencyStore.in_memory()
    async with store.execute("other"):
        pass
    with pytest.raises(ValueError, match="long"):
        async with store.execute("key", store_errors=(ValueError,)):
            raise ValueError("long" * 200_000)
    record = await record_of(store)
    assert record.status is Status.COMPLETED
    assert record.data is not None
    assert len(record.data) < 100


class Empty:
    """A backend that counts as false, because it is empty."""

    def __init__(self) -> None:
        self._inner = MemoryBackend()

    def __len__(self) -> int:
        return 0

    async def execute(self, operation: Any) -> Any:
        return await self._inner.execute(operation)


async def test_an_empty_backend_is_a_backend() -> None:
    """`backend=` wins, also where it is false."""
    store = AsyncIdempotencyStore("t", backend=Empty())
    assert isinstance(await store.claim("key"), Claimed)


def test_a_hook_that_is_not_awaited_is_refused() -> None:
    """Bad input: a coroutine function as `on_event`, or as `key`."""

    async def hook(event: Event) -> None: ...

    with pytest.raises(ConfigurationError, match="on_event"):
        AsyncIdempotencyStore.in_memory(on_event=hook)

    class Key:
        async def __call__(self, number: int) -> int:
            return number

    async def function(number: int) -> None: ...

    with pytest.raises(ConfigurationError, match="plain callable"):
        idempotent(AsyncIdempotencyStore.in_memory(), key=Key())(function)
