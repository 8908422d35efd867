"""`override`: a store that a module holds works on another backend, or by another clock, for a while."""

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from msgspec import structs

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    Claimed,
    CompositeKey,
    ConfigurationError,
    Execution,
    GroupCommit,
    HashBuckets,
    InProgress,
    LeaseLostError,
    MemoryBackend,
    Replay,
    StoreError,
    Wait,
    idempotent,
)
from aioidempotency._core.model import Table
from aioidempotency._core.operations import Get, Operation, Put, Reply, Update
from aioidempotency.backends.dynamodb.batches import Outcome
from aioidempotency.partitioning import table_layout
from aioidempotency.testing import FakeClock
from tests.support.scripted import Down, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


def untouched() -> ScriptedBackend:
    """A backend that answers nothing, and keeps what reached it."""
    return ScriptedBackend(MemoryBackend(), lambda _: Down())


def module_store(backend: Backend | None = None, **options: Any) -> AsyncIdempotencyStore:
    """A store as a module of an application holds one."""
    return AsyncIdempotencyStore("orders", backend=untouched() if backend is None else backend, **options)


async def claimed(store: AsyncIdempotencyStore, key: str) -> Any:
    decision = await store.claim(key)
    assert isinstance(decision, Claimed)
    return decision.lease


async def answer() -> str:
    return "answer"


async def block(store: AsyncIdempotencyStore) -> None:
    async with store.execute("key") as execution:
        execution.complete("done")
    assert (await store.get("key")) is not None


async def renewed(store: AsyncIdempotencyStore) -> None:
    await store.renew(await claimed(store, "key"))


async def completed(store: AsyncIdempotencyStore) -> None:
    await store.complete(await claimed(store, "key"), "done")
    assert isinstance(await store.claim("key"), Replay)


async def released(store: AsyncIdempotencyStore) -> None:
    await store.release(await claimed(store, "key"))
    assert await store.get("key") is None


async def forgotten(store: AsyncIdempotencyStore) -> None:
    await completed(store)
    assert await store.forget("key")


async def published(store: AsyncIdempotencyStore) -> None:
    async with store.execute("key") as execution:
        execution.transaction.emit({"n": 1}, key="key")
    assert [event.key async for event in store.outbox(poll=None)] == ["key"]


async def committed(store: AsyncIdempotencyStore) -> None:
    assert await store.commit_once("key", "done", lambda transaction: transaction.emit({"n": 1}, key="key")) == "done"


async def put(store: AsyncIdempotencyStore) -> None:
    item = {"pk": "order-1", "total": 10}
    assert await store.put_if_absent("shop", item) == item


METHODS: dict[str, Callable[[AsyncIdempotencyStore], Awaitable[object]]] = {
    "claim": lambda store: claimed(store, "key"),
    "claim_many": lambda store: store.claim_many(["a", "b"]),
    "complete": completed,
    "renew": renewed,
    "release": released,
    "execute": block,
    "run": lambda store: store.run("key", answer),
    "get": lambda store: store.get("key"),
    "get_many": lambda store: store.get_many(["a", "b"]),
    "forget": forgotten,
    "outbox": published,
    "commit_once": committed,
    "get_or_create_id": lambda store: store.get_or_create_id("key"),
    "put_if_absent": put,
    "verify_layout": lambda store: store.verify_layout(),
}


@pytest.mark.parametrize("name", METHODS)
async def test_every_method_works_on_the_backend_of_the_override(name: str) -> None:
    """C21: and sends nothing to the store's own."""
    own, other = untouched(), ScriptedBackend(MemoryBackend())
    store = module_store(own, layout=CompositeKey(partitioning=HashBuckets(2)), local_cache=10)
    with store.override(backend=other) as same:
        assert same is store
        await METHODS[name](store)
    assert other.operations
    assert not own.operations


def test_no_method_is_left_out() -> None:
    """C21: a new method of the store has to say what an override means for it."""
    public = {name for name in vars(AsyncIdempotencyStore) if not name.startswith("_")}
    others = {"codec", "failed_open", "in_memory", "override", "create_table", "aclose", "warn_of_missing_key"}
    assert public == set(METHODS) | others


