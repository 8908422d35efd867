"""Results of every shape that a replay must have again: types, and a value of each."""

import dataclasses
import datetime as dt
import enum
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict

import attrs
import msgspec
import pydantic

NOON = dt.datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=dt.UTC)
ORDER = uuid.UUID(int=42)
Cents = NewType("Cents", int)


class Currency(enum.Enum):
    EURO = "EUR"


class Level(enum.IntEnum):
    GOLD = 3


@dataclasses.dataclass(frozen=True)
class Money:
    amount: Decimal
    currency: Currency = Currency.EURO


@dataclasses.dataclass
class Receipt:
    order: uuid.UUID
    paid: Money | None
    at: dt.datetime
    parts: list["Receipt"] = dataclasses.field(default_factory=list)


@attrs.define
class Parcel:
    weight: Decimal
    labels: set[int]


class Invoice(msgspec.Struct):
    number: int
    receipt: Receipt


class Customer(pydantic.BaseModel):
    name: str = pydantic.Field(alias="customerName")
    since: dt.date
    level: Level = Level.GOLD


class Account(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")

    customers: dict[str, Customer]
    balance: Decimal


@dataclasses.dataclass
class Visit:
    customer: Customer
    at: dt.datetime


class Line(TypedDict):
    amount: Decimal
    day: dt.date


class Point(NamedTuple):
    x: int
    at: dt.time


RECEIPT = Receipt(ORDER, Money(Decimal("1.10")), NOON, [Receipt(ORDER, None, NOON)])
ANNA = Customer(customerName="Anna", since=NOON.date())

SHAPES: list[tuple[Any, object]] = [
    (Receipt, RECEIPT),
    (list[Receipt], [RECEIPT, RECEIPT]),
    (Receipt | None, RECEIPT),
    (Receipt | None, None),
    (Optional["Receipt"], RECEIPT),
    ("Receipt", RECEIPT),
    (dict[str, Receipt], {"a": RECEIPT}),
    (Customer, ANNA),
    (list[Customer | None], [ANNA, None]),
    (Account, Account.model_validate({"customers": {"a": ANNA}, "balance": "2.50", "note": "extra"})),
    (Visit, Visit(ANNA, NOON)),
    (Parcel, Parcel(Decimal("0.30"), {1, 2})),
    (list[Parcel], [Parcel(Decimal("0.30"), set())]),
    (Invoice, Invoice(7, RECEIPT)),
    (Line, {"amount": Decimal("3.00"), "day": NOON.date()}),
    (Point, Point(1, dt.time(3, 4, 5, 6))),
    (list[Point], [Point(1, dt.time(3))]),
    (tuple[int, str, Money], (1, "a", Money(Decimal(1)))),
    (tuple[Decimal, ...], (Decimal("1.0"), Decimal("1.00"))),
    (set[int], {1, 2}),
    (frozenset[Level], frozenset({Level.GOLD})),
    (dt.datetime, NOON),
    (dt.datetime, NOON.replace(tzinfo=None)),
    (dt.datetime, NOON.astimezone(dt.timezone(dt.timedelta(hours=2)))),
    (dt.date, NOON.date()),
    (dt.timedelta, dt.timedelta(days=1, microseconds=3)),
    (uuid.UUID, ORDER),
    (Decimal, Decimal("10.00")),
    (Currency, Currency.EURO),
    (Level, Level.GOLD),
    (dict[int, Level], {1: Level.GOLD}),
    (bytes, b"\x00\xff"),
    (Path, Path("a") / "b"),
    (int, 2**70),
    (float, 1e300),
    (Cents, Cents(5)),
    (Literal["paid"], "paid"),
    (Annotated[int, "cents"], 5),
    (str, "null"),
    (str, "{not JSON"),
    (int | str, "5"),
    (Mapping[str, int], {"a": 1}),
    (Any, {"a": [1, "2", None, 0.5, True]}),
    (None, None),
]
"""An annotation, and a value that it describes."""
