"""Transactions that were applied and whose answers never came, or that met another one."""

import secrets
from typing import Any

import pytest
from aiobotocore.config import AioConfig

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, Status, StoreError, TransactionError
from tests.behaviours.test_lost_replies import IMPATIENT, LOST, options
from tests.effects.conftest import Shop
from tests.support.proxy import Fault, Seen

pytestmark = pytest.mark.backends()  # one engine knows a transaction by its token, the other does not

ONE_TRY = AioConfig(read_timeout=0.4, retries={"mode": "standard", "total_max_attempts": 1})
"""A client that does not ask again by itself: then the library does."""

ABSENT = "attribute_not_exists(pk)"


async def order(store: AsyncIdempotencyStore, table: str, **options: Any) -> object:
    """Count up in one item, put another one that must not be there yet, and answer."""
    async with store.execute("k", **options) as execution:
        if not execution.replayed:
            write = execution.transaction
            write.update(table, {"pk": "n"}, "ADD n :one", ExpressionAttributeValues={":one": 1})
            write.put(table, {"pk": "order-1"}, ConditionExpression=ABSENT)
            execution.complete("paid")
    return execution.result


async def assert_applied_once(shop: Shop, store: AsyncIdempotencyStore) -> None:
    assert await shop.items() == {"n": {"n": 1}, "order-1": {}}
    record = await store.get("k")
    assert record is not None
    assert (record.status, record.result) == (Status.COMPLETED, "paid")


def assert_the_same(sent: list[Seen]) -> None:
    """Each try has the same parameters, and the same token."""
    assert len(sent) > 1
    assert all(each.body == sent[0].body for each in sent)


@LOST
@pytest.mark.parametrize("client", ["retrying", "giving up"])
async def test_the_answer_to_a_transaction_is_lost(shop: Shop, fault: Fault, client: str) -> None:
    """X3: by its token, or by the record where the engine knows no tokens; whoever asks again."""
    store = shop.make_store(**({"config": ONE_TRY} if client == "giving up" else options(fault)))
    shop.proxy.inject(fault, operation="TransactWriteItems")
    assert await order(store, shop.table) == "paid"
    assert (shop.sent()[0].fault, shop.sent()[0].status) == (fault, 200)
    assert_the_same(shop.sent())
    await assert_applied_once(shop, store)
    assert await order(store, shop.table) == "paid"
    await assert_applied_once(shop, store)


async def test_a_transaction_that_arrives_after_its_successor_is_not_applied_again(shop: Shop) -> None:
    """X3: the first copy is held on its way, the second one is applied."""
    store = shop.make_store(config=IMPATIENT)
    shop.proxy.inject(Fault.DELAY, operation="TransactWriteItems")
    assert await order(store, shop.table) == "paid"
    shop.proxy.release()
    await shop.proxy.wait_for("TransactWriteItems")
    await assert_applied_once(shop, store)


async def test_a_transaction_that_arrives_when_its_caller_was_told_an_error_is_whole(shop: Shop) -> None:
    """X2: the record and its effects come together, then, too; the next call replays."""
    store = shop.make_store(config=IMPATIENT, lease=1)
    shop.proxy.inject(Fault.DELAY, operation="TransactWriteItems", times=30)
    with pytest.raises(StoreError):
        await order(store, shop.table, heartbeat=False)
    assert await shop.items() == {}
    shop.proxy.release()
    await shop.proxy.wait_for("TransactWriteItems")
    await assert_applied_once(shop, store)
    assert await order(store, shop.table) == "paid"


@pytest.mark.parametrize("fault", [Fault.CANCELLED_BY_CONFLICT, Fault.THROTTLE, Fault.CONFLICT, Fault.IN_PROGRESS])
async def test_a_transaction_that_meets_another_is_sent_again(shop: Shop, fault: Fault) -> None:
    """With the same token and identical parameters."""
    store = shop.make_store()
    shop.proxy.inject(fault, operation="TransactWriteItems", times=2)
    assert await order(store, shop.table) == "paid"
    assert [seen.fault for seen in shop.sent()] == [fault, fault, None]
    assert_the_same(shop.sent())
    await assert_applied_once(shop, store)


