"""C16, C17: no generated type has a replay that differs silently, and no accepted type is without replays.

The comparison is the test's own, and knows nothing of the library's.
"""

import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar, Union, final, get_origin

import attrs
import msgspec
import pydantic
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, ResultUnavailableError, idempotent
from aioidempotency.events import Event, ResultDiffers, ResultDropped

T = TypeVar("T")
Values = st.SearchStrategy[Any]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 3


class Size(enum.StrEnum):
    SMALL = "s"


@dataclasses.dataclass
class Box(Generic[T]):
    content: T


class Page(pydantic.BaseModel, Generic[T]):
    entries: list[T]


@final
@dataclasses.dataclass(frozen=True)
class Case:
    """An annotation; values that fit; and values of which a part may be lost or changed.

    With `plain`, each value that fits has to come back: no class of the annotation changes its values.
    """

    annotation: Any
    good: Values = dataclasses.field(repr=False)
    odd: Values = dataclasses.field(repr=False)
    hashable: bool = False
    plain: bool = True


def leaf(annotation: Any, good: Values, odd: Values | None = None) -> Case:
    return Case(annotation, good, good if odd is None else odd, hashable=True)


MOMENTS = st.datetimes(timezones=st.none() | st.just(dt.UTC) | st.timezones())
LEAVES = [
    leaf(int, st.integers(), st.booleans() | st.sampled_from(Level)),
    leaf(str, st.text(st.characters(exclude_categories=["Cs"])), st.text() | st.sampled_from(Size) | st.just("\ud800")),
    leaf(float, st.floats(allow_nan=False, allow_infinity=False), st.floats() | st.integers()),
    leaf(bool, st.booleans()),
    leaf(None, st.none()),
    leaf(bytes, st.text("ab").map(str.encode), st.binary()),  # pydantic writes bytes as UTF-8
    leaf(
        decimal.Decimal,
        st.decimals(allow_nan=False, allow_infinity=False),
        st.just(decimal.Decimal("NaN")) | st.decimals(allow_nan=False),
    ),
    leaf(uuid.UUID, st.uuids()),
    leaf(dt.datetime, st.datetimes(timezones=st.none() | st.just(dt.UTC)), MOMENTS),
    leaf(dt.date, st.dates()),
    leaf(dt.time, st.times()),
    leaf(dt.timedelta, st.timedeltas()),
    leaf(Path, st.sampled_from([Path("a"), Path("a/b"), Path("/")])),
    leaf(Colour, st.sampled_from(Colour)),
    leaf(Level, st.sampled_from(Level)),
    leaf(Size, st.sampled_from(Size)),
]
UNTOLD = Case(
    Any,
    st.recursive(st.none() | st.booleans() | st.integers() | st.text("ab"), lambda x: st.lists(x, max_size=2)),
    st.tuples(st.integers())
    | st.dates()
    | st.dictionaries(st.integers(), st.none(), min_size=1)
    | st.sampled_from(Level),
)
_NUMBER = itertools.count()
_MADE_TUPLE: Any = NamedTuple
_MADE_DICT: Any = TypedDict
"""Under names that let no type checker look for a class that is made at run time."""


def _scaled(self: Any) -> None:
    if isinstance(self, msgspec.Struct):
        self.n *= 100  # type: ignore[attr-defined] # the class is made below
    else:
        object.__setattr__(self, "n", self.n * 100)  # also where it is frozen


