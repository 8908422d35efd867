"""Effects and a result in one request, without a claim."""

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    ConfigurationError,
    HashBuckets,
    InProgressError,
    MemoryBackend,
    MismatchError,
    MissingKeyError,
    RandomBuckets,
    Reshard,
    ResultUnavailableError,
    SerializationError,
    TimeBuckets,
    TransactionError,
)
from aioidempotency import CompositeKey as Composite
from aioidempotency._core.operations import Operation, Reply, Transact
from aioidempotency.events import CallMismatched, CallRefused, CallReplayed, Event, RecordCompleted
from aioidempotency.testing import FakeClock
from aioidempotency.transactions import Transaction
from tests.effects.conftest import Shop
from tests.support.counting import CountingBackend

pytestmark = pytest.mark.backends()  # each engine has transactions of its own

ABSENT = "attribute_not_exists(pk)"
Put = dict[str, Any]


def put(table: str, pk: str, **more: Any) -> dict[str, Put]:
    return {"Put": {"TableName": table, "Item": {"pk": pk}, "ConditionExpression": ABSENT, **more}}


async def test_a_commit_is_one_request_and_a_duplicate_is_another(shop: Shop) -> None:
    """The duplicate writes nothing, and gets the stored result."""
    events: list[Event] = []
    store = shop.make_store(on_event=events.append)
    assert await store.get("warm") is None
    start = len(shop.proxy.requests)
    assert await store.commit_once("k", {"order": 1}, [put(shop.table, "order-1")]) == {"order": 1}
    assert await store.commit_once("k", {"order": 2}, [put(shop.table, "order-2")]) == {"order": 1}
    assert [seen.operation for seen in shop.proxied.since(start)] == 2 * ["TransactWriteItems"]
    assert await shop.items() == {"order-1": {}}
    assert [type(event) for event in events] == [RecordCompleted, CallReplayed]


async def test_a_hundred_commits_at_once_take_effect_once(shop: Shop) -> None:
    """X3: on the same key, from two stores: one effect, one answer."""
    stores = [shop.make_store(), shop.make_store()]
    update = {"TableName": shop.table, "Key": {"pk": "n"}, "UpdateExpression": "ADD n :one"}
    count = {"Update": {**update, "ExpressionAttributeValues": {":one": 1}}}
    answers = await asyncio.gather(*(stores[number % 2].commit_once("k", number, [count]) for number in range(100)))
    assert len(set(map(str, answers))) == 1
    assert await shop.items() == {"n": {"n": 1}}


async def test_writes_can_be_collected_by_a_function(shop: Shop) -> None:
    """With the methods of `execution.transaction`, events too; afterwards it takes nothing."""
    store = shop.make_store()
    kept: list[Transaction] = []

    def writes(transaction: Transaction) -> None:
        transaction.put(shop.table, {"pk": "order-1", "cents": 5})
        transaction.emit({"type": "ordered"}, key="order-1")
        kept.append(transaction)

    assert await store.commit_once("k", "done", writes) == "done"
    assert await shop.items() == {"order-1": {"cents": 5}}
    assert [each.event async for each in store.outbox(poll=None)] == [{"type": "ordered"}]
    with pytest.raises(TransactionError, match="has ended its block"):
        kept[0].put(shop.table, {"pk": "late"})


async def test_every_kind_of_write_is_taken_as_the_wire_has_it(shop: Shop) -> None:
    await shop.put("old")
    await shop.put("customer", active=True)
    key = {"TableName": shop.table}
    writes: list[dict[str, Put]] = [
        {"Put": {**key, "Item": {"pk": {"S": "order-1"}}}},
        {
            "Update": {
                **key,
                "Key": {"pk": "stock"},
                "UpdateExpression": "SET n = :n",
                "ExpressionAttributeValues": {":n": {"N": "4"}},
            }
        },
        {"Delete": {**key, "Key": {"pk": "old"}}},
        {
            "ConditionCheck": {
                **key,
                "Key": {"pk": "customer"},
                "ConditionExpression": "attribute_exists(pk)",
            }
        },
    ]
    assert await shop.make_store().commit_once("k", None, writes) is None
    assert await shop.items() == {"order-1": {}, "stock": {"n": 4}, "customer": {"active": True}}


