"""Pauses between tries: they grow, differ, and end."""

import asyncio

import pytest

from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PerLoop
from tests.support.virtual_time import in_virtual_time


def test_pauses_double_up_to_their_bound_and_differ() -> None:
    """Each is shortened by half at the most, at random: so callers that failed together do not come again together."""
    drawn = []
    for _ in range(50):
        backoff = Backoff(1.0, 4.0)
        pauses = [backoff.next(0.0) for _ in range(4)]
        assert all(
            pause is not None and full / 2 <= pause <= full
            for pause, full in zip(pauses, (1.0, 2.0, 4.0, 4.0), strict=True)
        )
        drawn.append(pauses[0])
    assert len(set(drawn)) > 40


def test_no_pause_passes_the_end() -> None:
    """A try that would come after the lease's end is not waited for."""
    assert Backoff(1.0, 1.0, until=0.4).next(0.0) is None
    assert Backoff(1.0, 1.0, until=10.0).next(9.6) is None
    assert Backoff(1.0, 1.0, until=10.0).next(8.0) is not None


def test_tries_are_counted() -> None:
    """The last one is the last one."""
    backoff = Backoff(1.0, 1.0, tries=2)
    assert [backoff.next(0.0) is None for _ in range(4)] == [False, False, True, True]


@in_virtual_time
async def test_a_pause_is_no_longer_than_it_may_be() -> None:
    """A waiting duplicate's pause ends with its patience."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await Backoff(100.0, 100.0).pause(at_most=3.0)
    assert loop.time() - began == pytest.approx(3.0)
    assert not await Backoff(1.0, 1.0, until=loop.time()).pause()


def test_what_belongs_to_a_loop_is_kept_by_loop() -> None:
    """O19: each loop has its own, and what a closed one has left is dropped when a new one comes."""
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    kept = PerLoop(make)
    loops = [asyncio.new_event_loop() for _ in range(3)]
    assert [kept[loop] for loop in loops] == made
    assert kept[loops[0]] is made[0]
    for loop in loops[:2]:
        loop.close()
    last = asyncio.new_event_loop()
    assert kept[last] is made[3]
    assert set(kept) == {loops[2], last}
    for loop in (loops[2], last):
        loop.close()
