"""Deadlines, blocks and decorated calls that are entered and left in different tasks or contexts."""

import asyncio
import contextvars
import gc
import socket
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from contextvars import Context, copy_context
from types import SimpleNamespace
from typing import Annotated, Any

import aiohttp
import anyio
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, Execution, MemoryBackend, deadline, idempotent
from aioidempotency import _lease as lease_module
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import Operation, Update
from aioidempotency._lease import DEADLINE, Deadline, time_left
from tests.ownership.test_lost_blocks import result_of
from tests.support.scripted import ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time

LEASE = 60.0


def make_store(**options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore.in_memory(lease=LEASE, **options)


async def lease_of(store: AsyncIdempotencyStore, key: str) -> float:
    """Run a call, and tell how long its lease was."""
    async with store.execute(key) as execution:
        assert execution.lease is not None
        return execution.lease.duration


async def test_a_deadline_may_be_left_in_another_context() -> None:
    """C24: a dependency with `yield` in a thread pool is entered in one copy of the context, and left in another."""
    block = deadline(5)
    copy_context().run(block.__enter__)
    copy_context().run(block.__exit__, None, None, None)
    assert await lease_of(make_store(), "key") == LEASE


async def test_a_deadline_may_be_left_in_another_task() -> None:
    """C24: a fixture is set up in one task, and torn down in another."""
    block = deadline(5)
    await asyncio.create_task(entered(block))
    assert await lease_of(make_store(), "other context") == LEASE
    with block_as_entered_here(block):
        pass
    assert time_left() is None


async def entered(block: AbstractContextManager[None]) -> None:
    block.__enter__()


@contextmanager
def block_as_entered_here(block: AbstractContextManager[None]) -> Iterator[None]:
    """Leave at the end what was entered elsewhere."""
    yield
    block.__exit__(None, None, None)


async def test_a_deadline_in_an_async_generator_may_be_read_by_several_tasks() -> None:
    """C24: each step of the generator runs in the context of who asks."""

    async def pages() -> AsyncIterator[int]:
        with deadline(5):
            yield 1
            yield 2

    numbers = pages()
    assert await asyncio.create_task(anext(numbers)) == 1  # type: ignore[arg-type] # a coroutine at run time
    assert await asyncio.create_task(anext(numbers)) == 2  # type: ignore[arg-type]
    assert await asyncio.create_task(anext(numbers, None)) is None
    assert time_left() is None


async def test_a_task_that_outlives_a_deadline_has_the_leases_of_the_store_again() -> None:
    """C24: with a heartbeat; its copy of the context still holds the deadline."""
    store = make_store()
    began, goes_on = asyncio.Event(), asyncio.Event()

    async def outlives() -> tuple[float, str]:
        inside = await lease_of(store, "inside")
        began.set()
        await goes_on.wait()
        assert DEADLINE.get() is not None
        async with store.execute("outside") as execution:
            assert execution.lease is not None
            assert inside < 5
            return execution.lease.duration, repr(store)

    with deadline(5):
        task = asyncio.create_task(outlives())
        await began.wait()
    goes_on.set()
    duration, shown = await task
    assert duration == LEASE
    assert "1 leases kept" in shown


async def test_the_earlier_one_of_nested_deadlines_counts_as_long_as_it_is_not_left() -> None:
    """C24: in whichever order they are left."""
    store = make_store()
    outer, inner = deadline(5), deadline(20)
    outer.__enter__()
    inner.__enter__()
    assert await lease_of(store, "both") <= 5
    outer.__exit__(None, None, None)
    assert 5 < await lease_of(store, "inner alone") <= 20
    inner.__exit__(None, None, None)
    assert await lease_of(store, "none") == LEASE


async def test_a_deadline_ends_with_its_error() -> None:
    """C24: an error passes on as itself."""
    with pytest.raises(ValueError, match="mine"), deadline(5):
        raise ValueError("mine")
    assert time_left() is None


def test_deadlines_that_overlap_in_a_row_do_not_keep_each_other_alive() -> None:
    """C24: a stream that always holds two, and leaves the older one first."""
    with ExitStack() as stack:
        before = deadline(5)
        before.__enter__()
        for _ in range(50):
            block = deadline(5)
            block.__enter__()
            before.__exit__(None, None, None)
            before = block
        stack.push(before.__exit__)
        gc.collect()
        assert sum(isinstance(each, Deadline) for each in gc.get_objects()) <= 3


@given(st.data())
@settings(max_examples=200)
def test_deadlines_hold_until_left_in_any_order_and_context(data: st.DataObject) -> None:
    """C24: at each moment and in each context, the earliest deadline counts that was entered around and is not left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lease_module, "time", SimpleNamespace(monotonic=lambda: 0.0))
        # What each context sees, from the outermost deadline inwards, by number.
        contexts: list[tuple[Context, list[int]]] = [(Context(), [])]
        blocks: dict[int, tuple[AbstractContextManager[None], float]] = {}
        for number in range(data.draw(st.integers(1, 25))):
            context, seen = data.draw(st.sampled_from(contexts))
            match data.draw(st.sampled_from(["enter", "leave", "copy"])):
                case "enter":
                    ends = float(data.draw(st.integers(0, 9)))
                    block = deadline(ends)
                    context.run(block.__enter__)
                    blocks[number] = (block, ends)
                    seen.append(number)
                case "leave" if blocks:
                    left = data.draw(st.sampled_from(sorted(blocks)))
                    context.run(blocks.pop(left)[0].__exit__, None, None, None)
                case _:
                    contexts.append((context.copy(), list(seen)))
            for each, around in contexts:
                ends_there = [blocks[number][1] for number in around if number in blocks]
                assert each.run(time_left) == min(ends_there, default=None)


async def test_a_task_that_outlives_its_block_finds_no_ended_execution() -> None:
    """C24: but the next one outside that has not ended, and then none."""
    store = make_store()
    inner_left, outer_left = asyncio.Event(), asyncio.Event()

    async def outlives(outer: Execution, inner: Execution) -> None:
        assert Execution.current() is inner
        await inner_left.wait()
        assert Execution.current() is outer
        await outer_left.wait()
        with pytest.raises(LookupError):
            Execution.current()
        async with store.execute("later") as later:
            assert Execution.current() is later
        with pytest.raises(LookupError):
            Execution.current()

    async with store.execute("outer") as outer:
        async with store.execute("inner") as inner:
            task = asyncio.create_task(outlives(outer, inner))
            await asyncio.sleep(0)
        inner_left.set()
        await asyncio.sleep(0)
    outer_left.set()
    await task


async def test_a_task_that_outlives_a_decorated_call_finds_no_ended_execution() -> None:
    """C24: a background task that the body has started."""
    store = make_store()
    ended = asyncio.Event()
    tasks: list[asyncio.Task[None]] = []

    async def background() -> None:
        assert Execution.current().key
        await ended.wait()
        with pytest.raises(LookupError):
            Execution.current()

    @idempotent(store)
    async def call(number: int) -> None:
        tasks.append(asyncio.create_task(background()))
        await asyncio.sleep(0)

    await call(1)
    ended.set()
    await tasks[0]


async def test_each_step_of_a_decorated_call_may_run_in_a_context_of_its_own() -> None:
    """C24: as some test runners and thread pools drive coroutines."""
    store = make_store()

    @idempotent(store)
    async def call(number: int) -> int:
        with deadline(5):
            await asyncio.sleep(0)
            async with store.execute("inner") as execution:
                execution.complete(number)
            await asyncio.sleep(0)
        return number

    for _ in range(2):
        coroutine = call(1)
        with pytest.raises(StopIteration) as ended:
            while True:
                copy_context().run(coroutine.send, None)
        assert ended.value.value == 1
    assert await result_of(store, "inner") == 1
    assert time_left() is None
    with pytest.raises(LookupError):
        Execution.current()


async def test_a_block_is_entered_used_and_left_in_three_tasks() -> None:
    """C24: the body completes it, though its own context knows nothing of the block."""
    store = make_store()
    block = store.execute("key")
    execution = await asyncio.create_task(block.__aenter__())

    async def body() -> None:
        with pytest.raises(LookupError):
            Execution.current()
        execution.complete("done")

    await asyncio.create_task(body())
    await asyncio.create_task(block.__aexit__(None, None, None))
    assert await result_of(store, "key") == "done"


async def test_blocks_and_deadlines_hop_between_the_tasks_of_a_task_group() -> None:
    """C24: entered in one of anyio's tasks, left in another, while a third holds others."""
    store = make_store()
    holds, left = anyio.Event(), anyio.Event()
    block, limit = store.execute("hopping"), deadline(5)

    async def enters() -> None:
        limit.__enter__()
        (await block.__aenter__()).complete("hopped")
        holds.set()

    async def leaves() -> None:
        await holds.wait()
        with deadline(30):
            async with store.execute("other") as other:
                limit.__exit__(None, None, None)
                await block.__aexit__(None, None, None)
                assert Execution.current() is other
                assert (time_left() or 0) > 5
                other.complete("kept")
        left.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enters)
        tasks.start_soon(leaves)
        await left.wait()
    assert [await result_of(store, key) for key in ("hopping", "other")] == ["hopped", "kept"]