async def test_refused_effects_store_no_result(shop: Shop) -> None:
    """X2: told by index, with the item; the next call is as free as the first."""
    store = shop.make_store()
    await shop.put("order-1", by="other")
    with pytest.raises(TransactionError) as refused:
        await store.commit_once(
            "k",
            "done",
            [put(shop.table, "fine"), put(shop.table, "order-1", ReturnValuesOnConditionCheckFailure="ALL_OLD")],
        )
    fine, reason = refused.value.reasons
    assert fine is None
    assert reason is not None
    assert reason.item == {"pk": "order-1", "by": "other"}
    assert list(await shop.items()) == ["order-1"]
    assert await store.get("k") is None


async def test_a_running_claim_refuses_a_commit_and_a_finished_one_answers_it(shop: Shop) -> None:
    """Both modes share the record of a key."""
    events: list[Event] = []
    store = shop.make_store(on_event=events.append)
    async with store.execute("k") as execution:
        with pytest.raises(InProgressError) as refused:
            await store.commit_once("k", "late", [put(shop.table, "late")])
        assert 0 < refused.value.retry_after <= 61
        execution.complete("done")
    assert await store.commit_once("k", "late", [put(shop.table, "late")]) == "done"
    assert not await shop.items()
    assert any(isinstance(event, CallRefused) for event in events)


async def test_a_committed_key_is_replayed_by_the_other_entry_points(shop: Shop) -> None:
    store = shop.make_store()
    await store.commit_once("k", {"n": 1}, [put(shop.table, "order-1")])
    async with store.execute("k") as execution:
        assert (execution.replayed, execution.result) == (True, {"n": 1})


async def test_another_fingerprint_is_refused(shop: Shop) -> None:
    """O15: as everywhere."""
    events: list[Event] = []
    store = shop.make_store(on_event=events.append)
    await store.commit_once("k", 1, [put(shop.table, "order-1")], fingerprint="a")
    with pytest.raises(MismatchError):
        await store.commit_once("k", 2, [put(shop.table, "order-2")], fingerprint="b")
    assert await store.commit_once("k", 2, [put(shop.table, "order-2")], fingerprint="a") == 1
    assert any(isinstance(event, CallMismatched) for event in events)


async def test_an_owner_whose_lease_is_over_is_replaced(shop: Shop) -> None:
    """O7: and finds itself refused."""
    clock = FakeClock()
    store = shop.make_store(clock=clock)
    stale = await store.claim("k")
    clock.advance(62)
    assert await store.commit_once("k", "next", [put(shop.table, "next")]) == "next"
    record = await store.get("k")
    assert record is not None
    assert record.fencing_token > stale.lease.fencing_token  # type: ignore[union-attr] # claimed
    clock.advance(3602)
    assert await store.commit_once("k", "again", [put(shop.table, "again")]) == "again"


async def test_where_a_key_has_several_places_all_are_in_the_transaction(shop: Shop) -> None:
    """P2, X4: the record takes an action for each location."""
    layout = Composite(partitioning=RandomBuckets(16, 3))
    store = shop.make_store(layout=layout, verify_layout=False)
    many = [{"Delete": {"TableName": shop.table, "Key": {"pk": str(number)}}} for number in range(98)]
    with pytest.raises(TransactionError, match="3 of them are the record's"):
        await store.commit_once("k", 1, many)
    assert await store.commit_once("k", 1, many[:97]) == 1
    (sent,) = shop.sent()
    assert len(sent.body["TransactItems"]) == 100
    for _ in range(5):
        assert await store.commit_once("k", 2, [put(shop.table, "never")]) == 1
    async with store.execute("claimed") as execution:
        execution.transaction.put(shop.table, {"pk": "claimed"})
        assert execution.lease is not None
        for location in execution.lease.route.locations(0.0):
            with pytest.raises(TransactionError, match="of the execution's own record"):
                execution.transaction.delete(location.table.name, {"pk": location.partition, "sk": location.key})
    assert list(await shop.items()) == ["claimed"]


