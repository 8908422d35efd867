"""Results are stored as JSON, and come back as what the caller was promised."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._annotations import is_pydantic
from aioidempotency._core import model
from aioidempotency._core.model import AttributeValue
from aioidempotency.codecs import JsonCodec
from tests.core.playing import PLACE, done
from tests.core.shapes import (
    Address,
    Basket,
    Checked,
    Colour,
    Customer,
    DataOrder,
    Item,
    Level,
    Line,
    Page,
    Parcel,
    Point,
    Receipt,
    Shipment,
    Size,
)

CODEC = JsonCodec()
ID = UUID("12345678-1234-5678-1234-567812345678")
THEN = datetime(2026, 11, 22, 3, 4, 5, 600, tzinfo=UTC)
HOME = Address("Elm Street", date(2026, 11, 22))
APPLE = Item(articleNumber="apple", price=Decimal("1.10"))
BASKET = Basket(items=[APPLE, APPLE], customer=HOME)
LINE: Line = {"item": ID, "amount": Decimal("0.10")}
CUSTOMER = Customer(
    ID, HOME, Decimal("1.10"), THEN, {"a", "b"}, (1, "x"), Colour.RED, Size.LARGE, Level.HIGH, Path("a/b"), [LINE]
)


def _round_trip(value: object, result_type: object) -> object:
    return CODEC.decode(CODEC.encode(value), result_type)


@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}, None])
@pytest.mark.parametrize("promised", [True, False])
def test_empty_results_replay_as_themselves(value: object, promised: bool) -> None:
    """C3: with their type, and without an annotation, too."""
    replayed = _round_trip(value, type(value) if promised and value is not None else Any)
    assert replayed == value
    assert type(replayed) is type(value)


@pytest.mark.parametrize(
    ("value", "result_type"),
    [
        (HOME, Address),
        (CUSTOMER, Customer),
        (BASKET, Basket),
        (Parcel(1.5, HOME), Parcel),
        (Receipt(THEN, Decimal("1.10")), Receipt),
        (LINE, Line),
        (Point(1, "x"), Point),
        (Shipment(BASKET, None, [APPLE]), Shipment),
        (Shipment(BASKET, APPLE, []), Shipment),
        (Checked(1, APPLE), Checked),
        (Page[Item](entries=[APPLE]), Page[Item]),
        ((1, "x"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1, 2}, set[int]),
        (frozenset({ID}), frozenset[UUID]),
        (THEN, datetime),
        (THEN.date(), date),
        (timedelta(seconds=90), timedelta),
        (ID, UUID),
        (Decimal("1.10"), Decimal),
        (Path("a/b"), Path),
        ({"a": Path("b")}, dict[str, Path]),
        (Colour.RED, Colour),
        (Size.LARGE, Size),
        (Level.HIGH, Level),
        (b"\x00\xff", bytes),
        ({1: None}, dict[int, None]),
        ("paid", Literal["paid", "open"]),
        (5, Annotated[int, "a note"]),
        (2**64, int),
        (-(10**30), int),
        (5, float),
    ],
)
def test_results_replay_as_what_was_promised(value: Any, result_type: Any) -> None:
    """C4: equal to the first answer and of the same type; alone, optional, and in lists."""
    replayed = _round_trip(value, result_type)
    assert replayed == value
    assert result_type is float or type(replayed) is type(value)
    assert _round_trip(value, result_type | None) == value
    assert _round_trip(None, result_type | None) is None
    assert _round_trip([value, value], list[result_type]) == [value, value]
    assert _round_trip({"a": [value]}, dict[str, list[result_type]]) == {"a": [value]}


@pytest.mark.parametrize("value", [APPLE, BASKET, {"a": APPLE}, [DataOrder(APPLE, [])]])
def test_models_are_written_by_the_names_of_their_fields(value: object) -> None:
    """Whatever their aliases say, and as numbers and texts, so that they read back alike."""
    written = CODEC.encode(value)
    assert '"article":"apple","price":"1.10"' in written
    assert "articleNumber" not in written


def test_results_are_plain_json() -> None:
    """Powertools reads them: no types are written beside the values."""
    assert (
        CODEC.encode({"a": (1, None, "é", HOME)}) == '{"a":[1,null,"é",{"street":"Elm Street","since":"2026-11-22"}]}'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(value=JSON)
@settings(max_examples=20, deadline=None)
def test_plain_json_replays_without_an_annotation(value: object) -> None:
    """What JSON has comes as it went."""
    assert _round_trip(value, Any) == value


@pytest.mark.parametrize(
    ("text", "result"), [("done", "done"), ("", ""), ('a "b"', 'a "b"'), ("NaN", "NaN"), ("1 2", "1 2")]
)
def test_text_that_is_no_json_is_taken_as_it_is(text: str, result: str) -> None:
    """Powertools for Java stores a String without quotes."""
    assert CODEC.decode(text, str) == result
    assert CODEC.decode(text, Any) == result
    assert CODEC.decode(text, str | None) == result


def test_a_prepared_decoder_reads_bytes() -> None:
    """It is made once for each type."""
    assert CODEC.decoder(Address)(b'{"street": "Elm Street", "since": "2026-11-22"}') == HOME
    assert CODEC.decoder(Basket)(CODEC.encode(BASKET).encode()) == BASKET


@pytest.mark.parametrize(
    ("native", "result_type", "result"),
    [
        ({"M": {"item": {"S": str(ID)}, "amount": {"N": "0.10"}}}, Line, LINE),
        ({"M": {"items": {"L": [{"M": {"article": {"S": "apple"}, "price": {"N": "1.10"}}}]}}}, Basket, None),
        ({"L": [{"N": "1"}, {"NULL": True}]}, list[int | None], [1, None]),
        ({"N": "12345678901234567890123"}, int, 12345678901234567890123),
        ({"BOOL": False}, bool, False),
        ({"NULL": True}, None, None),
        ({"SS": ["b", "a"]}, set[str], {"a", "b"}),
        ({"S": "raw"}, str, "raw"),
        ({"S": '"quoted"'}, str, "quoted"),
    ],
)
def test_native_data_of_other_powertools_is_decoded(
    native: AttributeValue, result_type: object, result: object
) -> None:
    """TypeScript stores native attributes, Java raw texts: both come back with their type."""
    data = model.parse({**done(PLACE), "data": native}, PLACE).data
    assert data is not None
    expected = Basket(items=[APPLE]) if result_type is Basket else result
    assert CODEC.decode(data, result_type) == expected


def test_pydantic_types_are_told_without_importing_it() -> None:
    """Models and pydantic dataclasses, but not their instances, nor anything else."""
    assert is_pydantic(Basket)
    assert is_pydantic(Checked)
    assert not is_pydantic(BASKET)
    assert not is_pydantic(Address)
    assert not is_pydantic(None)


def test_a_codec_says_what_it_is() -> None:
    """It has no state to show."""
    assert repr(CODEC) == "JsonCodec()"
