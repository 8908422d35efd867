"""Operations as PartiQL: constant texts, values as parameters, and what each answer means."""

import pytest

from aioidempotency._core import model
from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.model import AttributeNames, Location, SerializedResult, Table
from aioidempotency._core.operations import Applied, Check, ConditionFailed, Delete, Get, GetAll, Put, Transact, Update
from aioidempotency.backends.dynamodb import partiql
from aioidempotency.backends.dynamodb.transport import encode
from tests.core.playing import PLACE, RENAMED_PLACE, done, held, stored

ODD = Location(
    table=Table('odd"name', "it's", 'so "to" say', AttributeNames(owner='an "owner" it is')), partition="p", sort="k"
)


def test_a_put_when_absent_is_an_insert() -> None:
    """The item's names in the text, its values as parameters, in order; what refuses it brings no item."""
    item = stored(RENAMED_PLACE)
    assert partiql.statement(Put(RENAMED_PLACE, item, Absent())) == {
        "Statement": "INSERT INTO \"renamed\" VALUE {'part': ?, 'sort': ?, 's': ?, 'e': ?, 'ipe': ?, 'o': ?, 'f': ?}",
        "Parameters": list(item.values()),
    }


def test_a_completion_is_an_update() -> None:
    """First what is set, then the key, then the condition; what refuses it brings its item."""
    changes = model.completed(SerializedResult("1"), expiration=9)
    assert partiql.statement(Update(RENAMED_PLACE, changes, HeldBy("me"))) == {
        "Statement": ('UPDATE "renamed" SET "s"=? SET "e"=? SET "d"=? WHERE "part"=? AND "sort"=? AND "o"=? AND "s"=?'),
        "Parameters": [
            {"S": "COMPLETED"},
            {"N": "9"},
            {"S": "1"},
            {"S": "bucket#7"},
            {"S": "shop#1234"},
            {"S": "me"},
            {"S": "INPROGRESS"},
        ],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def test_a_renewal_compares_the_end_that_it_replaces() -> None:
    """In a table with one key, too."""
    said = partiql.statement(Update(PLACE, model.renewed(held(location=PLACE)), HeldBy("me", 5)))
    assert said["Statement"] == (
        'UPDATE "records" SET "in_progress_expiration"=? SET "expiration"=?'
        ' WHERE "id"=? AND "owner"=? AND "status"=? AND "in_progress_expiration"=?'
    )
    assert said["Parameters"] == [
        {"N": "1700000060000"},
        {"N": "1700003600"},
        {"S": "shop#1234"},
        {"S": "me"},
        {"S": "INPROGRESS"},
        {"N": "5"},
    ]


def test_a_release_is_a_delete() -> None:
    """By its owner."""
    assert partiql.statement(Delete(PLACE, HeldBy("me"))) == {
        "Statement": 'DELETE FROM "records" WHERE "id"=? AND "owner"=? AND "status"=?',
        "Parameters": [{"S": "shop#1234"}, {"S": "me"}, {"S": "INPROGRESS"}],
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def test_names_are_quoted() -> None:
    """Reserved words and odd characters are names like any others; a quote in one is doubled."""
    said = partiql.statement(Put(ODD, {**ODD.item, 'an "owner" it is': {"S": "me"}}, Absent()))
    assert said["Statement"] == (
        """INSERT INTO "odd""name" VALUE {'it''s': ?, 'so "to" say': ?, 'an "owner" it is': ?}"""
    )
    said = partiql.statement(Delete(ODD, HeldBy("me")))
    assert said["Statement"] == (
        """DELETE FROM "odd""name" WHERE "it's"=? AND "so ""to"" say"=? AND "an ""owner"" it is"=? AND "status"=?"""
    )


def test_one_text_serves_all_calls() -> None:
    """It is written once for each table and shape, and holds no value."""
    one, other = (
        partiql.statement(Put(location, stored(location), Absent()))
        for location in (RENAMED_PLACE, Location(table=RENAMED_PLACE.table, partition="b", sort="other#1"))
    )
    assert one["Statement"] is other["Statement"]
    assert one["Parameters"] != other["Parameters"]


def test_tables_of_one_name_have_texts_of_their_own() -> None:
    """Two stores may call the attributes of two tables differently, in two Regions."""
    table = Table("records", "id", None, AttributeNames(owner="who"))
    said = partiql.statement(Delete(Location(table=table, partition="k"), HeldBy("me")))
    assert '"who"=?' in str(said["Statement"])


@pytest.mark.parametrize(
    "operation",
    [
        Put(PLACE, stored(PLACE), Unchanged(stored(PLACE))),
        Delete(PLACE, Unchanged(stored(PLACE))),
        Update(PLACE, {"data": {"S": ""}}, Absent()),
        Transact((Check(PLACE, Absent()),)),
        Get(PLACE),
        GetAll((PLACE,)),
    ],
)
def test_what_partiql_cannot_say_is_left_to_plain_calls(operation: Transact) -> None:
    """It replaces no item, and engines differ in how an attribute is asked to be missing."""
    assert not partiql.has_statement(operation)
    with pytest.raises(TypeError, match="PartiQL cannot say"):
        partiql.statement(operation)


@pytest.mark.parametrize(
    "operation",
    [Put(PLACE, stored(PLACE), Absent()), Update(PLACE, {}, HeldBy("me")), Delete(PLACE, HeldBy("me", 5))],
)
def test_what_partiql_can_say_is_said(operation: Put) -> None:
    """The three writes of a call."""
    assert partiql.has_statement(operation)
    assert partiql.statement(operation)["Parameters"]


def test_answers_are_told_apart() -> None:
    """G3: each statement succeeds or fails by itself; a duplicate comes without its item."""
    assert partiql.answer(None) == Applied()
    assert partiql.answer({"Code": "DuplicateItem", "Message": "..."}) == ConditionFailed(None)
    assert partiql.answer({"Code": "ConditionalCheckFailed", "Item": stored()}) == ConditionFailed(stored())
    assert partiql.answer({"Code": "ConditionalCheckFailed"}) == ConditionFailed(None)
    assert partiql.answer({"Code": "ThrottlingError"}) == "ThrottlingError"


def test_reads_share_one_request() -> None:
    """Strongly consistent."""
    gets = [Get(PLACE), Get(Location(table=PLACE.table, partition="other"))]
    assert partiql.reading(gets) == {
        "RequestItems": {
            "records": {"Keys": [{"id": {"S": "shop#1234"}}, {"id": {"S": "other"}}], "ConsistentRead": True}
        }
    }


def test_items_are_found_by_their_keys() -> None:
    """They come in any order; what was not read this time is told from what is not there."""
    locations = [Location(table=RENAMED_PLACE.table, partition=f"bucket#{n}", sort="shop#1234") for n in range(3)]
    first, second = done(locations[0]), done(locations[1], data='"second"')
    gets = [Get(location) for location in locations]
    response = {"Responses": {"renamed": [second, first]}, "UnprocessedKeys": {}}
    assert partiql.found(gets, response) == [first, second, None]
    unread = {"Responses": {"renamed": [first]}, "UnprocessedKeys": {"renamed": {"Keys": [locations[1].item]}}}
    assert partiql.found(gets, unread) == [first, "UnprocessedKeys", None]
    assert partiql.found(gets, {"Responses": {}}) == [None, None, None]


def test_statements_of_a_table_that_is_gone_serve_no_other() -> None:
    """The beginnings are found by a table's identity, which Python gives to another object afterwards."""
    for number in range(2 * partiql.MOST_HEADS):
        table = Table(f"table-{number}", f"key-{number}", None, AttributeNames())
        release = Delete(Location(table=table, partition="k"), HeldBy("me"))
        assert partiql.text(release) == encode(partiql.statement(release))
    assert len(partiql._heads) <= partiql.MOST_HEADS