async def test_decorated_functions_and_blocks_work_on_it_and_then_on_the_stores_own_again() -> None:
    """C21: the records of one side are not seen on the other."""
    store = module_store(MemoryBackend())
    ran: list[str] = []

    @idempotent(store)
    async def charge(order: str) -> int:
        ran.append(order)
        return len(ran)

    assert await charge("a") == 1
    with store.override(backend=MemoryBackend()):
        assert await charge("a") == 2
        assert await charge("a") == 2
    assert await charge("a") == 1
    with store.override(backend=MemoryBackend()):
        assert await charge("a") == 3


async def test_a_block_made_before_is_claimed_where_it_is_entered() -> None:
    """C21: a call begins with its claim."""
    own, other = untouched(), ScriptedBackend(MemoryBackend())
    store = module_store(own)
    made = store.execute("key")
    with store.override(backend=other):
        async with made as execution:
            execution.complete("done")
    assert other.count(Put) == other.count(Update) == 1
    assert not own.operations


async def test_a_table_is_created_on_it() -> None:
    """C21: by a backend that makes tables."""
    store = module_store()
    with pytest.raises(ConfigurationError, match="makes no tables"):
        await store.create_table()
    with store.override(backend=MemoryBackend()):
        await store.create_table()


@in_virtual_time
async def test_a_call_under_way_completes_and_renews_where_it_claimed() -> None:
    """C21: while the override begins, and while it ends."""
    own, other = ScriptedBackend(MemoryBackend()), ScriptedBackend(MemoryBackend())
    store = module_store(own, lease=3, clock=epoch_seconds)

    @idempotent(store)
    async def call(name: str) -> str:
        await pass_time(10)
        return name

    outside = asyncio.ensure_future(call("key"))
    await pass_time(1.5)
    with store.override(backend=other):
        inside = asyncio.ensure_future(call("key"))  # not a duplicate of the other one
        await pass_time(1.5)
        assert "1 calls under way, 1 leases kept" in repr(store)
        assert other.count(Put) == own.count(Put) == 1
    await asyncio.gather(outside, inside)
    for backend in own, other:
        assert backend.count(Put) == 1
        assert backend.count(Update) > 5
    assert await call("key") == "key"
    with store.override(backend=other):
        assert await call("key") == "key"
    assert own.count(Put) == other.count(Put) == 2  # each one a replay


@in_virtual_time
async def test_a_lost_call_under_way_is_fenced_by_its_own_backend() -> None:
    """C21: `forget` inside concerns the override's records alone."""
    store = module_store(MemoryBackend(), lease=3, clock=epoch_seconds)

    async def call() -> None:
        async with store.execute("key"):
            await pass_time(10)

    task = asyncio.ensure_future(call())
    await pass_time(0.5)
    with store.override(backend=MemoryBackend()):
        assert not await store.forget("key", running=True)
    assert await store.forget("key", running=True)
    with pytest.raises(LeaseLostError) as lost:
        await task
    assert lost.value.reason == "another_owner"


@in_virtual_time
async def test_a_duplicate_that_waits_goes_on_waiting_where_it_began() -> None:
    """C21: it replays the result of the call that it waits for."""
    store = module_store(MemoryBackend(), clock=epoch_seconds)
    ran: list[int] = []

    @idempotent(store, on_in_progress=Wait(30))
    async def call(number: int) -> int:
        ran.append(number)
        await pass_time(5)
        return number

    calls = [asyncio.ensure_future(call(1)) for _ in range(3)]
    await pass_time(1)
    with store.override(backend=MemoryBackend()):
        await pass_time(10)
    assert await asyncio.gather(*calls) == [1, 1, 1]
    assert ran == [1]


async def test_a_call_cancelled_inside_gives_its_key_back_where_it_claimed() -> None:
    """C21: the call began before the override."""
    own, other = ScriptedBackend(MemoryBackend()), ScriptedBackend(MemoryBackend())
    store = module_store(own)
    began = asyncio.Event()

    async def call() -> None:
        async with store.execute("key"):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(call())
    await began.wait()
    with store.override(backend=other):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not other.operations
    assert await store.get("key") is None


