"""Batches of SQS and of streams: what runs, what is answered, and what a failure does to its neighbours."""

import asyncio
import json
import logging
import re
from contextlib import suppress
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import DynamoDBStreamEvent, KinesisStreamEvent, SQSEvent
from aws_lambda_powertools.utilities.parser.models import KinesisDataStreamModel, SqsModel

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    ConfigurationError,
    Execution,
    MemoryBackend,
    MismatchError,
    MissingKeyError,
    ResultUnavailableError,
    SerializationError,
    Wait,
    idempotent,
    namespace_of,
)
from aioidempotency.aws_lambda import BatchHandler, lambda_handler, sqs_batch, stream_batch
from aioidempotency.events import BatchItemFailed, BatchItemPoisoned, Event
from aioidempotency.testing import FakeClock
from tests.conftest import MakeStore
from tests.support.lambda_events import Context, change, event, failures, kinesis_record, message
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


class Handled:
    """A handler of messages that does as their bodies say, and keeps the ids of those that it was called for."""

    def __init__(self, store: AsyncIdempotencyStore, batch: Any = sqs_batch, **options: Any) -> None:
        self.called: list[str] = []
        self.ended: list[str] = []
        self.most, self._running = 0, 0

        async def handler(record: dict[str, Any]) -> None:
            name = record.get("messageId") or record["eventID"][-2:]
            self.called.append(name)
            self._running += 1
            self.most = max(self.most, self._running)
            try:
                await self.act(json.loads(record.get("body", "null")))
            finally:
                self._running -= 1
            self.ended.append(name)

        self.handle: BatchHandler = batch(store, **{"namespace": "handled", **options})(handler)

    async def act(self, body: Any) -> None:
        match body:
            case {"fail": reason}:
                raise ValueError(reason)
            case {"take": seconds}:
                await asyncio.sleep(seconds)
            case {"exit": code}:
                raise SystemExit(code)
            case _:
                return


