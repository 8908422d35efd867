"""Keys of several locations: one owner at a time and one result, whichever location a call begins with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Protocol

import pytest
from aiobotocore.session import AioSession

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    CustomPartition,
    HashBuckets,
    InProgress,
    LeaseLostError,
    RandomBuckets,
    Replay,
    Reshard,
    Static,
    TimeBuckets,
)
from aioidempotency.partitioning import Partitioning
from aioidempotency.testing import FakeClock
from tests.behaviours.conftest import behind_proxy
from tests.behaviours.contender import patient_backend
from tests.conftest import stores
from tests.support.engines import Engine

CROWD = {"memory": 200, "ministack": 200, "moto": 60, "batched": 60, "own_endpoint": 200}
"""How many contend; moto takes transactions one after the other, and so does a client of the usual patience."""

WINDOW, RETENTION, LEASE, SKEW = 60, 300, 60, 1
WINDOWS = TimeBuckets(WINDOW, buckets=2)

OLD, NEW = Static("all"), HashBuckets(32)
PHASES: tuple[Partitioning, ...] = (OLD, Reshard(OLD, NEW, "prepare"), Reshard(OLD, NEW, "cutover"), NEW)
NEIGHBOURS = [(one, other) for one in range(4) for other in range(4) if abs(one - other) == 1]


def either(key: str) -> list[str]:
    return ["left", "right"]


def left_or_right(key: str) -> str:
    return "left" if key[-1] in "01234567" else "right"


STRATEGIES: dict[str, Partitioning] = {
    "static": OLD,
    "hash": NEW,
    "time": WINDOWS,
    "random": RandomBuckets(16, choices=3),
    "custom": CustomPartition(left_or_right, elsewhere=either),
    "prepare": PHASES[1],
    "cutover": PHASES[2],
}


in_transactions = pytest.mark.backends("memory", "moto", "ministack")
"""Each engine decides in its own way between transactions that meet; statements are no part of them."""


class MakePlaced(Protocol):
    """Makes a store with a strategy, and a clock if it is to have one; all stores share the test's table."""

    def __call__(self, strategy: Partitioning, clock: FakeClock) -> AsyncIdempotencyStore: ...


@pytest.fixture
async def placed(backend_options: dict[str, Any]) -> AsyncIterator[MakePlaced]:
    """On every backend: stores by strategy, which wait for an engine as long as a crowd needs."""
    patient = None if "backend" in backend_options else patient_backend(backend_options["endpoint_url"])
    options = backend_options if patient is None else {"backend": patient}
    shared = {"verify_layout": False, "retention": RETENTION, "lease": LEASE, "clock_skew": SKEW}
    async with stores({**options, **shared, "layout": CompositeKey()}) as make:
        yield lambda strategy, clock: make(layout=CompositeKey(partitioning=strategy), clock=clock)
    if patient is not None:
        await patient.aclose()


@pytest.fixture
def crowd(request: pytest.FixtureRequest) -> int:
    """How many contend on this backend."""
    return CROWD[request.node.callspec.params["backend_options"]]


async def one_wins(contenders: list[AsyncIdempotencyStore]) -> None:
    """All claim one key at once: one owns it, and the others hear of that one."""
    decisions = await asyncio.gather(*(store.claim("k") for store in contenders))
    (lease,) = [decision.lease for decision in decisions if isinstance(decision, Claimed)]
    failures = [decision for decision in decisions if isinstance(decision, InProgress)]
    assert len(failures) == len(contenders) - 1
    assert {refusal.record.owner for refusal in failures} == {lease.owner}


async def owned(store: AsyncIdempotencyStore, key: str = "k") -> Claimed:
    decision = await store.claim(key)
    assert isinstance(decision, Claimed)
    return decision


async def finish(store: AsyncIdempotencyStore, key: str, result: str) -> None:
    await store.complete((await owned(store, key)).lease, result)


async def replays(store: AsyncIdempotencyStore, key: str, result: str) -> bool:
    decision = await store.claim(key)
    return isinstance(decision, Replay) and decision.record.result == result


@in_transactions
@in_transactions
@in_transactions
@pytest.mark.parametrize("name", STRATEGIES)
async def test_of_a_crowd_of_claims_one_wins(name: str, placed: MakePlaced, crowd: int) -> None:
    """P2: concurrent claims on stores of their own, in whatever location each would put its record."""
    await one_wins([placed(STRATEGIES[name], FakeClock()) for _ in range(crowd)])


async def test_of_a_crowd_at_different_instants_one_wins(placed: MakePlaced, crowd: int) -> None:
    """P2: with random buckets, an instant draws the home: each of these begins with another one."""
    clocks = [FakeClock() for _ in range(crowd)]
    for number, clock in enumerate(clocks):
        clock.advance(number / crowd * SKEW)
    await one_wins([placed(STRATEGIES["random"], clock) for clock in clocks])