async def test_a_lease_is_ended_on_the_backend_in_use() -> None:
    """C21: a lease keeps no backend; the docstring says so."""
    store = module_store(MemoryBackend())
    lease = await claimed(store, "key")
    with store.override(backend=MemoryBackend()):
        await store.complete(lease, "inside")
        record = await store.get("key")
        assert record is not None
        assert record.result == "inside"
    assert isinstance(await store.claim("key"), InProgress)


async def test_the_clock_alone_is_changed() -> None:
    """C21: the backend stays; a record expires by the new clock."""
    store = module_store(MemoryBackend(), retention=60)
    async with store.execute("key") as execution:
        execution.complete("done")
    clock = FakeClock()
    with store.override(clock=clock):
        assert isinstance(await store.claim("key"), Claimed)  # the clock is years ahead
        assert await store.get_or_create_id("key")
        clock.advance(timedelta(seconds=30))
        assert isinstance(await store.claim("key"), InProgress)
        with store.override(backend=MemoryBackend()):
            lease = await claimed(store, "key")
            assert lease.expires_at == clock() + lease.duration


async def test_the_backend_alone_is_changed() -> None:
    """C21: the clock stays."""
    clock = FakeClock()
    store = module_store(clock=clock)
    with store.override(backend=MemoryBackend()):
        lease = await claimed(store, "key")
    assert lease.expires_at == clock() + lease.duration


async def test_overrides_nest() -> None:
    """C21: the innermost counts, and each has its own records."""
    store = module_store(MemoryBackend(), namespace="n")
    with store.override(backend=MemoryBackend()):
        assert isinstance(await store.claim("key"), Claimed)
        with store.override(backend=MemoryBackend()):
            assert isinstance(await store.claim("key"), Claimed)
        assert isinstance(await store.claim("key"), InProgress)
        with store.override():
            assert isinstance(await store.claim("key"), InProgress)
    assert isinstance(await store.claim("key"), Claimed)


async def test_one_left_out_of_order_is_told_and_the_inner_one_stays_until_it_is_left() -> None:
    """C21: and afterwards the store works on its own backend."""
    own, middle, inmost = (ScriptedBackend(MemoryBackend()) for _ in range(3))
    store = module_store(own)
    outer, inner = store.override(backend=middle), store.override(backend=inmost)
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="left before the override inside"):
        outer.__exit__(None, None, None)
    await store.claim("a")
    assert len(inmost.operations) == 1
    inner.__exit__(None, None, None)
    await store.claim("a")
    assert len(own.operations) == 1
    assert not middle.operations
    with pytest.raises(RuntimeError, match="not entered, or was left before"):
        inner.__exit__(None, None, None)
    with outer:  # an override that was left may be entered again
        await store.claim("a")
    assert len(middle.operations) == 1


async def test_an_error_of_the_block_passes_also_out_of_order() -> None:
    """C21: with a note; a cancellation must pass."""
    store = module_store(MemoryBackend())
    for error in ValueError("mine"), asyncio.CancelledError():
        with pytest.raises(type(error)) as told, store.override(backend=MemoryBackend()):
            inner = store.override(backend=MemoryBackend())
            inner.__enter__()
            raise error
        assert told.value is error
        assert "left before the override inside" in told.value.__notes__[0]
        inner.__exit__(None, None, None)
    with pytest.raises(ValueError, match="mine"), store.override(backend=MemoryBackend()):
        raise ValueError("mine")
    assert isinstance(await store.claim("key"), Claimed)


def test_one_is_entered_once_at_a_time() -> None:
    """C21: the second entry would lose the place of the first."""
    entered = module_store().override(backend=MemoryBackend())
    with entered, pytest.raises(RuntimeError, match="entered already"):
        entered.__enter__()


def test_it_is_no_decorator() -> None:
    """C21: around a coroutine function it would end before the body begins."""
    made: Any = module_store().override(backend=MemoryBackend())
    with pytest.raises(TypeError, match="not callable"):
        made(answer)