@in_virtual_time
async def test_a_batch_reports_exactly_what_failed() -> None:
    """L5, L7: three fail, two are duplicates, one runs elsewhere, and the last two do not start before the deadline."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    handled = Handled(store, key="powertools_json(record.body).order || record.messageId", concurrency=6)
    await handled.handle(event(message("done", {"order": "order-done"})), None)
    elsewhere = await store.claim("order-elsewhere", namespace="handled")
    assert isinstance(elsewhere, Claimed)
    messages = [
        message("fails-1", {"fail": "a"}),
        message("first", {"order": "order-1"}),
        message("fails-2", {"fail": "b"}),
        message("elsewhere", {"order": "order-elsewhere"}),
        message("again", {"order": "order-1"}),
        message("done-again", {"order": "order-done"}),
        message("fails-3", {"fail": "c"}),
        *(message(f"slow-{n}", {"take": 100}) for n in range(6)),
        message("late-1", {}),
        message("late-2", {}),
    ]
    response = await handled.handle(event(*messages), Context(10))
    expected = ["fails-1", "fails-2", "elsewhere", "fails-3", *(f"slow-{n}" for n in range(6)), "late-1", "late-2"]
    assert failures(response) == expected
    assert handled.ended == ["done", "first"]
    assert not {"late-1", "late-2", "elsewhere", "again", "done-again"} & set(handled.called)


async def test_a_delivery_that_comes_again_succeeds_without_its_handler(make_store: MakeStore) -> None:
    """L5: SQS delivers a handled message again, with another receipt, and the handler is not called."""
    handled = Handled(make_store())
    for _ in range(2):
        assert failures(await handled.handle(event(message("a"), message("b")), None)) == []
    assert handled.called == ["a", "b"]
    assert failures(await handled.handle(event(), None)) == []


async def test_a_duplicate_inside_a_batch_shares_the_outcome_of_the_first() -> None:
    """L5: it waits, and neither runs after a failure nor is reported after a success."""
    handled = Handled(AsyncIdempotencyStore.in_memory(), key="record.body")
    good, bad = json.dumps({"take": 0.01}), json.dumps({"fail": "x"})
    batch = event(message("g1", good), message("b1", bad), message("g2", good), message("b2", bad), message("g3", good))
    assert failures(await handled.handle(batch, None)) == ["b1", "b2"]
    assert handled.called == ["g1", "b1"]


async def test_an_override_holds_for_batches(make_store: MakeStore) -> None:
    """C21: records are those of the backend in use, and a disabled store runs every record, duplicates included."""
    store = make_store()
    handled = Handled(store, key="record.body")
    batch = event(message("a", "1"), message("b", "1"))
    for options in ({"backend": MemoryBackend()}, {"disabled": True}):
        with store.override(**options):
            assert failures(await handled.handle(batch, None)) == []
    assert failures(await handled.handle(batch, None)) == []
    assert handled.called == ["a", "a", "b", "a"]


async def test_one_message_that_is_in_a_batch_twice_is_named_once() -> None:
    """L5: an answer with a repeated name would be another answer."""
    handled = Handled(AsyncIdempotencyStore.in_memory())
    bad = {"fail": "x"}
    assert failures(await handled.handle(event(message("b", bad), message("b", bad)), None)) == ["b"]


async def test_a_fifo_queue_keeps_the_order_inside_each_group() -> None:
    """L6: groups run side by side; after a failure, the rest of the group is reported and does not run."""
    handled = Handled(AsyncIdempotencyStore.in_memory())
    fifo = [
        message("a1", {"take": 0.02}, group="a", fifo=True),
        message("b1", {}, group="b", fifo=True),
        message("a2", {"fail": "x"}, group="a", fifo=True),
        message("b2", {}, group="b", fifo=True),
        message("a3", {}, group="a", fifo=True),
        message("c1", {"fail": "x"}, group="c", fifo=True),
        message("b3", {}, group="b", fifo=True),
    ]
    assert failures(await handled.handle(event(*fifo), None)) == ["a2", "a3", "c1"]
    assert [name for name in handled.called if name[0] == "a"] == ["a1", "a2"]
    assert handled.called.index("b3") < handled.called.index("a2")
    assert handled.ended == ["b1", "b2", "b3", "a1"]


async def test_groups_of_a_fair_queue_have_no_order() -> None:
    """L6: a message group in a queue that is no FIFO queue is a tenant, and a failure fails nothing else."""
    handled = Handled(AsyncIdempotencyStore.in_memory())
    fair = [message("a1", {"fail": "x"}, group="a"), message("a2", {}, group="a")]
    assert failures(await handled.handle(event(*fair), None)) == ["a1"]
    assert handled.ended == ["a2"]


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_duplicates_across_groups_do_not_wait_in_a_circle(concurrency: int) -> None:
    """L6, L7: each of two groups waits for a message of the other one, with fewer places than groups."""
    handled = Handled(AsyncIdempotencyStore.in_memory(), key="record.body", concurrency=concurrency)
    crossed = [
        message("a1", "1", group="a", fifo=True),
        message("b1", "2", group="b", fifo=True),
        message("a2", "2", group="a", fifo=True),
        message("b2", "1", group="b", fifo=True),
        message("c1", "3", group="c", fifo=True),
    ]
    async with asyncio.timeout(10):
        assert failures(await handled.handle(event(*crossed), None)) == []
    assert sorted(handled.called) == ["a1", "b1", "c1"]


async def test_a_duplicate_of_a_message_that_its_group_holds_back_is_reported() -> None:
    """L6: the first one never runs, since its group failed before; the duplicate in another group comes again, too."""
    handled = Handled(AsyncIdempotencyStore.in_memory(), key="record.body")
    held = [
        message("a1", '{"fail": "x"}', group="a", fifo=True),
        message("a2", "2", group="a", fifo=True),
        message("b1", "2", group="b", fifo=True),
        message("b2", "3", group="b", fifo=True),
    ]
    async with asyncio.timeout(10):
        assert failures(await handled.handle(event(*held), None)) == ["a1", "a2", "b1", "b2"]
    assert handled.called == ["a1"]


@pytest.mark.parametrize("make", [kinesis_record, change])
async def test_a_stream_stops_at_the_first_failure(make: Any) -> None:
    """L6: in order; the lowest failure alone is named, and what follows does not run, and runs at the next delivery."""
    store, failing = AsyncIdempotencyStore.in_memory(), {2}
    called: list[int] = []

    @stream_batch(store)
    async def index(record: dict[str, Any]) -> None:
        number = int(record["eventID"][-1])
        called.append(number)
        if number in failing:
            raise ValueError(number)

    records = [make(number) for number in range(4)]
    sequence = records[2].get("kinesis", {}).get("sequenceNumber") or records[2]["dynamodb"]["SequenceNumber"]
    assert failures(await index(event(*records), None)) == [sequence]
    failing.clear()
    assert failures(await index(event(*records[2:]), None)) == []
    assert failures(await index(event(*records), None)) == []
    assert called == [0, 1, 2, 2, 3]


@in_virtual_time
async def test_a_stream_whose_time_is_up_names_the_record_that_ran() -> None:
    """L6, L7: the checkpoint is the record that was cancelled, not those behind it."""
    handled = Handled(AsyncIdempotencyStore.in_memory(clock=epoch_seconds), stream_batch)
    records = [change(number) for number in range(3)]
    records[1]["body"] = json.dumps({"take": 60})
    response = await handled.handle(event(*records), Context(5))
    assert failures(response) == [records[1]["dynamodb"]["SequenceNumber"]]
    assert handled.called == ["00", "01"]


@in_virtual_time
async def test_the_number_of_running_records_is_bounded() -> None:
    """L7: the ten of the default, or as many as were asked for."""
    messages = [message(str(n), {"take": 1}) for n in range(25)]
    for options, most in (({}, 10), ({"concurrency": 3}, 3)):
        handled = Handled(AsyncIdempotencyStore.in_memory(clock=epoch_seconds), **options)
        assert failures(await handled.handle(event(*messages), None)) == []
        assert handled.most == most


@in_virtual_time
async def test_records_that_are_cancelled_give_their_keys_back() -> None:
    """L4, L7: before the batch answers, so that the next delivery runs at once."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    handled = Handled(store)
    assert failures(await handled.handle(event(message("a", {"take": 60})), Context(5))) == ["a"]
    assert await store.get("a", namespace="handled") is None
    assert asyncio.get_running_loop().time() < 5 - 0.5