def records(inner: Case, kind: str, *, changes: bool) -> Case:
    """Make a class with a number and a field of the inner type, and a subclass with one field more."""
    name = f"Made{next(_NUMBER)}"
    body: dict[str, Any] = {"__module__": __name__}
    fields: dict[str, Any] = {"n": int, "inner": inner.annotation}
    base: Any
    sub: Any = None
    match kind:
        case "dataclass" | "frozen" | "slots":
            body |= {"__post_init__": _scaled} if changes else {}
            options: dict[str, Any] = {"frozen": kind == "frozen", "slots": kind == "slots"}
            base = dataclasses.make_dataclass(name, fields.items(), namespace=body, **options)
            base.__module__ = __name__
            sub = dataclasses.make_dataclass(f"{name}Sub", [("more", int, 0)], bases=(base,), **options)
        case "attrs":
            number: Any = attrs.field(type=int, converter=(lambda n: n * 100) if changes else None)
            base = attrs.make_class(name, {"n": number, "inner": attrs.field(type=inner.annotation)})
            sub = attrs.make_class(f"{name}Sub", {"more": attrs.field(type=int, default=0)}, bases=(base,))
        case "struct":
            body |= {"__post_init__": _scaled} if changes else {}
            base = msgspec.defstruct(name, list(fields.items()), namespace=body)
            sub = msgspec.defstruct(f"{name}Sub", [("more", int, 0)], bases=(base,))
        case "model":
            times = (lambda n: n * 100) if changes else (lambda n: n)
            validators: Any = {"scale": pydantic.field_validator("n")(times)} if changes else {}
            shapes: Any = {field: (given, ...) for field, given in fields.items()}
            try:
                base = pydantic.create_model(name, __validators__=validators, **shapes)
            except pydantic.errors.PydanticUserError:  # pydantic knows no attrs classes, for example
                reject()
            sub = pydantic.create_model(f"{name}Sub", __base__=base, more=(int, 0))
        case "named":
            base = _MADE_TUPLE(name, fields.items())
        case _:
            base = _MADE_DICT(name, fields)

    def made(cls: Any) -> Callable[[int, Any], Any]:
        return lambda n, value: _valid(cls, n, value, changes=changes)

    integers = st.integers(-(2**40), 2**40)
    good = st.builds(made(base), integers, inner.good)
    odd = st.builds(made(base), integers, inner.good if changes else inner.odd)
    if sub is not None:
        odd |= st.builds(made(sub), integers, inner.good)
    return Case(base, good, odd, plain=inner.plain and not changes)


def _valid(cls: Any, n: int, value: Any, *, changes: bool) -> Any:
    """Make an instance. A pydantic model is made without validation where its validators would refuse the odd value."""
    if isinstance(cls, type) and issubclass(cls, pydantic.BaseModel) and not changes:
        more: Any = {"more": 7} if "more" in cls.model_fields else {}
        return cls.model_construct(n=n, inner=value, **more)
    return cls(n=n, inner=value)


def named(kind: Any, *arguments: Any) -> Any:
    """Name a generic type with arguments that no type checker knows."""
    return kind[arguments if len(arguments) > 1 else arguments[0]]


