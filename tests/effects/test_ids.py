"""Ids and items that are made once, on every backend."""

import asyncio
import uuid
from typing import Any

import pytest
from aiobotocore.session import AioSession

from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    ConfigurationError,
    GroupCommit,
    MissingKeyError,
    Reshard,
    SerializationError,
    TimeBuckets,
)
from aioidempotency.testing import FakeClock
from tests.behaviours.conftest import Counted
from tests.conftest import MakeStore
from tests.effects.conftest import Shop, make_table, shop_on
from tests.support.engines import Engine


async def test_a_hundred_callers_get_one_id(make_store: MakeStore) -> None:
    """X1: concurrently, from two stores; and after the retention."""
    clock = FakeClock()
    stores = [make_store(clock=clock), make_store(clock=clock)]
    ids = await asyncio.gather(*(stores[number % 2].get_or_create_id("client-1") for number in range(100)))
    assert len(set(ids)) == 1
    clock.advance(400 * 86_400)
    assert await stores[0].get_or_create_id("client-1") == ids[0]
    assert await stores[0].get_or_create_id("client-2") != ids[0]
    assert await stores[0].get_or_create_id("client-1", namespace="other") != ids[0]


async def test_an_id_is_one_write(counted: Counted) -> None:
    """ConditionFailed or not; a read besides only where the refusal does not say what it met."""
    first = await counted.store.get_or_create_id("client-1")
    assert [type(operation).__name__ for operation in counted.operations] == ["Put"]
    assert await counted.store.get_or_create_id("client-1") == first
    sent = [type(operation).__name__ for operation in counted.operations]
    assert sent in (["Put", "Put"], ["Put", "Put", "Get"])


async def test_an_id_is_a_uuid_of_version_7_unless_a_factory_makes_it(make_store: MakeStore) -> None:
    store = make_store()
    made = uuid.UUID(await store.get_or_create_id("client-1"))
    assert made.version == 7

    async def later() -> str:
        await asyncio.sleep(0)
        return "order-2"

    assert await store.get_or_create_id("client-2", lambda: "order-1") == "order-1"
    assert await store.get_or_create_id("client-2", lambda: "order-9") == "order-1"
    assert await store.get_or_create_id("client-3", factory=later) == "order-2"


async def test_an_id_expires_if_asked(make_store: MakeStore) -> None:
    """Of many who find it expired, one makes the next."""
    clock = FakeClock()
    store = make_store(clock=clock)
    first = await store.get_or_create_id("client-1", expires_after=60)
    clock.advance(59)
    assert await store.get_or_create_id("client-1", expires_after=60) == first
    clock.advance(2)
    ids = await asyncio.gather(*(store.get_or_create_id("client-1", expires_after=60) for _ in range(20)))
    assert len({first, *ids}) == 2


async def test_an_id_is_no_record(make_store: MakeStore) -> None:
    """The same key can be claimed; two of one namespace's ids differ by key only."""
    store = make_store()
    made = await store.get_or_create_id("k")
    assert await store.get("k") is None
    async with store.execute("k") as execution:
        execution.complete("done")
    assert await store.get_or_create_id("k") == made


async def test_an_id_stays_where_it_is_when_records_move() -> None:
    """It depends on neither layout nor time."""
    clock = FakeClock()
    first = AsyncIdempotencyStore.in_memory(layout=CompositeKey(), clock=clock)
    backend = first._parts.records.backend
    made = await first.get_or_create_id("client-1")
    for partitioning in (TimeBuckets(60, 4), Reshard(CompositeKey().partitioning, TimeBuckets(60, 4), "prepare")):
        clock.advance(86_400)
        moved = AsyncIdempotencyStore(
            "in-memory",
            layout=CompositeKey(partitioning=partitioning),
            backend=backend,
            clock=clock,
            verify_layout=False,
        )
        assert await moved.get_or_create_id("client-1") == made


@pytest.mark.parametrize("made", ["", None, 5, uuid.uuid4()])
async def test_an_id_is_a_text(make_store: MakeStore, made: Any) -> None:
    with pytest.raises(SerializationError, match="an id cannot hold"):
        await make_store().get_or_create_id("client-1", lambda: made)


async def test_a_missing_key_has_no_id(make_store: MakeStore) -> None:
    with pytest.raises(MissingKeyError):
        await make_store().get_or_create_id(None)
    with pytest.raises(ConfigurationError, match="expires_after="):
        await make_store().get_or_create_id("k", expires_after=-1)


