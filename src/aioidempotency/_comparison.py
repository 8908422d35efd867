"""Compares a result with its replay, field by field.

Equality by a user's `__eq__` proves nothing: a dataclass with `eq=False` equals only itself, and a class may leave
fields out. So instances of classes are compared by their fields, and plain values by their content.

The walk keeps a list of pairs instead of calling itself, so that deep results are compared, too.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import NoneType
from typing import Any, Final, Literal, final
from uuid import UUID

import msgspec

from aioidempotency._annotations import Promise, field_names, is_pydantic

Kind = Literal["value", "class", "untold"]

_SCALARS: Final = (
    str,
    bytes,
    bytearray,
    memoryview,
    int,
    float,
    Decimal,
    UUID,
    date,
    time,
    timedelta,
    PurePath,
    NoneType,
    Enum,
    msgspec.Raw,
)


@final
class Difference(msgspec.Struct, frozen=True):
    """A difference between a result and its replay.

    Attributes:
        kind: What differs: the value, or only the class; `"untold"` where the annotation says nothing.
        where: The place, by names of classes and fields. Keys of dictionaries are data, and stay out.
        change: The change, by names of classes.
        fields: Whether an instance comes back as an instance of another class.
        scalar: Whether the two are plain values: a number or a text, for example.
    """

    kind: Kind
    where: str
    change: str
    fields: bool = False
    scalar: bool = False


_RANK: Final[dict[Kind, int]] = {"value": 0, "class": 1, "untold": 2}

_Place = tuple[Any, Any, Promise, bool, str]
"""A value, its replay, the promise there, whether nothing is told of the place, and the name of the place."""


def difference(result: object, replay: object, promise: Promise) -> Difference | None:
    """Find the worst difference between a result and its replay. None if the two are equal in value and class."""
    worst: Difference | None = None
    todo: list[_Place] = [(result, replay, promise, False, type(result).__name__)]
    seen: set[tuple[int, int]] = set()
    while todo:
        first, again, promised, untold, where = todo.pop()
        if first is again and type(first) is not float:
            continue
        untold = untold or promised.untold
        if isinstance(first, _SCALARS) or isinstance(again, _SCALARS):
            kind = _scalars_differ(first, again)
        else:
            if (id(first), id(again)) in seen:
                continue
            seen.add((id(first), id(again)))
            kind, parts = _compared(first, again, promised, where)
            todo.extend((one, other, inner, untold, name) for one, other, inner, name in parts)
        if kind is None:
            continue
        found = _described(first, again, "untold" if untold else kind, where)
        if worst is None or (_RANK[found.kind], found.scalar) < (_RANK[worst.kind], worst.scalar):
            worst = found
        if found.kind == "value":
            return worst
    return worst


def _described(first: object, again: object, kind: Kind, where: str) -> Difference:
    before, after = type(first).__name__, type(again).__name__
    fields = type(first) is not type(again) and field_names(type(first)) is not None
    if type(first) is not type(again):
        change = f"{before} comes back as {after}"
    else:
        change = "a member comes back with another class" if kind == "class" else "another value comes back"
    return Difference(kind, where, change, fields, isinstance(first, _SCALARS))


def _scalars_differ(first: Any, again: Any) -> Kind | None:
    if not (isinstance(first, _SCALARS) and isinstance(again, _SCALARS)):
        return "value"
    if _content(first) != _content(again):
        return "value"
    return None if type(first) is type(again) else "class"


_Part = tuple[Any, Any, Promise, str]


def _compared(  # noqa: PLR0911 - one answer for each kind of value
    first: Any, again: Any, promise: Promise, where: str
) -> tuple[Kind | None, list[_Part]]:
    """Compare two values that are no scalars, but not their parts. List the parts as pairs."""
    names = field_names(type(first))
    if isinstance(first, tuple) and names is not None and isinstance(again, list | tuple):
        kind, parts = _items(first, again, promise, where)
        if type(first) is type(again):
            parts = [
                (one, other, promise.field(name), f"{where}.{name}")
                for name, (one, other, _, _) in zip(names, parts, strict=False)
            ]
        return kind, parts
    if isinstance(first, Mapping) and isinstance(again, Mapping):
        return _entries(first, again, promise, where)
    if isinstance(first, AbstractSet) or isinstance(again, AbstractSet):
        return _unordered(first, again, promise), []
    if isinstance(first, Sequence | deque) and isinstance(again, Sequence | deque):
        return _items(first, again, promise, where)
    if type(first) is not type(again):
        return "value", []
    if names is None:
        names = attributes_of(first)
        if not names:  # a class written in C, such as a URL of pydantic's
            return (None if first == again else "value"), []
    before, after = _state(first, names), _state(again, names)
    if before.keys() != after.keys():
        return "value", []
    # The names of a model's extra values are data.
    shown = {name: f"{where}.{name}" if name in names else f"{where}[]" for name in before}
    return None, [(before[name], after[name], promise.field(name), shown[name]) for name in before]


def _items(first: Any, again: Any, promise: Promise, where: str) -> tuple[Kind | None, list[_Part]]:
    if len(first) != len(again):
        return "value", []
    kind: Kind | None = None if type(first) is type(again) or promise.abstract else "class"
    pairs = enumerate(zip(first, again, strict=True))
    if isinstance(first, tuple):
        return kind, [(one, other, promise.inside(0, position=at), f"{where}[]") for at, (one, other) in pairs]
    inner = promise.inside(0)
    return kind, [(one, other, inner, f"{where}[]") for _, (one, other) in pairs]


def _entries(
    first: Mapping[Any, Any], again: Mapping[Any, Any], promise: Promise, where: str
) -> tuple[Kind | None, list[_Part]]:
    if len(first) != len(again):
        return ("untold" if promise.inside(0).untold else "value"), []
    kind: Kind | None = None if type(first) is type(again) or promise.abstract else "class"
    keys, inner = promise.inside(0), promise.inside(1)
    entries = {_frozen(key): (key, value) for key, value in again.items()}
    parts: list[_Part] = []
    for key, value in first.items():
        found = entries.get(_frozen(key))
        if found is None:
            return ("untold" if keys.untold else "value"), []
        parts.append((key, found[0], keys, f"{where}[key]"))
        typed = isinstance(key, str) and any(hasattr(each, "__total__") for each in promise.alternatives)
        parts.append((value, found[1], promise.field(key) if typed else inner, f"{where}[]"))
    return kind, parts


def _unordered(first: Any, again: Any, promise: Promise) -> Kind | None:
    """Compare two collections, of which one is a set, as a whole."""
    if isinstance(first, Mapping) or isinstance(again, Mapping) or not _are_collections(first, again):
        return "value"
    if Counter(map(_frozen, first)) != Counter(map(_frozen, again)):
        return "untold" if promise.inside(0).untold else "value"
    same = type(first) is type(again) or promise.abstract
    same = same and Counter(_frozen(each, exact=True) for each in first) == Counter(
        _frozen(each, exact=True) for each in again
    )
    return None if same else "class"


def _are_collections(*values: object) -> bool:
    return all(isinstance(each, AbstractSet | Sequence | deque) for each in values)


def attributes_of(value: object) -> tuple[str, ...]:
    """Name the attributes that an instance of any class has: those in `__dict__`, and those in slots."""
    slots = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
    named = [name for each in slots for name in ((each,) if isinstance(each, str) else each)]
    filled = (name for name in named if name not in {"__dict__", "__weakref__"} and hasattr(value, name))
    return (*getattr(value, "__dict__", ()), *filled)


def _state(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Read the fields of an instance. A field without a value is left out."""
    if is_pydantic(type(value)) and hasattr(value, "__pydantic_extra__"):
        return {**vars(value), **(value.__pydantic_extra__ or {}), **(value.__pydantic_private__ or {})}
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


