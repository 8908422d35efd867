"""The execution around a body, as the body and its caller see it."""

import asyncio
import gc
import subprocess
import sys
from typing import Any

import anyio
import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    ConfigurationError,
    Execution,
    MemoryBackend,
    idempotent,
)
from aioidempotency._core.operations import Delete, Put
from aioidempotency.events import CompletionFailed, Event, RecordCompleted, ReleaseFailed
from tests.support.scripted import Down, ScriptedBackend, Stall
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


async def test_a_decorated_body_finds_its_execution() -> None:
    """The fencing token can be passed on; nested calls find their own, and then the outer one again."""
    store = AsyncIdempotencyStore.in_memory()
    seen: list[Execution] = []

    @idempotent(store, namespace="inner")
    async def inner(number: int) -> None:
        seen.append(Execution.current())

    @idempotent(store, namespace="outer")
    async def outer(number: int) -> None:
        seen.append(Execution.current())
        await inner(number)
        seen.append(Execution.current())

    await outer(1)
    first, nested, last = seen
    assert first is last
    assert first is not nested
    assert nested.key.startswith("inner#")
    assert first.lease is not None
    assert first.lease.fencing_token > 0


async def test_outside_of_an_execution_there_is_none() -> None:
    """Before, after, and after an error."""
    store = AsyncIdempotencyStore.in_memory()
    with pytest.raises(LookupError, match="no execution"):
        Execution.current()
    with pytest.raises(ValueError, match="body"):
        async with store.execute("key") as execution:
            assert Execution.current() is execution
            raise ValueError("body")
    with pytest.raises(LookupError):
        Execution.current()


async def test_a_block_stays_the_current_one_when_the_block_around_it_is_left_first() -> None:
    """O16: and when both are left, none is current."""
    store = AsyncIdempotencyStore.in_memory()
    first, second, third = (store.execute(key) for key in "abc")
    await first.__aenter__()
    middle = await second.__aenter__()
    innermost = await third.__aenter__()
    await first.__aexit__(None, None, None)
    assert Execution.current() is innermost
    await third.__aexit__(None, None, None)
    assert Execution.current() is middle
    await second.__aexit__(None, None, None)
    with pytest.raises(LookupError):
        Execution.current()


async def test_a_block_that_is_left_in_another_task_leaves_the_current_one_there_alone() -> None:
    """O16: and is not current any more where it was entered, for the next block."""
    store = AsyncIdempotencyStore.in_memory()
    block = store.execute("a")
    await block.__aenter__()

    async def elsewhere() -> bool:
        async with store.execute("b") as execution:
            await block.__aexit__(None, None, None)
            return Execution.current() is execution

    assert await asyncio.create_task(elsewhere())
    async with store.execute("c"):
        pass
    with pytest.raises(LookupError):
        Execution.current()


async def test_blocks_that_overlap_in_a_row_do_not_keep_each_other_alive() -> None:
    """O16: a stream that always holds two blocks, and leaves the older one first."""
    store = AsyncIdempotencyStore.in_memory(namespace="overlapping")
    before = None
    for number in range(50):
        block = store.execute(number, heartbeat=False)
        await block.__aenter__()
        if before is not None:
            await before.__aexit__(None, None, None)
        before = block
    gc.collect()
    alive = [each for each in gc.get_objects() if isinstance(each, Execution)]
    assert sum(each.key.startswith("overlapping#") for each in alive) <= 3
    assert before is not None
    await before.__aexit__(None, None, None)


async def test_two_tasks_find_each_their_own() -> None:
    """C10: what is per call lives on the call."""
    store = AsyncIdempotencyStore.in_memory()
    gate = asyncio.Barrier(2)

    async def call(key: str) -> bool:
        async with store.execute(key) as execution:
            await gate.wait()
            return Execution.current() is execution

    assert all(await asyncio.gather(call("a"), call("b")))


async def test_a_replay_has_its_result() -> None:
    """Completing it again is a mistake of the caller's."""
    store = AsyncIdempotencyStore.in_memory()
    async with store.execute("key") as execution:
        execution.complete(1)
    async with store.execute("key") as replay:
        assert "replayed" in repr(replay)
        with pytest.raises(RuntimeError, match="is a replay"):
            replay.complete(2)
    assert replay.result == 1


@in_virtual_time
async def test_a_claim_whose_release_hangs_says_so() -> None:
    """O5: cancelled while claiming, and the store does not answer for five seconds more."""
    events: list[Event] = []
    stalling = ScriptedBackend(
        MemoryBackend(), lambda operation: Stall() if isinstance(operation, Put | Delete) else None
    )
    store = AsyncIdempotencyStore("t", backend=stalling, on_event=events.append)
    with anyio.move_on_after(1):
        await store.claim("key")
    assert asyncio.get_running_loop().time() == pytest.approx(6)
    assert [type(event) for event in events] == [ReleaseFailed]


@in_virtual_time
async def test_a_claim_whose_release_fails_says_so() -> None:
    """O5: the same for a store that is down."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda operation: Stall() if isinstance(operation, Put) else Down())
    store = AsyncIdempotencyStore("t", backend=backend, on_event=events.append)
    with anyio.move_on_after(1):
        await store.claim("key")
    assert [type(event) for event in events] == [ReleaseFailed]


@in_virtual_time
async def test_a_cancelled_completion_that_hangs_says_so() -> None:
    """O5: five seconds, then the cancellation passes on, and an event tells of it."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("t", backend=backend, on_event=events.append, clock=epoch_seconds)
    with anyio.move_on_after(1):
        async with store.execute("key", heartbeat=False):
            backend.rule = lambda _: Stall()
    assert asyncio.get_running_loop().time() == pytest.approx(6)
    assert isinstance(events[-1], CompletionFailed)


@in_virtual_time
async def test_a_cancelled_release_that_hangs_says_so() -> None:
    """O5: likewise for the release of a call that was cancelled."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda operation: Stall() if isinstance(operation, Delete) else None)
    store = AsyncIdempotencyStore("t", backend=backend, on_event=events.append, clock=epoch_seconds)
    with anyio.move_on_after(1):
        async with store.execute("key", heartbeat=False):
            await pass_time(100)
    assert isinstance(events[-1], ReleaseFailed)


async def test_a_large_result_that_fits_is_stored() -> None:
    """O10: between what surely fits and what does not, the item is measured."""
    events: list[Event] = []
    store = AsyncIdempotencyStore.in_memory(compress_over=None, on_event=events.append)
    async with store.execute("key") as execution:
        execution.complete("x" * 300_000)
    record = await store.get("key")
    assert record is not None
    assert record.result == "x" * 300_000
    assert isinstance(events[-1], RecordCompleted)


@pytest.mark.parametrize("option", [{"layout": None}, {"layout": "id"}, {"attributes": {"status": "s"}}])
def test_settings_of_another_type_are_refused(option: dict[str, Any]) -> None:
    """Bad input: the message says what the setting takes."""
    with pytest.raises(ConfigurationError, match="takes an instance of"):
        AsyncIdempotencyStore.in_memory(**option)


def test_the_clock_is_there_without_pytest() -> None:
    """`aioidempotency.testing` is of use to other test runners, too."""
    script = (
        "import sys; sys.modules['pytest'] = None\n"
        "from aioidempotency.testing import FakeClock\n"
        "assert FakeClock(1.0)() == 1.0\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=30).returncode == 0