def application(store: AsyncIdempotencyStore, seen: list[object]) -> FastAPI:
    """An application whose dependencies hold deadlines and blocks around the endpoint."""
    app = FastAPI()

    def in_a_thread() -> Iterator[None]:
        with deadline(5):
            yield

    async def in_the_loop() -> AsyncIterator[None]:
        with deadline(30):
            yield

    async def block(order_id: str) -> AsyncIterator[Execution]:
        async with store.execute(order_id) as execution:
            yield execution

    @app.post("/plain/{order_id}", dependencies=[Depends(in_a_thread)])
    def plain(order_id: str) -> str:
        seen.append(time_left())
        return order_id

    @app.post("/{order_id}", dependencies=[Depends(in_a_thread), Depends(in_the_loop)])
    async def pay(order_id: str, execution: Annotated[Execution, Depends(block)]) -> str:
        if not execution.replayed:
            assert execution.lease is not None
            seen.append(execution.lease.duration)
            execution.complete(f"paid {order_id}")
        return str(execution.result)

    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an application in this loop."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        server = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning", lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        try:
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def test_dependencies_with_yield_hold_deadlines_and_blocks() -> None:
    """C24: on FastAPI; a plain dependency's context is its own, so its deadline does not reach the endpoint."""
    store, seen = make_store(), list[object]()
    async with served(application(store, seen)) as url, aiohttp.ClientSession(url) as client:
        for _ in range(2):
            async with client.post("/order-1") as response:
                assert (response.status, await response.json()) == (200, "paid order-1")
        async with client.post("/plain/order-2") as response:
            assert response.status == 200
    duration, left = seen
    assert isinstance(duration, float)
    assert 5 < duration <= 30
    assert left is None
    assert "0 calls under way, 0 leases kept" in repr(store)