@in_virtual_time
async def test_a_record_that_does_not_end_is_reported_all_the_same() -> None:
    """L7: a batch answers before the adapter's margin, whatever a cancelled handler still does."""

    @sqs_batch(AsyncIdempotencyStore.in_memory(clock=epoch_seconds))
    async def handler(record: dict[str, Any]) -> None:
        try:
            await pass_time(60)
        finally:
            await pass_time(60)

    assert failures(await handler(event(message("a"), message("b")), Context(5))) == ["a", "b"]
    assert asyncio.get_running_loop().time() <= 5 - 0.5
    await pass_time(120)


@in_virtual_time
async def test_a_record_that_ends_although_it_was_cancelled_is_delivered() -> None:
    """L5: its work is done and its record complete, so it must not come again; the next one of its group does."""

    @sqs_batch(AsyncIdempotencyStore.in_memory(clock=epoch_seconds))
    async def handler(record: dict[str, Any]) -> None:
        try:
            await pass_time(60)
        except asyncio.CancelledError:
            await pass_time(0.1)

    records = [message(name, group="a", fifo=True) for name in ("a1", "a2")]
    assert failures(await handler(event(*records), Context(5))) == ["a2"]


@in_virtual_time
async def test_a_duplicate_whose_first_ends_although_it_was_cancelled_is_named_at_most() -> None:
    """L5, L7: the first one is delivered all the same, whatever becomes of those that waited for it."""

    @sqs_batch(AsyncIdempotencyStore.in_memory(clock=epoch_seconds), key="record.body")
    async def handler(record: dict[str, Any]) -> None:
        try:
            await pass_time(60)
        except asyncio.CancelledError:
            await pass_time(0.1)

    assert failures(await handler(event(*(message(name, "1") for name in "abc")), Context(5))) == ["b", "c"]


