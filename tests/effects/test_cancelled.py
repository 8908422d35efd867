"""A transaction at a block's end: cancelled, unanswered, late. Each test names the state that is left."""

import asyncio
from typing import Any, Literal, final

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    ConfigurationError,
    LeaseLostError,
    MemoryBackend,
    Status,
    StoreError,
    TransactionError,
)
from aioidempotency._core.operations import Delete, Operation, Reply, Transact, TransactionFailed
from aioidempotency._effects import store as effects_store
from aioidempotency.events import CompletionFailed, Event, LeaseLost, RecordReleased
from aioidempotency.exceptions import Reason
from aioidempotency.testing import FakeClock
from tests.ownership.test_cancellation import Cancel, at_each_side, every_cancellation
from tests.support.gate import GateBackend
from tests.support.scripted import Down, Fault, LostReply, ScriptedBackend, Stall
from tests.support.virtual_time import in_virtual_time, pass_time

When = Literal["before", "after"]
LAYOUT = CompositeKey()


def store_on(backend: Any, events: list[Event] | None = None, **options: Any) -> AsyncIdempotencyStore:
    hook = None if events is None else events.append
    return AsyncIdempotencyStore("table", layout=LAYOUT, verify_layout=False, backend=backend, on_event=hook, **options)


async def effects_on(backend: MemoryBackend) -> list[object]:
    """Tell which effects were applied."""
    return [each.event async for each in store_on(backend).outbox(poll=None)]


async def order(store: AsyncIdempotencyStore) -> object:
    """Run one call whose effect is an event."""
    async with store.execute("key") as execution:
        if not execution.replayed:
            execution.transaction.emit("paid")
            execution.complete("done")
    return execution.result


@final
class ConditionFailed(Fault):
    """The effects are refused by a condition of theirs; the record is fine."""

    def __init__(self, code: str = "ConditionalCheckFailed") -> None:
        self.reason = Reason(code)

    async def answer(self, backend: Any, operation: Operation) -> Reply:
        assert isinstance(operation, Transact)
        return TransactionFailed((None,), (self.reason,))


def on_transactions(*faults: Fault | None) -> Any:
    """Let these faults meet the transactions, one after the other; the last one stays."""
    left = list(faults)

    def rule(operation: Operation) -> Fault | None:
        if not isinstance(operation, Transact):
            return None
        return left.pop(0) if len(left) > 1 else left[0]

    return rule


@every_cancellation
@at_each_side
async def test_cancelled_while_committing_effects_and_record_are_there(when: When, cancel: Cancel) -> None:
    """O5, X2: once the body has ended its work is committed all the same, once, and the cancellation passes on."""
    table = MemoryBackend()
    gate = GateBackend(table, Transact, when)
    store = store_on(gate)

    async def call() -> None:
        await order(store)

    await cancel(call(), gate.reached)
    gate.open()
    await store.aclose()
    assert await effects_on(table) == ["paid"]
    assert await order(store_on(table)) == "done"
    assert await effects_on(table) == []


@every_cancellation
async def test_cancelled_while_refused_effects_free_the_key(cancel: Cancel) -> None:
    """O5: the second try is refused, too; nothing is applied, and the next call runs."""
    table, events, reached = MemoryBackend(), list[Event](), asyncio.Event()

    class Slow(Fault):
        async def answer(self, backend: Any, operation: Operation) -> Reply:
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

    backend = ScriptedBackend(table, on_transactions(Slow(), ConditionFailed()))
    store = store_on(backend, events)

    async def call() -> None:
        await order(store)

    await cancel(call(), reached)
    assert await store_on(table).get("key") is None
    assert any(isinstance(event, RecordReleased) for event in events)
    assert not any(isinstance(event, CompletionFailed | LeaseLost) for event in events)


