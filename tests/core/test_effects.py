"""The caller's own writes: what is refused before anything is sent."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

import pytest

from aioidempotency import SerializationError, TransactionError
from aioidempotency._core.conditions import Absent
from aioidempotency._core.model import Location
from aioidempotency._core.operations import Effect, Put
from aioidempotency._effects import writes as effects
from aioidempotency._effects.writes import WriteSet
from tests.core.playing import PLACE, RENAMED, RENAMED_PLACE
from tests.support.values import replace

OWN = (RENAMED_PLACE,)
Kind = Literal["Put", "Update", "Delete", "ConditionCheck"]


def put(table: str = "orders", **item: object) -> Effect:
    return effects.effect("Put", {"TableName": table, "Item": item})


def delete(table: str = "orders", **key: object) -> Effect:
    return effects.effect("Delete", {"TableName": table, "Key": key})


def check(
    writes: list[Any], locations: Any, keys: Mapping[str, frozenset[str]], *, parts: int = 1, record_bytes: int = 0
) -> WriteSet:
    """Add one write after the other."""
    write_set = WriteSet(record_locations=locations, keys=keys, record_actions=parts, bytes=record_bytes)
    for write in writes:
        write_set = write_set.with_write(write)
    return write_set


def doubts(writes: list[Any], keys: Mapping[str, frozenset[str]] = MappingProxyType({})) -> list[str]:
    return check(writes, OWN, keys).ambiguous_tables()


def test_an_effect_has_the_wires_own_parameters() -> None:
    """Plain values are written, typed ones are kept, and what is None is left out."""
    made = effects.effect(
        "Update",
        {
            "TableName": "orders",
            "Key": {"pk": "order-1", "sk": {"N": "5"}},
            "UpdateExpression": "SET #n = :n",
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":n": 7},
            "ConditionExpression": None,
        },
    )
    assert made == Effect(
        "Update",
        {
            "TableName": "orders",
            "Key": {"pk": {"S": "order-1"}, "sk": {"N": "5"}},
            "UpdateExpression": "SET #n = :n",
            "ExpressionAttributeNames": {"#n": "n"},
            "ExpressionAttributeValues": {":n": {"N": "7"}},
        },
    )


@pytest.mark.parametrize(
    ("kind", "parameters", "trouble"),
    [
        ("Put", {"TableName": "", "Item": {"pk": 1}}, "put takes TableName= as a text"),
        ("Put", {"TableName": 5, "Item": {"pk": 1}}, "put takes TableName= as a text"),
        ("Put", {"TableName": None, "Item": {"pk": 1}}, "put needs TableName=: not None"),
        (
            "Put",
            {"TableName": "t", "Item": {"pk": 1}, "Extra": 1},
            "put does not take Extra=; it takes TableName, Item",
        ),
        ("ConditionCheck", {"TableName": "t", "Key": {"pk": 1}}, "check needs ConditionExpression="),
        ("Put", {"TableName": "t", "Item": {"pk": 1}, "ConditionExpression": ""}, "put takes ConditionExpression="),
        ("Update", {"TableName": "t", "Key": {"pk": 1}, "UpdateExpression": 5}, "update takes UpdateExpression="),
        (
            "ConditionCheck",
            {
                "TableName": "t",
                "Key": {"pk": 1},
                "ConditionExpression": "x",
                "ReturnValuesOnConditionCheckFailure": "ALL",
            },
            "check takes ReturnValuesOnConditionCheckFailure='ALL_OLD'",
        ),
        ("Delete", {"TableName": "t", "Key": {"pk": 1}, "ExpressionAttributeNames": {"#a": 1}}, "of texts to texts"),
        ("Delete", {"TableName": "t", "Key": {"pk": 1}, "ExpressionAttributeNames": ["#a"]}, "of texts to texts"),
        ("Delete", {"TableName": "t", "Key": {"a": 1, "b": 2, "c": 3}}, "delete takes Key= as the table's one or two"),
        ("Delete", {"TableName": "t", "Key": {"pk": None}}, "delete takes Key= as the table's one or two"),
        ("Put", {"TableName": "t", "Item": {"pk": "k", "data": 400 * 1024 * "x"}}, "the Item of put is over 400 KB"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(kind: Kind, parameters: dict[str, Any], trouble: str) -> None:
    with pytest.raises(TransactionError, match="nothing was sent: ") as refused:
        effects.effect(kind, parameters)
    assert trouble in str(refused.value)


def test_an_effect_is_a_copy() -> None:
    """A key or names that are used again for the next write change nothing of this one."""
    names, key = {"#a": "first"}, {"pk": {"S": "1"}}
    given = {"TableName": "t", "Key": key, "UpdateExpression": "SET #a = :a", "ExpressionAttributeNames": names}
    made = effects.effect("Update", given)
    names["#a"], key["pk"]["S"] = "second", "2"
    assert made.parameters["ExpressionAttributeNames"] == {"#a": "first"}
    assert made.parameters["Key"] == {"pk": {"S": "1"}}
    check([made, effects.effect("Update", given)], OWN, {})
    assert "first" not in repr(made)


@pytest.mark.parametrize(
    ("parameters", "subject"),
    [
        ({"TableName": "t", "Item": {"pk": object()}}, "the Item of put"),
        ({"TableName": "t", "Item": {}}, "the Item of put"),
        ({"TableName": "\ud800", "Item": {"pk": 1}}, "the TableName of put"),
        ({"TableName": "t", "Item": {"pk": 1}, "ConditionExpression": "\ud800"}, "the ConditionExpression of put"),
        (
            {"TableName": "t", "Item": {"pk": 1}, "ExpressionAttributeNames": {"#a": "\ud800"}},
            "ExpressionAttributeNames of put",
        ),
        ({"TableName": "t", "Item": {"pk": 1}, "ExpressionAttributeValues": {":a": set()}}, "the values of put"),
    ],
)
def test_values_that_cannot_be_written_are_named_by_their_place(parameters: dict[str, Any], subject: str) -> None:
    with pytest.raises(SerializationError, match=f"{subject} cannot hold"):
        effects.effect("Put", parameters)


def test_a_transaction_has_a_hundred_actions_with_the_records() -> None:
    """X4: one of them is the record's, or one for each location."""
    many = [delete(pk=number) for number in range(99)]
    check(many, OWN, {})
    with pytest.raises(TransactionError, match=r"takes 100 actions in one transaction, and 1 of them is the record's"):
        check([*many, delete(pk=99)], OWN, {})
    check(many[:97], OWN, {}, parts=3)
    with pytest.raises(TransactionError, match=r"3 of them are the record's; split the work"):
        check(many[:98], OWN, {}, parts=3)