@pytest.mark.parametrize(
    "wrong", [{"backend": MemoryBackend}, {"backend": 5}, {"clock": 5}, {"disabled": 1}, {"disabled": "yes"}]
)
def test_what_makes_no_override_is_refused_at_once(wrong: dict[str, Any]) -> None:
    """C21: and the error names the argument."""
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))}="):
        module_store().override(**wrong)


async def test_it_may_be_entered_and_left_in_different_tasks() -> None:
    """C24: it counts for the process, and not for a context."""
    store = module_store()
    override = store.override(backend=MemoryBackend())

    async def enters() -> None:
        override.__enter__()

    async def leaves() -> None:
        assert isinstance(await store.claim("key"), Claimed)
        override.__exit__(None, None, None)

    await asyncio.create_task(enters())
    await asyncio.create_task(leaves())
    with pytest.raises(StoreError):
        await store.claim("key")


@pytest.fixture
def overridden() -> Iterator[AsyncIdempotencyStore]:
    """The fixture of the page on testing."""
    with module_store().override(backend=MemoryBackend()) as store:
        yield store


@pytest.fixture
async def overridden_in_a_loop() -> Any:
    """The same as an async fixture."""
    with module_store().override(backend=MemoryBackend()) as store:
        yield store


async def test_it_makes_a_fixture(
    overridden: AsyncIdempotencyStore, overridden_in_a_loop: AsyncIdempotencyStore
) -> None:
    """C21: plain or async."""
    for store in overridden, overridden_in_a_loop:
        assert await store.run("key", answer) == "answer"


