"""How a lost lease ends the body, beside everything else that cancels; and blocks that are left in any order."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, Execution, LeaseLostError, MemoryBackend, Status, idempotent
from aioidempotency._core.operations import Update
from aioidempotency.events import Event, LeaseLost
from tests.support.scripted import Down, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time

LEASE = 9.0


def unrenewable(events: list[Event] | None = None, *, lost: Callable[[], bool] = lambda: True) -> AsyncIdempotencyStore:
    """Make a store whose leases cannot be renewed: each is lost at its safe point."""
    backend = ScriptedBackend(
        MemoryBackend(), lambda operation: Down() if isinstance(operation, Update) and lost() else None
    )
    on_event = None if events is None else events.append
    return AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds, lease=LEASE, on_event=on_event)


def cancelling() -> int:
    """Count the cancellations of this task that nobody has taken back."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def result_of(store: AsyncIdempotencyStore, key: str) -> object:
    """Read what a key was completed with."""
    record = await store.get(key)
    assert record is not None
    assert record.status is Status.COMPLETED
    return record.result


# Any order


@in_virtual_time
async def test_three_blocks_are_left_in_the_order_in_which_they_were_entered() -> None:
    """O16: each completes its own record."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    blocks = [store.execute(key) for key in "abc"]
    for block in blocks:
        (await block.__aenter__()).complete("done")
    for block in blocks:
        await block.__aexit__(None, None, None)
    assert [await result_of(store, key) for key in "abc"] == ["done"] * 3


@in_virtual_time
async def test_two_generators_that_hold_a_block_each_are_read_in_turn() -> None:
    """O16: their blocks overlap, and neither is inside of the other."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)

    async def lines(key: str) -> AsyncIterator[str]:
        async with store.execute(key) as execution:
            for number in range(2):
                yield f"{key}{number}"
            execution.complete(f"all of {key}")

    read = []
    one, other = lines("a"), lines("b")
    for _ in range(2):
        read += [await anext(one), await anext(other)]
    for each in (one, other):
        with pytest.raises(StopAsyncIteration):
            await anext(each)
    assert read == ["a0", "b0", "a1", "b1"]
    assert [await result_of(store, key) for key in "ab"] == ["all of a", "all of b"]


class _FailedError(Exception):
    """What a block of the property test ends with."""


@given(st.data())
def test_blocks_may_be_left_in_any_order_and_task(data: st.DataObject) -> None:
    """O16, O17: each is completed, freed or told its loss, by its own end; afterwards no cancellation is outstanding."""
    count = data.draw(st.integers(1, 4))
    order = data.draw(st.permutations(range(count)))
    ends = data.draw(st.lists(st.sampled_from(["done", "failed", "lost"]), min_size=count, max_size=count))
    elsewhere = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))

    @in_virtual_time
    async def scene() -> None:
        stores = [unrenewable() if end == "lost" else AsyncIdempotencyStore.in_memory() for end in ends]
        blocks: list[Any] = [store.execute(str(number)) for number, store in enumerate(stores)]
        cancelled = False
        for block in blocks:
            (await block.__aenter__()).complete("done")
        if "lost" in ends:
            try:
                await pass_time(10 * LEASE)
            except asyncio.CancelledError:
                cancelled = True
            assert cancelled
            await pass_time(1)  # the clean-up awaits
        outcomes: dict[int, BaseException | None] = {}

        async def leave(number: int) -> None:
            error = {"done": None, "failed": _FailedError(), "lost": None}[ends[number]]
            try:
                await blocks[number].__aexit__(None if error is None else type(error), error, None)
            except LeaseLostError as lost:
                outcomes[number] = lost
            else:
                outcomes[number] = error

        for number in order:
            await (asyncio.create_task(leave(number)) if elsewhere[number] else leave(number))
        for number, end in enumerate(ends):
            assert isinstance(
                outcomes[number], {"done": type(None), "failed": _FailedError, "lost": LeaseLostError}[end]
            )
            record = await stores[number].get(str(number))
            assert (record is not None) == (end == "done")
        assert cancelling() == 0

    scene()


# A lost lease


Body = Callable[[list[str]], Awaitable[None]]


async def _cleans_up(seen: list[str]) -> None:
    try:
        await pass_time(10 * LEASE)
    finally:
        await pass_time(1)
        await pass_time(1)
        seen.append("cleaned up")


async def _holds_a_resource(seen: list[str]) -> None:
    @contextlib.asynccontextmanager
    async def connection() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await pass_time(1)
            await anyio.sleep(1)
            seen.append("closed")

    async with connection(), connection():
        await pass_time(10 * LEASE)


async def _in_a_task_group(seen: list[str]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_cleans_up(seen))
        await pass_time(10 * LEASE)