def containers(inner: Case) -> list[Case]:
    """Make containers of the inner type."""
    good, odd = st.lists(inner.good, max_size=3), st.lists(inner.odd, max_size=3)
    a, keys = inner.annotation, st.sampled_from(["a", "b"])
    made = [
        Case(named(list, a), good, odd | good.map(tuple), plain=inner.plain),
        Case(named(tuple, a, ...), good.map(tuple), odd.map(tuple), plain=inner.plain),
        Case(
            named(tuple, int, a),
            st.tuples(st.integers(), inner.good),
            st.tuples(st.integers(), inner.odd),
            plain=inner.plain,
        ),
        Case(named(Sequence, a), good | good.map(tuple), odd, plain=inner.plain),
        Case(named(collections.deque, a), good.map(collections.deque), odd.map(collections.deque), plain=inner.plain),
        Case(
            named(dict, str, a), st.dictionaries(keys, inner.good), st.dictionaries(keys, inner.odd), plain=inner.plain
        ),
        Case(
            named(Mapping, int, a),
            st.dictionaries(st.integers(), inner.good, max_size=2),
            st.dictionaries(st.integers() | st.booleans(), inner.odd, max_size=2),
            plain=inner.plain,
        ),
        Case(a | None if a is not None else a, inner.good | st.none(), inner.odd, plain=inner.plain),
        Case(named(Box, a), st.builds(Box, inner.good), st.builds(Box, inner.odd), plain=inner.plain),
    ]
    if inner.hashable:
        made.append(Case(named(set, a), good.map(set), odd.map(set), plain=inner.plain))
        made.append(Case(named(frozenset, a), good.map(frozenset), odd.map(frozenset), plain=inner.plain))
    return made


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a type: a leaf, wrapped a few times, and perhaps united with another one."""

    def wrapped() -> Case:
        case = draw(st.sampled_from([*LEAVES, UNTOLD]))
        for _ in range(draw(st.integers(0, 3))):
            if draw(st.booleans()):
                case = draw(st.sampled_from(containers(case)))
            else:
                kind = draw(
                    st.sampled_from(["dataclass", "frozen", "slots", "attrs", "struct", "model", "named", "typed"])
                )
                changes = kind not in {"named", "typed"} and draw(st.integers(0, 4)) == 0
                case = records(case, kind, changes=changes)
        return case

    one = wrapped()
    if draw(st.integers(0, 3)):
        return one
    other = wrapped()
    if one.annotation is Any or other.annotation is Any:
        return one
    # Two members with one class are refused, and others may be: but what is accepted has to come back.
    both = named(Union, one.annotation, other.annotation)
    return Case(both, one.good | other.good, one.odd | other.odd, plain=one.plain and other.plain)


def alike(first: Any, again: Any, *, classes: bool = True) -> bool:  # noqa: PLR0911 - one branch for each kind of value
    """Compare by eye, so to say: what a reader of two printed values would compare."""
    if isinstance(first, float | int) and isinstance(again, float | int) and not isinstance(first, enum.Enum):
        return (type(first) is type(again) or not classes) and first == again
    if classes and type(first) is not type(again) and not isinstance(first, tuple | list):
        return False
    if isinstance(first, dt.datetime) and isinstance(again, dt.datetime):
        return first.isoformat() == again.isoformat()
    if isinstance(first, float) and math.isnan(first):
        return False
    if isinstance(first, Mapping) and isinstance(again, Mapping):
        pairs = itertools.zip_longest(sorted(first.items(), key=repr), sorted(again.items(), key=repr))
        return len(first) == len(again) and all(alike(one, other, classes=classes) for one, other in pairs)
    if isinstance(first, set | frozenset) and isinstance(again, set | frozenset):
        return len(first) == len(again) and all(any(alike(x, y, classes=classes) for y in again) for x in first)
    if isinstance(first, list | tuple | collections.deque) and isinstance(again, list | tuple | collections.deque):
        return len(first) == len(again) and all(
            alike(one, other, classes=classes) for one, other in zip(first, again, strict=True)
        )
    if isinstance(first, enum.Enum) or not hasattr(type(first), "__annotations__"):
        return bool(first == again)
    names = [n for cls in type(first).__mro__ for n in vars(cls).get("__annotations__", {}) if not n.startswith("__")]
    return all(
        alike(getattr(first, n, None), getattr(again, n, None), classes=classes) for n in names if n != "model_config"
    )


@given(case=cases(), data=st.data(), odd=st.booleans())
@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_replay_differs_silently(case: Case, data: st.DataObject, odd: bool) -> None:
    """C16, C17: a replay is the first answer again, or an event has said that it is not."""
    value = data.draw(case.odd if odd else case.good)
    events: list[Event] = []
    store = AsyncIdempotencyStore.in_memory(on_event=events.append)

    async def charge(key: str) -> object:
        return value

    charge.__annotations__["return"] = case.annotation
    try:
        decorated = idempotent(store, namespace="n")(charge)
    except ConfigurationError:
        assert not case.plain or get_origin(case.annotation) is Union, (
            f"{case.annotation} can be read back, and is refused"
        )
        return

    async def both() -> tuple[object, object]:
        first = await decorated("1")
        try:
            return first, await decorated("1")
        except ResultUnavailableError as error:
            return first, error

    first, again = asyncio.run(both())
    assert first is value
    told = [event for event in events if isinstance(event, ResultDiffers | ResultDropped)]
    if isinstance(again, ResultUnavailableError):
        assert isinstance(told[0], ResultDropped), "a replay without a result was not told"
        assert odd or not case.plain, f"{value!r} fits {case.annotation}, and has no replay"
    elif not told:
        assert alike(value, again), f"{value!r} comes back as {again!r}"
    else:
        assert isinstance(told[0], ResultDiffers)