@in_virtual_time
async def test_a_batch_without_any_time_left_starts_nothing() -> None:
    """L7: all records are reported, and none was claimed."""
    handled = Handled(AsyncIdempotencyStore.in_memory(clock=epoch_seconds))
    assert failures(await handled.handle(event(message("a"), message("b")), Context(0.6))) == ["a", "b"]
    assert handled.called == []


async def test_awaited_without_the_adapter_a_batch_knows_its_end_by_the_context() -> None:
    """L4: the lease of each record lasts until the end of the invocation."""
    durations: list[float] = []

    @sqs_batch(AsyncIdempotencyStore.in_memory(lease=600))
    async def handler(record: object) -> None:
        lease = Execution.current().lease
        assert lease is not None
        durations.append(lease.duration)

    await handler(event(message("a")), Context(20))
    await handler(event(message("b")), None)
    assert 19 < durations[0] <= 20
    assert durations[1] == 600


@in_virtual_time
async def test_after_a_cancellation_no_further_record_starts() -> None:
    """L5: not even if the handler that was cancelled returns as if nothing had been."""
    called: list[str] = []

    @sqs_batch(AsyncIdempotencyStore.in_memory(clock=epoch_seconds))
    async def handler(record: dict[str, Any]) -> None:
        called.append(record["messageId"])
        with suppress(asyncio.CancelledError):
            await pass_time(60)

    records = [message(name, group="a", fifo=True) for name in ("a1", "a2")]
    batch = asyncio.ensure_future(handler(event(*records), Context(300)))
    await pass_time(1)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert called == ["a1"]


@in_virtual_time
async def test_a_batch_whose_caller_is_cancelled_gives_all_keys_back() -> None:
    """L5: a cancellation from outside, before the time is up, passes on, after the records have ended."""
    store = AsyncIdempotencyStore.in_memory(clock=epoch_seconds)
    handled = Handled(store)
    batch = asyncio.ensure_future(handled.handle(event(message("a", {"take": 60})), Context(30)))
    await pass_time(1)
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    assert await store.get("a", namespace="handled") is None