def _content(value: Any) -> object:  # noqa: C901, PLR0911 - one branch for each kind of scalar
    """Reduce a scalar to what counts, without a call of a user's method. NaN differs from everything."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Decimal):
        return object() if Decimal.is_nan(value) else ("decimal", *Decimal.as_tuple(value))
    if isinstance(value, bytes | bytearray | memoryview | msgspec.Raw):
        return bytes(value)
    if isinstance(value, UUID):
        return ("uuid", value.int)
    if isinstance(value, datetime):
        # By offset: the name of a time zone is not in JSON.
        naive = (value.hour, value.minute, value.second, value.microsecond)
        return ("datetime", date.toordinal(value), naive, value.utcoffset())
    if isinstance(value, date):
        return ("date", date.toordinal(value))
    if isinstance(value, time):
        return ("time", value.hour, value.minute, value.second, value.microsecond, value.utcoffset())
    if isinstance(value, timedelta):
        return ("timedelta", value.days, value.seconds, value.microseconds)
    if isinstance(value, PurePath):
        return ("path", str(value))
    if isinstance(value, Enum):
        return ("enum", type(value), value.name)
    return None


def _frozen(value: Any, *, exact: bool = False) -> object:
    """Make a value that can be hashed and compared, of a member of a set or a key. With `exact`, the class counts."""
    frozen: object
    names = field_names(type(value))
    if isinstance(value, _SCALARS):
        frozen = _content(value)
    elif isinstance(value, AbstractSet):
        frozen = frozenset(Counter(_frozen(each, exact=exact) for each in value).items())
    elif isinstance(value, Mapping):
        frozen = frozenset((_frozen(key, exact=exact), _frozen(each, exact=exact)) for key, each in value.items())
    elif isinstance(value, Sequence | deque):
        frozen = tuple(_frozen(each, exact=exact) for each in value)
    else:
        state = _state(value, attributes_of(value) if names is None else names)
        if not state and names is None:
            return value
        frozen = (type(value), tuple((name, _frozen(each, exact=exact)) for name, each in state.items()))
    return (type(value), frozen) if exact else frozen