async def test_a_conflict_on_an_effect_that_does_not_end_is_told_by_index(shop: Shop) -> None:
    """Six tries; nothing was applied, the key is free, and the error says that a later call may succeed."""
    store = shop.make_store()
    shop.proxy.inject(Fault.EFFECT_CONFLICTS, operation="TransactWriteItems", times=6)
    with pytest.raises(TransactionError, match="TransactionConflict at index 0 of its 2 writes") as refused:
        await order(store, shop.table)
    assert refused.value.retryable
    assert_the_same(shop.sent())
    assert len(shop.sent()) == 6
    assert await store.get("k") is None
    assert await order(store, shop.table) == "paid"
    await assert_applied_once(shop, store)


async def test_an_effect_that_is_refused_beside_a_record_that_was_not_judged_decides_nothing(shop: Shop) -> None:
    """X3: what refuses it may be its own earlier application: the transaction is sent again, and the record tells."""
    store = shop.make_store(config=ONE_TRY)
    shop.proxy.inject(Fault.CUT, operation="TransactWriteItems")
    shop.proxy.inject(Fault.CANCELLED_BY_BOTH, operation="TransactWriteItems", times=2)
    assert await order(store, shop.table) == "paid"
    await assert_applied_once(shop, store)


async def test_a_permission_that_is_missing_is_told(shop: Shop) -> None:
    store = shop.make_store()
    shop.proxy.inject(Fault.DENY, operation="TransactWriteItems")
    with pytest.raises(ConfigurationError, match=f"{shop.table}.*ConditionCheckItem on the table"):
        await order(store, shop.table)
    assert await store.get("k") is None


async def once(store: AsyncIdempotencyStore, table: str) -> object:
    """The same effects without a claim."""
    update = {
        "TableName": table,
        "Key": {"pk": "n"},
        "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": {":one": 1},
    }
    put = {"TableName": table, "Item": {"pk": "order-1"}, "ConditionExpression": ABSENT}
    return await store.commit_once("k", "paid", [{"Update": update}, {"Put": put}])


@LOST
async def test_the_answer_to_a_commit_without_a_claim_is_lost(shop: Shop, fault: Fault) -> None:
    """X3: the client asks again, and the token or the record settles it."""
    store = shop.make_store(**options(fault))
    shop.proxy.inject(fault, operation="TransactWriteItems")
    assert await once(store, shop.table) == "paid"
    assert (shop.sent()[0].fault, shop.sent()[0].status) == (fault, 200)
    assert_the_same(shop.sent())
    await assert_applied_once(shop, store)


async def test_a_commit_that_was_not_answered_is_settled_by_the_next_call(shop: Shop) -> None:
    store = shop.make_store(config=ONE_TRY)
    shop.proxy.inject(Fault.CUT, operation="TransactWriteItems")
    with pytest.raises(StoreError):
        await once(store, shop.table)
    assert await once(store, shop.table) == "paid"
    await assert_applied_once(shop, store)


@LOST
async def test_the_answer_to_a_first_id_is_lost(shop: Shop, fault: Fault) -> None:
    """X1: whoever asks again is shown its own."""
    store = shop.make_store(**options(fault))
    assert await store.get("warm") is None
    shop.proxy.inject(fault, operation="PutItem")
    made = await store.get_or_create_id("client-1")
    assert shop.sent("PutItem")[-2].fault is fault
    assert await store.get_or_create_id("client-1") == made
    name = f"e-{secrets.token_hex(4)}"
    shop.proxy.inject(fault, operation="PutItem")
    assert await store.put_if_absent(shop.table, {"pk": name, "n": 1}) == {"pk": name, "n": 1}
    assert await store.put_if_absent(shop.table, {"pk": name, "n": 2}) == {"pk": name, "n": 1}
