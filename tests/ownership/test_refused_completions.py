"""A completion that is refused for want of rights is sent again; a process that may not complete at all runs nothing."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    ConfigurationError,
    MemoryBackend,
    Replay,
    StoreError,
    TimeBuckets,
)
from aioidempotency._core.operations import Delete, Operation, Put, Reply, Update
from aioidempotency.backends.dynamodb.errors import translated
from aioidempotency.events import CompletionFailed, Event, FailedOpen, ReleaseFailed
from tests.ownership.test_lost_blocks import result_of
from tests.support.scripted import Down, Fault, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time

CODES = [
    "AccessDeniedException",
    "InvalidSignatureException",
    "UnrecognizedClientException",
    "ResourceNotFoundException",
]


def refusal(code: str) -> ConfigurationError:
    """Make the error that DynamoDB's refusal becomes."""
    error = translated(ClientError({"Error": {"Code": code}}, "UpdateItem"), "UpdateItem", "orders", seconds=1)
    assert isinstance(error, ConfigurationError)
    return error


class Refused(Fault):
    """The operation is refused for want of rights."""

    def __init__(self, code: str) -> None:
        self.code = code

    async def answer(self, backend: Any, operation: Operation) -> Reply:
        raise refusal(self.code)


def store_on(backend: ScriptedBackend, events: list[Event], **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore("orders", backend=backend, clock=epoch_seconds, on_event=events.append, **options)


def first_of(kind: type, faults: list[Fault]) -> Any:
    """Make a rule that fails the first operations of a kind."""
    left: Iterator[Fault] = iter(faults)
    return lambda operation: next(left, None) if isinstance(operation, kind) else None


async def work() -> str:
    return "done"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("times", [1, 2])
def test_a_completion_that_is_refused_once_is_sent_again(code: str, times: int) -> None:
    """O18: rotated credentials, a clock that is set, a right that is not there yet: the result is stored."""

    @in_virtual_time
    async def scene() -> None:
        events: list[Event] = []
        backend = ScriptedBackend(MemoryBackend(), first_of(Update, [Refused(code)] * times))
        store = store_on(backend, events)
        async with store.execute("k") as execution:
            execution.complete("done")
        assert await result_of(store, "k") == "done"
        assert not any(isinstance(event, CompletionFailed) for event in events)

    scene()


@in_virtual_time
async def test_once_a_completion_has_succeeded_a_refused_one_is_tried_until_its_lease_ends() -> None:
    """O18: the right was there, and may come back: many tries, with pauses that grow."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend())
    store = store_on(backend, events, lease=60)
    await store.run("first", work)
    backend.rule = lambda operation: Refused(CODES[0]) if isinstance(operation, Update) else None
    before, began = backend.count(Update), asyncio.get_running_loop().time()
    assert await store.run("second", work) == "done"
    assert 58 < asyncio.get_running_loop().time() - began < 60
    assert 12 < backend.count(Update) - before < 30
    (failed,) = [event for event in events if isinstance(event, CompletionFailed)]
    assert isinstance(failed.cause, ConfigurationError)
    assert "AccessDeniedException" in str(failed)
    backend.rule = lambda operation: None
    assert await store.run("third", work) == "done"  # it was told, and refuses nothing


@in_virtual_time
async def test_a_process_that_may_not_complete_at_all_runs_no_second_body() -> None:
    """O18: else a role without UpdateItem would run every body every time."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda op: Refused(CODES[0]) if isinstance(op, Update) else None)
    store = store_on(backend, events)
    bodies = []

    async def body() -> str:
        bodies.append("ran")
        return "done"

    assert await store.run("first", body) == "done"
    assert asyncio.get_running_loop().time() < 2  # three tries, not a whole lease
    for key in ("first", "second", "third"):
        with pytest.raises(
            ConfigurationError, match="no claims are made, because this process could not store"
        ) as caught:
            await store.run(key, body)
        assert "allow them dynamodb:UpdateItem" in str(caught.value)
    with pytest.raises(ConfigurationError, match="no claims are made"):
        await store.claim("fourth")
    assert (bodies, backend.count(Put)) == (["ran"], 1)
    backend.rule = lambda operation: None  # the right is given
    assert await store.run("second", body) == "done"
    assert bodies == ["ran", "ran"]
    assert await store.run("first", body) == "done"  # what could not be stored then is stored now
    assert bodies == ["ran", "ran"]


@in_virtual_time
async def test_a_process_is_told_by_another_owners_record_that_it_may_complete_again() -> None:
    """O18: the condition was looked at, so the right is there."""
    events: list[Event] = []
    inner = MemoryBackend()
    backend = ScriptedBackend(inner, lambda op: Refused(CODES[0]) if isinstance(op, Update) else None)
    store = store_on(backend, events, lease=5)
    await store.run("first", work)
    await asyncio.sleep(10)
    other = AsyncIdempotencyStore("orders", backend=inner, clock=epoch_seconds)
    await other.run("first", work)
    backend.rule = lambda operation: None
    assert await store.run("second", work) == "done"


@in_virtual_time
async def test_a_lease_that_lapsed_in_its_window_tells_nothing_of_the_right() -> None:
    """O18: where time alone ends a lease, the refused completion cannot be sent again, and the right is asked for all the same."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda op: Refused(CODES[0]) if isinstance(op, Update) else None)
    layout = CompositeKey(partitioning=TimeBuckets(3600, buckets=2))
    store = store_on(backend, events, lease=5, layout=layout, verify_layout=False)
    assert await store.run("first", work) == "done"
    await asyncio.sleep(10)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="no claims"):
            await store.run("second", work)
    backend.rule = lambda operation: None
    assert await store.run("second", work) == "done"


@in_virtual_time
async def test_an_outage_makes_no_process_refuse_claims() -> None:
    """O18: a store that does not answer is no missing right."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda op: Down() if isinstance(op, Update) else None)
    store = store_on(backend, events, lease=5)
    assert await store.run("first", work) == "done"
    backend.rule = lambda operation: None
    assert await store.run("second", work) == "done"
    (failed,) = [event for event in events if isinstance(event, CompletionFailed)]
    assert isinstance(failed.cause, StoreError)


@in_virtual_time
async def test_wrong_settings_that_nobody_can_mend_meanwhile_are_told_at_once() -> None:
    """O18: a request that does not fit the table will not fit it later."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), first_of(Update, [Refused("ValidationException")]))
    store = store_on(backend, events)
    assert await store.run("first", work) == "done"
    assert asyncio.get_running_loop().time() == 0
    assert [type(event) for event in events if isinstance(event, CompletionFailed)] == [CompletionFailed]


@in_virtual_time
async def test_events_of_failure_name_their_cause() -> None:
    """O18: in the event, and in its text, which the log shows."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda op: Down() if isinstance(op, Put | Delete) else None)
    store = store_on(backend, events, fail_open=True)
    await store.run("first", work)
    (opened,) = events
    assert isinstance(opened, FailedOpen)
    assert isinstance(opened.cause, StoreError)
    assert "down" in str(opened)
    backend.rule = first_of(Delete, [Down()] * 9)
    with pytest.raises(ValueError, match="its own"):
        async with store.execute("second"):
            raise ValueError("its own")
    (failed,) = [event for event in events if isinstance(event, ReleaseFailed)]
    assert isinstance(failed.cause, StoreError)


@in_virtual_time
async def test_claims_work_where_one_completion_was_refused_among_others() -> None:
    """O18: two calls at once, of which one completes: the right is there."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), first_of(Update, [Refused(CODES[0])] * 3))
    store = store_on(backend, events)
    await asyncio.gather(store.run("first", work), store.run("second", work), store.run("third", work))
    assert isinstance(await store.claim("third", namespace=f"{__name__}.work"), Replay)