def test_a_transaction_has_four_megabytes_with_the_record() -> None:
    """X4: items, expressions and their values are counted."""
    large = [put(pk=str(number), data=399 * 1024 * "x") for number in range(10)]
    check(large, OWN, {})
    with pytest.raises(TransactionError, match="takes 4 MB"):
        check([*large, put(pk="10", data=110 * 1024 * "x")], OWN, {})
    with pytest.raises(TransactionError, match="takes 4 MB"):
        check(large, OWN, {}, record_bytes=110 * 1024)


def test_the_size_of_an_action_is_all_that_is_sent_of_it() -> None:
    update = {
        "TableName": "t",
        "Key": {"pk": "k"},
        "UpdateExpression": "SET a = :a",
        "ConditionExpression": "a < :a",
        "ExpressionAttributeValues": {":a": "12345"},
    }
    assert effects.size(effects.effect("Update", update)) == 3 + 10 + 6 + 7
    assert effects.size(Put(PLACE, {"id": {"S": "12345"}}, Absent())) == 7


@pytest.mark.parametrize(
    "twice",
    [
        [delete(pk="a"), delete(pk="a")],
        [delete(pk="a"), put(pk="a", n=1)],
        [put(pk="a", n=1), put(pk="b"), delete(pk="a")],
        [put(pk="a", n=1), put(pk="a", n=2), delete(pk="b")],
        [delete(pk=1), delete(pk={"N": "1.0"})],
        [delete(pk=b"a"), delete(pk={"B": bytearray(b"a")})],
        [put(pk="a"), put(pk="a")],
        [delete(pk="a", sk=1), put(pk="a", sk=1)],
        [delete("arn:aws:dynamodb:eu-west-1:1:table/orders", pk="a"), delete(pk="a")],
    ],
)
def test_two_writes_of_one_item_are_refused(twice: list[Effect]) -> None:
    """X4: whatever kinds they are of, and however the table and the numbers are written."""
    with pytest.raises(TransactionError, match="two writes are of one item in table 'orders'"):
        check(twice, OWN, {})


