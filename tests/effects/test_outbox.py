"""Events are committed with their effects, and published after that: at least once, in order."""

import asyncio
from collections import Counter, defaultdict
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    ConfigurationError,
    MemoryBackend,
    SerializationError,
    Static,
    StoreError,
    TransactionError,
)
from aioidempotency._core.operations import Delete, Operation, Query
from aioidempotency.transactions import OutboxEvent
from tests.effects.conftest import Shop
from tests.support.scripted import Down, Fault, LostReply, ScriptedBackend

LAYOUT = CompositeKey()


def in_memory(**options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore.in_memory(layout=LAYOUT, **options)


async def emit(store: AsyncIdempotencyStore, call: str, *events: object, **options: Any) -> None:
    async with store.execute(call) as execution:
        for event in events:
            execution.transaction.emit(event, **options)


async def drained(store: AsyncIdempotencyStore, **options: Any) -> list[OutboxEvent]:
    return [event async for event in store.outbox(poll=None, **options)]


async def test_events_come_with_their_effects_and_go_when_they_are_published(shop: Shop) -> None:
    """In the order in which they were emitted; the default key is the record's."""
    store = shop.make_store(namespace="shop")
    async with store.execute("k", namespace="order") as execution:
        execution.transaction.put(shop.table, {"pk": "order-1"})
        execution.transaction.emit({"type": "ordered"})
        execution.transaction.emit({"type": "paid"})
        key, lease = execution.key, execution.lease
    assert lease is not None
    published = await drained(store)
    assert [each.event for each in published] == [{"type": "ordered"}, {"type": "paid"}]
    assert [(each.key, each.sequence, each.index) for each in published] == [
        (key, lease.fencing_token, 0),
        (key, lease.fencing_token, 1),
    ]
    assert [each.id for each in published] == [f"{lease.owner}-0", f"{lease.owner}-1"]
    assert await drained(store) == []
    assert len(shop.sent()[0].body["TransactItems"]) == 3


async def test_refused_effects_emit_nothing(shop: Shop) -> None:
    store = shop.make_store()
    with pytest.raises(TransactionError):
        async with store.execute("k") as execution:
            execution.transaction.emit("paid")
            execution.transaction.check(shop.table, {"pk": "nobody"}, "attribute_exists(pk)")
    assert await drained(store) == []


async def test_events_live_in_a_table_of_their_own_where_records_have_no_sort_key(simple_shop: Shop) -> None:
    """`create_table` makes it; without one, the error says what to do."""
    store = simple_shop.make_store()
    with pytest.raises(ConfigurationError, match="outbox_table="):
        await emit(store, "k", "paid")
    with pytest.raises(ConfigurationError, match="outbox_table="):
        store.outbox()
    with pytest.raises(ConfigurationError, match="is not a table's name"):
        simple_shop.make_store(outbox_table="")
    with pytest.raises(ConfigurationError, match="outbox_table= is the table of the records"):
        simple_shop.make_store(outbox_table=store._parts.settings.table.name)
    name = f"{simple_shop.table}-outbox"
    apart = simple_shop.make_store(outbox_table=name)
    await apart.create_table()
    await emit(apart, "k", "paid")
    found = await simple_shop.client.scan(TableName=name)
    assert len(found["Items"]) == 1
    assert [each.event for each in await drained(apart)] == ["paid"]


async def test_two_namespaces_have_two_outboxes() -> None:
    backend = MemoryBackend()
    one, other = (AsyncIdempotencyStore("table", layout=LAYOUT, backend=backend, namespace=name) for name in ("a", "b"))
    await emit(one, "k", "of a")
    await emit(other, "k", "of b")
    assert [each.event for each in await drained(one)] == ["of a"]
    assert [each.event for each in await drained(other)] == ["of b"]


async def test_what_a_relay_was_doing_when_it_ended_comes_again() -> None:
    """Published or not: at least once. Receivers tell by the id."""
    store = in_memory()
    await emit(store, "k", "one", "two", "three")
    seen = []
    async with aclosing(store.outbox()) as relay:
        async for event in relay:
            seen.append(event)
            if event.event == "two":
                break
    seen += await drained(store)
    assert [each.event for each in seen] == ["one", "two", "two", "three"]
    assert len({each.id for each in seen}) == 3


async def test_a_relay_that_raises_loses_nothing() -> None:
    store = in_memory()
    await emit(store, "k", "one")
    with pytest.raises(ConnectionError):
        async for _ in store.outbox():
            raise ConnectionError
    assert [each.event for each in await drained(store)] == ["one"]


@pytest.mark.parametrize("fault", [Down(), LostReply()], ids=["not removed", "removed, not answered"])
async def test_an_event_whose_removal_was_not_answered_comes_again_at_the_most(fault: Fault) -> None:
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("table", layout=LAYOUT, backend=backend)
    await emit(store, "k", "one")
    backend.rule = lambda operation: fault if isinstance(operation, Delete) else None
    seen = []
    with pytest.raises(StoreError):
        async for event in store.outbox():
            seen.append(event.event)  # noqa: PERF401 - what was seen before the error counts
    backend.rule = lambda _: None
    seen += [each.event for each in await drained(store)]
    assert seen == (["one"] if isinstance(fault, LostReply) else ["one", "one"])


async def test_events_of_an_entity_are_ordered_by_the_sequence_that_they_are_given() -> None:
    """The entity's version, which the same transaction insists on."""
    store = in_memory()
    for version in (3, 1, 10, 2):
        await emit(store, f"call-{version}", f"version {version}", key="order-1", sequence=version)
    published = await drained(store)
    assert [each.event for each in published] == ["version 1", "version 2", "version 3", "version 10"]
    assert {each.key for each in published} == {"order-1"}


async def test_every_event_is_published_once_and_in_order_by_relays_side_by_side(shop: Shop) -> None:
    """While they are emitted: first deliveries of each key's events are in order, and none is missing."""
    store = shop.make_store()
    firsts: defaultdict[str, list[object]] = defaultdict(list)
    counts: Counter[str] = Counter()

    async def publish(relay: AsyncIdempotencyStore) -> None:
        async for event in relay.outbox(poll=0.01):
            await asyncio.sleep(0)
            counts[event.id] += 1
            if counts[event.id] == 1:
                firsts[event.key].append(event.event)
                if sum(map(len, firsts.values())) == 90:
                    return

    async def produce(key: str) -> None:
        for number in range(15):
            await emit(store, f"{key}-{number}", 2 * number, 2 * number + 1, key=key, sequence=number)

    async with asyncio.timeout(50):
        relays = [asyncio.create_task(publish(shop.make_store())) for _ in range(2)]
        await asyncio.gather(*(produce(key) for key in ("a", "b", "c")))
        await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
        for relay in relays:
            relay.cancel()
        await asyncio.gather(*relays, return_exceptions=True)
    assert firsts == {key: list(range(30)) for key in ("a", "b", "c")}
    assert len(counts) == 90


async def test_shards_share_the_work() -> None:
    """Each key is in one of sixteen; together they have all."""
    store = in_memory()
    for number in range(40):
        await emit(store, f"call-{number}", number, key=f"key-{number}")
    odd = await drained(store, shards=range(1, 16, 2))
    even = await drained(store, shards=[*range(0, 16, 2), 0])
    assert 0 < len(odd) < 40
    assert sorted(int(str(each.event)) for each in [*odd, *even]) == list(range(40))


@dataclass
class Paid:
    cents: int


async def test_events_are_read_as_the_type_that_is_asked_for() -> None:
    store = in_memory()
    await emit(store, "k", Paid(5))
    assert [each.event for each in await drained(store, event_type=Paid)] == [Paid(5)]
    await emit(store, "other", Paid(5))
    with pytest.raises(
        SerializationError, match=r"the event [0-9a-f]{32}-0 cannot hold .*read the event without event_type="
    ):
        await drained(store, event_type=int)
    assert len(await drained(store)) == 1


@pytest.mark.parametrize(
    ("event", "options", "error", "match"),
    [
        (object(), {}, SerializationError, "the event cannot hold object: emit a value that JSON can hold"),
        ("e", {"key": ""}, TransactionError, "emit takes key="),
        ("e", {"key": 5}, TransactionError, "emit takes key="),
        ("e", {"key": "\ud800"}, SerializationError, "half a character"),
        ("e", {"sequence": -1}, TransactionError, "emit takes sequence="),
        ("e", {"sequence": 10**20}, TransactionError, "emit takes sequence="),
        ("e", {"sequence": True}, TransactionError, "emit takes sequence="),
        ("e", {"sequence": 1.0}, TransactionError, "emit takes sequence="),
        (420_000 * "x", {}, TransactionError, "events of one key are over 400 KB"),
    ],
)
async def test_what_cannot_be_emitted_is_refused(
    event: object, options: dict[str, Any], error: type[Exception], match: str
) -> None:
    """And what was emitted before stays."""
    store = in_memory()
    async with store.execute("k") as execution:
        execution.transaction.emit("fine")
        with pytest.raises(error, match=match):
            execution.transaction.emit(event, **options)
        assert len(execution.transaction) == 1
    assert [each.event for each in await drained(store)] == ["fine"]


async def test_events_of_one_key_in_one_transaction_have_one_sequence() -> None:
    store = in_memory()
    async with store.execute("k") as execution:
        write = execution.transaction
        write.emit("one", key="order-1", sequence=7)
        write.emit("two", key="order-1")
        write.emit("other", key="order-2", sequence=1)
        with pytest.raises(TransactionError, match="have one sequence="):
            write.emit("three", key="order-1", sequence=8)
        assert len(write) == 2
        assert repr(write) == f"<Transaction of {execution.key}: 2 writes>"
    assert "has ended" in repr(write)
    assert sorted((each.key, each.sequence, each.index) for each in await drained(store)) == [
        ("order-1", 7, 0),
        ("order-1", 7, 1),
        ("order-2", 1, 0),
    ]


async def test_a_relay_waits_for_events_that_come() -> None:
    looked = asyncio.Event()
    backend = ScriptedBackend(MemoryBackend(), lambda _: looked.set() if backend.count(Query) > 16 else None)
    store = AsyncIdempotencyStore("table", layout=LAYOUT, backend=backend)

    async def first() -> object:
        async for event in store.outbox(poll=timedelta(milliseconds=1)):
            return event.event
        raise AssertionError

    waiting = asyncio.create_task(first())
    await looked.wait()
    await emit(store, "k", "late")
    assert await asyncio.wait_for(waiting, 10) == "late"


@pytest.mark.parametrize("options", [{"shards": [16]}, {"shards": [-1]}, {"shards": ["1"]}, {"poll": 0}])
def test_bad_settings_of_a_relay_are_refused(options: dict[str, Any]) -> None:
    """When it is made, not when it is iterated."""
    with pytest.raises(ConfigurationError):
        in_memory().outbox(**options)


async def test_what_is_in_the_way_in_an_outbox_is_told() -> None:
    backend = MemoryBackend()
    store = AsyncIdempotencyStore("table", layout=LAYOUT, backend=backend)
    await emit(store, "k", "one")
    (location,) = (location for location in backend._items if location[1].startswith("aioidempotency#outbox"))
    backend._items[location] = {name: value for name, value in backend._items[location].items() if name != "data"}
    with pytest.raises(ConfigurationError, match="holds no events"):
        await drained(store)


async def test_an_event_tells_nothing_of_its_content() -> None:
    """U3: neither in its text nor in the transaction's."""
    store = in_memory()
    async with store.execute("k") as execution:
        execution.transaction.emit("canary")
        assert "canary" not in repr(execution.transaction)
    (event,) = await drained(store)
    assert "canary" not in repr(event)


def deletes(operations: list[Operation]) -> int:
    return sum(isinstance(operation, Delete) for operation in operations)


async def test_an_empty_outbox_costs_one_query_a_shard() -> None:
    """And one with events two, a deletion for each item, and, as long as a relay is new, a count of each first event."""
    backend = ScriptedBackend(MemoryBackend())
    store = AsyncIdempotencyStore("table", layout=LAYOUT, backend=backend, verify_layout=False)
    assert await drained(store) == []
    assert [type(each).__name__ for each in backend.operations] == 16 * ["Query"]
    await emit(store, "k", "one", "two")
    before = len(backend.operations)
    await drained(store)
    sent = [type(each).__name__ for each in backend.operations[before:]]
    assert Counter(sent) == {"Query": 2 * 16 + 2, "Put": 2, "Delete": 1}
    assert deletes(backend.operations) == 1


async def test_a_table_with_a_sort_key_can_be_named_for_its_own_events() -> None:
    """By whatever names its key has."""
    layout = CompositeKey("part", "sort")
    store = AsyncIdempotencyStore.in_memory("table", layout=layout, outbox_table="table")
    await emit(store, "k", "one")
    assert [each.event for each in await drained(store)] == ["one"]


async def test_a_relay_looks_at_no_layout() -> None:
    """Where events, ids and items are does not depend on it."""
    backend = MemoryBackend()
    await emit(AsyncIdempotencyStore("table", layout=LAYOUT, backend=backend), "k", "one")
    counting = ScriptedBackend(backend)
    other = CompositeKey(partitioning=Static("elsewhere"))
    store = AsyncIdempotencyStore("table", layout=other, backend=counting)
    assert [each.event for each in await drained(store)] == ["one"]
    await store.get_or_create_id("k")
    await store.put_if_absent("orders", {"pk": "a"})
    assert {type(each).__name__ for each in counting.operations} == {"Query", "Delete", "Put"}
