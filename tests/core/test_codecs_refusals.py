"""Results that cannot be stored, and stored ones that no longer fit, are refused without showing them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest

from aioidempotency.codecs import JsonCodec
from aioidempotency.exceptions import ConfigurationError, SerializationError
from tests.core.shapes import Address, Basket, Colour, Customer, Item, Page, Parcel, Shipment, Unknown

CODEC = JsonCodec()
HOME = Address("Elm Street", date(2026, 11, 22))
APPLE = Item(articleNumber="apple", price=Decimal("1.10"))
BASKET = Basket(items=[APPLE])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "hold",
    [
        lambda value: value,
        lambda value: [None, {"a": value}],
        lambda value: Parcel(value, HOME),
        lambda value: {1: value},
        lambda value: {"a": {HOME.since: [APPLE, value]}},
        lambda value: Page[float](entries=[value]),
    ],
)
def test_results_that_would_turn_into_null_are_refused(value: float, hold: Callable[[float], object]) -> None:
    """C4: NaN and the infinities have no JSON; `null` would not be what the first caller got."""
    with pytest.raises(SerializationError, match=r"^the result cannot hold "):
        CODEC.encode(hold(value))


@pytest.mark.parametrize(
    "value", [None, [None, {1: None}], {"null": None}, Shipment(BASKET, None, []), {Path("a"): None}]
)
def test_results_that_hold_nothing_are_not_mistaken_for_them(value: object) -> None:
    """A real `null` is JSON."""
    assert "null" in CODEC.encode(value)


_LOOP: list[Any] = []
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (Unknown(), "Unknown"),
        ([Unknown()], "Unknown"),
        ({(1, 2): 3}, "tuple"),
        ("\ud800", "str"),
        (_LOOP, "list"),
        (1j, "complex"),
    ],
)
def test_results_that_json_cannot_carry_are_refused(value: object, kind: str) -> None:
    """O10, U3: by a message that names the type and shows no value."""
    with pytest.raises(SerializationError) as caught:
        CODEC.encode(value)
    assert str(caught.value) == (
        f"the result cannot hold {kind}: return a value that JSON can hold, or give another codec="
    )


@pytest.mark.parametrize(
    ("text", "result_type", "name"),
    [
        ('"canary"', int, "int"),
        ("canary", int, "int"),
        ('{"street": "canary"}', Address, "Address"),
        ('{"items": "canary"}', Basket, "Basket"),
        ('[{"items": "canary"}]', list[Basket], "list"),
        ('{"basket": {"items": ["canary"]}, "spare": null, "all_items": []}', Shipment, "Shipment"),
        ("5", Path, "Path"),
        ('"canary"', Colour, "Colour"),
        ("1.5", int | None, "int | None"),
        ('{"articleNumber": "canary", "price": 1}', Item, "Item"),
    ],
)
def test_a_result_that_no_longer_fits_its_type_is_refused(text: str, result_type: object, name: str) -> None:
    """U3: by a message that names the type, asks the likely question, and shows no value."""
    with pytest.raises(SerializationError) as caught:
        CODEC.decode(text, result_type)
    assert str(caught.value) == (
        f"the stored result cannot hold a value of another type than {name}: was the return type changed?"
    )
    assert caught.value.__suppress_context__, "the cause would show values"


@dataclass
class Mixed:
    """A pydantic model beside a number cannot be told from JSON by msgspec."""

    either: Item | int


@pytest.mark.parametrize("result_type", [list[int] | tuple[int, ...], Address | Customer, Mixed, Annotated[int, []]])
def test_a_type_that_cannot_be_told_from_json_is_refused(result_type: object) -> None:
    """When decorating, not when the first duplicate comes; with the way out."""
    with pytest.raises(ConfigurationError) as caught:
        CODEC.decoder(result_type)
    assert str(caught.value).startswith(f"a result of type {result_type} cannot be read back from JSON: ")
    assert str(caught.value).endswith(
        "; give the decorator a result_type= that can be read back, or give the store another codec="
    )
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(ConfigurationError):
        CODEC.decode("1", result_type)