@pytest.mark.parametrize(
    "fine",
    [
        [delete(pk="a"), delete(pk="b")],
        [delete(pk="a"), delete("others", pk="a")],
        [delete(pk="1"), delete(pk=1)],
        [put(pk="a", n=1), put(pk="b", n=1), delete(pk="c")],
        [delete(pk="a", sk=1), put(pk="a", sk=2)],
        [put(pk="a", tags={"L": []}), put(pk="b", tags={"L": []})],
    ],
)
def test_writes_of_different_items_are_fine(fine: list[Effect]) -> None:
    check(fine, OWN, {})
    assert not doubts(fine)


def test_two_puts_that_have_something_in_common_need_the_tables_key() -> None:
    """Nothing else tells whether the common attribute is the key."""
    ambiguous = [put(pk="a", kind="order"), put(pk="b", kind="order"), put("others", pk="a")]
    check(ambiguous, OWN, {})
    assert doubts(ambiguous) == ["orders"]
    assert not doubts(ambiguous, {"orders": frozenset({"pk"})})
    check(ambiguous, OWN, {"orders": frozenset({"pk"})})
    with pytest.raises(TransactionError, match="two writes are of one item"):
        check(ambiguous, OWN, {"orders": frozenset({"kind"})})
    assert not doubts([put(pk="a", n=[1]), put(pk="b", n=[1])])


@pytest.mark.parametrize("name", ["renamed", "arn:aws:dynamodb:eu-west-1:1:table/renamed"])
def test_a_write_of_the_records_own_item_is_refused(name: str) -> None:
    """In any of its locations; other items of the same table are the caller's."""
    own = (RENAMED_PLACE, replace(RENAMED_PLACE, partition="bucket#8"))
    key = {"sort": "shop#1234"}
    check([delete(name, part="bucket#9", **key), put(name, part="bucket#7", sort="mine", n=1)], own, {})
    for location in ("bucket#7", "bucket#8"):
        for write in (delete(name, part=location, **key), put(name, part=location, **key, n=1)):
            with pytest.raises(TransactionError, match="of the execution's own record in table 'renamed'"):
                check([write], own, {})


def test_two_puts_in_the_records_table_are_told_apart_by_its_key() -> None:
    with pytest.raises(TransactionError, match="two writes are of one item"):
        check([put("renamed", part="a", sort="b", n=1), put("renamed", part="a", sort="b", n=2)], OWN, {})


def test_the_events_of_a_key_are_one_item() -> None:
    """It is refused when it grows too large, and when another write is of it."""
    location = Location(table=RENAMED, partition="outbox", sort="k")
    event = Put(location, {**location.item, "d": {"S": 399 * 1024 * "x"}}, Absent())
    check([event], OWN, {})
    with pytest.raises(TransactionError, match="events of one key are over 400 KB"):
        check([replace(event, item={**event.item, "e": {"S": 1024 * "x"}})], OWN, {})
    with pytest.raises(TransactionError, match="two writes are of one item"):
        check([event, delete("renamed", part="outbox", sort="k")], OWN, {})
    with pytest.raises(TransactionError, match="two writes are of one item"):
        check([event, put("renamed", part="outbox", sort="k", n=1)], (PLACE,), {})
    assert effects.table_of(event) == "renamed"