@every_cancellation
async def test_cancelled_while_a_tables_key_is_looked_up_nothing_is_written(cancel: Cancel) -> None:
    """O5: nothing was sent, and the key is free."""
    table, reached = MemoryBackend(), asyncio.Event()

    class Curious:
        async def execute(self, operation: Operation) -> Reply:
            return await table.execute(operation)

        async def key_of(self, table_name: str) -> frozenset[str]:
            assert table_name == "orders"
            reached.set()
            await asyncio.Event().wait()
            raise AssertionError

    store = store_on(Curious())

    async def call() -> None:
        async with store.execute("key") as execution:
            execution.transaction.put("orders", {"pk": "a", "n": 1})
            execution.transaction.put("orders", {"pk": "b", "n": 1})

    await cancel(call(), reached)
    assert await store_on(table).get("key") is None


@in_virtual_time
async def test_a_transaction_is_sent_until_the_store_is_back() -> None:
    """O3, X3: each time the very same."""
    table = MemoryBackend()
    backend = ScriptedBackend(table, on_transactions(Down(), LostReply(), Down(), None))
    assert await order(store_on(backend)) == "done"
    sent = [each for each in backend.operations if isinstance(each, Transact)]
    assert len(sent) == 4
    assert len({(each.token, str(each)) for each in sent}) == 1
    assert await effects_on(table) == ["paid"]


@in_virtual_time
@pytest.mark.parametrize("choice", ["report", "raise"])
async def test_a_transaction_that_is_not_answered_until_the_lease_ends_is_an_error(
    choice: Literal["report", "raise"],
) -> None:
    """X3: the outcome of the transaction is unknown; the result must not look as if it were. The next call tells."""
    table, events = MemoryBackend(), list[Event]()
    store = store_on(ScriptedBackend(table, on_transactions(Down())), events, lease=2, on_completion_failure=choice)
    with pytest.raises(StoreError) as failed:
        await order(store)
    assert failed.value.result == "done"
    assert [type(event) for event in events].count(CompletionFailed) == 1
    assert await effects_on(table) == []


@in_virtual_time
async def test_a_transaction_that_was_applied_and_never_answered_is_found_by_the_next_call() -> None:
    table = MemoryBackend()
    with pytest.raises(StoreError):
        await order(store_on(ScriptedBackend(table, on_transactions(LostReply(), Down())), lease=2))
    assert await order(store_on(table)) == "done"
    assert await effects_on(table) == ["paid"]


