"""What is stored instead of a plain result, and what is answered when the store is not there."""

import asyncio
import base64
import json
import zlib
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    MemoryBackend,
    Record,
    ResultUnavailableError,
    Status,
    StoreError,
    deadline,
    idempotent,
    namespace_of,
)
from aioidempotency._core.model import SerializedResult
from aioidempotency._core.operations import Delete, Get, Put, Update
from aioidempotency.events import CompletionFailed, Event, FailedOpen, ReleaseFailed, ResultDropped
from aioidempotency.testing import FakeClock
from tests.conftest import MakeStore
from tests.support.scripted import Down, LostReply, ScriptedBackend
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


class PaymentDeclinedError(Exception):
    """Can be rebuilt from its arguments."""


class CardExpiredError(PaymentDeclinedError):
    """A subclass is stored, too."""


class OddError(PaymentDeclinedError):
    """Cannot be rebuilt: its constructor takes more than it keeps."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class Declining:
    """A handler that fails, and counts its calls."""

    def __init__(self, store: AsyncIdempotencyStore, error: Exception, **options: Any) -> None:
        self.calls = 0

        @idempotent(store, store_errors=(PaymentDeclinedError,), **options)
        async def pay(order: str) -> None:
            self.calls += 1
            raise error

        self.pay = pay


async def caught(call: Any) -> BaseException:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - the test looks at what it is
        await call
    return raised.value


@pytest.mark.parametrize("error", [PaymentDeclinedError("no funds", 51), CardExpiredError("2020-01")])
async def test_a_stored_error_is_raised_again_as_itself(make_store: MakeStore, error: PaymentDeclinedError) -> None:
    """C12: the first caller gets the error itself, the second one an equal one; the body runs once."""
    handler = Declining(make_store(), error)
    assert await caught(handler.pay("order-1")) is error
    replayed = await caught(handler.pay("order-1"))
    assert (type(replayed), replayed.args) == (type(error), error.args)
    assert handler.calls == 1


@pytest.mark.parametrize(
    "error", [OddError(51, reason="funds"), PaymentDeclinedError(object()), PaymentDeclinedError((1, 2))]
)
async def test_a_stored_error_that_cannot_be_rebuilt_is_named(make_store: MakeStore, error: Exception) -> None:
    """C12: the documented fallback: an IdempotencyError that names the class."""
    handler = Declining(make_store(), error)
    assert await caught(handler.pay("order-1")) is error
    replayed = await caught(handler.pay("order-1"))
    assert type(replayed) is IdempotencyError
    assert type(error).__qualname__ in str(replayed)
    assert handler.calls == 1


async def test_an_error_that_is_not_stored_frees_the_key(make_store: MakeStore) -> None:
    """C12: other errors release, as always."""
    handler = Declining(make_store(), ValueError("retry me"))
    for _ in range(2):
        assert isinstance(await caught(handler.pay("order-1")), ValueError)
    assert handler.calls == 2


async def test_reading_a_stored_error_does_not_raise_it(make_store: MakeStore) -> None:
    """C12: `get` answers with the record; its result is unknown without the class."""
    store = make_store()
    handler = Declining(store, PaymentDeclinedError("no funds"), namespace="pay")
    await caught(handler.pay("order-1"))
    record = await store.get({"order": "order-1"}, namespace="pay")
    assert record is not None
    assert (record.status, record.encoding, record.result) == (Status.COMPLETED, "error", None)


async def test_a_stored_error_is_replayed_even_where_its_class_is_not_known() -> None:
    """C12: another version of the program, which does not store this class, does not run again."""
    backend = MemoryBackend()
    await caught(
        Declining(AsyncIdempotencyStore("t", backend=backend), CardExpiredError("x"), namespace="pay").pay("order-1")
    )

    @idempotent(AsyncIdempotencyStore("t", backend=backend), namespace="pay")
    async def pay(order: str) -> None:
        pytest.fail("ran again")

    assert type(await caught(pay("order-1"))) is IdempotencyError


@pytest.mark.parametrize("wrong", [[ValueError], ValueError, (BaseException,), ("ValueError",)])
def test_store_errors_takes_classes_of_errors(wrong: Any) -> None:
    """Bad input: a cancellation is no error that could be stored."""

    async def function(number: int) -> None: ...

    with pytest.raises(ConfigurationError, match="store_errors"):
        idempotent(AsyncIdempotencyStore.in_memory(), store_errors=wrong)(function)


async def test_on_replay_sees_result_and_record_and_may_answer_otherwise(make_store: MakeStore) -> None:
    """C13: plain or coroutine; None leaves the result as it is."""
    seen: list[tuple[object, Record]] = []

    def mark(result: dict[str, Any], record: Record) -> dict[str, Any]:
        seen.append((result, record))
        return {**result, "replayed": True}

    async def mark_later(result: dict[str, Any], record: Record) -> dict[str, Any]:
        return mark(result, record)

    def leave(result: dict[str, Any], record: Record) -> None:
        seen.append((result, record))

    async def make(number: int) -> dict[str, Any]:
        return {"number": number}

    store = make_store()
    for hook, expected in (
        (mark, {"number": 1, "replayed": True}),
        (mark_later, {"number": 1, "replayed": True}),
        (leave, {"number": 1}),
    ):
        decorated = idempotent(store, on_replay=hook)(make)
        await decorated(1)
        assert await decorated(1) == expected
    assert all(result == {"number": 1} == record.result for result, record in seen)


async def test_an_error_of_on_replay_leaves_the_record(make_store: MakeStore) -> None:
    """C13: the hook's error is the caller's; the result is still there for the next call."""

    def fail(result: object, record: Record) -> None:
        raise ValueError("hook")

    async def make(number: int) -> int:
        return number

    store = make_store()
    assert await idempotent(store, namespace="n")(make)(1) == 1
    assert isinstance(await caught(idempotent(store, namespace="n", on_replay=fail)(make)(1)), ValueError)
    assert await idempotent(store, namespace="n")(make)(1) == 1


@pytest.mark.parametrize("result", [object(), {"file": open}, "x" * 500_000], ids=["object", "function", "large"])
async def test_a_result_that_cannot_be_stored_leaves_a_tombstone(make_store: MakeStore, result: Any) -> None:
    """O10: the first caller gets it, nothing runs again, replays say why."""
    events: list[Event] = []
    store = make_store(compress_over=None, on_event=events.append)
    calls = 0

    @idempotent(store)
    async def make(number: int) -> object:
        nonlocal calls
        calls += 1
        return result

    assert await make(1) is result
    for _ in range(2):
        error = await caught(make(1))
        assert isinstance(error, ResultUnavailableError)
        assert error.record.status is Status.COMPLETED
    assert calls == 1
    assert sum(isinstance(event, ResultDropped) for event in events) == 1


async def test_claims_and_reads_meet_a_tombstone(make_store: MakeStore) -> None:
    """O10: `complete` and `get` answer with the record, `claim` raises as a replay does."""
    store = make_store()
    decision = await store.claim("key")
    assert isinstance(decision, Claimed)
    finished = await store.complete(decision.lease, object())
    assert finished.encoding == "tombstone"
    assert await store.get("key") == finished
    assert isinstance(await caught(store.claim("key")), ResultUnavailableError)


async def test_a_large_repetitive_result_is_stored_compressed(make_store: MakeStore) -> None:
    """O10: 2 MB of JSON that repeats itself fits into one item, and comes back equal."""
    store = make_store()
    result = [{"line": number % 100, "text": "the same words again"} for number in range(50_000)]
    assert len(json.dumps(result)) > 2_000_000

    @idempotent(store, namespace="n")
    async def make(number: int) -> list[dict[str, Any]]:
        return result

    assert await make(1) is result
    assert await make(1) == result
    record = await store.get({"number": 1}, namespace="n")
    assert record is not None
    assert record.encoding == "zlib"
    assert record.result == result


@pytest.mark.parametrize(("length", "encoding"), [(98, None), (99, "zlib")])
async def test_results_are_compressed_over_the_threshold_only(
    make_store: MakeStore, length: int, encoding: str | None
) -> None:
    """O10: `compress_over` counts characters of JSON, the quotes included."""
    store = make_store(compress_over=100)
    async with store.execute("key") as execution:
        execution.complete("x" * length)
    record = await store.get("key")
    assert record is not None
    assert (record.encoding, record.result) == (encoding, "x" * length)


@pytest.mark.parametrize(
    "stored",
    [
        SerializedResult("!", "zlib"),
        SerializedResult(base64.b64encode(b"no zlib").decode(), "zlib"),
        SerializedResult(base64.b64encode(zlib.compress(b"\xff")).decode(), "zlib"),
        SerializedResult("{", "error"),
        SerializedResult('{"type": 1}', "error"),
        SerializedResult("1", "zstd"),
    ],
)
async def test_a_stored_result_that_cannot_be_read_is_not_executed_again(stored: SerializedResult) -> None:
    """O10: damaged data, or an encoding of a later version, is said, not guessed."""
    store = AsyncIdempotencyStore.in_memory()
    decision = await store.claim("key", namespace=namespace_of(asyncio.sleep))
    assert isinstance(decision, Claimed)
    await store._parts.records.complete(decision.lease, stored)
    error = await caught(store.run("key", asyncio.sleep, 0))
    assert isinstance(error, ResultUnavailableError)


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_passed_deadline_still_writes_the_end_of_a_lease(make_store: MakeStore, seconds: float) -> None:
    """O9: the key is not locked for the retention."""
    clock = FakeClock()
    store = make_store(clock=clock, clock_skew=2)
    with deadline(seconds):
        decision = await store.claim("key")
    assert isinstance(decision, Claimed)
    assert decision.lease.expires_at == clock()
    clock.advance(3)
    assert isinstance(await store.claim("key"), Claimed)


async def test_inside_a_deadline_the_lease_is_what_is_left(make_store: MakeStore) -> None:
    """O9: neither the store's lease nor the call's counts, and nothing is renewed."""
    store = make_store(lease=60)
    with deadline(5), deadline(30):
        async with store.execute("key", lease=20) as execution:
            assert execution.lease is not None
            assert 4 < execution.lease.duration <= 5
            assert "0 leases kept" in repr(store)
    async with store.execute("other", lease=20) as execution:
        assert execution.lease is not None
        assert execution.lease.duration == 20


async def test_a_store_that_is_down_refuses_by_default() -> None:
    """O14: the body does not run, and the cause is attached where there is one."""
    store = AsyncIdempotencyStore("t", backend=ScriptedBackend(MemoryBackend(), lambda _: Down()))
    assert isinstance(await caught(store.run("key", asyncio.sleep, 0)), StoreError)
    assert store.failed_open == 0


async def test_failing_open_runs_the_body_and_counts_it() -> None:
    """O14: `fail_open=True`, by name, runs calls unprotected while the store is down."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda _: Down())
    store = AsyncIdempotencyStore("t", backend=backend, fail_open=True, on_event=events.append)
    for number in 1, 2:
        async with store.execute("key") as execution:
            assert not execution.replayed
            assert execution.lease is None
            assert "unprotected" in repr(execution)
            execution.complete("done")
        assert execution.result == "done"
        assert store.failed_open == number
    assert [type(event) for event in events] == [FailedOpen, FailedOpen]


