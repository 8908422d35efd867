"""Types of results, a value of each, and what a replay of the value is. The page on results shows the same table."""

import collections
import dataclasses
import datetime as dt
import enum
import zoneinfo
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict, final

import attrs
import msgspec
import pydantic
from starlette.responses import JSONResponse

Verdict = Literal["itself", "told", "dropped", "refused"]


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One row: the annotation and the value as a reader sees them and as they are, the verdict, and the reason."""

    annotation: str
    value: str
    verdict: Verdict
    reason: str
    type: Any = dataclasses.field(repr=False)
    result: Any = dataclasses.field(repr=False)

    @property
    def line(self) -> str:
        """The row in the page's table."""
        annotation = self.annotation.replace("|", "\\|")
        value = f"`{self.value}`" if self.value else ""
        cells = (f"`{annotation}`", value, WORDS[self.verdict], self.reason)
        return f"| {' | '.join(cells)} |"


WORDS: dict[Verdict, str] = {
    "itself": "comes back",
    "told": "stored, `ResultDiffers`",
    "dropped": "`ResultDropped`",
    "refused": "refused when decorating",
}


@dataclass
class Animal:
    name: str


@dataclass
class Dog(Animal):
    legs: int = 4


@dataclass
class Zoo:
    animals: list[Animal]


@dataclass
class Note:
    number: int
    extra: Any


@dataclass(eq=False)
class Receipt:
    number: int


@dataclass
class Price:
    cents: float

    def __post_init__(self) -> None:
        self.cents *= 100


@attrs.define
class Parcel:
    weight: Decimal


@attrs.define
class Hidden:
    _number: int


@dataclass
class Holder:
    hidden: Hidden


class Invoice(msgspec.Struct):
    number: int


class Created(pydantic.BaseModel):
    id: int


class Updated(pydantic.BaseModel):
    id: int


class Point(NamedTuple):
    x: int
    y: int


class Line(TypedDict):
    amount: Decimal


class Level(enum.IntEnum):
    HIGH = 3


class Client:
    """A living object."""


SUMMER = dt.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))

ROWS = [
    Row("str", '"paid"', "itself", "", str, "paid"),
    Row("int | None", "None", "itself", "", int | None, None),
    Row("bytes", r'b"\x00"', "itself", "", bytes, b"\x00"),
    Row("Decimal", 'Decimal("1.10")', "itself", "", Decimal, Decimal("1.10")),
    Row(
        "list[Receipt]",
        "[Receipt(7)]",
        "itself",
        "compared by field, also with `eq=False`",
        list[Receipt],
        [Receipt(7)],
    ),
    Row("Parcel", 'Parcel(Decimal("0.3"))', "itself", "an attrs class", Parcel, Parcel(Decimal("0.3"))),
    Row("Invoice", "Invoice(7)", "itself", "a `msgspec.Struct`", Invoice, Invoice(7)),
    Row("Created", "Created(id=1)", "itself", "a pydantic model", Created, Created(id=1)),
    Row("Point", "Point(1, 2)", "itself", "a `NamedTuple`", Point, Point(1, 2)),
    Row("Line", '{"amount": Decimal("2")}', "itself", "a `TypedDict`", Line, {"amount": Decimal(2)}),
    Row("Path", 'Path("a/b")', "itself", "", Path, Path("a/b")),
    Row("set[Level]", "{Level.HIGH}", "itself", "an enum", set[Level], {Level.HIGH}),
    Row("Counter[str]", 'Counter("aab")', "itself", "", collections.Counter[str], collections.Counter("aab")),
    Row("Created | Updated", "Updated(id=1)", "itself", "the class is stored", Created | Updated, Updated(id=1)),
    Row("datetime | str", '"2026-07-01"', "itself", "the class is stored", dt.datetime | str, "2026-07-01"),
    Row("Animal", 'Dog("Rex", 3)', "itself", "the class is stored", Animal, Dog("Rex", 3)),
    Row("int", "True", "itself", "the class is stored", int, True),
    Row(
        "datetime",
        'datetime(…, ZoneInfo("Europe/Berlin"))',
        "itself",
        "with an offset as time zone",
        dt.datetime,
        SUMMER,
    ),
    Row("Sequence[int]", "(1, 2)", "itself", "as a list, which is a `Sequence`, too", Sequence[int], (1, 2)),
    Row("Any", '{"a": [1, None]}', "itself", "JSON has all of it", Any, {"a": [1, None]}),
    Row("float", "5", "told", "comes back as `5.0`", float, 5),
    Row("int", "Level.HIGH", "told", "comes back as `3`", int, Level.HIGH),
    Row("list[int]", "(1, 2)", "told", "comes back as a list", list[int], (1, 2)),
    Row(
        "dict[str, int]",
        "defaultdict(int, a=1)",
        "told",
        "comes back as a dictionary",
        dict[str, int],
        collections.defaultdict(int, a=1),
    ),
    Row("Any", "(1, 2)", "told", "comes back as a list", Any, (1, 2)),
    Row("dict", '{1: "a", "1": "b"}', "told", "JSON has one of the two keys", dict, {1: "a", "1": "b"}),
    Row("dict[str, Any]", '{"at": date(…)}', "told", "comes back as text", dict[str, Any], {"at": SUMMER.date()}),
    Row("Note", "Note(1, date(…))", "told", "the field `extra: Any` comes back as text", Note, Note(1, SUMMER.date())),
    Row("Price", "Price(1.5)", "dropped", "`__post_init__` multiplies, and would run again", Price, Price(1.5)),
    Row("list[Animal]", '[Dog("Rex")]', "dropped", "would come back as an `Animal`", list[Animal], [Dog("Rex")]),
    Row("Zoo", 'Zoo([Dog("Rex")])', "dropped", "would come back as an `Animal`", Zoo, Zoo([Dog("Rex")])),
    Row("Animal", '{"name": "Rex"}', "dropped", "would come back as an `Animal`", Animal, {"name": "Rex"}),
    Row("float", 'float("nan")', "dropped", "JSON has no NaN", float, float("nan")),
    Row("str", r'"\ud800"', "dropped", "half a character", str, "\ud800"),
    Row("Any", "Client()", "dropped", "no data", Any, Client()),
    Row("Client", "", "refused", "a plain class is no data", Client, None),
    Row("JSONResponse", "", "refused", "return the data", JSONResponse, None),
    Row("Receipt | JSONResponse", "", "refused", "return the data", Receipt | JSONResponse, None),
    Row("Iterator[int]", "", "refused", "return a list", Iterator[int], None),
    Row("Callable[[], int]", "", "refused", "no data", Callable[[], int], None),
    Row("complex", "", "refused", "JSON has none", complex, None),
    Row("type[Client]", "", "refused", "return the name of the class", type[Client], None),
    Row("Holder", "", "refused", "holds an attrs class with the attribute `_number`", Holder, None),
    Row("list[Created | JSONResponse]", "", "refused", "return the data", list[Created | JSONResponse], None),
]
"""Each kind of result, as the page on results lists it."""

HEAD = ("| Annotation | Result | A replay | Why |", "|---|---|---|---|")
