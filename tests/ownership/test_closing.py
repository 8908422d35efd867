"""Closing a store while calls run, in one loop of several."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest
from msgspec import structs

from aioidempotency import AsyncIdempotencyStore, Backend, Claimed, ConfigurationError, LeaseLostError, MemoryBackend
from aioidempotency._core.operations import Delete, Operation, Reply, Update
from tests.ownership.test_lost_blocks import result_of
from tests.support.scripted import ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


class Slow:
    """A backend whose deletions take a second."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.deleted = 0

    async def execute(self, operation: Operation) -> Reply:
        if isinstance(operation, Delete):
            await asyncio.sleep(1)
            self.deleted += 1
        return await self.inner.execute(operation)


@in_virtual_time
async def test_a_release_under_way_is_awaited() -> None:
    """O19: a generator was closed in its block, and its key is given back before the store is."""
    backend = Slow(MemoryBackend())
    store = AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds)

    async def lines() -> AsyncIterator[int]:
        async with store.execute("k"):
            yield 1

    async with aclosing(lines()) as reading:  # type: ignore[type-var] # an async generator has `aclose`
        await anext(reading)
    await store.aclose()
    assert backend.deleted == 1
    assert isinstance(await store.claim("k"), Claimed)


@in_virtual_time
async def test_closing_waits_for_running_calls_as_long_as_it_is_told() -> None:
    """`drain`: seconds; 0 waits for none."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    loop = asyncio.get_running_loop()

    async def call(key: str, seconds: float) -> None:
        async with store.execute(key) as execution:
            await pass_time(seconds)
            execution.complete("done")

    calls = [asyncio.ensure_future(call(key, seconds)) for key, seconds in (("a", 2), ("b", 5), ("c", 30))]
    await pass_time(0)
    await store.aclose()
    assert loop.time() == 0
    await store.aclose(drain=3)
    assert loop.time() == 3
    await store.aclose(drain=100)
    assert loop.time() == 30
    await asyncio.gather(*calls)
    assert [await result_of(store, key) for key in "abc"] == ["done"] * 3
    await store.aclose(drain=100)
    assert loop.time() == 30
    with pytest.raises(ConfigurationError, match="drain= takes seconds"):
        await store.aclose(drain=-1)


class Client:
    """A backend that is opened by what is sent, and closed."""

    def __init__(self) -> None:
        self.inner = MemoryBackend()
        self.open = False
        self.opened = 0

    async def execute(self, operation: Operation) -> Reply:
        self.opened += not self.open
        self.open = True
        return await self.inner.execute(operation)

    async def aclose(self) -> None:
        self.open = False


@in_virtual_time
async def test_a_body_cancelled_after_the_store_was_closed_leaves_no_client_open() -> None:
    """O19: the release opens a client anew, and the cancelled block closes the client."""
    client = Client()
    store = AsyncIdempotencyStore("orders", backend=client, clock=epoch_seconds)
    structs.force_setattr(store._parts, "closes_backend", True)

    async def call() -> None:
        async with store.execute("k"):
            await pass_time(5)

    calling = asyncio.ensure_future(call())
    await pass_time(0)
    await store.aclose()
    opened = client.opened
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert client.opened == opened + 1
    assert not client.open


@in_virtual_time
async def test_a_body_that_ends_after_the_store_was_closed_leaves_no_client_open() -> None:
    """O19: its completion opens one anew, and closes it."""
    client = Client()
    store = AsyncIdempotencyStore("orders", backend=client, clock=epoch_seconds)
    structs.force_setattr(store._parts, "closes_backend", True)

    async def call(key: str, seconds: float) -> None:
        async with store.execute(key) as execution:
            await pass_time(seconds)
            execution.complete("done")

    calls = [asyncio.ensure_future(call(key, seconds)) for key, seconds in (("a", 1), ("b", 2))]
    await pass_time(0)
    await store.aclose()
    assert not client.open
    await calls[0]
    assert client.open
    await calls[1]
    assert not client.open
    async with store.execute("c") as execution:  # a later call opens anew, and leaves it open for the next one
        execution.complete("done")
    assert client.open
    await store.aclose()


def test_closing_a_store_in_one_loop_leaves_the_leases_of_another_one_alone() -> None:
    """O19: a thread with a loop of its own closes the store; this loop's body keeps its lease."""
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("orders", backend=backend, lease=0.6)

    async def elsewhere() -> None:
        async with store, store.execute("other") as execution:
            execution.complete("done")

    async def here() -> None:
        async with store.execute("k") as execution:
            await asyncio.to_thread(asyncio.run, elsewhere())
            await asyncio.sleep(1.2)
            assert not execution.lost
            execution.complete("done")
        assert await result_of(store, "k") == "done"

    asyncio.run(here())
    assert backend.count(Update) > 3  # two completions, and renewals


def test_threads_with_loops_of_their_own_share_a_store_and_its_cache() -> None:
    """O19: nothing breaks, and each key runs once."""
    store = AsyncIdempotencyStore.in_memory(local_cache=5)
    bodies: list[int] = []
    errors: list[BaseException] = []

    async def calls() -> None:
        for number in range(200):
            try:
                async with store.execute(number % 20) as execution:
                    if not execution.replayed:
                        bodies.append(number % 20)
                        execution.complete("done")
            except Exception as error:  # noqa: BLE001 - judged below
                if "running" not in str(error):
                    errors.append(error)

    threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert sorted(bodies) == list(range(20))


@in_virtual_time
async def test_a_body_that_outlives_its_store_is_cancelled_before_its_lease_ends() -> None:
    """O8: nobody renews it any more."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds, lease=10)
    with pytest.raises(LeaseLostError):
        async with store.execute("k"):
            await store.aclose()
            await pass_time(100)
    assert asyncio.get_running_loop().time() < 10