async def _in_anyio_tasks(seen: list[str]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(_shielded, seen)
        await anyio.sleep(10 * LEASE)


async def _shielded(seen: list[str]) -> None:
    try:
        await anyio.sleep(10 * LEASE)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(1)
            seen.append("cleaned up")


async def _with_time_limits(seen: list[str]) -> None:
    async with asyncio.timeout(100 * LEASE):
        with anyio.fail_after(100 * LEASE):
            await _cleans_up(seen)


async def _swallows(seen: list[str]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await pass_time(10 * LEASE)
    await pass_time(1)
    seen.append("went on")


BODIES = [_cleans_up, _holds_a_resource, _in_a_task_group, _in_anyio_tasks, _with_time_limits, _swallows]


@pytest.mark.parametrize("how", ["block", "decorated", "run"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_a_lost_lease_cancels_the_body_once(body: Body, how: str) -> None:
    """O17: what the body awaits in its clean-up runs, and the caller gets `LeaseLostError`, alone."""

    @in_virtual_time
    async def scene() -> None:
        events: list[Event] = []
        seen: list[str] = []
        store = unrenewable(events)

        async def work() -> None:
            await body(seen)

        with pytest.raises(LeaseLostError) as lost:
            if how == "block":
                async with store.execute("k") as execution:
                    assert not execution.lost
                    try:
                        await work()
                    finally:
                        assert execution.lost
            elif how == "decorated":
                await idempotent(store, key=lambda: "k", namespace="")(work)()
            else:
                await store.run("k", work)
        assert seen
        assert lost.value.reason == "unanswered"
        assert lost.value.__cause__ is not None
        assert cancelling() == 0
        assert sum(isinstance(event, LeaseLost) for event in events) == 1
        await pass_time(1)

    scene()


@in_virtual_time
async def test_a_body_that_raises_over_its_cancellation_is_told_by_its_own_error() -> None:
    """C11, O17: the loss is an event."""
    events: list[Event] = []

    with pytest.raises(ValueError, match="its own"):
        async with unrenewable(events).execute("k"):
            try:
                await pass_time(10 * LEASE)
            except asyncio.CancelledError:
                raise ValueError("its own") from None
    assert any(isinstance(event, LeaseLost) for event in events)
    assert cancelling() == 0


@in_virtual_time
async def test_nested_lost_blocks_cancel_their_task_once() -> None:
    """O17: both know their loss; the outer one is left with the inner one's error, and the other way round."""
    store = unrenewable()
    cancellations = 0
    for inner_first in (True, False):
        leases = (2 * LEASE, LEASE) if inner_first else (LEASE, 2 * LEASE)
        with pytest.raises(LeaseLostError) as lost:
            async with (
                store.execute("outer", lease=leases[0]) as outer,
                store.execute("inner", lease=leases[1]) as inner,
            ):
                try:
                    await pass_time(10 * LEASE)
                except asyncio.CancelledError:
                    cancellations += 1
                    await pass_time(3 * LEASE)
                    raise
        assert (inner.lost, outer.lost) == (True, True)
        assert lost.value.key in {inner.key, outer.key}
        assert cancelling() == 0
    assert cancellations == 2


@pytest.mark.parametrize("swallows", [True, False])
@in_virtual_time
async def test_a_body_that_holds_its_key_on_errors_holds_it_when_its_lease_is_lost(*, swallows: bool) -> None:
    """O17: whether the body swallows its cancellation or not."""
    store = unrenewable()
    with pytest.raises(LeaseLostError):
        async with store.execute("k", on_error="hold"):
            try:
                await pass_time(10 * LEASE)
            except asyncio.CancelledError:
                if not swallows:
                    raise
    record = await store.get("k")
    assert record is not None
    assert record.status is Status.INPROGRESS


@pytest.mark.parametrize("unwinds", [0.7, 5.0])
def test_a_body_that_goes_on_after_a_lost_inner_block_is_cancelled_at_the_end_of_its_lease(unwinds: float) -> None:
    """O17: it had lost its own lease meanwhile; the cancellation of the inner block has not told it."""

    @in_virtual_time
    async def scene() -> None:
        store = unrenewable()
        loop = asyncio.get_running_loop()
        ends: list[float] = []
        with pytest.raises(LeaseLostError) as lost:
            async with store.execute("outer", lease=1.05 * LEASE) as outer:
                with contextlib.suppress(LeaseLostError):
                    async with store.execute("inner"):
                        try:
                            await pass_time(10 * LEASE)
                        finally:
                            await pass_time(unwinds)
                try:
                    await pass_time(10 * LEASE)
                finally:
                    ends.append(loop.time())
                    await pass_time(1)  # whose clean-up runs
                    ends.append(loop.time())
        assert lost.value.key == outer.key
        assert ends[0] <= max(1.05 * LEASE, 0.9 * LEASE + unwinds + 0.1) + 0.001
        assert ends[1] == ends[0] + 1
        assert cancelling() == 0

    scene()


@pytest.mark.parametrize("closes", [False, True], ids=["the store stays open", "the store is closed meanwhile"])
@in_virtual_time
async def test_a_body_that_goes_on_after_a_lost_inner_block_is_cancelled_at_once_where_another_owner_runs(
    closes: bool,
) -> None:
    """O17: both renewals were refused, and the body catches the first loss."""
    table = MemoryBackend()
    store = AsyncIdempotencyStore("orders", backend=table, clock=epoch_seconds, lease=LEASE)
    ahead = AsyncIdempotencyStore("orders", backend=table, clock=lambda: epoch_seconds() + 3 * LEASE, lease=LEASE)
    ended = 0.0
    with pytest.raises(LeaseLostError) as lost:
        async with store.execute("outer") as outer:
            with contextlib.suppress(LeaseLostError):
                async with store.execute("inner", heartbeat=LEASE / 3 - 0.2):
                    await asyncio.gather(ahead.claim("outer"), ahead.claim("inner"))
                    try:
                        await pass_time(10 * LEASE)
                    finally:
                        await pass_time(0.3)
                        if closes:
                            await store.aclose()
                        await pass_time(0.2)
            try:
                await pass_time(10 * LEASE)
            finally:
                ended = asyncio.get_running_loop().time()
    assert (lost.value.key, lost.value.reason) == (outer.key, "another_owner")
    assert LEASE / 3 <= ended <= LEASE / 3 + 0.5 + 0.11


# Together with other cancellations


async def cancelled_from_outside(body: Callable[[], Awaitable[None]], after: float) -> BaseException | None:
    """Run a body in a task of its own, cancel that after a time, and answer with what it ended with."""
    task = asyncio.ensure_future(body())
    asyncio.get_running_loop().call_later(after, task.cancel)
    await asyncio.wait([task])
    return asyncio.CancelledError() if task.cancelled() else task.exception()


@pytest.mark.parametrize("after", [LEASE / 2, LEASE - 0.5, LEASE + 1])
def test_the_callers_cancellation_passes(after: float) -> None:
    """O17: before, while and after the lease is lost, the caller is told what it asked for; a loss is an event."""

    @in_virtual_time
    async def scene() -> None:
        events: list[Event] = []

        async def body() -> None:
            async with unrenewable(events).execute("k"):
                try:
                    await pass_time(10 * LEASE)
                finally:
                    await pass_time(3)

        assert isinstance(await cancelled_from_outside(body, after), asyncio.CancelledError)
        assert any(isinstance(event, LeaseLost) for event in events) == (after > LEASE / 2)

    scene()


@pytest.mark.parametrize("limit", [LEASE / 2, LEASE + 1])
def test_a_time_limit_around_the_block_is_told_as_that(limit: float) -> None:
    """O17: asyncio's and anyio's own, whether the lease is lost or not."""

    @in_virtual_time
    async def scene() -> None:
        for scope in (lambda: asyncio.timeout(limit), lambda: _failing_after(limit)):
            with pytest.raises(TimeoutError):
                async with scope(), unrenewable().execute("k"):
                    try:
                        await pass_time(10 * LEASE)
                    finally:
                        await asyncio.shield(asyncio.ensure_future(pass_time(3)))
            assert cancelling() == 0

    scene()


@contextlib.asynccontextmanager
async def _failing_after(limit: float) -> AsyncIterator[None]:
    with anyio.fail_after(limit):
        yield


@in_virtual_time
async def test_a_neighbour_that_fails_cancels_the_block_and_its_group_tells_so() -> None:
    """O17: a task group around a block of which one task fails."""

    async def fails() -> None:
        await pass_time(1)
        raise ValueError("its own")

    async def holds() -> None:
        async with unrenewable().execute("k"):
            await pass_time(10 * LEASE)

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(holds())
    assert [type(error) for error in caught.value.exceptions] == [ValueError]


INTERRUPTED = """
import asyncio, os, signal
from aioidempotency import AsyncIdempotencyStore, MemoryBackend

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored

backend = MemoryBackend()

async def main():
    async with AsyncIdempotencyStore("orders", backend=backend).execute("k"):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print(type(asyncio.run(AsyncIdempotencyStore("orders", backend=backend).claim("k"))).__name__)
"""


def test_an_interrupt_frees_the_key() -> None:
    """O17: Ctrl-C cancels the main task, and the key is given back."""
    told = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout == "Claimed\n"


@in_virtual_time
async def test_a_block_that_is_left_elsewhere_cancels_nobody_who_has_ended() -> None:
    """O17: the task that entered is over; leaving tells the loss."""
    store = unrenewable()
    block: Any = store.execute("k")
    execution: Execution = await asyncio.create_task(block.__aenter__())
    await pass_time(10 * LEASE)
    assert execution.lost
    with pytest.raises(LeaseLostError):
        await block.__aexit__(None, None, None)
    assert cancelling() == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_are_cancelled_like_others() -> None:
    """O17: a task that began before its caller went on."""

    @in_virtual_time
    async def scene() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
        seen: list[str] = []

        async def holds() -> None:
            async with unrenewable().execute("k"):
                await _cleans_up(seen)

        with pytest.raises(LeaseLostError):
            await asyncio.create_task(holds())
        assert seen == ["cleaned up"]

    scene()