async def test_on_both_sides_of_a_window_boundary_one_wins(placed: MakePlaced, crowd: int) -> None:
    """P2: half of the clocks have turned to the next window, the others will in a quarter of a second."""
    before, after = FakeClock(), FakeClock()
    before.advance(-0.25)
    after.advance(0.25)
    assert WINDOWS.home("k", before()) != WINDOWS.home("k", after())
    await one_wins([placed(WINDOWS, (before, after)[number % 2]) for number in range(crowd)])


@in_transactions
@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (2, 3)])
async def test_between_neighbouring_phases_one_wins(one: int, other: int, placed: MakePlaced, crowd: int) -> None:
    """P4: while a phase is being deployed, nodes of two phases contend."""
    phases = PHASES[one], PHASES[other]
    await one_wins([placed(phases[number % 2], FakeClock()) for number in range(crowd)])


@pytest.mark.parametrize("name", STRATEGIES)
async def test_a_result_is_found_until_it_expires(name: str, placed: MakePlaced) -> None:
    """P2: from every window, or with every draw, in which a later call may begin; and not after that."""
    clock = FakeClock()
    store = placed(STRATEGIES[name], clock)
    clock.advance(WINDOW / 2)
    await finish(store, "k", "first")
    for _ in range(20):
        assert await replays(store, "k", "first")
        clock.advance(RETENTION / 20)
    assert await replays(store, "k", "first")
    clock.advance(1)
    await owned(store)


@pytest.mark.parametrize(("one", "other"), NEIGHBOURS)
async def test_a_result_is_found_by_the_neighbouring_phases(one: int, other: int, placed: MakePlaced) -> None:
    """P4: nodes of the next phase, and of the one before, find what a node has finished."""
    clock = FakeClock()
    for number in range(8):
        await finish(placed(PHASES[one], clock), f"k{number}", "first")
        assert await replays(placed(PHASES[other], clock), f"k{number}", "first")


async def fenced_off(owner: AsyncIdempotencyStore, successor: AsyncIdempotencyStore, clock: FakeClock) -> None:
    """A killed owner's key is taken over, and what the owner sends after all changes nothing."""
    old = (await owned(owner)).lease
    clock.advance(LEASE + SKEW + 1)
    new = (await owned(successor)).lease
    assert new.fencing_token > old.fencing_token
    with pytest.raises(LeaseLostError):
        await owner.complete(old, "old")
    with pytest.raises(LeaseLostError):
        await owner.renew(old)
    with suppress(LeaseLostError):  # where its record has moved, there is nothing to give back
        await owner.release(old)
    await successor.complete(new, "new")
    with pytest.raises(LeaseLostError):
        await owner.complete(old, "old")
    assert await replays(owner, "k", "new")
    assert await replays(successor, "k", "new")


@pytest.mark.parametrize("name", STRATEGIES)
async def test_an_owner_whose_key_was_taken_over_is_fenced_off(name: str, placed: MakePlaced) -> None:
    """O4, P2: also where its record was in another window or bucket, from which it is deleted."""
    clock = FakeClock()
    await fenced_off(placed(STRATEGIES[name], clock), placed(STRATEGIES[name], clock), clock)


@pytest.mark.parametrize(("one", "other"), NEIGHBOURS)
async def test_an_owner_is_fenced_off_by_a_neighbouring_phase(one: int, other: int, placed: MakePlaced) -> None:
    """O4, P4: its record is moved by whoever takes it over."""
    clock = FakeClock()
    await fenced_off(placed(PHASES[one], clock), placed(PHASES[other], clock), clock)


async def test_a_claim_over_one_place_is_one_put(engine: Engine, session: AioSession) -> None:
    """P7: so is a duplicate; the layout is read once for each store, before its first claim."""
    async with behind_proxy(engine, session, layout=CompositeKey(partitioning=HashBuckets(4))) as proxied:
        start, store = len(proxied.proxy.requests), proxied.make_store()
        for key in "first", "second", "first":
            await store.claim(key)
        sent = [seen.operation for seen in proxied.since(start)]
    assert sent == ["GetItem", "PutItem", "PutItem", "PutItem"]


@in_transactions
@pytest.mark.parametrize(
    ("strategy", "locations"),
    [(RandomBuckets(16, choices=3), 3), (PHASES[1], 2), (TimeBuckets(3600, retention=7200), 3)],
)
async def test_a_claim_over_places_is_one_transaction(
    engine: Engine, session: AioSession, strategy: Partitioning, locations: int
) -> None:
    """P7: with as many actions as there are locations, and no read; so is a duplicate."""
    clock = FakeClock()
    clock.advance(1800)
    async with behind_proxy(engine, session, layout=CompositeKey(partitioning=strategy), clock=clock) as proxied:
        start, store = len(proxied.proxy.requests), proxied.make_store()
        lease = (await owned(store)).lease
        assert isinstance(await store.claim("k"), InProgress)
        await store.complete(lease, "done")
        assert await replays(store, "k", "done")
        sent = proxied.since(start)
    names = ["GetItem", "TransactWriteItems", "TransactWriteItems", "UpdateItem", "TransactWriteItems"]
    assert [seen.operation for seen in sent] == names
    assert {len(seen.body["TransactItems"]) for seen in sent if seen.operation == names[1]} == {locations}