async def test_nothing_escapes_once_the_first_record_began() -> None:
    """L5: neither `sys.exit`, nor a handler that cancels itself, nor a table that is not there."""
    handled = Handled(AsyncIdempotencyStore.in_memory())

    async def act(body: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if body == "cancel":
            task.cancel()
            await asyncio.sleep(0)
        if body == "exit":
            raise SystemExit(1)

    handled.act = act  # type: ignore[method-assign] # as its cases do
    batch = event(*(message(body, json.dumps(body)) for body in ("cancel", "fine", "exit", "good")))
    assert failures(await handled.handle(batch, None)) == ["cancel", "exit"]
    assert handled.ended == ["fine", "good"]


async def test_a_record_waits_for_its_owner_where_that_was_asked_for() -> None:
    """L5: with `Wait`, a message that another process handles succeeds when that process has ended."""
    store = AsyncIdempotencyStore.in_memory()
    handled = Handled(store, on_in_progress=Wait(10))
    owner = await store.claim("a", namespace="handled")
    assert isinstance(owner, Claimed)
    batch = asyncio.ensure_future(handled.handle(event(message("a")), None))
    await asyncio.sleep(0)
    await store.complete(owner.lease, None)
    assert failures(await batch) == []
    assert handled.called == []


class Poison:
    """A store with records that poison the messages of these names, and a hook that keeps what it is given."""

    def __init__(self, answer: object = None) -> None:
        self.answer = answer
        self.told: list[tuple[str, type[Exception]]] = []
        self.events: list[Event] = []
        self.store = AsyncIdempotencyStore.in_memory(on_event=self.events.append)

    def hook(self, record: dict[str, Any], error: Exception) -> Any:
        self.told.append((record["messageId"], type(error)))
        return self.answer

    async def run(self, **options: Any) -> list[str]:
        async with self.store.execute("order-lost", namespace="handled", fingerprint=1) as execution:
            execution.complete(object())
        async with self.store.execute("order-taken", namespace="handled", fingerprint=2) as execution:
            execution.complete(None)
        handled = Handled(
            self.store,
            key="powertools_json(record.body).order",
            fingerprint="powertools_json(record.body).amount",
            on_poison=self.hook,
            **options,
        )
        batch = event(
            message("undecodable", "no JSON"),
            message("keyless", {"amount": 1}),
            message("mismatching", {"order": "order-taken", "amount": 1}),
            message("lost", {"order": "order-lost", "amount": 1}),
            message("good", {"order": "order-1", "amount": 1}),
        )
        found = failures(await handled.handle(batch, None))
        assert handled.called == ["good"]
        return found


NAMES = ["undecodable", "keyless", "mismatching", "lost"]


@pytest.mark.parametrize("answer", [None, False, 1, {"MessageId": "1"}])
async def test_poison_is_told_to_the_hook_and_reported(answer: object) -> None:
    """L5: whatever the hook answers but True, the record comes again, and ends in the queue's dead-letter queue."""
    poison = Poison(answer)
    assert await poison.run() == NAMES
    kinds = [SerializationError, MissingKeyError, MismatchError, ResultUnavailableError]
    assert sorted(poison.told) == sorted(zip(NAMES, kinds, strict=True))
    told = [each for each in poison.events if isinstance(each, BatchItemPoisoned)]
    assert sorted(each.position for each in told) == [1, 2, 3, 4]
    assert not any(each.delivered for each in told)


async def test_the_hook_can_take_poison_for_delivered() -> None:
    """L5: a hook that keeps the record elsewhere says so, as a plain or as a coroutine function."""
    assert await Poison(answer=True).run() == []

    async def kept() -> bool:
        return True

    poison = Poison()
    poison.hook = lambda record, error: kept()  # type: ignore[method-assign]
    assert await poison.run() == []


async def test_a_hook_that_fails_takes_nothing() -> None:
    """L5: not even `sys.exit` in the hook leaves the batch."""
    for failure in ValueError("canary"), SystemExit(1):
        poison = Poison()

        def fail(record: object, error: Exception, failure: BaseException = failure) -> Any:
            raise failure

        poison.hook = fail  # type: ignore[method-assign]
        assert await poison.run() == NAMES
        assert "canary" not in str(poison.events)


async def test_a_callable_key_that_raises_makes_poison() -> None:
    """L5: as an expression that cannot be evaluated does; the other records run."""
    told: list[type[Exception]] = []

    def taken(record: object, error: Exception) -> bool:
        told.append(type(error))
        return True

    handled = Handled(
        AsyncIdempotencyStore.in_memory(),
        key=lambda record: json.loads(record["body"])["order"],
        on_poison=taken,
    )
    batch = event(message("a", "no JSON"), message("b", {}), message("c", {"order": "1"}))
    assert failures(await handled.handle(batch, None)) == []
    assert (handled.called, told) == (["c"], [json.JSONDecodeError, KeyError])


async def test_an_error_of_the_handler_is_no_poison() -> None:
    """L5: a mismatch of another call, made by the handler, may pass; only the record's own refusals stay."""
    store = AsyncIdempotencyStore.in_memory()
    async with store.execute("inner", fingerprint=1) as execution:
        execution.complete(None)

    @sqs_batch(store, on_poison=lambda record, error: True)
    async def handler(record: dict[str, Any]) -> None:
        async with store.execute("inner", fingerprint=2):
            pass

    assert failures(await handler(event(message("a")), None)) == ["a"]


async def test_one_key_with_two_payloads_in_a_batch_is_a_mismatch() -> None:
    """L5, O15: such a record is no duplicate of the first one, and does not share its success."""
    handled = Handled(AsyncIdempotencyStore.in_memory(), key="'order-1'", fingerprint="record.body", concurrency=1)
    batch = event(message("a", "1"), message("b", "2"), message("c", "1"))
    assert failures(await handled.handle(batch, None)) == ["b"]
    assert handled.called == ["a"]


async def test_an_error_of_a_handler_without_a_key_is_no_poison() -> None:
    """L5: also if it is one of the library's."""

    @sqs_batch(AsyncIdempotencyStore.in_memory(), key="record.no", missing_key="run", on_poison=lambda *_: True)
    async def handler(record: dict[str, Any]) -> None:
        raise MissingKeyError("another key")

    assert failures(await handler(event(message("a")), None)) == ["a"]


async def test_records_without_a_key_may_run_unprotected() -> None:
    """L5: with `missing_key="run"`, each time, and with one warning."""
    events: list[Event] = []
    handled = Handled(AsyncIdempotencyStore.in_memory(on_event=events.append), key="record.nothing", missing_key="run")
    for _ in range(2):
        assert failures(await handled.handle(event(message("a"), message("b", {"fail": "x"})), None)) == ["b"]
    assert handled.called == ["a", "b", "a", "b"]
    assert [type(each).__name__ for each in events] == ["KeyMissing", "BatchItemFailed", "BatchItemFailed"]


async def test_stored_errors_fail_each_delivery_without_the_handler() -> None:
    """L5: an error that is an outcome is an outcome at each delivery."""
    handled = Handled(AsyncIdempotencyStore.in_memory(), store_errors=(ValueError,))
    for _ in range(2):
        assert failures(await handled.handle(event(message("a", {"fail": "x"})), None)) == ["a"]
    assert handled.called == ["a"]


async def test_handled_records_answer_for_as_long_as_the_source_keeps_them(make_store: MakeStore) -> None:
    """L5: 14 days for queues and 7 for streams, whatever the store's retention, unless one is given."""
    clock = FakeClock()
    store = make_store(retention=60, clock=clock)
    for make, record, options, days in (
        (sqs_batch, message("a"), {}, 14.0),
        (stream_batch, change(1), {}, 7.0),
        (sqs_batch, message("b"), {"retention": 86_400}, 1.0),
    ):
        handled = Handled(store, make, namespace=make.__name__, **options)
        await handled.handle(event(record), None)
        found = await store.get(record.get("messageId") or record["eventID"], namespace=make.__name__)
        assert found is not None
        assert found.expiration == clock() + days * 86_400


async def test_the_namespace_of_a_batch_is_that_of_its_handler() -> None:
    """L5: two handlers of one queue never share a record, and `namespace_of` names the records."""
    store = AsyncIdempotencyStore.in_memory()

    @sqs_batch(store)
    async def first(record: dict[str, Any]) -> str:
        return "first"

    @sqs_batch(store)
    async def second(record: dict[str, Any]) -> str:
        return "second"

    for handler, name in (first, "first"), (second, "second"):
        await handler(event(message("a")), None)
        record = await store.get("a", namespace=namespace_of(handler))
        assert record is not None
        assert record.result == name
    assert namespace_of(lambda_handler(first)) == namespace_of(first)


async def test_the_context_goes_to_handlers_that_take_it() -> None:
    """L5: as a second parameter of any name, or as an optional one named `context`."""
    store, context = AsyncIdempotencyStore.in_memory(), Context()
    got: list[object] = []

    @sqs_batch(store)
    async def second(message: object, invocation: object) -> None:
        got.append(invocation)

    @sqs_batch(store)
    async def optional(message: object, context: object = None) -> None:
        got.append(context)

    @sqs_batch(store)
    async def other(message: object, client: object = "client") -> None:
        got.append(client)

    for handler in second, optional, other:
        await handler(event(message("a")), context)
    assert got == [context, context, "client"]


def powertools_events() -> list[tuple[Any, Any, str]]:
    """Events of Powertools: of its event classes, and of its parser."""
    queue, stream, table = event(message("a", {"id": 1})), event(kinesis_record(1)), event(change(1))
    queue["Records"][0]["attributes"] |= {"ApproximateFirstReceiveTimestamp": "1800000000000", "SenderId": "s"}
    queue["Records"][0]["md5OfBody"] = "0" * 32
    for record in stream["Records"]:
        record["invokeIdentityArn"] = "arn:aws:iam::123456789012:role/reader"
    return [
        (sqs_batch, SQSEvent(queue), "SQSRecord"),
        (sqs_batch, SqsModel.model_validate(queue), "SqsRecordModel"),
        (stream_batch, KinesisStreamEvent(stream), "KinesisStreamRecord"),
        (stream_batch, KinesisDataStreamModel.model_validate(stream), "KinesisDataStreamRecord"),
        (stream_batch, DynamoDBStreamEvent(table), "DynamoDBRecord"),
    ]


@pytest.mark.parametrize(("batch", "made", "kind"), powertools_events(), ids=lambda each: str(each)[:20])
async def test_events_of_powertools_serve_as_plain_ones_do(batch: Any, made: Any, kind: str) -> None:
    """L5: the handler gets Powertools' object, and the key, the answer and the record are those of the plain event."""
    store = AsyncIdempotencyStore.in_memory()
    got: list[str] = []
    failing = True

    @batch(store, namespace="handled")  # type: ignore[untyped-decorator]
    async def handler(record: object) -> None:
        got.append(type(record).__name__)
        if failing:
            raise ValueError

    (failed,) = failures(await handler(made, None))
    plain = (
        made.model_dump(by_alias=True)["Records"][0] if hasattr(made, "model_dump") else made.raw_event["Records"][0]
    )
    expected = plain.get("messageId") or plain.get("kinesis", {}).get("sequenceNumber")
    assert failed == (expected or plain["dynamodb"]["SequenceNumber"])
    failing = False
    for _ in range(2):
        assert failures(await handler(made, None)) == []
    assert got == [kind, kind]
    assert await store.get(plain.get("messageId") or plain["eventID"], namespace="handled") is not None


async def test_neither_logs_nor_events_tell_what_a_record_is_about(caplog: pytest.LogCaptureFixture) -> None:
    """U3: the class of an error and its line are told; its message, the body and the message's id are not."""
    events: list[Event] = []
    store = AsyncIdempotencyStore.in_memory(on_event=events.append)
    handled = Handled(store)
    with caplog.at_level(logging.DEBUG, "aioidempotency"):
        await handled.handle(event(message("canary-id", {"fail": "canary-message"})), None)
        await Handled(store, key="powertools_json(record.body)").handle(
            event(message("canary-id", "canary-body")), None
        )
    text = f"{events} {caplog.text} {handled.handle!r}"
    assert "canary" not in text
    failed = [each for each in events if isinstance(each, BatchItemFailed)]
    assert len(failed) == 1
    assert failed[0].reason.startswith("ValueError at ")
    assert "test_batches.py" in failed[0].reason
    assert [each.reason for each in events if isinstance(each, BatchItemPoisoned)] != []


async def test_an_error_is_told_by_the_line_of_the_handlers_file() -> None:
    """U3: an error that a library raised is told by the line that called the library."""
    events: list[Event] = []

    @sqs_batch(AsyncIdempotencyStore.in_memory(on_event=events.append))
    async def handler(record: dict[str, Any]) -> None:
        json.loads(record["body"])

    await handler(event(message("a", "no JSON")), None)
    (failed,) = (each for each in events if isinstance(each, BatchItemFailed))
    assert re.fullmatch(r"JSONDecodeError at .*test_batches\.py:\d+", failed.reason)


class Shop:
    async def handle(self, record: object) -> None: ...


def refused(decorate: Any) -> str:
    with pytest.raises(ConfigurationError) as raised:
        decorate()
    return str(raised.value)


async def test_a_wrong_handler_is_told_what_to_write() -> None:
    """L5: a plain function, the adapter below the batch, two claims for one record, and wrong parameters."""
    store = AsyncIdempotencyStore.in_memory()

    def plain(record: object) -> None: ...
    async def none() -> None: ...
    async def three(record: object, context: object, more: object) -> None: ...
    async def whole(event: object, context: object) -> None: ...
    @idempotent(store)
    async def twice(record: object) -> None: ...

    assert "async def" in refused(lambda: sqs_batch(store)(plain))  # type: ignore[arg-type]
    assert "@lambda_handler goes above" in refused(lambda: sqs_batch(store)(lambda_handler(whole)))  # type: ignore[arg-type]
    assert "take @idempotent away" in refused(lambda: sqs_batch(store)(twice))
    assert "(record, context)" in refused(lambda: sqs_batch(store)(none))
    assert "(record, context)" in refused(lambda: stream_batch(store)(three))
    assert "coroutine function" in refused(lambda: sqs_batch(store)("handler"))  # type: ignore[arg-type]
    assert "decorate a bound method" in refused(lambda: sqs_batch(store)(Shop.handle))
    await sqs_batch(store)(Shop().handle)(event(message("a")), None)


async def test_wrong_settings_are_refused_when_decorating() -> None:
    """L5: with the name of the setting."""
    store = AsyncIdempotencyStore.in_memory()

    async def handler(record: object) -> None: ...

    for options, expected in (
        ({"key": None}, "key= is None"),
        ({"key": "message.messageId"}, "write one of record"),
        ({"fingerprint": "body"}, "write one of record"),
        ({"concurrency": 0}, "concurrency="),
        ({"concurrency": True}, "concurrency="),
        ({"on_poison": "drop"}, "on_poison="),
        ({"missing_key": "skip"}, "missing_key="),
        ({"missing_parts": "skip"}, "missing_parts="),
        ({"retention": 0}, "retention="),
    ):
        assert expected in refused(lambda options=options: sqs_batch(store, **options)(handler))
    with pytest.raises(TypeError, match="retries"):
        sqs_batch(store, retries=3)(handler)  # type: ignore[call-arg]


async def test_a_wrong_event_is_refused_before_the_first_record() -> None:
    """L5: with the decorator that fits, and without a word of what is in the event."""
    store = AsyncIdempotencyStore.in_memory()
    queue, stream = Handled(store, namespace="q"), Handled(store, stream_batch, namespace="s")
    for handled, wrong, expected in (
        (queue, event(change(1)), "decorate with stream_batch"),
        (queue, event({"eventSource": "aws:s3", "s3": {}}), "'aws:s3'.*@idempotent"),
        (queue, event({"eventSource": "canary 1"}), "another source"),
        (queue, {"detail": {"canary": 1}}, "without a list of records"),
        (queue, None, "without a list of records"),
        (queue, event({**message("a"), "messageId": ""}), "messageId"),
        (stream, event(message("a")), "decorate with sqs_batch"),
        (stream, event({"eventID": "1", "dynamodb": {}}), r"dynamodb\.SequenceNumber"),
    ):
        with pytest.raises(ConfigurationError, match=expected) as raised:
            await handled.handle(wrong, None)
        assert "canary" not in str(raised.value)
    assert queue.called == stream.called == []