async def test_an_item_is_put_once(shop: Shop) -> None:
    """A hundred at once: all are answered with the same item, ours or the earlier one; one request each."""
    store = shop.make_store()
    answers = await asyncio.gather(
        *(store.put_if_absent(shop.table, {"pk": "order-1", "by": number, "cents": 1.5}) for number in range(100))
    )
    assert len({str(answer) for answer in answers}) == 1
    assert await shop.items() == {"order-1": {name: answers[0][name] for name in ("by", "cents")}}
    assert sum(seen.body["TableName"] == shop.table for seen in shop.sent("PutItem")) == 100


async def test_an_item_is_answered_in_the_form_in_which_it_was_given(shop: Shop) -> None:
    store = shop.make_store()
    plain = {"pk": "order-1", "lines": [{"sku": "a", "n": 2}], "tags": {"x"}, "raw": b"\x00"}
    assert await store.put_if_absent(shop.table, plain) == plain
    typed = {"pk": {"S": "order-1"}, "n": {"N": "9"}}
    answer = await store.put_if_absent(shop.table, typed)
    assert answer["lines"] == {"L": [{"M": {"sku": {"S": "a"}, "n": {"N": "2"}}}]}


async def test_items_have_keys_of_any_type(shop: Shop) -> None:
    """A partition key of bytes and a sort key that is a number."""
    table = await make_table(shop.client, id="B", version="N")
    store = shop.make_store()
    for number in (1, 1.0, 2):
        found = await store.put_if_absent(table, {"id": b"a", "version": number, "n": number}, key=("id", "version"))
        assert found["version"] == number
    scanned = await shop.client.scan(TableName=table)
    assert len(scanned["Items"]) == 2


@pytest.mark.parametrize(
    ("item", "key"),
    [
        ({"id": "a"}, ("pk",)),
        ({"pk": None}, ("pk",)),
        ({"pk": ["a"]}, "pk"),
        ({"pk": "a"}, ()),
        ({"pk": "a", "b": 1, "c": 2}, ("pk", "b", "c")),
        ({"pk": "a"}, ("pk", "sk")),
    ],
)
async def test_an_item_without_its_key_is_refused(item: Any, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="key= names the table's one or two key attributes"):
        await AsyncIdempotencyStore.in_memory().put_if_absent("orders", item, key=key)


async def test_bad_items_and_tables_are_refused() -> None:
    store = AsyncIdempotencyStore.in_memory()
    with pytest.raises(SerializationError, match="over 400 KB"):
        await store.put_if_absent("orders", {"pk": "a", "data": 420_000 * "x"})
    with pytest.raises(SerializationError, match="the item cannot hold object"):
        await store.put_if_absent("orders", {"pk": "a", "data": object()})
    with pytest.raises(ConfigurationError, match="is not a table's name"):
        await store.put_if_absent("", {"pk": "a"})


async def test_in_memory_items_are_put_once_too() -> None:
    """So code that uses them can be tested without an emulator; a table whose key is called as our attributes are."""
    store = AsyncIdempotencyStore.in_memory()
    assert await store.put_if_absent("orders", {"status": "a", "n": 1}, key="status") == {"status": "a", "n": 1}
    assert await store.put_if_absent("orders", {"status": "a", "n": 2}, key="status") == {"status": "a", "n": 1}
    assert await store.put_if_absent("others", {"status": "a", "n": 2}, key="status") == {"status": "a", "n": 2}
    assert await store.put_if_absent("orders", {"status": "1", "n": 2}, key="status") == {"status": "1", "n": 2}
    assert await store.put_if_absent("orders", {"status": 1, "n": 3}, key="status") == {"status": 1, "n": 3}
    assert await store.put_if_absent("orders", {"status": 1.0, "n": 4}, key="status") == {"status": 1, "n": 3}


async def test_with_group_commit_items_of_other_tables_go_by_themselves(ministack: Engine, session: AioSession) -> None:
    """G3: a batch is of one table, whose key is text; its neighbours are not troubled."""
    async with shop_on(ministack, session, {"group_commit": GroupCommit()}) as shop:
        store = shop.make_store()
        numbers = await make_table(shop.client, id="N")
        puts = [store.put_if_absent(shop.table, {"pk": f"order-{n % 3}", "by": n}) for n in range(40)]
        counted = [store.put_if_absent(numbers, {"id": float(n % 3), "by": n}, key="id") for n in range(40)]
        gets = [store.get(f"k-{n}") for n in range(40)]
        answers = await asyncio.gather(*puts, *counted, *gets)
        assert len({str(answer) for answer in answers[:40]}) == 3
        assert len({str(answer) for answer in answers[40:80]}) == 3
        assert answers[80:] == 40 * [None]


async def test_an_id_is_the_text_that_its_factorys_is(make_store: MakeStore) -> None:
    """A subclass of str is stored by its value."""

    class Spelled(str):
        __slots__ = ()

    made = await make_store().get_or_create_id("k", lambda: Spelled("order-1"))
    assert (made, type(made)) == ("order-1", str)