def test_threads_with_loops_of_their_own_find_each_call_on_one_backend() -> None:
    """C21: overrides begin and end under their calls; each call claims and completes on one backend."""
    own, others = ScriptedBackend(MemoryBackend()), [ScriptedBackend(MemoryBackend()) for _ in range(20)]
    store = module_store(own)
    stop = threading.Event()
    made: list[str] = []
    failures: list[BaseException] = []

    @idempotent(store)
    async def call(name: str) -> str:
        await asyncio.sleep(0)
        return name

    async def work() -> None:
        while not stop.is_set():
            names = [secrets.token_hex(8) for _ in range(5)]
            assert await asyncio.gather(*(call(name) for name in names)) == names
            made.extend(names)

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for backend in others:
        with store.override(backend=backend):
            while len(backend.operations) < 30 and not failures:
                stop.wait(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    puts, updates = ([backend.count(kind) for backend in (own, *others)] for kind in (Put, Update))
    assert puts == updates
    assert sum(puts) == len(made)


async def test_the_cache_is_the_overrides_own() -> None:
    """C21: what is finished outside is not known inside, and the other way round."""
    own, other = ScriptedBackend(MemoryBackend()), ScriptedBackend(MemoryBackend())
    store = module_store(own, local_cache=10)
    assert await store.run("key", answer) == "answer"
    with store.override(backend=other):
        for _ in range(2):
            assert await store.run("key", answer) == "answer"
        assert len(other.operations) == 2  # the second one is a replay from the cache
    assert await store.run("key", answer) == "answer"
    assert len(own.operations) == 2


async def test_calls_that_ran_unprotected_are_counted_for_the_override() -> None:
    """C21: `failed_open` is the override's own."""
    store = module_store(fail_open=True)
    await store.run("key", answer)
    with store.override(backend=untouched()):
        assert store.failed_open == 0
        await store.run("key", answer)
        await store.run("key", answer)
        assert store.failed_open == 2
    assert store.failed_open == 1


async def test_the_layout_is_checked_for_the_override() -> None:
    """C21: once on each side, and neither check counts for the other."""
    own, other = ScriptedBackend(MemoryBackend()), ScriptedBackend(MemoryBackend())
    store = module_store(own, layout=CompositeKey(partitioning=HashBuckets(2)))
    await store.run("a", answer)
    checks = own.count(Get)
    assert checks == 1
    with store.override(backend=other):
        for key in "abc":
            await store.run(key, answer)
        assert other.count(Get) == 1
    await store.run("b", answer)
    assert own.count(Get) == 1


async def test_a_function_decorated_inside_promises_its_retention_outside_too() -> None:
    """C21: the module that a test imports keeps its functions after the override."""
    store = module_store(MemoryBackend(), layout=CompositeKey(partitioning=HashBuckets(2)), retention=60)
    await store.run("a", answer)
    with store.override(backend=MemoryBackend()), store.override(clock=FakeClock()):

        @idempotent(store, retention=7200)
        async def call(number: int) -> int:
            return number

    await call(1)
    parts = store._parts
    location = table_layout.location_of(parts.settings.table, parts.settings.namespace)
    written = await parts.records.run_unverified(table_layout.read(location))
    assert written is not None
    assert written.promised == 7200


class Client:
    """A backend that is opened by what is sent, and closed."""

    def __init__(self) -> None:
        self.inner = MemoryBackend()
        self.open = False

    async def execute(self, operation: Operation) -> Reply:
        self.open = True
        return await self.inner.execute(operation)

    async def aclose(self) -> None:
        self.open = False


def owning_store(client: Client) -> AsyncIdempotencyStore:
    """A store that closes its backend, as one with a client of its own does."""
    store = module_store(client)
    structs.force_setattr(store._parts, "closes_backend", True)
    return store


async def test_closing_inside_leaves_the_stores_client_and_a_given_backend_open() -> None:
    """C21: the caller closes the backend that the caller made."""
    own, given = Client(), Client()
    store = owning_store(own)
    await store.run("key", answer)
    with store.override(backend=given):
        async with store:  # as the lifespan of an application under test does
            await store.run("key", answer)
        assert own.open
        assert given.open
    await store.aclose()
    assert not own.open
    assert given.open


async def test_closing_inside_closes_the_stores_client_where_the_override_keeps_it() -> None:
    """C21: only the clock is another one."""
    own = Client()
    store = owning_store(own)
    with store.override(clock=FakeClock()):
        async with store:
            await store.run("key", answer)
            assert own.open
        assert not own.open


@in_virtual_time
async def test_closing_ends_the_renewals_of_calls_that_outlast_their_override() -> None:
    """C21: nothing is left running that the store does not know."""
    other = ScriptedBackend(MemoryBackend())
    store = module_store(MemoryBackend(), lease=3, clock=epoch_seconds)

    async def call(seconds: float) -> None:
        async with store.execute(seconds) as execution:
            await pass_time(seconds)
            execution.complete("done")

    with store.override(backend=other):
        calls = [asyncio.ensure_future(call(seconds)) for seconds in (2, 30)]
        await pass_time(1.5)
    await store.aclose(drain=1)
    sent = len(other.operations)
    with pytest.raises(LeaseLostError):
        await calls[1]
    await calls[0]
    assert len(other.operations) <= sent + 1  # the release of the lost one
    with store.override(backend=MemoryBackend()):
        pass
    assert store._in_use.left == ()


def test_a_call_that_a_closed_loop_left_behind_is_forgotten_with_its_override() -> None:
    """C21: nothing would ever end it."""
    store = module_store()

    async def call() -> None:
        async with store.execute("key", heartbeat=False):
            await asyncio.Event().wait()

    coroutine = call()

    async def begin() -> None:
        while coroutine.send(None) is None:  # until it waits for its event
            pass

    with store.override(backend=MemoryBackend()):
        asyncio.run(begin())
    assert store._in_use.left == ()
    coroutine.close()


class Batching:
    """A backend in memory that takes batches, and counts them."""

    time_limit = 10.0

    def __init__(self) -> None:
        self.inner = MemoryBackend()
        self.batches: list[int] = []
        self.closed = False

    async def execute(self, operation: Operation) -> Reply:
        return await self.inner.execute(operation)

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        self.batches.append(len(operations))
        return [await self.inner.execute(operation) for operation in operations]

    async def create_table(self, table: Table) -> None: ...

    async def aclose(self) -> None:
        self.closed = True


async def test_a_store_with_group_commit_batches_on_a_backend_that_takes_batches() -> None:
    """C21: and sends each operation alone to a backend that takes none."""
    own, other = Batching(), Batching()
    store = AsyncIdempotencyStore("orders", backend=own, group_commit=GroupCommit())
    with store.override(backend=other):
        await asyncio.gather(*(store.run(key, answer) for key in range(50)))
        await store.aclose()
    assert max(other.batches) > 1
    assert not other.closed
    with store.override(backend=MemoryBackend()):
        await asyncio.gather(*(store.run(key, answer) for key in range(50)))
    assert not own.batches
    with store.override(clock=FakeClock()):
        await asyncio.gather(*(store.run(key, answer) for key in range(50)))
    assert own.batches


async def test_a_call_from_inside_a_call_outside_is_another_call() -> None:
    """C23: the key is free on the override's backend."""
    store = module_store(MemoryBackend())
    async with store.execute("key") as outer:
        with store.override(backend=MemoryBackend()):
            async with store.execute("key") as inner:
                assert Execution.current() is inner
        assert Execution.current() is outer


async def test_claims_made_together_are_given_back_where_they_were_made() -> None:
    """C21: an override that begins under `claim_many` changes nothing for it."""
    own, other = ScriptedBackend(MemoryBackend()), ScriptedBackend(MemoryBackend())
    store = module_store(own)
    override = store.override(backend=other)

    def third(operation: Operation) -> Any:
        if isinstance(operation, Put) and own.count(Put) == 3:
            override.__enter__()
            return Down()
        return None

    own.rule = third
    with pytest.raises(StoreError):
        await store.claim_many(range(5), limit=1)
    assert not other.operations
    override.__exit__(None, None, None)
    assert await store.get_many(range(5)) == [None] * 5


class Overriding(RuleBasedStateMachine):
    """Overrides entered and left in any order, with calls between: a list of the living ones is the model."""

    living = Bundle("living")

    @initialize()
    def begin(self) -> None:
        self.own = MemoryBackend()
        self.store = module_store(self.own, clock=FakeClock(1))
        self.stack: list[tuple[AbstractContextManager[AsyncIdempotencyStore] | None, Backend, float]] = [
            (None, self.own, 1)
        ]
        self.calls = 0

    @rule(target=living, other_backend=st.booleans(), clock=st.none() | st.integers(2, 99))
    def enter(self, other_backend: bool, clock: int | None) -> Any:
        backend = MemoryBackend() if other_backend else None
        override = self.store.override(backend=backend, clock=None if clock is None else FakeClock(clock))
        assert override.__enter__() is self.store
        _, outer_backend, outer_clock = self.stack[-1]
        self.stack.append((override, backend or outer_backend, outer_clock if clock is None else clock))
        return override

    @rule(override=consumes(living))
    def leave(self, override: AbstractContextManager[AsyncIdempotencyStore]) -> None:
        place = [each for each, _, _ in self.stack].index(override)
        if place == len(self.stack) - 1:
            override.__exit__(None, None, None)
        else:
            with pytest.raises(RuntimeError):
                override.__exit__(None, None, None)
        del self.stack[place]

    @rule()
    def call(self) -> None:
        self.calls += 1
        asyncio.run(self._call(f"call-{self.calls}"))

    async def _call(self, key: str) -> None:
        _, backend, clock = self.stack[-1]
        async with self.store.execute(key, heartbeat=False) as execution:
            assert execution.lease is not None
            assert execution.lease.expires_at == clock + execution.lease.duration
        for each in {id(each): each for _, each, _ in self.stack}.values():
            alone = AsyncIdempotencyStore("orders", backend=each, clock=FakeClock(clock))
            assert (await alone.get(key) is not None) == (each is backend)

    @invariant()
    def the_innermost_counts(self) -> None:
        parts = self.store._parts
        assert parts.backend is self.stack[-1][1]
        assert parts.settings.clock() == self.stack[-1][2]


Overriding.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestOverriding = Overriding.TestCase
