"""Conditions as DynamoDB reads them: what holds, and what it refuses to read."""

from typing import Any

import pytest

from bench.model.expressions import resolve
from bench.model.refusals import ServiceError

ITEM: dict[str, dict[str, Any]] = {"owner": {"S": "ann"}, "end": {"N": "1000"}, "blob": {"B": "AP8="}}
HOLDS = [
    ("attribute_exists(#x)", "owner", None, True),
    ("attribute_exists(#x)", "missing", None, False),
    ("attribute_not_exists(#x)", "owner", None, False),
    ("attribute_not_exists(#x)", "missing", None, True),
    ("#x = :v", "owner", {"S": "ann"}, True),
    ("#x = :v", "owner", {"S": "bob"}, False),
    ("#x = :v", "missing", {"S": "ann"}, False),
    ("#x <> :v", "owner", {"S": "bob"}, True),
    ("#x <> :v", "missing", {"S": "bob"}, True),
    ("#x = :v", "end", {"N": "1E+3"}, True),
    ("#x = :v", "end", {"S": "1000"}, False),
    ("#x >= :v", "end", {"N": "1000.0"}, True),
    ("#x > :v", "end", {"N": "999"}, True),
    ("#x < :v", "end", {"N": "999"}, False),
    ("#x <= :v", "end", {"N": "20000"}, True),
    ("#x < :v", "end", {"S": "a"}, False),
    ("#x < :v", "missing", {"N": "1"}, False),
    ("#x < :v", "blob", {"B": "AQ=="}, True),
]
UNREADABLE = [
    ("#x = ", {"#x": "a"}, {":v": {"S": "a"}}),
    ("= :v", {"#x": "a"}, {":v": {"S": "a"}}),
    ("#x = :v OR", {"#x": "a"}, {":v": {"S": "a"}}),
    ("(#x = :v", {"#x": "a"}, {":v": {"S": "a"}}),
    ("NOT #x = :v", {"#x": "a"}, {":v": {"S": "a"}}),
    ("#x = :v AND", {"#x": "a"}, {":v": {"S": "a"}}),
    ("begins_with(#x, :v)", {"#x": "a"}, {":v": {"S": "a"}}),
    ("attribute_exists(#x", {"#x": "a"}, None),
    ("#x ~ :v", {"#x": "a"}, {":v": {"S": "a"}}),
    ("", None, None),
    ("#x = :v", {"#y": "a"}, {":v": {"S": "a"}}),
    ("#x = :v", {"#x": "a"}, {":w": {"S": "a"}}),
    ("#x = :v", {"#x": "a", "#y": "b"}, {":v": {"S": "a"}}),
    ("#x = :v", {"#x": "a"}, {":v": {"S": "a"}, ":w": {"S": "b"}}),
    ("attribute_exists(x)", {}, None),
    ("#x > :v", {"#x": "a"}, {":v": {"BOOL": True}}),
]


def request(
    text: str | None, names: dict[str, str] | None, values: dict[str, Any] | None, field: str = "ConditionExpression"
) -> dict[str, Any]:
    """Make the part of a request that an expression needs."""
    given = {field: text, "ExpressionAttributeNames": names, "ExpressionAttributeValues": values}
    return {name: value for name, value in given.items() if value is not None}


@pytest.mark.parametrize(("text", "attribute", "value", "expected"), HOLDS)
def test_a_condition_holds_as_the_service_says(
    text: str, attribute: str, value: dict[str, Any] | None, expected: bool
) -> None:
    """Values of different types are never equal nor ordered; a missing attribute differs from every value."""
    (tests,) = resolve(request(text, {"#x": attribute}, value and {":v": value}), "ConditionExpression")
    assert [test.holds(ITEM) for test in tests] == [expected]


def test_requirements_joined_by_and_are_read_one_by_one() -> None:
    """Line breaks and lower case do not count; a name may be written out."""
    text = "attribute_not_exists(sort)\n and #x=:v AND #x <> :w"
    (tests,) = resolve(request(text, {"#x": "owner"}, {":v": {"S": "a"}, ":w": {"S": "b"}}), "ConditionExpression")
    assert [(test.operator, test.attribute) for test in tests] == [
        ("attribute_not_exists", "sort"),
        ("=", "owner"),
        ("<>", "owner"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("attribute_not_exists(owner) OR #x = :v", True),
        ("attribute_not_exists(owner) OR #x = :w", False),
        ("#x = :w OR #x = :v AND attribute_exists(gone)", False),
        ("(#x = :w OR #x = :v) AND attribute_exists(end)", True),
        ("#x = :w OR (#x = :v AND (attribute_exists(gone) OR attribute_exists(end)))", True),
    ],
)
def test_alternatives_bind_less_than_requirements(text: str, expected: bool) -> None:
    """Powertools' condition is of this form; AND comes first, and parentheses before it."""
    values = {name: {"S": who} for name, who in ((":v", "ann"), (":w", "bob")) if name in text}
    (tests,) = resolve(request(text, {"#x": "owner"}, values), "ConditionExpression")
    assert all(test.holds(ITEM) for test in tests) is expected


def test_an_update_sets_several_attributes() -> None:
    """Names and values may be shared with the condition of the same request."""
    given = request("SET #a = :a, b = :b", {"#a": "owner"}, {":a": {"S": "ann"}, ":b": {"N": "2"}}, "UpdateExpression")
    assignments, condition = resolve(
        {**given, "ConditionExpression": "#a = :a"}, "UpdateExpression", "ConditionExpression"
    )
    assert {each.attribute: each.value for each in assignments} == {"owner": {"S": "ann"}, "b": {"N": "2"}}
    assert [each.attribute for each in condition] == ["owner"]


@pytest.mark.parametrize("text", ["REMOVE #a", "SET #a = #a", "SET #a = :a + :a", "ADD #a :a", "SET"])
def test_other_updates_are_refused(text: str) -> None:
    """The model says that it cannot do them, and does nothing else instead."""
    with pytest.raises(ServiceError, match="Invalid UpdateExpression"):
        resolve(request(text, {"#a": "a"}, {":a": {"N": "1"}}, "UpdateExpression"), "UpdateExpression")


@pytest.mark.parametrize(("text", "names", "values"), UNREADABLE)
def test_what_the_service_refuses_to_read_is_refused(
    text: str, names: dict[str, str] | None, values: dict[str, Any] | None
) -> None:
    """A name or value that is not used is an error, and so is one that is not defined."""
    with pytest.raises(ServiceError) as refused:
        resolve(request(text, names, values), "ConditionExpression")
    assert refused.value.name == "ValidationException"


def test_names_without_an_expression_are_refused() -> None:
    """They have nothing to name."""
    with pytest.raises(ServiceError, match="can only be specified when using expressions"):
        resolve(request(None, {"#x": "a"}, None), "ConditionExpression")