@in_virtual_time
async def test_a_completion_is_tried_until_the_store_is_back() -> None:
    """O3: the work was done; an outage shorter than the lease loses nothing."""
    loop = asyncio.get_running_loop()
    backend = ScriptedBackend(
        MemoryBackend(), lambda operation: Down() if isinstance(operation, Update) and loop.time() < 10 else None
    )
    store = AsyncIdempotencyStore("t", backend=backend, clock=epoch_seconds)
    async with store.execute("key") as execution:
        execution.complete("done")
    record = await store.get("key")
    assert record is not None
    assert record.result == "done"


@pytest.mark.parametrize("choice", ["report", "raise"])
def test_a_completion_that_fails_until_the_lease_ends_is_reported(choice: str) -> None:
    """O3: by default the caller gets its result, and an event says that it is not stored."""

    @in_virtual_time
    async def scene() -> None:
        events: list[Event] = []
        backend = ScriptedBackend(MemoryBackend(), lambda operation: Down() if isinstance(operation, Update) else None)
        options: dict[str, Any] = {"on_completion_failure": choice, "on_event": events.append}
        store = AsyncIdempotencyStore("t", backend=backend, clock=epoch_seconds, lease=60, **options)

        @idempotent(store)
        async def make(number: int) -> int:
            return number

        if choice == "report":
            assert await make(7) == 7
        else:
            error = await caught(make(7))
            assert isinstance(error, StoreError)
            assert error.result == 7
        assert 59 < asyncio.get_running_loop().time() <= 60
        assert sum(isinstance(event, CompletionFailed) for event in events) == 1

    scene()