@pytest.fixture
def limit_of_a_fixture() -> Iterator[None]:
    """A plain fixture."""
    with deadline(5):
        yield


@pytest.fixture
async def limit_of_an_async_fixture() -> AsyncIterator[None]:
    """A fixture that pytest-asyncio runs in tasks of its own."""
    with deadline(5):
        yield


@pytest.fixture
async def execution_of_a_fixture() -> AsyncIterator[tuple[AsyncIdempotencyStore, Execution]]:
    """A block around the test."""
    store = make_store()
    async with store.execute("key") as execution:
        yield store, execution
    assert await result_of(store, "key") == "by the test"


async def test_fixtures_hold_deadlines_and_blocks(
    limit_of_a_fixture: None,
    limit_of_an_async_fixture: None,
    execution_of_a_fixture: tuple[AsyncIdempotencyStore, Execution],
) -> None:
    """C24: pytest-asyncio sets up and tears down in tasks of its own."""
    store, execution = execution_of_a_fixture
    execution.complete("by the test")
    async with store.execute("other") as other:
        assert Execution.current() is other


async def test_a_context_variable_of_the_caller_is_the_callers() -> None:
    """C24: entering and leaving change no other variable of the context."""
    variable = contextvars.ContextVar[int]("variable", default=0)
    store = make_store()
    async with store.execute("key"):
        variable.set(1)
        with deadline(5):
            variable.set(2)
    assert variable.get() == 2


class Payload:
    """What a request brings, and a context variable holds."""


@in_virtual_time
async def test_a_renewal_runs_in_the_context_of_its_own_call() -> None:
    """C24: so its spans and log lines go to no other call of the loop, whose timer all share."""
    tenant = contextvars.ContextVar[str]("tenant")
    seen: set[tuple[object, str]] = set()

    def note(operation: Operation) -> None:
        if isinstance(operation, Update) and isinstance(operation.condition, HeldBy):
            seen.add((operation.condition.owner, tenant.get()))

    store = AsyncIdempotencyStore(
        "table", backend=ScriptedBackend(MemoryBackend(), note), lease=LEASE, clock=epoch_seconds
    )
    owners: dict[str, str] = {}

    async def call(name: str, begins: float) -> None:
        await pass_time(begins)
        tenant.set(name)
        async with store.execute(name) as execution:
            assert execution.lease is not None
            owners[name] = execution.lease.owner
            tenant.set("set by the body")
            await pass_time(3 * LEASE)
            tenant.set(name)

    await asyncio.gather(call("first", 0.0), call("at once", 0.0), call("later", 7.0))
    assert seen == {(owner, name) for name, owner in owners.items()}


@in_virtual_time
async def test_the_timer_of_a_busy_store_keeps_no_context_of_a_call_that_has_ended() -> None:
    """C24: what a request brought is free again, while other calls run without a break."""
    request = contextvars.ContextVar[Payload]("request")
    store = AsyncIdempotencyStore.in_memory(lease=LEASE, clock=epoch_seconds)
    payloads: list[weakref.ref[Payload]] = []

    async def call(number: int) -> None:
        await pass_time(10.0 * number)
        payload = Payload()
        payloads.append(weakref.ref(payload))
        request.set(payload)
        async with store.execute(f"key-{number}"):
            await pass_time(15)

    calls = [asyncio.create_task(call(number)) for number in range(5)]
    await pass_time(42)
    assert [task.done() for task in calls] == [True, True, True, False, False]
    del calls[:3]
    gc.collect()
    assert [payload() is None for payload in payloads] == [True, True, True, False, False]
    await asyncio.gather(*calls)
