"""Python values as DynamoDB has them, and back."""

import enum
from decimal import Context, Decimal, Inexact, Rounded, localcontext
from fractions import Fraction
from math import inf, nan
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import SerializationError
from aioidempotency import _attributes as attributes


class Size(enum.StrEnum):
    LARGE = "large"


class Tag(str, enum.Enum):  # noqa: UP042 - as it was written before there was StrEnum
    NEW = "new"


PAIRS: list[tuple[Any, dict[str, Any]]] = [
    ("text", {"S": "text"}),
    ("", {"S": ""}),
    (7, {"N": "7"}),
    (10**37, {"N": "1" + 37 * "0"}),
    (Decimal("1.10"), {"N": "1.10"}),
    (Decimal("1E-40"), {"N": "1E-40"}),
    (True, {"BOOL": True}),
    (None, {"NULL": True}),
    (b"\x00\xff", {"B": b"\x00\xff"}),
    ({"a": [1, "b", {"c": None}]}, {"M": {"a": {"L": [{"N": "1"}, {"S": "b"}, {"M": {"c": {"NULL": True}}}]}}}),
    ([], {"L": []}),
    ({}, {"M": {}}),
    ({"b", "a"}, {"SS": ["a", "b"]}),
    ({2, 1}, {"NS": ["1", "2"]}),
    ({b"x"}, {"BS": [b"x"]}),
]


@pytest.mark.parametrize(("plain", "wire"), PAIRS)
def test_a_plain_value_is_written_and_read_back(plain: object, wire: dict[str, Any]) -> None:
    assert attributes.attribute(plain, "the item") == wire
    assert attributes.read(wire) == plain
    assert attributes.attribute(wire, "the item") == wire


@pytest.mark.parametrize(
    ("plain", "wire", "back"),
    [
        (0.1, {"N": "0.1"}, Decimal("0.1")),
        (3.0, {"N": "3.0"}, 3),
        ((1, 2), {"L": [{"N": "1"}, {"N": "2"}]}, [1, 2]),
        (Size.LARGE, {"S": "large"}, "large"),
        (bytearray(b"x"), {"B": b"x"}, b"x"),
        (Tag.NEW, {"S": "new"}, "new"),
        ({Tag.NEW}, {"SS": ["new"]}, {"new"}),
        (frozenset({1.5}), {"NS": ["1.5"]}, {Decimal("1.5")}),
        (10**40, {"N": f"1{40 * '0'}"}, Decimal("1E+40")),
        (-0.0, {"N": "-0.0"}, 0),
    ],
)
def test_some_values_come_back_as_another_type_and_equal(plain: object, wire: dict[str, Any], back: object) -> None:
    assert attributes.written(plain, "x") == wire
    assert attributes.read(wire) == back


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("\ud800", "half a character"),
        ({"\ud800"}, "half a character"),
        ({"\ud800": 1}, "half a character"),
        ({"S": "\ud800"}, "half a character"),
        ({"M": {"\ud800": {"S": "a"}}}, "half a character"),
        (nan, "NaN"),
        (inf, "infinity"),
        (10**38 + 1, "out of bounds"),
        (1e126, "out of bounds"),
        (1e-131, "out of bounds"),
        (Fraction(1, 3), "Fraction"),
        (object(), "object"),
        (set(), "an empty set"),
        ({1, "a"}, "mixed"),
        ({True}, "mixed"),
        ({1: "a"}, "names that are no texts"),
        ([{1: "a"}], "names that are no texts"),
        ({"S": 5}, "of another type"),
        ({"N": "five"}, "of another type"),
        ({"N": "NaN"}, "of another type"),
        ({"L": [5]}, "of another type"),
        ({"M": {"a": 5}}, "of another type"),
        ({"NULL": False}, "of another type"),
        ({"SS": []}, "of another type"),
        ({"NS": ["a"]}, "of another type"),
        ({"BS": ["a"]}, "of another type"),
        ({"B": "text"}, "of another type"),
        ({"BOOL": 1}, "of another type"),
    ],
)
def test_what_dynamodb_cannot_hold_is_refused(value: object, kind: str) -> None:
    """The message names the type, and not the value."""
    with pytest.raises(SerializationError, match=kind):
        attributes.attribute(value, "the Item of put")