async def test_a_completion_whose_answer_was_lost_is_settled_by_the_next_try() -> None:
    """O3: the second try finds our own finished record."""
    lost = iter([LostReply()])
    backend = ScriptedBackend(
        MemoryBackend(), lambda operation: next(lost, None) if isinstance(operation, Update) else None
    )
    store = AsyncIdempotencyStore("t", backend=backend)
    assert await store.run("key", asyncio.sleep, 0, "done") == "done"
    record = await store.get("key", namespace=namespace_of(asyncio.sleep))
    assert record is not None
    assert (record.result, backend.count(Update)) == ("done", 2)


async def test_an_error_that_cannot_be_stored_passes_on_all_the_same() -> None:
    """C12: a store that forbids the completion does not hide the body's error."""

    class Forbids:
        async def execute(self, operation: Any) -> Any:
            if isinstance(operation, Update):
                raise ConfigurationError("not allowed")
            return await table.execute(operation)

    table = MemoryBackend()
    events: list[Event] = []
    store = AsyncIdempotencyStore("t", backend=Forbids(), on_completion_failure="raise", on_event=events.append)
    error = PaymentDeclinedError("no funds")
    assert await caught(Declining(store, error).pay("order-1")) is error
    assert [type(event) for event in events][-1] is CompletionFailed


