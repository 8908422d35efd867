"""For the tests of code that uses aioidempotency: a clock to set, and a store in memory.

The module is a pytest plugin, too: with `pytest_plugins = ["aioidempotency.testing"]` in a
`conftest.py`, tests have the fixtures `idempotency_clock` and `idempotency_store`.
"""

from datetime import timedelta
from typing import final

from aioidempotency import AsyncIdempotencyStore


@final
class FakeClock:
    """A clock that stands still until it is told to move; give it to a store as `clock=`.

    It starts in the year 2100: an emulator that deletes by TTL goes by the real time, and would take
    the records of a clock in the past for expired.
    """

    def __init__(self, now: float = 4_102_444_800.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """Read the clock: epoch seconds."""
        return self._now

    def advance(self, duration: float | timedelta) -> None:
        """Move the clock on by seconds, or back by less than none."""
        self._now += duration.total_seconds() if isinstance(duration, timedelta) else duration

    def __repr__(self) -> str:
        return f"FakeClock({self._now!r})"


try:
    import pytest
except ImportError:  # the module is of use without pytest, too
    pass
else:

    @pytest.fixture
    def idempotency_clock() -> FakeClock:
        """The clock of `idempotency_store`."""
        return FakeClock()

    @pytest.fixture
    def idempotency_store(idempotency_clock: FakeClock) -> AsyncIdempotencyStore:
        """A store in memory, new for each test."""
        return AsyncIdempotencyStore.in_memory(clock=idempotency_clock)
