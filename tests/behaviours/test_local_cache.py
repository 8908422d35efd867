"""Duplicates of what this process has seen finished send nothing, and are answered as the table would answer."""

from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    ConfigurationError,
    IdempotencyError,
    MemoryBackend,
    MismatchError,
    Replay,
    ResultUnavailableError,
    idempotent,
    namespace_of,
)
from aioidempotency.events import CallReplayed, Event
from aioidempotency.testing import FakeClock
from tests.support.scripted import ScriptedBackend


class Cached:
    """A store that keeps finished records, and what it has sent."""

    def __init__(self, size: int = 100, **options: Any) -> None:
        self.clock = FakeClock()
        self.sent = ScriptedBackend(MemoryBackend())
        self.events: list[Event] = []
        self.store = AsyncIdempotencyStore(
            "orders", backend=self.sent, local_cache=size, clock=self.clock, on_event=self.events.append, **options
        )
        self.other = AsyncIdempotencyStore("orders", backend=self.sent, clock=self.clock, **options)
        self.ran = 0

    async def body(self) -> dict[str, list[int]]:
        self.ran += 1
        return {"numbers": [self.ran]}

    async def sends(self, key: str) -> int:
        """Make a call; count what it sent."""
        before = len(self.sent.operations)
        await self.store.run(key, self.body)
        return len(self.sent.operations) - before


async def test_a_duplicate_of_ones_own_call_sends_nothing() -> None:
    """C1: with `local_cache`, and it is a replay like any other."""
    cached = Cached()
    assert [await cached.sends("k") for _ in range(3)] == [2, 0, 0]
    assert cached.ran == 1
    assert isinstance(await cached.store.claim("k", namespace=namespace_of(cached.body)), Replay)
    assert len(cached.sent.operations) == 2
    assert [type(event) for event in cached.events[-3:]] == [CallReplayed] * 3


async def test_what_another_process_finished_is_kept_once_it_was_seen() -> None:
    """The first duplicate asks the table."""
    cached = Cached()
    await cached.other.run("k", cached.body)
    assert [await cached.sends("k") for _ in range(2)] == [1, 0]
    assert cached.ran == 1


async def test_each_replay_is_a_value_of_its_own() -> None:
    """C9: a caller that changes its answer changes nobody else's."""
    cached = Cached()
    answers = [await cached.store.run("k", cached.body) for _ in range(3)]
    answers[1]["numbers"].append(7)
    assert [answers[0], answers[2]] == [{"numbers": [1]}] * 2
    assert await cached.store.run("k", cached.body) == {"numbers": [1]}


async def test_a_record_is_never_kept_beyond_its_expiration() -> None:
    """It counts through its last second, and not after."""
    cached = Cached(retention=60)
    await cached.sends("k")
    cached.clock.advance(60)
    assert await cached.sends("k") == 0
    cached.clock.advance(1)
    assert await cached.sends("k") == 3
    assert cached.ran == 2
    assert await cached.sends("k") == 0


async def test_the_ones_used_last_are_kept() -> None:
    """As many as the setting says."""
    cached = Cached(size=2)
    for key in ("a", "b", "a", "c"):
        await cached.sends(key)
    assert [await cached.sends(key) for key in ("c", "a", "b")] == [0, 0, 1]


async def test_another_payload_is_refused_from_memory_too() -> None:
    """O15: with the record, and without a request."""
    cached = Cached()
    async with cached.store.execute("k", fingerprint="blue") as execution:
        execution.complete(1)
    before = len(cached.sent.operations)
    with pytest.raises(MismatchError) as refused:
        async with cached.store.execute("k", fingerprint="red"):
            pytest.fail("it ran")
    assert refused.value.record.data == "1"
    async with cached.store.execute("k", fingerprint="blue") as execution:
        assert execution.result == 1
    assert len(cached.sent.operations) == before


async def test_errors_and_results_that_were_not_stored_are_kept_as_such() -> None:
    """C12, O10: a replay raises what it would raise from the table."""
    cached = Cached()

    class DeclinedError(Exception):
        pass

    @idempotent(cached.store, store_errors=(DeclinedError,))
    async def charge(order_id: str) -> object:
        cached.ran += 1
        if order_id == "declined":
            raise DeclinedError("no funds")
        return object()

    with pytest.raises(DeclinedError):
        await charge("declined")
    await charge("unstorable")
    before = len(cached.sent.operations)
    with pytest.raises((DeclinedError, IdempotencyError), match=r"no funds|DeclinedError"):
        await charge("declined")
    with pytest.raises(ResultUnavailableError):
        await charge("unstorable")
    assert (len(cached.sent.operations), cached.ran) == (before, 2)


async def test_reading_a_record_asks_the_table() -> None:
    """`get` is strongly consistent, whatever is kept."""
    cached = Cached()
    await cached.sends("k")
    before = len(cached.sent.operations)
    assert await cached.store.get("k", namespace=namespace_of(cached.body)) is not None
    assert len(cached.sent.operations) == before + 1


async def test_failed_calls_and_running_ones_are_not_kept() -> None:
    """Only what is finished never changes."""
    cached = Cached()

    async def fails() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await cached.store.run("k", fails)
    assert await cached.sends("k") == 2


async def test_without_the_setting_nothing_is_kept() -> None:
    """The default: each duplicate asks the table."""
    cached = Cached(size=0)
    assert [await cached.sends("k") for _ in range(3)] == [2, 1, 1]


@pytest.mark.parametrize("size", [-1, 1.0, True, None, "100"])
def test_a_size_that_is_no_number_is_refused(size: Any) -> None:
    """With its value."""
    make: Callable[..., object] = AsyncIdempotencyStore.in_memory
    with pytest.raises(ConfigurationError, match="local_cache= takes a whole number, 0 or more"):
        make(local_cache=size)