async def test_a_release_that_fails_hides_nothing() -> None:
    """C11: the body's error passes on, and the key is free when its lease is over."""
    events: list[Event] = []
    backend = ScriptedBackend(MemoryBackend(), lambda operation: Down() if isinstance(operation, Delete) else None)
    store = AsyncIdempotencyStore("t", backend=backend, on_event=events.append)

    @idempotent(store)
    async def fails(number: int) -> None:
        raise ValueError("body")

    assert isinstance(await caught(fails(1)), ValueError)
    assert isinstance(events[-1], ReleaseFailed)
    assert isinstance(await caught(fails(1)), InProgressError)


async def test_an_error_can_hold_the_key(make_store: MakeStore) -> None:
    """on_error="hold": a failed call keeps its key until the lease ends."""
    clock = FakeClock()
    store = make_store(clock=clock)

    @idempotent(store, on_error="hold")
    async def fails(number: int) -> None:
        raise ValueError("body")

    assert isinstance(await caught(fails(1)), ValueError)
    assert isinstance(await caught(fails(1)), InProgressError)
    clock.advance(62)
    assert isinstance(await caught(fails(1)), ValueError)


async def test_read_first_answers_a_duplicate_by_one_read() -> None:
    """read_first: a fresh call costs a read more, a duplicate no write at all."""
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("t", backend=backend, read_first=True)
    await store.run("key", asyncio.sleep, 0, 1)
    assert [type(operation) for operation in backend.operations] == [Get, Put, Update]
    await store.run("key", asyncio.sleep, 0, 1)
    assert [type(operation) for operation in backend.operations[3:]] == [Get]
    async with store.execute("key", read_first=False):
        assert type(backend.operations[4]) is Put


@in_virtual_time
async def test_a_hook_that_fails_stops_nothing() -> None:
    """Events: what a hook raises is logged, and goes no further."""

    def broken(event: Event) -> None:
        raise ValueError("hook")

    store = AsyncIdempotencyStore.in_memory(on_event=broken, clock=epoch_seconds)
    async with store.execute("key"):
        await pass_time(1)
    assert await store.get("key") is not None


@pytest.mark.parametrize("options", [{"on_error": "keep"}, {"missing_key": "skip"}, {"on_error": None}], ids=str)
def test_words_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    """Bad input: a misspelt choice is found when decorating."""

    async def function(number: int) -> None: ...

    with pytest.raises(ConfigurationError):
        idempotent(AsyncIdempotencyStore.in_memory(), **options)(function)


def test_on_completion_failure_is_report_or_raise() -> None:
    """Bad input: a misspelt choice is found at construction."""
    with pytest.raises(ConfigurationError, match="on_completion_failure"):
        AsyncIdempotencyStore.in_memory(on_completion_failure="ignore")
