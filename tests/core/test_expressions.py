"""Operations become requests, and responses become replies; every request is pinned whole."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._core import expressions, records
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged, holds
from aioidempotency._core.expressions import REFUSAL, Request, refusal, reply, request
from aioidempotency._core.model import Encoded, Item, Role
from aioidempotency._core.operations import Applied, Delete, Found, Get, Operation, Put, Refused, Update
from tests.core.playing import PLACE, RENAMED, RENAMED_PLACE, done, held, stored

COMPLETION = Update(RENAMED_PLACE, records.completed(Encoded("1"), expiration=5), HeldBy("me"))


def test_a_first_claim_is_one_put_that_asks_for_what_refused_it() -> None:
    """C1: the refusal brings the old item, so that no read is needed."""
    assert request(Put(PLACE, stored(PLACE), Absent())) == Request(
        "PutItem",
        {
            "TableName": "records",
            "Item": stored(PLACE),
            "ConditionExpression": "attribute_not_exists(#key)",
            "ExpressionAttributeNames": {"#key": "id"},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    )


def test_a_take_over_is_a_put_that_insists_on_what_was_seen() -> None:
    """Every attribute of identity is compared, by the name that the table gives it."""
    assert request(Put(RENAMED_PLACE, stored(owner="me"), Unchanged(stored()))) == Request(
        "PutItem",
        {
            "TableName": "renamed",
            "Item": stored(owner="me"),
            "ConditionExpression": (
                "#status = :status AND #owner = :owner AND #fencing_token = :fencing_token"
                " AND #expiration = :expiration AND #in_progress_expiration = :in_progress_expiration"
            ),
            "ExpressionAttributeNames": {
                "#status": "s",
                "#owner": "o",
                "#fencing_token": "f",
                "#expiration": "e",
                "#in_progress_expiration": "ipe",
            },
            "ExpressionAttributeValues": {
                ":status": {"S": "INPROGRESS"},
                ":owner": {"S": "other"},
                ":fencing_token": {"N": "1699999990000"},
                ":expiration": {"N": "1700003590"},
                ":in_progress_expiration": {"N": "1700000050000"},
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    )


def test_a_completion_is_one_update_held_by_its_owner() -> None:
    """What is wanted and what is set have placeholders of their own, also for one attribute."""
    assert request(COMPLETION) == Request(
        "UpdateItem",
        {
            "TableName": "renamed",
            "Key": {"part": {"S": "bucket#7"}, "sort": {"S": "shop#1234"}},
            "UpdateExpression": "SET #status = :new_status, #expiration = :new_expiration, #data = :new_data",
            "ConditionExpression": "#owner = :owner AND #status = :status",
            "ExpressionAttributeNames": {"#owner": "o", "#status": "s", "#expiration": "e", "#data": "d"},
            "ExpressionAttributeValues": {
                ":owner": {"S": "me"},
                ":status": {"S": "INPROGRESS"},
                ":new_status": {"S": "COMPLETED"},
                ":new_expiration": {"N": "5"},
                ":new_data": {"S": "1"},
            },
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    )


def test_a_renewal_is_one_update_held_until_the_end_that_was_known() -> None:
    """What is wanted and what is set of one attribute do not get mixed up."""
    changes = records.renewed(held(expires_at=6.0, expiration=7))
    parameters = request(Update(PLACE, changes, HeldBy("me", 5000))).parameters
    assert parameters["UpdateExpression"] == (
        "SET #in_progress_expiration = :new_in_progress_expiration, #expiration = :new_expiration"
    )
    assert parameters["ConditionExpression"] == (
        "#owner = :owner AND #status = :status AND #in_progress_expiration = :in_progress_expiration"
    )
    assert parameters["ExpressionAttributeValues"] == {
        ":owner": {"S": "me"},
        ":status": {"S": "INPROGRESS"},
        ":in_progress_expiration": {"N": "5000"},
        ":new_in_progress_expiration": {"N": "6000"},
        ":new_expiration": {"N": "7"},
    }


def test_a_release_is_one_delete_held_by_its_owner() -> None:
    """The key alone names the item."""
    assert request(Delete(PLACE, HeldBy("me"))) == Request(
        "DeleteItem",
        {
            "TableName": "records",
            "Key": {"id": {"S": "shop#1234"}},
            "ConditionExpression": "#owner = :owner AND #status = :status",
            "ExpressionAttributeNames": {"#owner": "owner", "#status": "status"},
            "ExpressionAttributeValues": {":owner": {"S": "me"}, ":status": {"S": "INPROGRESS"}},
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        },
    )


def test_a_read_is_strongly_consistent() -> None:
    """A stale read would find a key free that is not."""
    assert request(Get(RENAMED_PLACE)) == Request(
        "GetItem",
        {
            "TableName": "renamed",
            "Key": {"part": {"S": "bucket#7"}, "sort": {"S": "shop#1234"}},
            "ConsistentRead": True,
        },
    )


def test_what_is_missing_is_asked_for_without_a_value() -> None:
    """DynamoDB refuses a value that no expression uses."""
    parameters = request(Put(RENAMED_PLACE, stored(), Unchanged(stored(owner=None, fencing_token=None)))).parameters
    assert parameters["ConditionExpression"] == (
        "#status = :status AND attribute_not_exists(#owner) AND attribute_not_exists(#fencing_token)"
        " AND #expiration = :expiration AND #in_progress_expiration = :in_progress_expiration"
    )
    assert parameters["ExpressionAttributeValues"] == {
        ":status": {"S": "INPROGRESS"},
        ":expiration": {"N": "1700003590"},
        ":in_progress_expiration": {"N": "1700000050000"},
    }


def test_a_read_is_answered_by_what_was_found() -> None:
    """DynamoDB leaves `Item` out where there is none."""
    assert reply(Get(PLACE), {"Item": stored(PLACE)}) == Found(stored(PLACE))
    assert reply(Get(PLACE), {"ResponseMetadata": {}}) == Found(None)


@pytest.mark.parametrize("operation", [Put(PLACE, stored(PLACE), Absent()), COMPLETION, Delete(PLACE, HeldBy("me"))])
def test_a_write_that_came_through_was_applied(operation: Operation) -> None:
    """DynamoDB answers a refusal by an error."""
    assert reply(operation, {"ResponseMetadata": {}}) == Applied()


def test_a_refusal_brings_the_item_where_there_was_one() -> None:
    """The error's own response holds it, on the wire's top level."""
    deletion = Delete(RENAMED_PLACE, HeldBy("me"))
    assert refusal(deletion, REFUSAL, {"Item": stored()}) == Refused(stored())
    assert refusal(deletion, REFUSAL, {}) == Refused(None)
    assert refusal(deletion, "ThrottlingException", {}) is None
    assert REFUSAL == "ConditionalCheckFailedException"


_VALUES = st.none() | st.sampled_from(["INPROGRESS", "COMPLETED", "me", "other"]) | st.integers(0, 2)
_ITEMS = st.none() | st.builds(
    stored, status=_VALUES, owner=_VALUES, fencing_token=_VALUES, expiration=_VALUES, in_progress_expiration=_VALUES
)
_CONDITIONS = (
    st.just(Absent())
    | st.builds(HeldBy, st.sampled_from(["me", "other"]), st.none() | st.integers(0, 2))
    | _ITEMS.filter(bool).map(lambda i: Unchanged(i or {}))
)


@given(condition=_CONDITIONS, item=_ITEMS)
@settings(max_examples=60, deadline=None)
def test_both_readings_of_a_condition_agree(condition: Condition, item: Item | None) -> None:
    """What DynamoDB evaluates and what the memory backend evaluates is the same, for every item."""
    assert _evaluate(Put(RENAMED_PLACE, stored(), condition), item or {}) == holds(condition, item, RENAMED)


@pytest.mark.parametrize("item", [stored(), done(), stored(owner=None), stored(owner="me")])
def test_both_readings_agree_on_the_item_that_was_seen(item: Item) -> None:
    """The take-over of an untouched record is applied."""
    assert _evaluate(Put(RENAMED_PLACE, stored(), Unchanged(item)), item)


def _evaluate(operation: Put, item: Item) -> bool:
    """Read the request as DynamoDB does, as far as our expressions go."""
    parameters = request(operation).parameters
    names = parameters["ExpressionAttributeNames"]
    values = parameters.get("ExpressionAttributeValues", {})
    assert isinstance(names, dict)
    assert isinstance(values, dict)
    used: set[str] = set()

    def holds_here(term: str) -> bool:
        missing = re.fullmatch(r"attribute_not_exists\((#\w+)\)", term)
        if missing:
            return names[missing[1]] not in item
        name, value = term.split(" = ")
        used.add(value)
        return bool(item.get(names[name]) == values[value])

    outcome = [holds_here(term) for term in str(parameters["ConditionExpression"]).split(" AND ")]
    assert used == values.keys(), "DynamoDB refuses values that are not used"
    return all(outcome)


def test_names_of_two_tables_are_never_mixed_up() -> None:
    """Expressions are remembered by their shape, names by their table, too."""
    roles: tuple[Role, ...] = ("owner",)
    assert expressions._names(PLACE.table, roles) == {"#owner": "owner"}
    assert expressions._names(RENAMED, roles) == {"#owner": "o"}