@in_virtual_time
async def test_a_commit_that_hangs_in_a_clean_up_ends_and_is_reported() -> None:
    """O5: after five seconds; the lease frees the key."""
    table, events = MemoryBackend(), list[Event]()
    store = store_on(ScriptedBackend(table, on_transactions(Stall())), events)
    task = asyncio.create_task(order(store))
    await pass_time(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.get_running_loop().time() < 60
    assert [type(event) for event in events].count(CompletionFailed) == 1
    record = await store_on(table).get("key")
    assert record is not None
    assert record.status is Status.INPROGRESS


async def test_what_may_pass_can_be_called_again() -> None:
    """Conflicts and throttling, told by index when they do not end; the key is free, and nothing was applied."""
    table = MemoryBackend()
    with pytest.raises(TransactionError, match="TransactionConflict at index 0") as refused:
        await order(store_on(ScriptedBackend(table, on_transactions(ConditionFailed("TransactionConflict")))))
    assert refused.value.retryable
    assert await order(store_on(table)) == "done"


async def test_a_record_that_is_gone_takes_its_effects_with_it() -> None:
    """X3: deleted while it ran; it is not put anew, since the effects may have been applied before."""
    table, events = MemoryBackend(), list[Event]()
    store = store_on(table, events)
    with pytest.raises(LeaseLostError) as lost:
        async with store.execute("key") as execution:
            execution.transaction.emit("paid")
            execution.complete("done")
            assert execution.lease is not None
            await store.release(execution.lease)
    assert (lost.value.result, lost.value.record) == ("done", None)
    assert [type(event) for event in events][-1] is LeaseLost
    assert await effects_on(table) == []


async def test_a_release_that_fails_does_not_hide_the_refusal() -> None:
    table = MemoryBackend()

    def rule(operation: Operation) -> Fault | None:
        return Down() if isinstance(operation, Delete) else on_transactions(ConditionFailed())(operation)

    with pytest.raises(TransactionError):
        await order(store_on(ScriptedBackend(table, rule)))


async def test_the_result_stays_in_this_process_after_a_commit() -> None:
    """`local_cache`: duplicates send nothing."""
    backend = ScriptedBackend(MemoryBackend())
    store = store_on(backend, local_cache=10)
    assert await order(store) == "done"
    sent = len(backend.operations)
    assert await order(store) == "done"
    assert len(backend.operations) == sent


@in_virtual_time
async def test_an_answer_that_comes_when_its_record_has_expired_tells_nothing() -> None:
    """X3: applied and not answered, then paused for longer than the retention: gone is not the same as never applied."""
    table, clock = MemoryBackend(), FakeClock()

    class Pause(Fault):
        async def answer(self, backend: Any, operation: Operation) -> Reply:
            await backend.execute(operation)
            clock.advance(3700)
            async with store_on(table, clock=clock).execute("key") as execution:
                assert not execution.replayed
            return await backend.execute(operation)  # type: ignore[no-any-return] # as a client's own retry does

    store = store_on(ScriptedBackend(table, on_transactions(Pause(), None)), clock=clock)
    with pytest.raises(StoreError, match="the outcome of the transaction is unknown") as failed:
        async with store.execute("key", heartbeat=False) as execution:
            execution.transaction.emit("paid")
            execution.complete("done")
            await asyncio.sleep(0)
    assert failed.value.result == "done"
    assert await effects_on(table) == ["paid"]


@in_virtual_time
async def test_a_cancelled_commit_that_fails_until_the_lease_ends_is_reported_once() -> None:
    table, events = MemoryBackend(), list[Event]()
    store = store_on(ScriptedBackend(table, on_transactions(Down())), events, lease=2)
    task = asyncio.create_task(order(store))
    await pass_time(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(event) for event in events].count(CompletionFailed) == 1


async def test_a_look_up_that_was_cancelled_is_made_again_by_the_next_call() -> None:
    """Nothing of it stays in the store; a second call at the same time asks for itself."""
    table, asked, both, answered = MemoryBackend(), [], asyncio.Event(), asyncio.Event()

    class Slow:
        async def execute(self, operation: Operation) -> Reply:
            return await table.execute(operation)

        async def key_of(self, table_name: str) -> frozenset[str]:
            asked.append(table_name)
            if len(asked) == 2:
                both.set()
            await answered.wait()
            return frozenset({"pk"})

    store = store_on(Slow())

    async def call(key: str) -> None:
        async with store.execute(key) as execution:
            for pk in ("a", "b"):
                execution.transaction.put("orders", {"pk": pk, "n": 1})

    tasks = [asyncio.create_task(call(key)) for key in ("first", "second")]
    await both.wait()
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    answered.set()
    with pytest.raises(ConfigurationError, match="has none of your tables"):
        await tasks[1]
    with pytest.raises(ConfigurationError, match="has none of your tables"):
        await call("third")
    assert asked == 2 * ["orders"]


async def test_a_look_up_that_takes_too_long_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered, so that the test need not wait for it."""
    table, asked = MemoryBackend(), []
    monkeypatch.setattr(effects_store, "LOOK_UP_LIMIT", 0.001)

    class Silent:
        async def execute(self, operation: Operation) -> Reply:
            return await table.execute(operation)

        async def key_of(self, table_name: str) -> frozenset[str]:
            asked.append(table_name)
            await asyncio.Event().wait()
            raise AssertionError

    store = store_on(Silent())
    for key in ("first", "second"):
        with pytest.raises(ConfigurationError, match="has none of your tables"):
            async with store.execute(key) as execution:
                for pk in ("a", "b"):
                    execution.transaction.put("orders", {"pk": pk, "n": 1})
    assert asked == 2 * ["orders"]
