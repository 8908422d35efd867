"""What an attribute value is: numbers by value, sizes as the service counts them, and what is none."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.model import numbers
from bench.model.refusals import ServiceError
from bench.model.values import measured, order

decimals = st.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**9), max_value=10**9)
SIZES: list[tuple[dict[str, Any], int]] = [
    ({"S": ""}, 0),
    ({"S": "é"}, 2),
    ({"N": "0"}, 1),
    ({"N": "7"}, 2),
    ({"N": "1795000000000"}, 3),
    ({"N": "-12.5"}, 4),
    ({"B": "AP8="}, 2),
    ({"BOOL": False}, 1),
    ({"NULL": True}, 1),
    ({"SS": ["a", "bc"]}, 3),
    ({"L": []}, 3),
    ({"L": [{"S": "ab"}, {"BOOL": True}]}, 8),
    ({"M": {"name": {"S": "ab"}}}, 10),
]
NONE_OF_THEM: list[tuple[Any, str]] = [
    ({}, "ValidationException"),
    ({"S": "a", "N": "1"}, "ValidationException"),
    ({"X": "a"}, "ValidationException"),
    ({"S": 1}, "SerializationException"),
    ({"N": 1}, "SerializationException"),
    ({"BOOL": "true"}, "SerializationException"),
    ({"B": "no base64!"}, "SerializationException"),
    ("a", "SerializationException"),
    ({"NULL": False}, "ValidationException"),
    ({"SS": []}, "ValidationException"),
    ({"NS": ["1", "1.0"]}, "ValidationException"),
    ({"N": ""}, "ValidationException"),
    ({"N": "NaN"}, "ValidationException"),
    ({"N": "1_000"}, "ValidationException"),
    ({"N": "1E126"}, "ValidationException"),
    ({"N": "1E-131"}, "ValidationException"),
    ({"N": "1E999999999"}, "ValidationException"),
    ({"N": "1" * 39}, "ValidationException"),
]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1.50", "1.5"),
        ("1E+3", "1000"),
        ("007", "7"),
        ("-0", "0"),
        ("+5.", "5"),
        (".5e-2", "0.005"),
        ("1" + "0" * 50, "1" + "0" * 50),
        ("9" * 38, "9" * 38),
    ],
)
def test_a_number_is_kept_by_value(written: str, kept: str) -> None:
    """DynamoDB gives a number back in one spelling, whatever it was written as."""
    assert numbers.canonical(written) == kept


@given(decimals)
def test_a_number_keeps_its_value_and_one_spelling(number: Decimal) -> None:
    """Equal numbers are equal texts, so that conditions can compare texts."""
    kept = numbers.canonical(str(number))
    assert Decimal(kept) == number
    assert numbers.canonical(f"{number:E}") == kept
    assert numbers.canonical(kept) == kept


@given(decimals, decimals)
def test_numbers_are_ordered_by_value(one: Decimal, other: Decimal) -> None:
    """Sort keys and comparisons order encoded numbers as the numbers themselves."""
    first, second = (order({"N": numbers.canonical(str(each))}) for each in (one, other))
    assert (first < second) == (one < other)
    assert (first == second) == (one == other)


@pytest.mark.parametrize(("value", "size"), SIZES, ids=str)
def test_sizes_are_counted_as_the_service_counts_them(value: dict[str, Any], size: int) -> None:
    """Texts by their UTF-8, numbers by half their digits, containers with three bytes and one for each element."""
    assert measured(value)[1] == size


@pytest.mark.parametrize(("value", "name"), NONE_OF_THEM, ids=str)
def test_what_is_no_value_is_refused(value: object, name: str) -> None:
    """Nothing is stored that DynamoDB would not store."""
    with pytest.raises(ServiceError) as refused:
        measured(value)
    assert refused.value.name == name


def test_values_may_be_nested_thirty_two_levels_deep() -> None:
    """One level more is refused, and so is a recursion that a client could start."""
    assert measured(nested(32))
    with pytest.raises(ServiceError, match="Nesting Levels"):
        measured(nested(33))


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"S": "leaf"}
    for _ in range(levels):
        value = {"L": [value]}
    return value


def test_a_sets_order_does_not_count() -> None:
    """Two spellings of one set are one value."""
    assert measured({"NS": ["2", "1.0"]}) == measured({"NS": ["1", "2"]})
    letters = list("hgfedcba")
    assert measured({"SS": letters}) == ({"SS": sorted(letters)}, len(letters))
