"""The table says how its records lie, and a store that would look elsewhere does not open."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest
from aiobotocore.session import AioSession

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    Claimed,
    CompositeKey,
    ConfigurationError,
    CustomPartition,
    HashBuckets,
    LayoutMismatchError,
    MemoryBackend,
    Replay,
    Reshard,
    SimpleKey,
    Static,
    StoreError,
    TimeBuckets,
    deadline,
    idempotent,
)
from aioidempotency._core.operations import Delete, Get, Operation, Put, Transact
from aioidempotency.partitioning import Partitioning
from aioidempotency.testing import FakeClock
from tests.behaviours.conftest import Counted, behind_proxy
from tests.conftest import MakeStore, stores
from tests.support.engines import Engine
from tests.support.proxy import Fault
from tests.support.scripted import Down, ScriptedBackend


def by(partitioning: Partitioning) -> dict[str, Any]:
    return {"layout": CompositeKey(partitioning=partitioning)}


async def test_another_number_of_buckets_is_refused(backend_options: dict[str, Any]) -> None:
    """P5: by the first call of any kind, which names both layouts and the way from one to the other."""
    async with stores({**backend_options, **by(HashBuckets(32))}) as make:
        other = make(**by(HashBuckets(64)))
        for call in (other.claim("k"), other.get("k"), other.claim_many(["k"]), other.run("k", nothing)):
            with pytest.raises(LayoutMismatchError, match=r"n=32.*n=64.*Reshard"):
                await call
        with pytest.raises(LayoutMismatchError):
            async with other.execute("k"):
                pytest.fail("it ran")
        assert await make().get("k") is None
        assert isinstance(await make().claim("k"), Claimed)


async def test_create_table_refuses_another_layout(backend_options: dict[str, Any]) -> None:
    """P5: a deployment finds out before any call does."""
    async with stores({**backend_options, **by(HashBuckets(32))}) as make:
        with pytest.raises(LayoutMismatchError):
            await make(**by(Static("idempotency"))).create_table()
        await make().create_table()


async def test_a_namespace_has_a_layout_of_its_own(backend_options: dict[str, Any]) -> None:
    """Two functions of Powertools share one table under two partition values; their keys never meet."""
    async with stores({**backend_options, **by(HashBuckets(32))}) as make:
        first, second = (make(namespace=name, **by(Static(f"idempotency#{name}"))) for name in ("one", "two"))
        assert isinstance(await first.claim("k"), Claimed)
        assert isinstance(await second.claim("k"), Claimed)
        with pytest.raises(LayoutMismatchError):
            await make(namespace="one", **by(HashBuckets(32))).claim("k")


async def test_functions_with_a_partition_value_each_share_a_table(backend_options: dict[str, Any]) -> None:
    """P9: as Powertools lays records, in one namespace; buckets beside them are refused."""
    async with stores({**backend_options, **by(Static("idempotency#fn-a"))}) as make:
        one, other = make(), make(**by(Static("idempotency#fn-b")))
        for store in (one, other, make(), make(**by(Static("idempotency#fn-b")))):
            await store.verify_layout()
        assert isinstance(await one.claim("order-1"), Claimed)
        assert isinstance(await other.claim("order-1"), Claimed)
        for refused in (HashBuckets(32), Reshard(Static("idempotency#fn-b"), HashBuckets(32), "prepare")):
            with pytest.raises(LayoutMismatchError):
                await make(**by(refused)).claim("order-1")


async def test_a_static_value_beside_buckets_is_refused(backend_options: dict[str, Any]) -> None:
    """P5, P9: the other way round."""
    async with stores({**backend_options, **by(HashBuckets(32))}) as make:
        await make().verify_layout()
        with pytest.raises(LayoutMismatchError):
            await make(**by(Static("idempotency#fn-a"))).claim("order-1")


async def test_who_does_not_want_to_know_is_not_told(backend_options: dict[str, Any]) -> None:
    """`verify_layout=False` looks away; asking by name still tells."""
    async with stores({**backend_options, **by(HashBuckets(32))}) as make:
        other = make(verify_layout=False, **by(HashBuckets(64)))
        assert isinstance(await other.claim("k"), Claimed)
        with pytest.raises(LayoutMismatchError):
            await other.verify_layout()


async def test_the_layout_is_read_once(backend: Backend) -> None:
    """However many calls are the first ones; a table that says nothing is told."""
    counting = ScriptedBackend(backend)
    async with stores({"backend": backend, **by(HashBuckets(32))}) as make:
        store = make(backend=counting)
        await asyncio.gather(*(store.claim(number) for number in range(20)))
        await store.claim("one more")
    assert (counting.count(Get), counting.count(Put)) == (1, 21)


async def test_a_table_that_says_nothing_is_told(make_store: MakeStore) -> None:
    """One that was made by other means: the first store says how its records lie."""
    first, second = (make_store(layout=SimpleKey(partitioning=CustomPartition(each))) for each in (as_it_is, prefixed))
    await first.claim("k")
    with pytest.raises(LayoutMismatchError, match=r"test_layouts\.as_it_is.*test_layouts\.prefixed"):
        await second.claim("k")


async def test_a_simple_key_has_nothing_to_verify(counted: Counted) -> None:
    """DynamoDB spreads such a table: a first call is one put."""
    await counted.store.verify_layout()
    await counted.store.claim("k")
    assert [type(each) for each in counted.operations] == [Put]


def as_it_is(key: str) -> str:
    return key


def prefixed(key: str) -> str:
    return f"tenant#{key}"


async def test_a_store_that_is_down_at_its_opening_opens_later(backend: Backend) -> None:
    """O14: the call fails as any does, or runs unprotected where that is asked for; the next one tries again."""
    scripted = ScriptedBackend(backend)
    async with stores({"backend": backend, **by(HashBuckets(32))}) as make:
        store, open_store = make(backend=scripted), make(backend=scripted, fail_open=True)
        scripted.rule = lambda operation: Down() if is_layout(operation) else None
        with pytest.raises(StoreError):
            await store.claim("k")
        assert await open_store.run("k", nothing) == "ran"
        assert open_store.failed_open == 1
        scripted.rule = lambda _: None
        assert isinstance(await store.claim("k"), Claimed)


async def nothing() -> str:
    return "ran"


def is_layout(operation: Operation) -> bool:
    return operation.location.partition == "aioidempotency#layout"


async def test_a_wrong_layout_does_not_fail_open(backend_options: dict[str, Any]) -> None:
    """It is a setting, which waiting does not mend."""
    async with stores({**backend_options, **by(HashBuckets(32))}) as make:
        other = make(fail_open=True, **by(HashBuckets(64)))
        with pytest.raises(LayoutMismatchError):
            await other.run("k", nothing)
        assert other.failed_open == 0


async def test_a_move_opens_phase_by_phase(backend_options: dict[str, Any]) -> None:
    """P4: each phase moves the table on; `new` waits for a retention, and the error says until when."""
    old, new, clock = Static("idempotency#handler"), HashBuckets(8), FakeClock()
    async with stores({**backend_options, "clock": clock, "retention": 600, **by(old)}) as make:
        lease = await claimed(make(), "k")
        await make().complete(lease, "first")
        assert await replayed(make(**by(Reshard(old, new, "prepare"))), "k") == "first"
        assert await replayed(make(**by(Reshard(old, new, "cutover"))), "k") == "first"
        with pytest.raises(LayoutMismatchError, match="cutover"):
            await make().claim("k")
        lease = await claimed(make(**by(Reshard(old, new, "cutover"))), "l")
        await make(**by(Reshard(old, new, "prepare"))).complete(lease, "second")
        with pytest.raises(LayoutMismatchError, match="until the epoch second"):
            await make(**by(new)).claim("l")
        clock.advance(600)
        assert await replayed(make(**by(new)), "l") == "second"


MOVE = (Static("idempotency#handler"), HashBuckets(8))
PREPARE, CUTOVER = Reshard(*MOVE, "prepare"), Reshard(*MOVE, "cutover")
DAY = 86_400


async def decorated(store: AsyncIdempotencyStore) -> None:
    @idempotent(store, key="order", retention=DAY, namespace="")
    async def charge(order: str) -> str:
        return "first"

    await charge("k")


async def executed(store: AsyncIdempotencyStore) -> None:
    async with store.execute("k", retention=DAY) as execution:
        execution.complete("first")


async def by_hand(store: AsyncIdempotencyStore) -> None:
    decision = await store.claim("k", retention=DAY)
    assert isinstance(decision, Claimed)
    await store.complete(decision.lease, "first")


async def committed(store: AsyncIdempotencyStore) -> None:
    await store.commit_once("k", "first", [], retention=DAY)


@pytest.mark.parametrize("call", [decorated, executed, by_hand, committed])
async def test_a_call_kept_longer_than_its_store_says_is_not_run_again_after_a_move(
    call: Callable[[AsyncIdempotencyStore], Awaitable[None]], backend: Backend
) -> None:
    """P8: `new` waits for the longest retention of a call, and not for that of its own store."""
    clock = FakeClock()
    async with stores({"backend": backend, "clock": clock, **by(MOVE[0])}) as make:
        old = make()
        await old.claim("opens the table")
        await call(old)
        for phase in (PREPARE, CUTOVER):
            assert await replayed(make(**by(phase)), "k") == "first"
        clock.advance(DAY - 1)
        assert await replayed(make(**by(CUTOVER)), "k") == "first"
        with pytest.raises(LayoutMismatchError, match=f"until the epoch second {clock() + 1:.0f}"):
            await make(**by(MOVE[1])).claim("k")
        clock.advance(2)
        assert isinstance(await make(**by(MOVE[1])).claim("k"), Claimed)


@pytest.mark.parametrize("longest", [MOVE[0], PREPARE])
async def test_a_deployment_with_a_shorter_retention_waits_for_the_longer_one_before(
    longest: Partitioning, backend_options: dict[str, Any]
) -> None:
    """P8: what was promised stays promised, whoever opens the table afterwards."""
    clock = FakeClock()
    async with stores({**backend_options, "clock": clock, "retention": 60, **by(MOVE[0])}) as make:
        store = make(retention=DAY, **by(longest))
        lease = await claimed(store, "k")
        await store.complete(lease, "first")
        for phase in (PREPARE, CUTOVER):
            await make(**by(phase)).verify_layout()
        clock.advance(3600)
        with pytest.raises(LayoutMismatchError, match="keep the phase before until then"):
            await make(**by(MOVE[1])).claim("k")
        assert await replayed(make(**by(CUTOVER)), "k") == "first"
        clock.advance(DAY - 3600)
        await make(**by(MOVE[1])).verify_layout()


@pytest.mark.parametrize("limit", ["lease", "deadline"])
async def test_a_key_that_is_held_for_longer_than_the_retention_is_held_through_a_move(
    limit: str, backend: Backend
) -> None:
    """P8, O9: a killed call keeps its key until its lease is over, and a lease may outlast the retention."""
    clock = FakeClock()
    async with stores({"backend": backend, "clock": clock, "retention": 60, **by(MOVE[0])}) as make:
        with deadline(900) if limit == "deadline" else nullcontext():
            lease = await claimed(make(), "k", lease=900 if limit == "lease" else None)
        for phase in (PREPARE, CUTOVER):
            await make(**by(phase)).verify_layout()
        clock.advance(lease.expires_at - clock())
        with pytest.raises(LayoutMismatchError):
            await make(**by(MOVE[1])).claim("k")
        clock.advance(62)
        await claimed(make(**by(MOVE[1])), "k")


async def test_a_promise_costs_one_read_and_one_write_for_the_first_longer_call(backend: Backend) -> None:
    """P8: a call of a retention that the table knows sends nothing more; nor does a decorated one that is the first."""
    counting = ScriptedBackend(backend)

    def about_layout() -> list[type[Operation]]:
        return [type(each) for each in counting.operations if is_layout(each)]

    async with stores({"backend": backend, "clock": FakeClock(), **by(HashBuckets(32))}) as make:
        store = make(backend=counting)
        await store.claim("a")
        assert about_layout() == [Get]
        await asyncio.gather(*(store.claim(number, retention=DAY) for number in range(20)))
        assert about_layout() == [Get, Get, Put]
        for retention in (None, 60, 3600, DAY - 59, DAY):
            await store.claim(f"r{retention}", retention=retention)
        assert about_layout() == [Get, Get, Put]
        counting.operations.clear()
        await decorated(make(backend=counting))
        assert about_layout() == [Get]


async def test_a_process_left_behind_by_a_move_is_refused_before_it_promises_more(backend: Backend) -> None:
    """P8: the table cannot be told any more, so nothing is claimed where nobody looks."""
    clock = FakeClock()
    async with stores({"backend": backend, "clock": clock, "retention": 600, **by(MOVE[0])}) as make:
        left_behind = make(**by(PREPARE))
        await left_behind.claim("a")
        await make(**by(CUTOVER)).verify_layout()
        clock.advance(600)
        await make(**by(MOVE[1])).verify_layout()
        with pytest.raises(LayoutMismatchError):
            await left_behind.claim("b", retention=601)


async def test_a_promise_that_cannot_be_written_is_no_promise(backend: Backend) -> None:
    """P8: the call does not run, and the next one tries again."""
    scripted = ScriptedBackend(backend)
    async with stores({"backend": backend, **by(HashBuckets(32))}) as make:
        store = make(backend=scripted)
        await store.claim("a")
        scripted.rule = lambda operation: Down() if is_layout(operation) and isinstance(operation, Put) else None
        for retention in (DAY, None):
            with pytest.raises(StoreError):
                await store.claim("b", retention=retention)
        scripted.rule = lambda _: None
        assert isinstance(await store.claim("b", retention=DAY), Claimed)


async def test_owners_do_not_wait_for_the_layout(backend: Backend) -> None:
    """P8: after a longer promise that cannot be written, running owners renew, complete, and give back all the same."""
    scripted = ScriptedBackend(backend)
    async with stores({"backend": backend, **by(HashBuckets(32))}) as make:
        store = make(backend=scripted)
        renewed, completed, released = [await claimed(store, key) for key in "abc"]
        scripted.rule = lambda operation: Down() if is_layout(operation) else None
        with pytest.raises(StoreError):
            await store.claim("d", retention=DAY)
        await store.renew(renewed)
        await store.complete(completed, "done")
        await store.release(released)


async def test_who_does_not_verify_promises_nothing(backend: Backend) -> None:
    """P8: a store with `verify_layout=False` neither reads nor writes the item; asked by name, it tells all that it knows."""
    counting = ScriptedBackend(backend)
    async with stores({"backend": backend, **by(HashBuckets(32))}) as make:
        store = make(backend=counting, verify_layout=False)
        await store.claim("a", retention=DAY)
        assert not any(is_layout(each) for each in counting.operations)
        await store.verify_layout()
        assert [type(each) for each in counting.operations if is_layout(each)] == [Get, Put]


async def claimed(store: AsyncIdempotencyStore, key: str, **options: Any) -> Any:
    decision = await store.claim(key, **options)
    assert isinstance(decision, Claimed)
    return decision.lease


async def replayed(store: AsyncIdempotencyStore, key: str) -> object:
    decision = await store.claim(key)
    assert isinstance(decision, Replay)
    return decision.result


async def test_without_permission_to_read_it_the_layout_cannot_be_verified(
    ministack: Engine, session: AioSession
) -> None:
    """The error names the permission."""
    async with behind_proxy(ministack, session, **by(HashBuckets(32))) as proxied:
        proxied.proxy.inject(Fault.DENY, operation="GetItem", times=1)
        with pytest.raises(ConfigurationError, match="dynamodb:GetItem"):
            await proxied.make_store().claim("k")


@pytest.mark.parametrize(
    ("partitioning", "options", "trouble"),
    [
        (TimeBuckets(1), {"clock_skew": 2}, "longer than clock_skew="),
        (TimeBuckets(600), {"retention": 86_400}, "one transaction takes 100"),
        (TimeBuckets(600, retention=600), {"retention": 601}, r"TimeBuckets\(..., retention=...\)"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    partitioning: Partitioning, options: dict[str, Any], trouble: str
) -> None:
    """When the store is made, with the remedy."""
    with pytest.raises(ConfigurationError, match=trouble):
        AsyncIdempotencyStore.in_memory(**by(partitioning), **options)


async def test_a_call_that_wants_to_be_kept_longer_than_windows_look_back_is_refused() -> None:
    """Its record would not be found at its end."""
    store = AsyncIdempotencyStore.in_memory(**by(TimeBuckets(600)), retention=600)
    with pytest.raises(ConfigurationError, match="retention=601 is longer than the store's windows look back, 600 s"):
        await store.claim("k", retention=601)
    assert isinstance(await store.claim("k", retention=600), Claimed)


async def test_a_claim_that_took_too_long_in_changing_places_is_made_again() -> None:
    """P2: between its clock and its answer a window may have begun that it did not look into."""
    clock = FakeClock()

    def slow(operation: Operation) -> None:
        if isinstance(operation, Transact) and scripted.count(Transact) == 1:
            clock.advance(11)

    scripted = ScriptedBackend(MemoryBackend(), slow)
    store = AsyncIdempotencyStore("t", backend=scripted, clock=clock, verify_layout=False, **by(TimeBuckets(600)))
    decision = await store.claim("k")
    assert isinstance(decision, Claimed)
    assert decision.lease.expires_at == clock() + 60, "the second one counts from its own instant"
    assert [type(each) for each in scripted.operations] == [Transact, Delete, Transact]
