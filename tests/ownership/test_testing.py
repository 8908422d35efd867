"""The module that users test with."""

from datetime import timedelta

import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, Replay
from aioidempotency.testing import FakeClock

pytest_plugins = ["pytester"]


def test_a_fake_clock_stands_still_until_it_is_moved() -> None:
    """FakeClock reads what it was set to."""
    clock = FakeClock(100.0)
    assert (clock(), clock()) == (100.0, 100.0)
    clock.advance(1.5)
    clock.advance(timedelta(minutes=1))
    clock.advance(-0.5)
    assert clock() == 161.0
    assert repr(clock) == "FakeClock(161.0)"


async def test_with_a_fake_clock_a_record_expires_when_the_test_says() -> None:
    """A retention of an hour passes in no time."""
    clock = FakeClock()
    store = AsyncIdempotencyStore.in_memory(clock=clock, retention=timedelta(hours=1))
    decision = await store.claim("key")
    assert isinstance(decision, Claimed)
    await store.complete(decision.lease, 1)
    clock.advance(3600)
    assert isinstance(await store.claim("key"), Replay)
    clock.advance(1)
    assert isinstance(await store.claim("key"), Claimed)


def test_the_module_is_a_pytest_plugin(pytester: pytest.Pytester) -> None:
    """A project that names it in `pytest_plugins` has a store and its clock as fixtures."""
    pytester.makeconftest('pytest_plugins = ["aioidempotency.testing"]')
    pytester.makepyfile(
        """
        import asyncio

        def test_charges_once(idempotency_store, idempotency_clock):
            async def charge():
                return "receipt"

            async def scene():
                first = await idempotency_store.run("order-1", charge)
                idempotency_clock.advance(7200)
                record = await idempotency_store.get("order-1")
                return first, record

            assert asyncio.run(scene()) == ("receipt", None)
        """
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
