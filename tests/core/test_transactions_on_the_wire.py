"""Transactions with effects, and queries, as DynamoDB's requests and responses."""

from typing import Any

import pytest

from aioidempotency._core.conditions import Absent, HeldBy
from aioidempotency._core.operations import (
    Check,
    ConditionFailed,
    Delete,
    Effect,
    FoundAll,
    Put,
    Query,
    Transact,
    TransactionFailed,
    Update,
)
from aioidempotency.backends.dynamodb.requests import (
    CANCELLATION,
    is_permanent,
    reasons,
    refusal,
    reply,
    request,
)
from aioidempotency.exceptions import Reason
from tests.core.playing import PLACE, RENAMED_PLACE, done, stored
from tests.support.values import replace

EFFECT = Effect("Put", {"TableName": "orders", "Item": {"pk": {"S": "order-1"}}})
CHECK = Effect("ConditionCheck", {"TableName": "orders", "Key": {"pk": {"S": "order-2"}}, "ConditionExpression": "x"})
FINISH = Update(PLACE, {"data": {"S": "1"}}, HeldBy("me"))
WHOLE = Transact((FINISH,), (EFFECT, CHECK), "me")
FINE = {"Code": "None"}
CONDITION = {"Code": "ConditionalCheckFailed", "Item": {"pk": {"S": "order-2"}, "n": {"N": "7"}}, "Message": "no"}
CONFLICT = {"Code": "TransactionConflict"}


def cancelled(*parts: dict[str, Any], operation: Transact = WHOLE) -> ConditionFailed | TransactionFailed | None:
    return refusal(operation, CANCELLATION, {"CancellationReasons": list(parts)})


def test_effects_follow_the_record_and_the_token_goes_with_them() -> None:
    """As the caller wrote them."""
    sent = request(WHOLE)
    assert sent.operation == "TransactWriteItems"
    assert sent.parameters["ClientRequestToken"] == "me"
    items: Any = sent.parameters["TransactItems"]
    assert [list(each) for each in items] == [["Update"], ["Put"], ["ConditionCheck"]]
    assert items[1:] == [{"Put": EFFECT.parameters}, {"ConditionCheck": CHECK.parameters}]


def test_a_transaction_of_records_alone_gets_its_token_from_the_client() -> None:
    assert list(request(Transact((FINISH,))).parameters) == ["TransactItems"]


def test_events_are_puts_of_ours() -> None:
    event = Put(RENAMED_PLACE, stored(), Absent())
    items: Any = request(Transact((FINISH,), (event,))).parameters["TransactItems"]
    assert items[1]["Put"] == request(event).parameters


def test_a_query_reads_a_partition_in_order() -> None:
    """From its beginning, or behind a sort key."""
    query = Query(replace(RENAMED_PLACE, sort=""), 25)
    parameters = {
        "TableName": "renamed",
        "KeyConditionExpression": "#key = :key",
        "ExpressionAttributeNames": {"#key": "part"},
        "ExpressionAttributeValues": {":key": {"S": "bucket#7"}},
        "Limit": 25,
        "ConsistentRead": True,
    }
    assert request(query).parameters == parameters
    assert request(Query(RENAMED_PLACE, 25)).parameters == {
        **parameters,
        "KeyConditionExpression": "#key = :key AND #sort > :sort",
        "ExpressionAttributeNames": {"#key": "part", "#sort": "sort"},
        "ExpressionAttributeValues": {":key": {"S": "bucket#7"}, ":sort": {"S": "shop#1234"}},
    }
    assert reply(query, {"Items": [stored(), done()]}) == FoundAll((stored(), done()))


def test_refused_effects_are_told_by_index_with_their_items() -> None:
    """X2: as plain values."""
    reason = Reason("ConditionalCheckFailed", {"pk": "order-2", "n": 7}, "no")
    found = cancelled(FINE, FINE, CONDITION)
    assert found == TransactionFailed((None,), (None, reason))
    assert found is not None
    assert is_permanent(found)


def test_a_refused_record_decides_whatever_else_was_met() -> None:
    mine = {"Code": "ConditionalCheckFailed", "Item": done(PLACE)}
    assert cancelled(mine, CONFLICT, FINE) == TransactionFailed(
        (ConditionFailed(done(PLACE)),), (Reason("TransactionConflict"), None)
    )
    assert cancelled({"Code": "ConditionalCheckFailed"}, FINE, FINE) == TransactionFailed(
        (ConditionFailed(None),), (None, None)
    )


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_a_record_that_was_not_judged_leaves_its_effects_undecided(code: str) -> None:
    """X3: what refuses an effect may be its own earlier application."""
    assert cancelled({"Code": code}, FINE, CONDITION) is None
    assert cancelled({"Code": "ValidationError"}, FINE, FINE) is None


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
def test_what_may_pass_does_not_last(code: str) -> None:
    """The same transaction is sent again; in the end it is told by index, and may be called again."""
    found = cancelled(FINE, {"Code": code}, FINE)
    assert found == TransactionFailed((None,), (Reason(code), None))
    assert found is not None
    assert not is_permanent(found)
    both = cancelled(FINE, {"Code": code}, CONDITION)
    assert both is not None
    assert is_permanent(both)


@pytest.mark.parametrize("code", ["ValidationError", "ItemCollectionSizeLimitExceeded"])
def test_what_is_wrong_with_an_effect_lasts(code: str) -> None:
    found = cancelled(FINE, FINE, {"Code": code, "Message": "why"})
    assert found == TransactionFailed((None,), (None, Reason(code, None, "why")))
    assert found is not None
    assert is_permanent(found)


def test_refusals_of_records_last() -> None:
    assert is_permanent(ConditionFailed(None))
    assert is_permanent(TransactionFailed((None, ConditionFailed(None))))


def test_a_transaction_of_records_is_read_as_before() -> None:
    two = Transact((Put(PLACE, stored(PLACE), Absent()), Check(RENAMED_PLACE, Absent())))
    assert cancelled(CONFLICT, FINE, operation=two) is None
    assert cancelled(CONFLICT, {"Code": "ConditionalCheckFailed"}, operation=two) == TransactionFailed(
        (None, ConditionFailed(None))
    )
    assert refusal(Delete(PLACE, HeldBy("me")), CANCELLATION, {}) is None
    assert refusal(two, CANCELLATION, {}) is None
    assert reasons({}) == ()
