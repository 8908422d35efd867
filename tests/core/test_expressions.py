"""Operations become requests, and responses become replies; every request is pinned whole."""

import json
import re
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._core import model
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged, holds
from aioidempotency._core.model import AttributeNames, AttributeValue, Item, Location, Role, SerializedResult, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Found, Get, Operation, Put, Update, Write
from aioidempotency.backends.dynamodb import requests
from aioidempotency.backends.dynamodb.requests import REFUSAL, Request, refusal, reply, request
from tests.core.playing import PLACE, RENAMED, RENAMED_PLACE, done, held, stored

COMPLETION = Update(RENAMED_PLACE, model.completed(SerializedResult("1"), expiration=5), HeldBy("me"))


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
    changes = model.renewed(held(expires_at=6.0, expiration=7))
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
    assert refusal(deletion, REFUSAL, {"Item": stored()}) == ConditionFailed(stored())
    assert refusal(deletion, REFUSAL, {}) == ConditionFailed(None)
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


# The three writes of a usual call are made from templates, which are kept for each table.

_NAMES = st.permutations(
    ["id", "status", "owner", "data", "ü", "é", "b'b", "#owner", ":owner", 'a "b"', "it's", "a.b", "a-b"]
)
_VALUE: st.SearchStrategy[AttributeValue] = st.fixed_dictionaries({"S": st.text(max_size=3)})
_ROLES = [role for role in get_args(Role) if role != "key"]


@st.composite
def _writes(draw: st.DrawFn) -> list[Write]:
    """Some writes of usual calls in one table, with any names."""
    partition, sort, *names = draw(_NAMES)
    sorts = draw(st.booleans())
    table = Table("orders", partition, sort if sorts else None, AttributeNames(**dict(zip(_ROLES, names, strict=True))))
    location = Location(
        table=table, partition=draw(st.text(max_size=3)), sort=draw(st.text(max_size=3)) if sorts else None
    )
    items = st.dictionaries(st.sampled_from(names), _VALUE).map(lambda item: {**location.item, **item})
    changes = st.dictionaries(st.sampled_from(_ROLES), _VALUE, max_size=2)
    held = st.builds(HeldBy, st.text(max_size=3), st.none() | st.integers(0))
    writes = (
        st.builds(Put, st.just(location), items, st.just(Absent()))
        | st.builds(Update, st.just(location), changes, held)
        | st.builds(Delete, st.just(location), held)
    )
    return draw(st.lists(writes, min_size=2, max_size=6))


def _generally(write: Write) -> Request:
    """The request as `requirements` say it, without a template."""
    return Request(f"{type(write).__name__}Item", requests._write(write))


def _as_sent(made: Request) -> str:
    return json.dumps([made.operation, made.parameters])


@given(writes=_writes())
@settings(max_examples=60, deadline=None)
def test_a_template_makes_the_request_that_the_rules_make(writes: list[Write]) -> None:
    """To the byte, whatever was written before in the table; the order of parameters counts, too."""
    for write in [*writes, *writes]:
        assert _as_sent(request(write)) == _as_sent(_generally(write))


def test_a_table_that_is_gone_is_not_taken_for_the_next_one() -> None:
    """Templates are found by a table's identity, which Python gives to another object afterwards."""
    for number in range(2 * requests.MOST_TEMPLATES):
        table = Table(f"table-{number}", f"key-{number}", None, AttributeNames())
        made = request(Put(Location(table=table, partition="k"), {}, Absent()))
        assert made.parameters["TableName"] == table.name
        assert made.parameters["ExpressionAttributeNames"] == {"#key": f"key-{number}"}
        requests._names.cache_clear()  # it would keep the table, too
    assert len(requests._templates) <= requests.MOST_TEMPLATES


@pytest.mark.parametrize("write", [Put(PLACE, stored(PLACE), Absent()), COMPLETION, Delete(PLACE, HeldBy("me", 5))])
def test_what_a_client_does_with_one_request_changes_no_other(write: Write) -> None:
    """A client of the caller's may have hooks that change what it is given."""
    before = _as_sent(request(write))
    parameters = request(write).parameters
    for part in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        changed = parameters.get(part, {})
        assert isinstance(changed, dict)
        changed["#mine"] = "hook"
    assert _as_sent(request(write)) == before


def test_templates_keep_nothing_of_a_callers_data() -> None:
    """They live as long as the process."""
    location = Location(table=Table("canaries", "id", None, AttributeNames()), partition="canary")
    canary: AttributeValue = {"S": "canary"}
    request(Put(location, {**location.item, "data": canary}, Absent()))
    request(Update(location, {"data": canary}, HeldBy("canary")))
    request(Delete(location, HeldBy("canary", 5)))
    kept = [each for each in requests._templates.values() if each.table is location.table]
    assert len(kept) == 3
    assert "canary'" not in repr(kept)


def test_names_of_two_tables_are_never_mixed_up() -> None:
    """Expressions are remembered by their shape, names by their table, too."""
    roles: tuple[Role, ...] = ("owner",)
    assert requests._names(PLACE.table, roles) == {"#owner": "owner"}
    assert requests._names(RENAMED, roles) == {"#owner": "o"}
