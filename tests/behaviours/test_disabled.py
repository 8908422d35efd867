"""A disabled store: bodies run at each call, and nothing is read or written."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    ConfigurationError,
    Execution,
    HashBuckets,
    InProgress,
    MemoryBackend,
    MissingKeyError,
    Replay,
    SerializationError,
    TimeBuckets,
    Wait,
    idempotent,
)
from aioidempotency.events import Event, StoreDisabled
from tests.support.scripted import Down, ScriptedBackend

VARIABLE = "AIOIDEMPOTENCY_DISABLED"


def make_store(**options: Any) -> tuple[AsyncIdempotencyStore, ScriptedBackend]:
    """Make a store, and a backend that answers nothing and keeps what reached it."""
    backend = ScriptedBackend(MemoryBackend(), lambda _: Down())
    return AsyncIdempotencyStore("orders", backend=backend, **options), backend


@pytest.fixture
def disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment disables stores."""
    monkeypatch.setenv(VARIABLE, "1")


@pytest.mark.parametrize("value", ["1", "true", "TRUE", " true "])
async def test_the_environment_disables_a_store(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable is read when the store is made; a later change counts for later stores."""
    monkeypatch.setenv(VARIABLE, value)
    store, backend = make_store()
    monkeypatch.delenv(VARIABLE)
    for _ in range(2):
        async with store.execute("key") as execution:
            assert not execution.replayed
    assert not backend.operations
    assert isinstance(await AsyncIdempotencyStore.in_memory().claim("key"), Claimed)


@pytest.mark.parametrize("value", ["", "0", "false", "False", " "])
async def test_the_environment_leaves_a_store_enabled(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What says no, or nothing."""
    monkeypatch.setenv(VARIABLE, value)
    store = AsyncIdempotencyStore.in_memory()
    await store.claim("key")
    assert isinstance(await store.claim("key"), InProgress)


@pytest.mark.parametrize("value", ["yes", "on", "2", "disabled"])
def test_a_value_that_says_neither_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether calls are protected is no matter of guessing."""
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ConfigurationError, match=VARIABLE):
        AsyncIdempotencyStore("orders")


@pytest.mark.usefixtures("disabled")
async def test_the_log_says_so_once_when_the_store_is_made(caplog: pytest.LogCaptureFixture) -> None:
    """One line at error level, and the event to the hook; no line for each call."""
    events: list[Event] = []
    caplog.set_level(logging.INFO, "aioidempotency")
    store, _ = make_store(on_event=events.append)
    for _ in range(3):
        await store.run("key", answer)
    assert events == [StoreDisabled("orders", VARIABLE)]
    (line,) = caplog.records
    assert line.levelno == logging.ERROR
    assert VARIABLE in line.getMessage()


async def answer() -> str:
    return "answer"


@pytest.mark.usefixtures("disabled")
async def test_bodies_run_each_time_and_side_by_side() -> None:
    """Also duplicates of a running call, with and without patience, and a call from inside."""
    store, backend = make_store(local_cache=10)
    ran: list[int] = []
    gate = asyncio.Barrier(3)

    @idempotent(store, on_in_progress=Wait(5))
    async def call(number: int, *, again: bool = True) -> int:
        ran.append(number)
        if again:
            await call(number, again=False)
            await gate.wait()
        return len(ran)

    await asyncio.gather(*(call(1) for _ in range(3)))
    assert len(ran) == 6
    assert not backend.operations


@pytest.mark.usefixtures("disabled")
async def test_an_execution_has_no_record() -> None:
    """Not replayed, no lease, and what needs no record works."""
    store, _ = make_store()
    async with store.execute("key") as execution:
        assert Execution.current() is execution
        assert (execution.replayed, execution.lease, execution.record) == (False, None, None)
        assert len(execution.derive_key("step")) == 64
        assert "running unprotected" in repr(execution)
        assert not execution.lost
        execution.complete("done")
    assert execution.result == "done"
    with pytest.raises(LookupError):
        Execution.current()
    assert "0 calls under way, 0 leases kept" in repr(store)
    assert "disabled" in repr(store)


@pytest.mark.usefixtures("disabled")
async def test_an_error_of_the_body_passes_as_itself_each_time() -> None:
    """C11: stored errors are not stored either."""
    store, backend = make_store()

    @idempotent(store, store_errors=(ValueError,))
    async def call(number: int) -> None:
        raise ValueError(f"mine {number}")

    for _ in range(2):
        with pytest.raises(ValueError, match="mine 1"):
            await call(1)
    assert not backend.operations


@pytest.mark.usefixtures("disabled")
async def test_a_bad_key_is_still_refused() -> None:
    """So a test that runs with a disabled store finds the call without a key."""
    store, _ = make_store()

    @idempotent(store, key="order.id")
    async def call(order: dict[str, object]) -> None: ...

    with pytest.raises(MissingKeyError):
        await call({})
    with pytest.raises(SerializationError):
        await call({"id": b"bytes"})
    with pytest.raises(MissingKeyError):
        await store.claim(None)


@pytest.mark.usefixtures("disabled")
@pytest.mark.parametrize("layout", [None, HashBuckets(2), TimeBuckets(window=3600)])
async def test_the_steps_of_a_call_are_accepted_and_write_nothing(layout: Any) -> None:
    """`claim` grants each key, with a lease that is not saved."""
    store, backend = make_store(**({} if layout is None else {"layout": CompositeKey(partitioning=layout)}))
    for _ in range(2):
        decision = await store.claim("key", fingerprint="f")
        assert isinstance(decision, Claimed)
        lease = await store.renew(decision.lease)
        record = await store.complete(lease, {"n": 1})
        assert record.result == {"n": 1}
        await store.release(lease)
    assert all(isinstance(each, Claimed) for each in await store.claim_many(["a", "b"]))
    assert await store.get("key") is None
    assert await store.get_many(["a", "b"]) == [None, None]
    assert not await store.forget("key")
    assert not await store.forget("key", running=True)
    await store.create_table()
    await store.verify_layout()
    await store.aclose()
    assert not backend.operations


async def transaction(store: AsyncIdempotencyStore) -> None:
    async with store.execute("key") as execution:
        execution.transaction.put(TableName="shop", Item={"pk": "1"})


async def outbox(store: AsyncIdempotencyStore) -> None:
    store.outbox()


REFUSED: dict[str, Callable[[AsyncIdempotencyStore], Awaitable[object]]] = {
    "a transaction": transaction,
    "`outbox`": outbox,
    "`commit_once`": lambda store: store.commit_once("key", 1, [{"Put": {"TableName": "shop", "Item": {"pk": "1"}}}]),
    "`get_or_create_id`": lambda store: store.get_or_create_id("key"),
    "`put_if_absent`": lambda store: store.put_if_absent("shop", {"pk": "1"}),
}


@pytest.mark.usefixtures("disabled")
@pytest.mark.parametrize("action", REFUSED)
async def test_what_makes_no_sense_without_the_table_is_refused(action: str) -> None:
    """An id that the next call does not find again, or writes that nobody applies, would be worse than an error."""
    store, backend = make_store(layout=CompositeKey())
    with pytest.raises(ConfigurationError, match=f"{VARIABLE}.* and {action} needs the table"):
        await REFUSED[action](store)
    assert not backend.operations


async def test_an_override_disables_a_store_for_a_while() -> None:
    """C21: its calls under way complete."""
    store = AsyncIdempotencyStore.in_memory(retention=60)
    async with store.execute("outside") as execution:
        with store.override(disabled=True):
            for _ in range(2):
                async with store.execute("key") as inner:
                    assert inner.lease is None
        execution.complete("done")
    assert await store.get("key") is None
    assert isinstance(await store.claim("outside"), Replay)


@pytest.mark.usefixtures("disabled")
async def test_an_override_enables_a_store_that_the_environment_disables() -> None:
    """C21: with its own backend, or another one; an override of the backend alone leaves the store disabled."""
    backend = MemoryBackend()
    store = AsyncIdempotencyStore("orders", backend=backend, layout=CompositeKey(partitioning=HashBuckets(2)))
    with store.override(backend=MemoryBackend()):
        await store.claim("key")
        assert isinstance(await store.claim("key"), Claimed)
        with store.override(disabled=False):
            await store.claim("key")
            assert isinstance(await store.claim("key"), InProgress)
    with store.override(disabled=False):
        await store.claim("key")
        assert isinstance(await store.claim("key"), InProgress)
    assert isinstance(await store.claim("key"), Claimed)
