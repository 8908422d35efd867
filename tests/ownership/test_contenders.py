"""Many who want one key, with clocks that disagree."""

import asyncio

import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, CompositeKey, InProgress, Mismatch
from aioidempotency.testing import FakeClock
from tests.conftest import MakeStore

pytestmark = pytest.mark.backends()  # each engine decides races in its own way

MINUTES = 60.0


async def lapsed(make_store: MakeStore, clock: FakeClock) -> None:
    """Leave a record whose lease is over by an hour, on every clock that is a few minutes off."""
    await make_store(clock=clock, lease=1, retention=86_400).claim("key", fingerprint="payload")
    clock.advance(3600)


@pytest.mark.parametrize("spread", [0.0, 5 * MINUTES])
async def test_of_fifty_contenders_for_a_lapsed_lease_one_wins(make_store: MakeStore, spread: float) -> None:
    """O7: also with clocks that differ by minutes; the others see it run."""
    clock = FakeClock()
    await lapsed(make_store, clock)
    offsets = [spread * (number - 25) / 25 for number in range(50)]
    shared = [make_store(clock=FakeClock(clock() + offset), lease=20 * MINUTES) for offset in offsets[:8]]
    contenders = [(shared[number % 8], number) for number in range(50)]
    decisions = await asyncio.gather(*(store.claim("key", fingerprint="payload") for store, _ in contenders))
    assert sum(isinstance(decision, Claimed) for decision in decisions) == 1
    assert sum(isinstance(decision, InProgress) for decision in decisions) == 49


async def test_who_lost_the_race_does_not_judge_the_winner_by_a_clock_that_is_hours_ahead(
    make_store: MakeStore,
) -> None:
    """O7: all read the lapsed record first; the winner's lease is over on most clocks as soon as it is written."""
    clock = FakeClock()
    await lapsed(make_store, clock)
    stores = [make_store(clock=FakeClock(clock() + hours * 3600), lease=10, read_first=True) for hours in range(8)]
    gate = asyncio.Barrier(len(stores))

    async def contend(store: AsyncIdempotencyStore) -> object:
        await gate.wait()
        return await store.claim("key")

    first = await asyncio.gather(*(contend(store) for store in stores))
    assert any(isinstance(decision, Claimed) for decision in first)
    tokens = [decision.lease.fencing_token for decision in first if isinstance(decision, Claimed)]
    assert len(set(tokens)) == len(tokens)


async def test_a_lapsed_lease_does_not_free_the_key_for_another_payload(make_store: MakeStore) -> None:
    """O15: the fingerprint of a lapsed record still answers."""
    clock = FakeClock()
    await lapsed(make_store, clock)
    store = make_store(clock=clock)
    assert isinstance(await store.claim("key", fingerprint="another"), Mismatch)
    assert isinstance(await store.claim("key", fingerprint="payload"), Claimed)


async def test_the_contest_is_the_same_in_a_table_with_a_sort_key(make_store: MakeStore) -> None:
    """O7: 32 buckets change where the record lives, not who wins."""
    del make_store
    from aioidempotency import MemoryBackend

    backend = MemoryBackend()
    stores = [AsyncIdempotencyStore("t", backend=backend, layout=CompositeKey()) for _ in range(50)]
    decisions = await asyncio.gather(*(store.claim("key") for store in stores))
    assert sum(isinstance(decision, Claimed) for decision in decisions) == 1
