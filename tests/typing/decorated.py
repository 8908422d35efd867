"""U5: what type checkers must see; checked by mypy and pyright, never run.

Every ignored line is an error that both must find: an ignore that one of them does not need is an error
itself, by mypy's `warn_unused_ignores` and the line below for pyright, which reads mypy's comments.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true

import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import assert_type

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    Decision,
    InProgress,
    Lease,
    MemoryBackend,
    Mismatch,
    Record,
    Replay,
    Wait,
    idempotent,
)
from aioidempotency.transactions import OutboxEvent

store = AsyncIdempotencyStore("idempotency", retention=timedelta(days=1))


@dataclass
class Receipt:
    order_id: str


@idempotent(store, key="order_id", on_in_progress=Wait(5))
async def charge(order_id: str, *, amount: int = 5) -> Receipt:
    return Receipt(order_id)


class Shop:
    @idempotent(store)
    async def sell(self, order_id: str) -> Receipt:
        return Receipt(order_id)

    @classmethod
    @idempotent(store)
    async def open(cls, city: str) -> int:
        return len(city)

    @staticmethod
    @idempotent(store)
    async def count(city: str, /, *more: int) -> list[int]:
        return [*more, len(city)]

    @idempotent(store)
    @classmethod
    async def close(cls, city: str) -> int:
        return len(city)

    @idempotent(store)
    @staticmethod
    async def weigh(city: str) -> int:
        return len(city)

    async def __call__(self, order_id: str) -> bytes:
        return order_id.encode()


async def functions() -> None:
    assert_type(await charge("o-1"), Receipt)
    assert_type(await charge(order_id="o-1", amount=3), Receipt)
    await charge()  # type: ignore[call-arg]
    await charge(1)  # type: ignore[arg-type]
    await charge("o-1", 3)  # type: ignore[call-arg]
    await charge("o-1", amounts=3)  # type: ignore[call-arg]
    refused((await charge("o-1")).total)  # type: ignore[attr-defined]


async def methods() -> None:
    shop = Shop()
    assert_type(await shop.sell("o-1"), Receipt)
    assert_type(await Shop.sell(shop, "o-1"), Receipt)
    assert_type(await Shop.open("Basel"), int)
    assert_type(await shop.open(city="Basel"), int)
    assert_type(await Shop.count("Basel", 1, 2), list[int])
    assert_type(await Shop.close("Basel"), int)
    assert_type(await shop.weigh("Basel"), int)
    await shop.sell(1)  # type: ignore[arg-type]
    await shop.sell()  # type: ignore[call-arg]
    await Shop.open(1)  # type: ignore[arg-type]
    await Shop.close(1)  # type: ignore[arg-type]
    await Shop.weigh(1)  # type: ignore[arg-type]
    await Shop.count(city="Basel")  # type: ignore[call-arg]
    await Shop.count("Basel", "1")  # type: ignore[arg-type]


async def other_callables() -> None:
    called = idempotent(store)(Shop())
    assert_type(await called("o-1"), bytes)
    await called(1)  # type: ignore[arg-type]
    bound = idempotent(store)(Shop().sell)
    assert_type(await bound("o-1"), Receipt)
    held = idempotent(store)(functools.partial(charge, amount=3))
    assert_type(await held("o-1"), Receipt)


def plain(order_id: str) -> str:
    return order_id


async def generator(order_id: str) -> AsyncIterator[str]:
    yield order_id


def refused(*_: object) -> None:
    idempotent(store)(plain)  # type: ignore[arg-type]
    idempotent(store)(generator)  # type: ignore[arg-type]
    idempotent(store, missing_key="ignore")  # type: ignore[arg-type]
    idempotent(store, on_in_progress="wait")  # type: ignore[arg-type]
    idempotent(store, key=5)  # type: ignore[arg-type]
    AsyncIdempotencyStore("idempotency", HashBuckets=3)  # type: ignore[call-arg]


async def stores() -> None:
    assert_type(await store.run("k", charge, "o-1", amount=3), Receipt)
    await store.run("k", charge, 1)  # type: ignore[arg-type]
    await store.run("k", plain, "o-1")  # type: ignore[arg-type]
    assert_type(await store.claim("k"), Decision)
    assert_type(await store.claim_many(["k"]), list[Decision])
    assert_type(await store.get("k"), Record | None)
    assert_type(await store.get_many(["k"]), list[Record | None])
    async with store, store.execute("k") as execution:
        assert_type(execution.replayed, bool)
        assert_type(execution.lease, Lease | None)


def overriding() -> None:
    with store.override(backend=MemoryBackend(), clock=lambda: 0.0, disabled=False) as same:
        assert_type(same, AsyncIdempotencyStore)
    store.override(MemoryBackend())  # type: ignore[call-arg]
    store.override(backend=MemoryBackend)  # type: ignore[arg-type]


async def effects() -> None:
    async with store.execute("k") as execution:
        execution.transaction.put("orders", {"pk": "o-1"}, ConditionExpression="attribute_not_exists(pk)")
        execution.transaction.update(TableName="orders", Key={"pk": "o-1"}, UpdateExpression="SET a = :a")
        execution.transaction.check("orders", {"pk": "o-1"}, "a = :a", ExpressionAttributeValues={":a": {"N": "1"}})
        execution.transaction.put("orders", {"pk": "o-1"}, ConditionExpression=5)  # type: ignore[arg-type]
        execution.transaction.delete("orders", {"pk": "o-1"}, Condition="a")  # type: ignore[call-arg]
        execution.transaction.update("orders", {"pk": "o-1"})  # type: ignore[call-arg]
    assert_type(await store.get_or_create_id("k"), str)
    assert_type(await store.put_if_absent("orders", {"pk": "o-1"}), dict[str, object])
    assert_type(await store.commit_once("k", 1, [{"Put": {"TableName": "orders", "Item": {"pk": "o-1"}}}]), object)
    await store.commit_once("k", 1, generator)  # type: ignore[arg-type]
    async for event in store.outbox(poll=None):
        assert_type(event, OutboxEvent)


def told(decision: Decision) -> str:
    """Match all decisions: no default is needed, so none can be forgotten."""
    match decision:
        case Claimed(lease):
            return lease.key
        case Replay(record) | Mismatch(record):
            return record.key
        case InProgress(record, retry_after):
            return f"{record.key} {retry_after}"
