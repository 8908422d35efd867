"""Values of every kind that users pass and return."""

import enum
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Generic, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
import pydantic
import pydantic.dataclasses

T = TypeVar("T")


class Colour(enum.Enum):
    """A plain enumeration."""

    RED = "red"


class Size(enum.StrEnum):
    """An enumeration of texts."""

    LARGE = "large"


class Level(enum.IntEnum):
    """An enumeration of numbers."""

    HIGH = 3


class Empty(enum.Enum):
    """An enumeration whose values are no keys."""

    NOTHING = None
    BLANK = ""


class Unknown:
    """A class that nobody can read."""

    def __repr__(self) -> str:
        return "canary"


@dataclass
class DataOrder:
    """A dataclass with a field that is no argument."""

    id: object
    lines: object
    secret: str | None = field(default=None, init=False, repr=False)


@attrs.define
class AttrsOrder:
    """An attrs class, with slots."""

    id: object


class StructOrder(msgspec.Struct, rename="camel"):
    """A Struct that calls its fields otherwise on the wire."""

    order_id: object


class ModelOrder(pydantic.BaseModel):
    """A pydantic model whose field has an alias."""

    id: int | None = pydantic.Field(alias="orderId", default=None, validate_default=True)
    model_config = pydantic.ConfigDict(populate_by_name=True)


class Point(NamedTuple):
    """A named tuple."""

    x: int
    y: str


class Line(TypedDict):
    """A typed dictionary."""

    item: UUID
    amount: Decimal


@dataclass
class Address:
    """The inner dataclass."""

    street: str
    since: date


@dataclass
class Customer:
    """A dataclass that holds nearly everything."""

    id: UUID
    address: Address | None
    balance: Decimal
    born: datetime
    tags: set[str]
    corner: tuple[int, str]
    colour: Colour
    size: Size
    level: Level
    invoice: Path
    lines: list[Line]


@attrs.define
class Parcel:
    """An attrs class as a result."""

    weight: float
    address: Address


class Receipt(msgspec.Struct, rename="camel"):
    """A Struct as a result."""

    paid_at: datetime
    total: Decimal


class Item(pydantic.BaseModel):
    """A model that accepts its alias only."""

    article: str = pydantic.Field(alias="articleNumber")
    price: Decimal


class Basket(pydantic.BaseModel):
    """A model of models."""

    items: list[Item]
    customer: Address | None = None


@dataclass
class Shipment:
    """A dataclass that holds pydantic models."""

    basket: Basket
    spare: Item | None
    all_items: list[Item]


@pydantic.dataclasses.dataclass
class Checked:
    """A pydantic dataclass."""

    number: int
    item: Item


class Page(pydantic.BaseModel, Generic[T]):
    """A generic model."""

    entries: list[T]
