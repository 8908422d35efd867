"""Key material of every kind that users pass: each has pinned canonical bytes."""

import enum
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from uuid import UUID

import pytest

from aioidempotency._keys import canonical, digest
from tests.core.shapes import (
    AttrsOrder,
    Basket,
    Checked,
    Colour,
    DataOrder,
    Item,
    Level,
    ModelOrder,
    Point,
    Size,
    StructOrder,
)

ID = UUID("12345678-1234-5678-1234-567812345678")


class Text(str):
    """A text of a class of its own."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Wrapped(enum.Enum):
    """An enumeration whose value has to be opened in turn."""

    PRICE = Decimal("1.10")
    POINT = (1, "a")


@pytest.mark.parametrize(
    ("material", "written"),
    [
        (Decimal("1.10"), b'"1.10"'),
        (Decimal("1E+2"), b'"1E+2"'),
        (ID, b'"12345678-1234-5678-1234-567812345678"'),
        (datetime(2026, 11, 22, 3, 4, 5, 600, tzinfo=UTC), b'"2026-11-22T03:04:05.000600+00:00"'),
        (datetime(2026, 11, 22, 3, 4, tzinfo=timezone(timedelta(hours=2))), b'"2026-11-22T03:04:00+02:00"'),
        (date(2026, 11, 22), b'"2026-11-22"'),
        (time(3, 4, 5), b'"03:04:05"'),
        (timedelta(seconds=90), b'"PT90S"'),
        (Path("a/b"), b'"a/b"'),
        (PurePosixPath("/a"), b'"/a"'),
        (Colour.RED, b'"red"'),
        (Size.LARGE, b'"large"'),
        (Level.HIGH, b"3"),
        (Wrapped.PRICE, b'"1.10"'),
        (Wrapped.POINT, b'[1, "a"]'),
        (Text("mine"), b'"mine"'),
        (DataOrder(1, [Colour.RED]), b'{"id": 1, "lines": ["red"], "secret": null}'),
        (AttrsOrder(ID), b'{"id": "12345678-1234-5678-1234-567812345678"}'),
        (StructOrder(Decimal(1)), b'{"order_id": "1"}'),
        (ModelOrder(orderId=5), b'{"id": 5}'),
        (
            Basket(items=[Item(articleNumber="a", price=Decimal("1.10"))]),
            b'{"customer": null, "items": [{"article": "a", "price": "1.10"}]}',
        ),
        (
            Checked(1, Item(articleNumber="a", price=Decimal(1))),
            b'{"item": {"article": "a", "price": "1"}, "number": 1}',
        ),
        (Point(1, "a"), b'[1, "a"]'),
        ((1, (2,)), b"[1, [2]]"),
        (OrderedDict(b=1, a=2), b'{"a": 2, "b": 1}'),
        (MappingProxyType({"b": 1, "a": (Level.HIGH,)}), b'{"a": [3], "b": 1}'),
        ({ID: 1, Size.LARGE: 2}, b'{"12345678-1234-5678-1234-567812345678": 1, "large": 2}'),
    ],
)
def test_every_kind_of_material_has_pinned_bytes(material: object, written: bytes) -> None:
    """Also inside containers; another form would run every such key again."""
    assert canonical(material) == written
    assert canonical({"a": [material]}) == b'{"a": [' + written + b"]}"


def test_the_same_fields_make_the_same_key_whatever_holds_them() -> None:
    """A model may become a dataclass without a key changing."""
    same = [DataOrder("5", []), {"lines": (), "secret": None, "id": "5"}]
    assert len({digest(material) for material in same}) == 1
    assert digest(AttrsOrder(5)) == digest(ModelOrder(orderId=5)) == digest({"id": 5})


def test_material_is_left_as_it_was() -> None:
    """C9: what makes the key is the caller's, and is not touched."""
    order = DataOrder(5, [{"b": 1, "a": {Size.LARGE: Point(1, "x")}}])
    digest(order)
    assert order == DataOrder(5, [{"b": 1, "a": {Size.LARGE: Point(1, "x")}}])