@pytest.mark.parametrize(
    ("writes", "match"),
    [
        ([{"Put": {}, "Delete": {}}], "a write is a mapping with one of Put, Update, Delete, ConditionCheck"),
        (["Put"], "a write is a mapping with one of"),
        ([{"Get": {"TableName": "t"}}], "a write is a mapping with one of"),
        ([{"Put": {"TableName": "t"}}], "Put lacks a parameter: TableName, Item"),
        (
            [{"Put": {"TableName": "t", "Item": {"pk": 1}, "Extra": 1}}],
            "put does not take Extra=; it takes TableName, Item, ConditionExpression",
        ),
        (
            [{"ConditionCheck": {"TableName": "t", "Key": {"pk": 1}}}],
            "ConditionCheck lacks a parameter: TableName, Key, ConditionExpression",
        ),
    ],
)
async def test_what_is_no_write_is_refused_before_anything_is_sent(writes: Any, match: str) -> None:
    backend = CountingBackend[Operation, Reply](MemoryBackend())
    store = AsyncIdempotencyStore("table", backend=backend)
    with pytest.raises(TransactionError, match=match):
        await store.commit_once("k", 1, writes)
    assert not backend.operations


async def test_a_result_that_cannot_be_stored_is_refused_before_anything_is_sent() -> None:
    """No work is done yet, so there is nothing to remember by a tombstone."""
    backend = CountingBackend[Operation, Reply](MemoryBackend())
    store = AsyncIdempotencyStore("table", backend=backend)
    for result in (object(), [str(number) * 40 for number in range(500_000)]):
        with pytest.raises(SerializationError):
            await store.commit_once("k", result, [])
    with pytest.raises(MissingKeyError):
        await store.commit_once("", 1, [])
    assert not backend.operations


@dataclass
class Receipt:
    order: int


async def test_in_memory_a_result_is_committed_once() -> None:
    """Without writes, or with events; read back as the type that is asked for, and kept in the process."""
    backend = CountingBackend[Operation, Reply](MemoryBackend())
    store = AsyncIdempotencyStore("table", backend=backend, local_cache=10)
    first = await store.commit_once("k", Receipt(1), [], namespace="n", retention=60)
    assert first == Receipt(1)
    assert await store.commit_once("k", Receipt(2), [], namespace="n", result_type=Receipt) == Receipt(1)
    assert len(backend.operations) == 1
    assert isinstance(backend.operations[0], Transact)
    with pytest.raises(ResultUnavailableError):
        await store.commit_once("k", 2, [], namespace="n", result_type=int)
    assert await store.get("k") is None


async def test_an_expensive_duplicate_can_be_read_first() -> None:
    """`read_first`: a refused transaction is billed twice by the size of what it met."""
    backend = CountingBackend[Operation, Reply](MemoryBackend())
    store = AsyncIdempotencyStore("table", backend=backend, read_first=True)
    for _ in range(2):
        assert await store.commit_once("k", 1, []) == 1
    assert [type(operation).__name__ for operation in backend.operations] == ["Get", "Transact", "Get"]


@pytest.mark.parametrize(
    "partitioning",
    [TimeBuckets(3600, 4), Reshard(HashBuckets(4), TimeBuckets(3600, 4), "prepare")],
    ids=["windows", "a move to windows"],
)
async def test_where_places_pass_there_is_no_commit_without_a_claim(partitioning: Any) -> None:
    """A late claim is taken back there, and effects could not be."""
    store = AsyncIdempotencyStore.in_memory(layout=Composite(partitioning=partitioning))
    with pytest.raises(ConfigurationError, match="commit_once does not work with TimeBuckets"):
        await store.commit_once("k", 1, [])
    async with store.execute("k") as execution:
        execution.transaction.emit("fine")


async def test_a_coroutine_function_that_writes_is_refused() -> None:
    """It would not be awaited: nothing would be written, and the key be finished."""
    backend = CountingBackend[Operation, Reply](MemoryBackend())
    store = AsyncIdempotencyStore("table", backend=backend)

    async def writes(transaction: Transaction) -> None:
        transaction.emit("lost")

    for wrong in (writes, lambda _: 5):
        with pytest.raises(TransactionError, match="is called, and not awaited"):
            await store.commit_once("k", 1, wrong)  # type: ignore[arg-type] # as a user without a type checker might
    assert not backend.operations
