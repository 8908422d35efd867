"""Replies that fit no operation are told by types alone, and no operation shows data."""

from types import MappingProxyType
from typing import Any

import pytest

from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
    Effect,
    Found,
    FoundAll,
    Get,
    GetAll,
    Operation,
    Put,
    Query,
    Reply,
    Transact,
    TransactionFailed,
    Update,
    wrong_reply,
)
from tests.core.playing import PLACE

CANARY = "canary"
ITEM = {"id": {"S": CANARY}}
WRITES = (
    Put(PLACE, ITEM, Unchanged(ITEM)),
    Update(PLACE, {"data": {"S": CANARY}}, HeldBy("me")),
    Delete(PLACE, Unchanged(ITEM)),
)
EFFECT = Effect("Put", {"TableName": "ledger", "Item": ITEM})
TRANSACTION = Transact((WRITES[0], Check(PLACE, Absent())), (EFFECT,), "token")
READS = (Get(PLACE), GetAll((PLACE, PLACE)), Query(PLACE, 10))
OPERATIONS: tuple[Operation, ...] = (*WRITES, TRANSACTION, *READS)
REPLIES: tuple[Reply, ...] = (
    Applied(),
    ConditionFailed(None),
    ConditionFailed(ITEM),
    TransactionFailed((None, ConditionFailed(ITEM))),
    TransactionFailed((None, None), (None,)),
    Found(None),
    Found(ITEM),
    FoundAll((None, ITEM)),
)
FITTING: dict[type, tuple[type, ...]] = {
    Put: (Applied, ConditionFailed),
    Update: (Applied, ConditionFailed),
    Delete: (Applied, ConditionFailed),
    Transact: (Applied, TransactionFailed),
    Get: (Found,),
    GetAll: (FoundAll,),
    Query: (FoundAll,),
}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: type(each).__name__)
def test_each_operation_has_its_replies(operation: Operation) -> None:
    """Everything else is told by the name of its type."""
    for reply in REPLIES:
        fits = isinstance(reply, FITTING[type(operation)])
        assert wrong_reply(operation, reply) == (None if fits else type(reply).__name__)
    for stranger in (None, CANARY, {"Item": CANARY}, object(), 0):
        assert wrong_reply(operation, stranger) == type(stranger).__name__


@pytest.mark.parametrize(
    ("operation", "reply", "wrong"),
    [
        (TRANSACTION, TransactionFailed((None,)), "TransactionFailed with 1 failures and 0 reasons"),
        (TRANSACTION, TransactionFailed((None, None), (None, None)), "TransactionFailed with 2 failures and 2 reasons"),
        (GetAll((PLACE, PLACE)), FoundAll((None,)), "FoundAll with 1 items"),
        (Get(PLACE), Found(CANARY), "an item that is no mapping of names to typed values, but str"),  # type: ignore[arg-type]
        (WRITES[0], ConditionFailed({"id": CANARY}), "an item that is no mapping of names to typed values, but dict"),  # type: ignore[dict-item]
    ],
)
def test_a_reply_that_is_not_whole_is_told(operation: Operation, reply: Reply, wrong: str) -> None:
    """Procedures go by index, and read items."""
    assert wrong_reply(operation, reply) == wrong


@pytest.mark.parametrize("value", [*OPERATIONS, *REPLIES, EFFECT, Check(PLACE, Unchanged(ITEM))], ids=repr)
def test_no_operation_and_no_reply_shows_data(value: Any) -> None:
    """U3: an error or a log that shows one of them shows no result."""
    assert CANARY not in repr(value)


def test_what_an_operation_shows_is_its_key_and_its_condition() -> None:
    """Enough to tell which one it is."""
    assert repr(WRITES[1]) == "<Update shop#1234: data, if HeldBy(owner='me', until=None)>"
    assert repr(WRITES[2]) == "<Delete shop#1234: if Unchanged(...)>"
    assert repr(Get(PLACE)) == "<Get shop#1234>"
    assert repr(TRANSACTION) == "<Transact shop#1234: 2 writes, 1 effects>"
    assert repr(EFFECT) == "<Effect: Put in ledger>"


def test_an_item_may_be_any_mapping() -> None:
    """A backend of one's own may keep items as it likes."""
    item = MappingProxyType({"id": MappingProxyType({"S": CANARY})})
    assert wrong_reply(Get(PLACE), Found(item)) is None