def test_a_mapping_of_one_name_is_typed_at_the_top_only() -> None:
    """Inside a plain value it is a mapping like any other; typed, it can be stored as such."""
    assert attributes.attribute({"S": "small"}, "x") == {"S": "small"}
    assert attributes.attribute({"sizes": {"S": "small"}}, "x") == {"M": {"sizes": {"M": {"S": {"S": "small"}}}}}
    assert attributes.attribute({"M": {"S": {"S": "small"}}}, "x") == {"M": {"S": {"S": "small"}}}
    assert attributes.attribute({"X": 5}, "x") == {"M": {"X": {"N": "5"}}}


def test_a_typed_value_is_a_copy() -> None:
    """What its owner does with it after that changes nothing; whatever mappings it is made of."""
    inner = {"S": "a"}
    value = {"M": MappingProxyType({"list": {"L": [inner]}, "set": {"SS": ["b"]}, "raw": {"BS": [bytearray(b"c")]}})}
    copy = attributes.attribute(value, "x")
    inner["S"] = "changed"
    assert copy == {"M": {"list": {"L": [{"S": "a"}]}, "set": {"SS": ["b"]}, "raw": {"BS": [b"c"]}}}
    assert type(copy["M"]) is dict


def test_the_callers_decimal_context_has_no_part_in_it() -> None:
    """Whatever it rounds or traps."""
    long = Decimal("1.234567890123456789012345678901234567")
    with localcontext(Context(prec=3, traps=[Inexact, Rounded])):
        wire = attributes.written(long, "x")
        assert attributes.read(wire) == long
        assert attributes.size({"n": wire}) == 1 + 20
        assert attributes.key_text(wire) == f"N:{long}"


def test_two_scalars_that_are_one_key_are_spelled_alike() -> None:
    assert attributes.key_text({"N": "1"}) == attributes.key_text({"N": "1.0"}) == attributes.key_text({"N": "1E0"})
    assert attributes.key_text({"N": "1"}) != attributes.key_text({"S": "1"})
    assert attributes.key_text({"B": b"a"}) == attributes.key_text({"B": bytearray(b"a")})


def test_an_item_is_a_mapping_with_names() -> None:
    assert attributes.item({"pk": "a", "n": {"N": "1"}}, "x") == {"pk": {"S": "a"}, "n": {"N": "1"}}
    for wrong in ({}, None, [("pk", "a")], {1: "a"}, "pk"):
        with pytest.raises(SerializationError, match=r"the Key of update cannot hold .*give a mapping"):
            attributes.item(wrong, "the Key of update")
    assert attributes.read_item({"pk": {"S": "a"}, "n": {"N": "1.5"}}) == {"pk": "a", "n": Decimal("1.5")}


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"pk": {"S": "é"}}, 2 + 2),
        ({"n": {"N": "123"}}, 1 + 3),
        ({"n": {"N": "-1200"}}, 1 + 3),
        ({"b": {"B": b"1234"}}, 1 + 4),
        ({"t": {"BOOL": True}, "u": {"NULL": True}}, 4),
        ({"l": {"L": [{"S": "ab"}, {"BOOL": True}]}}, 1 + 3 + 3 + 2),
        ({"m": {"M": {"k": {"S": "ab"}}}}, 1 + 3 + 1 + 1 + 2),
        ({"s": {"SS": ["ab", "c"]}}, 1 + 3),
        ({"s": {"NS": ["1", "2"]}}, 1 + 4),
        ({"s": {"BS": [b"ab"]}}, 1 + 2),
    ],
)
def test_sizes_are_counted_by_dynamodbs_rules(item: dict[str, Any], size: int) -> None:
    assert attributes.size(item) == size


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"N": "1"}, {"N": "1.0"}, True),
        ({"N": "1"}, {"S": "1"}, False),
        ({"B": b"a"}, {"B": bytearray(b"a")}, True),
        ({"S": "a"}, {"S": "b"}, False),
    ],
)
def test_scalars_are_compared_as_keys_are(one: Any, other: Any, same: bool) -> None:
    assert (attributes.comparable(one) == attributes.comparable(other)) is same


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**37), 10**37)
    | st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9)
    | st.text()
    | st.binary()
    | st.sets(st.text(), min_size=1),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(min_size=1), inner),
    max_leaves=20,
)


@given(VALUES)
def test_whatever_is_written_is_read_back(value: object) -> None:
    """Exactly: DynamoDB's types lose nothing of these."""
    wire = attributes.written(value, "x")
    assert attributes.is_typed(wire)
    assert attributes.read(wire) == value
