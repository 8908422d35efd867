"""Owners whose key moves from window to window, and who are paused at the wrong moment."""

import asyncio
from collections.abc import Callable

import anyio
import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    Claimed,
    CompositeKey,
    ConfigurationError,
    InProgress,
    LeaseLostError,
    MemoryBackend,
    TimeBuckets,
)
from aioidempotency._core.operations import Applied, Operation, Reply, Transact, Update
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


class Paused:
    """Pauses before each operation for as long as `seconds` says, given how many of its kind there were."""

    def __init__(self, inner: Backend, kind: type[Operation], seconds: Callable[[int], float]) -> None:
        self.operations: list[Operation] = []
        self._inner, self._kind, self._seconds = inner, kind, seconds

    async def execute(self, operation: Operation) -> Reply:
        if isinstance(operation, self._kind):
            self.operations.append(operation)
            await pass_time(self._seconds(len(self.operations)))
        return await self._inner.execute(operation)


def make_store(backend: Backend, reach: float = 20) -> AsyncIdempotencyStore:
    """Make a store with windows of 15 s, which looks back 20 s."""
    layout = CompositeKey(partitioning=TimeBuckets(15, buckets=1, retention=reach))
    return AsyncIdempotencyStore(
        "table",
        backend=backend,
        layout=layout,
        verify_layout=False,
        lease=10,
        retention=20,
        clock=epoch_seconds,
    )


async def claimed(store: AsyncIdempotencyStore) -> Claimed:
    decision = await store.claim("key")
    assert isinstance(decision, Claimed)
    return decision


@pytest.mark.parametrize("resumes", [40, 30])
@in_virtual_time
async def test_a_completion_that_was_paused_does_not_store_a_second_result(resumes: int) -> None:
    """O4, P2: another call runs in a later window meanwhile, at which the paused owner's instant does not look."""
    table = MemoryBackend()
    paused = Paused(table, Update, lambda _: resumes)
    mine = (await claimed(make_store(paused))).lease
    completing = asyncio.create_task(make_store(paused).complete(mine, "mine"))
    await pass_time(resumes - 5)
    theirs = make_store(table)
    await theirs.complete((await claimed(theirs)).lease, "theirs")
    with pytest.raises(LeaseLostError):
        await completing
    record = await theirs.get("key")
    assert record is not None
    assert record.result == "theirs"


@in_virtual_time
async def test_whoever_runs_meanwhile_keeps_a_late_completion_out() -> None:
    """O4: the key runs again, in a later window."""
    table = MemoryBackend()
    lease = (await claimed(make_store(table))).lease
    await pass_time(60)
    other = (await claimed(make_store(table))).lease
    with pytest.raises(LeaseLostError):
        await make_store(table).complete(lease, "late")
    assert (await make_store(table).complete(other, "theirs")).result == "theirs"


@in_virtual_time
async def test_a_claim_that_was_made_again_leaves_nothing_when_it_is_cancelled() -> None:
    """O5: the first answer came too late to be relied upon, the second one in another window."""
    table = MemoryBackend()
    slow = Paused(table, Transact, lambda nth: 30.0 if nth == 1 else 0.0)
    with anyio.move_on_after(31) as scope:
        async with make_store(slow).execute("key", heartbeat=False):
            await pass_time(60)
    assert scope.cancelled_caught
    assert len(slow.operations) == 2
    assert table._items == {}


@in_virtual_time
async def test_a_claim_that_came_too_late_is_taken_back_where_another_runs() -> None:
    """P2, O11: the late claim stood beside the other one's record, and is gone when its caller is told."""
    table = MemoryBackend()
    late = Paused(table, Transact, lambda nth: 40.0 if nth == 1 else 0.0)
    claiming = asyncio.create_task(make_store(late).claim("key"))
    await pass_time(35)
    other = await claimed(make_store(table))
    refusal = await claiming
    assert isinstance(refusal, InProgress)
    assert refusal.record.owner == other.lease.owner
    assert len(table._items) == 1


@pytest.mark.parametrize("use", ["renew", "complete"])
@in_virtual_time
async def test_a_late_copy_of_a_claim_does_not_bring_back_its_lease(use: str) -> None:
    """O4: taken over in a window at which the claim did not look, so its copy is put beside the new owner's record."""
    first = Paused(MemoryBackend(), Transact, lambda _: 0.0)
    store = make_store(first._inner)
    lease = (await claimed(make_store(first))).lease
    await pass_time(28)
    other = (await claimed(make_store(first._inner))).lease
    assert isinstance(await first._inner.execute(first.operations[0]), Applied)
    with pytest.raises(LeaseLostError):
        await (store.renew(lease) if use == "renew" else store.complete(lease, "stale"))
    assert (await store.complete(other, "theirs")).result == "theirs"


@in_virtual_time
async def test_a_lease_longer_than_claims_look_is_refused() -> None:
    """It would be over before it was asked for: renewed, lost and claimed again for ever."""
    store = make_store(MemoryBackend())
    with pytest.raises(ConfigurationError, match="lease=100 is longer than the store's windows look back"):
        await store.claim("key", lease=100)
    assert isinstance(await make_store(MemoryBackend(), reach=102).claim("key", lease=100), Claimed)


@pytest.mark.parametrize("use", ["renew", "complete"])
@in_virtual_time
async def test_a_lease_that_is_over_is_lost_though_nobody_took_it_over(use: str) -> None:
    """O4: a later window, at which its owner does not look, could hold the one who did. The key runs again."""
    store = make_store(MemoryBackend())
    lease = (await claimed(store)).lease
    await pass_time(10.5)
    with pytest.raises(LeaseLostError):
        await (store.renew(lease) if use == "renew" else store.complete(lease, "late"))
    await pass_time(1)
    assert (await claimed(store)).lease.fencing_token > lease.fencing_token
