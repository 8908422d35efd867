"""Who holds a record, and what a former holder can still do to it: nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    Claimed,
    InProgress,
    Lease,
    LeaseLostError,
    Replay,
    Status,
    idempotent,
)
from aioidempotency._core.conditions import Unchanged
from aioidempotency._core.operations import Applied, Delete, Found, Get
from aioidempotency.testing import FakeClock
from tests.conftest import MakeStore

DAY = 86_400

ACTIONS: dict[str, Callable[[AsyncIdempotencyStore, Lease], Awaitable[object]]] = {
    "complete": lambda store, lease: store.complete(lease, "ours"),
    "renew": lambda store, lease: store.renew(lease),
    "release": lambda store, lease: store.release(lease),
}


async def claimed(store: AsyncIdempotencyStore, key: str = "k", **options: Any) -> Lease:
    """Claim a key that is free."""
    decision = await store.claim(key, **options)
    assert isinstance(decision, Claimed)
    return decision.lease


async def delete(backend: Backend, lease: Lease) -> None:
    """Delete a lease's record, as the table's TTL does."""
    found = await backend.execute(Get(lease.location))
    assert isinstance(found, Found)
    assert found.item is not None
    assert await backend.execute(Delete(lease.location, Unchanged(found.item))) == Applied()


async def taken_over(make_store: MakeStore) -> tuple[AsyncIdempotencyStore, FakeClock, Lease, Lease]:
    """Let a lease lapse, and another owner take the record over: store, clock, stale lease, new lease."""
    clock = FakeClock()
    store = make_store(clock=clock)
    stale = await claimed(store)
    clock.advance(62)
    return store, clock, stale, await claimed(make_store(clock=clock))


async def test_a_lease_protects_until_it_is_over_by_the_clock_skew(make_store: MakeStore) -> None:
    """O4: nobody takes over before the lease's end and the allowed difference of clocks."""
    clock = FakeClock()
    store = make_store(clock=clock, lease=60, clock_skew=1.0)
    first = await claimed(store)
    for seconds, remaining in ((0, 61), (60, 1), (0.999, 0.001)):
        clock.advance(seconds)
        decision = await store.claim("k")
        assert isinstance(decision, InProgress)
        assert decision.record.owner == first.owner
        assert decision.retry_after == pytest.approx(remaining, abs=0.001)
    clock.advance(0.002)
    assert (await claimed(store)).owner != first.owner


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", ["running", "finished"])
async def test_a_stale_owner_changes_nothing(make_store: MakeStore, action: str, state: str) -> None:
    """O4: after a take-over, completion, renewal and release of the former owner are refused and change nothing."""
    store, _, stale, current = await taken_over(make_store)
    if state == "finished":
        await store.complete(current, "theirs")
    before = await store.get("k")
    assert before is not None
    with pytest.raises(LeaseLostError) as raised:
        await ACTIONS[action](store, stale)
    assert raised.value.record is not None
    assert (raised.value.record.owner, raised.value.key) == (current.owner, stale.key)
    assert await store.get("k") == before
    if state == "running":
        assert (await store.complete(current, "theirs")).result == "theirs"


async def test_a_stale_body_is_told_and_the_new_owners_result_stays(make_store: MakeStore) -> None:
    """O4: a decorated call whose record was taken over raises `LeaseLostError`; replays answer with the other result."""
    clock = FakeClock()
    store, other = make_store(clock=clock), make_store(clock=clock)
    bodies = []

    @idempotent(store, key="order_id", namespace="charge", heartbeat=False)
    async def charge(order_id: str) -> str:
        bodies.append("stale")
        clock.advance(62)
        async with other.execute(order_id, namespace="charge") as execution:
            assert not execution.replayed
            execution.complete("theirs")
        return "ours"

    with pytest.raises(LeaseLostError):
        await charge("o-1")
    assert await charge("o-1") == "theirs"
    assert bodies == ["stale"]


async def test_a_stale_body_that_fails_does_not_free_the_key(make_store: MakeStore) -> None:
    """O4: the error of a stale body passes on, and the record of the new owner stays."""
    clock = FakeClock()
    store, other = make_store(clock=clock), make_store(clock=clock)
    with pytest.raises(KeyError):
        async with store.execute("k", heartbeat=False):
            clock.advance(62)
            current = await claimed(other)
            raise KeyError
    record = await store.get("k")
    assert record is not None
    assert (record.status, record.owner) == (Status.INPROGRESS, current.owner)


async def test_an_owner_that_was_late_but_not_replaced_completes(make_store: MakeStore) -> None:
    """O4: a lease that is over, and was taken by nobody, is still good to complete with."""
    clock = FakeClock()
    store = make_store(clock=clock)
    late = await claimed(store)
    clock.advance(62)
    assert (await store.complete(late, "late")).result == "late"
    assert isinstance(await store.claim("k"), Replay)


async def test_a_finished_record_is_not_completed_again(make_store: MakeStore) -> None:
    """O4: a second completion by the owner keeps the first result; renewal is refused, release leaves it."""
    store = make_store()
    lease = await claimed(store)
    await store.complete(lease, "first")
    assert (await store.complete(lease, "second")).result == "first"
    with pytest.raises(LeaseLostError):
        await store.renew(lease)
    await store.release(lease)
    record = await store.get("k")
    assert record is not None
    assert (record.status, record.result) == (Status.COMPLETED, "first")


async def test_the_fencing_token_grows_with_every_claim(make_store: MakeStore, backend: Backend) -> None:
    """O13: over take-over, expiry, deletion by TTL and release, each claim has a larger token than all before."""
    clock = FakeClock()
    store = make_store(clock=clock, lease=60, retention=600)
    leases = [await claimed(store)]

    clock.advance(62)
    leases.append(await claimed(store))  # taken over

    await store.complete(leases[-1], "done")
    clock.advance(601)
    leases.append(await claimed(store))  # finished and expired, still stored

    await store.complete(leases[-1], "done")
    clock.advance(2 * DAY)
    await delete(backend, leases[-1])
    assert await store.get("k") is None
    leases.append(await claimed(store))  # deleted by the table's TTL

    await store.release(leases[-1])
    clock.advance(0.001)
    leases.append(await claimed(store))  # released

    tokens = [lease.fencing_token for lease in leases]
    assert tokens == sorted(set(tokens))
    record = await store.get("k")
    assert record is not None
    assert record.fencing_token == tokens[-1]
