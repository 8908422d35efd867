"""What a call writes is the user's: it is in no log, event, error or representation."""

from typing import Any

import pytest

from aioidempotency import ConfigurationError, IdempotencyError, StoreError, TransactionError
from tests.behaviours.test_privacy import Said, said
from tests.effects.conftest import Shop
from tests.support.proxy import Fault

__all__ = ["said"]

CANARY = "canary-item"


def write(transaction: Any, table: str) -> None:
    transaction.put(
        table,
        {"pk": CANARY, "data": {"deep": [CANARY]}},
        ConditionExpression="attribute_not_exists(pk) OR #a = :a",
        ExpressionAttributeNames={"#a": CANARY},
        ExpressionAttributeValues={":a": CANARY},
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )
    transaction.emit({"event": CANARY}, key=CANARY)


async def test_transactions_tell_nothing_of_what_they_write(shop: Shop, said: Said) -> None:
    """U3: applied, refused, invalid, not answered; and what the library makes of it on the way."""
    store = shop.make_store(on_event=said.events.append)
    async with store.execute("applied") as execution:
        write(execution.transaction, shop.table)
        kept = execution.transaction
        said.keep(execution, kept)
        execution.complete(CANARY)
    said.keep(execution, kept)
    for fault in (None, Fault.EFFECT_CONFLICTS, Fault.DENY, Fault.CANCELLED_AS_INVALID):
        if fault is not None:
            shop.proxy.inject(fault, operation="TransactWriteItems", times=6 if fault is Fault.EFFECT_CONFLICTS else 1)
        with pytest.raises((TransactionError, ConfigurationError)) as refused:
            async with store.execute(f"refused by {fault}") as execution:
                write(execution.transaction, shop.table)
        said.keep(refused.value, refused.value.args, vars(refused.value))


async def test_what_is_refused_before_it_is_sent_is_told_without_its_values(shop: Shop, said: Said) -> None:
    store = shop.make_store(on_event=said.events.append)
    misuses: list[dict[str, Any]] = [
        {"Item": {"pk": CANARY, "data": object()}},
        {"Item": {"pk": CANARY, "data": {CANARY, 5}}},
        {"Item": {"pk": {"N": CANARY}}},
        {"Item": {"pk": CANARY + "\ud800"}},
        {"Item": {"pk": CANARY, "data": 420_000 * "x"}},
        {"Item": {"pk": CANARY}, "ConditionExpression": ""},
        {"Item": {"pk": CANARY}, "ExpressionAttributeNames": {"#a": 5, CANARY: 5}},
        {"Item": {"pk": CANARY}, "ReturnValuesOnConditionCheckFailure": CANARY},
    ]
    for misuse in misuses:
        with pytest.raises(IdempotencyError) as refused:
            await store.commit_once("k", 1, [{"Put": {"TableName": shop.table, **misuse}}])
        said.keep(refused.value, refused.value.args, vars(refused.value))
    shop.proxy.inject(Fault.THROTTLE, operation="TransactWriteItems", times=20)
    with pytest.raises(StoreError) as failed:
        await store.commit_once("k", CANARY, lambda transaction: write(transaction, shop.table))
    said.keep(failed.value, vars(failed.value))


async def test_ids_items_and_events_tell_nothing(shop: Shop, said: Said) -> None:
    """An event that is handed out shows its key and numbers, and not itself."""
    store = shop.make_store(on_event=said.events.append)
    await store.get_or_create_id(CANARY, lambda: CANARY)
    await store.put_if_absent(shop.table, {"pk": CANARY})
    async with store.execute("k") as execution:
        execution.transaction.emit(CANARY, key="order-1")
    async for event in store.outbox(poll=None):
        said.keep(event)
    with pytest.raises(IdempotencyError) as refused:
        await store.put_if_absent(shop.table, {"id": CANARY})
    said.keep(refused.value, store)
