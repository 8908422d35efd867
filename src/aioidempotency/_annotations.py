"""The meaning of a return annotation: the types that JSON can read back, and the promise at each place in a result.

An annotation such as `dict[str, list[Receipt]]` makes a promise for each place: the dictionary, its keys, the lists,
the receipts, and the fields of a receipt. `Promise` is one such place.
"""

import dataclasses
import inspect
import typing
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, final, get_args, get_origin
from uuid import UUID

import msgspec

REBUILDABLE: Final = (PurePath, str, int, float, list, dict, set, frozenset, deque)
"""A subclass of these types is rebuilt from the JSON value of its base class."""

_NATIVE: Final = frozenset(
    {str, int, float, bool, NoneType, bytes, bytearray, memoryview, list, tuple, dict, set, frozenset}
    | {Decimal, UUID, datetime, date, time, timedelta, msgspec.Raw, msgspec.UnsetType, object, Any}
)
"""The classes that msgspec reads by itself. `typing.Any` is a class, too."""

_LARGE: Final = 1024
"""How many annotations to remember."""


def is_pydantic(candidate: object) -> bool:
    """Tell whether a type is a pydantic model or dataclass, without an import of pydantic."""
    return isinstance(candidate, type) and hasattr(candidate, "__pydantic_validator__")


def has_fields(kind: object) -> bool:
    """Tell whether instances of a class consist of named fields: a dataclass, for example."""
    return isinstance(kind, type) and (
        dataclasses.is_dataclass(kind)
        or is_pydantic(kind)
        or issubclass(kind, msgspec.Struct)
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    )


def field_names(kind: Any) -> tuple[str, ...] | None:
    """Name the fields of a class. None for a class without fields."""
    if not has_fields(kind):
        return None
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if is_pydantic(kind):
        return tuple(kind.__pydantic_fields__)
    if dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(each.name for each in kind.__attrs_attrs__)
    return tuple(kind._fields)


def alternatives(annotation: Any) -> tuple[Any, ...]:
    """List the members of a union, and a single member for any other annotation. Aliases and notes are taken off."""
    origin = get_origin(annotation)
    if origin is Annotated or origin in _QUALIFIERS:
        return alternatives(get_args(annotation)[0])
    if origin is Union or origin is UnionType:
        return tuple(member for each in get_args(annotation) for member in alternatives(each))
    for name in ("__supertype__", "__value__"):  # `NewType`, and the `type` statement of Python 3.12
        if not isinstance(annotation, type) and hasattr(annotation, name):
            return alternatives(getattr(annotation, name))
    return (NoneType if annotation is None else annotation,)


_QUALIFIERS: Final = frozenset(
    getattr(typing, name) for name in ("Final", "Required", "NotRequired", "ReadOnly") if hasattr(typing, name)
)


def runtime_class(annotation: Any) -> type | None:
    """Find the class of the values of one alternative. None if the annotation names no single class."""
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        kinds = {type(value) for value in get_args(annotation)}
        return kinds.pop() if len(kinds) == 1 else None
    if typing.is_typeddict(origin):
        return dict
    return origin if isinstance(origin, type) else None


@final
class Promise:
    """The promise of an annotation at one place of a result.

    Attributes:
        alternatives: The members of a union, or the annotation itself.
        untold: Whether the annotation says nothing of this place: `Any`, or what is inside a bare `dict`.
        abstract: Whether the annotation names no class here: `Sequence`, for example.
    """

    __slots__ = ("_known", "abstract", "alternatives", "untold")

    def __init__(self, members: tuple[Any, ...]) -> None:
        self.alternatives = members
        self.untold = any(each is Any or each is object for each in members)
        self.abstract = any(inspect.isabstract(get_origin(each) or each) for each in members)
        self._known: dict[object, Promise] = {}

    @staticmethod
    def of(annotation: object) -> "Promise":
        """Read an annotation."""
        try:
            return _promise(annotation)
        except TypeError:  # a note inside `Annotated` may have no hash
            return Promise(alternatives(annotation))

    def inside(self, index: int, *, position: int | None = None) -> "Promise":
        """Read the promise for the members of a container.

        Args:
            index: The number of the type argument: 0 for items and keys, 1 for the values of a mapping.
            position: The position of an item in a tuple.
        """
        return self._part((index, position), lambda member: _arguments(member, index, position))

    def field(self, name: str) -> "Promise":
        """Read the promise for a field, or for a key of a `TypedDict`."""
        return self._part(name, lambda member: _types_of_field(member, name))

    def _part(self, step: object, find: Callable[[Any], tuple[Any, ...]]) -> "Promise":
        known = self._known.get(step)
        if known is None:
            found = (part for member in self.alternatives for each in find(member) for part in alternatives(each))
            # An unresolved type variable says nothing.
            members = tuple(Any if isinstance(each, TypeVar) else each for each in found)
            # A recursive type has endless places, but few different promises.
            known = self._known[step] = Promise.of(members[0]) if len(members) == 1 else Promise(members)
        return known


@lru_cache(maxsize=_LARGE)
def _promise(annotation: Any) -> Promise:
    return Promise(alternatives(annotation))


def _arguments(annotation: Any, index: int, position: int | None) -> tuple[Any, ...]:
    """Find the type argument for the members of a container: `Any` for a bare one, none for what is no container."""
    kind, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Any or kind is object:
        return (Any,)
    if typing.is_typeddict(kind):
        return (Any,) if index else (str,)
    if not isinstance(kind, type) or not (issubclass(kind, _CONTAINERS) or inspect.isabstract(kind)):
        return ()
    if kind is tuple and position is not None and arguments and arguments[1:] != (Ellipsis,):
        return (arguments[position],) if position < len(arguments) else ()
    if index < len(arguments):
        return (arguments[index],)
    # `Counter[str]` names only its keys.
    return (int,) if arguments else (Any,)


_CONTAINERS: Final = (list, tuple, set, frozenset, dict, deque)


def _types_of_field(annotation: Any, name: str) -> tuple[Any, ...]:
    """Find the type of a field: `Any` where fields have no types, none for what has no such field."""
    kind = get_origin(annotation) or annotation
    if kind is Any or kind is object:
        return (Any,)
    types = _field_types(annotation)
    if name in types:
        return (types[name],)
    # An extra value of a pydantic model has no type. A private one is never stored, so nothing excuses a difference.
    return (Any,) if is_pydantic(kind) and not name.startswith("_") else ()


def _field_types(annotation: Any) -> Mapping[str, Any]:
    """Read the types of the fields of a class, or of the keys of a `TypedDict`."""
    kind = get_origin(annotation) or annotation
    if is_pydantic(kind):
        return {name: field.annotation for name, field in kind.__pydantic_fields__.items()}
    if not has_fields(kind) and not typing.is_typeddict(kind):
        return {}
    hints: dict[str, Any] = dict.fromkeys(field_names(kind) or (), Any)
    hints |= typing.get_type_hints(kind, include_extras=True)
    bound = dict(zip(getattr(kind, "__parameters__", ()), get_args(annotation), strict=False))
    return {name: _substituted(hint, bound) for name, hint in hints.items()}


def _substituted(hint: Any, bound: Mapping[Any, Any]) -> Any:
    """Put the arguments of a generic class in place of its type variables."""
    if isinstance(hint, TypeVar):
        return bound.get(hint, hint)
    variables = getattr(hint, "__parameters__", ())
    if not bound or not variables or isinstance(hint, type):
        return hint
    return hint[tuple(bound.get(each, each) for each in variables)]


def says_nothing(annotation: object) -> bool:
    """Tell whether a replay is plain JSON: the annotation is `Any`, `object`, a bare container, or `dict[str, Any]`."""
    todo: list[Any] = list(alternatives(annotation))
    for each in todo:  # grows while it is read
        if each is Any or each is object or isinstance(each, TypeVar):
            continue
        origin, arguments = get_origin(each) or each, get_args(each)
        if origin is dict and (not arguments or arguments[0] is str):
            todo.extend(alternatives(arguments[1]) if arguments else ())
        elif origin in {list, tuple} and (not arguments or origin is list):
            todo.extend(alternatives(arguments[0]) if arguments else ())
        else:
            return False
    return True


def unreadable(annotation: object) -> str | None:
    """Find a part of an annotation that nothing can read back from JSON, and say what to return instead.

    Raises:
        NameError: A class has a field whose type is not defined yet.
    """
    todo, seen = list(alternatives(annotation)), set[int]()
    for each in todo:  # grows while it is read
        if id(each) in seen:
            continue
        seen.add(id(each))
        trouble = _trouble(each)
        if trouble is not None:
            return trouble
        parts = () if get_origin(each) is Literal else get_args(each)
        kind = get_origin(each) or each
        if not is_pydantic(kind):  # pydantic has rules of its own for fields
            names = field_names(kind) or (_field_types(each) if typing.is_typeddict(kind) else ())
            types = _field_types(each) if names else {}
            parts = (*parts, *(types[name] for name in names if name in types))
        todo.extend(member for part in parts if part is not Ellipsis for member in alternatives(part))
    return None


def _trouble(annotation: Any) -> str | None:  # noqa: PLR0911 - one answer for each kind of type
    """Say why one type cannot be read back. None if it can, or if msgspec has to decide."""
    kind = get_origin(annotation) or annotation
    if not isinstance(kind, type) or kind in _NATIVE:
        return None
    if any(each.name.startswith("_") for each in getattr(kind, "__attrs_attrs__", ())):
        return f"the attributes of {kind.__qualname__} that begin with an underscore are not read back"
    if is_pydantic(kind):
        if kind.__module__.startswith("pydantic."):
            return "the type is a base class of pydantic, and no model"
        return _trouble_of_model(kind)
    if kind is msgspec.Struct:
        return "the type is the base class of all Structs"
    if has_fields(kind) or typing.is_typeddict(kind) or issubclass(kind, (Enum, *REBUILDABLE)):
        return None
    try:
        if inspect.isabstract(kind) and any(issubclass(concrete, kind) for concrete in (list, dict, set)):
            return None
    except TypeError:  # a protocol that cannot be asked
        pass
    return f"{kind.__qualname__} is no data; {_instead_of(kind)}"


def _instead_of(kind: type) -> str:
    """Say what to return instead of an object that JSON cannot hold."""
    if any(base.__name__.endswith("Response") for base in kind.__mro__):
        return (
            "return the data, and let the path operation make the response "
            "(see the page 'Idempotency keys in HTTP' of the documentation)"
        )
    if issubclass(kind, Iterator | AsyncIterator):
        return "return a list"
    if issubclass(kind, type):
        return "return the name of the class"
    if issubclass(kind, complex):
        return "return its two parts"
    return "return a dataclass, a pydantic model, an attrs class or a Struct"


def _trouble_of_model(kind: type) -> str | None:
    """Find a required field of a pydantic model that takes only living objects, and so can never be read."""
    schema = getattr(kind, "__pydantic_core_schema__", None)
    if not isinstance(schema, dict):
        return None
    # `cast`: the schema is pydantic's own business, so everything is read with care.
    fields = _fields_in(cast("dict[str, Any]", schema))
    for name, field in fields.items():
        if isinstance(field, dict) and _only_objects(field.get("schema")):
            return f"the field {name!r} of {kind.__qualname__} is no data; give the field a default, or another type"
    return None


def _fields_in(schema: dict[str, Any]) -> dict[str, Any]:
    """Find the fields in the schema of a model."""
    for _ in range(20):
        fields = schema.get("fields")
        if isinstance(fields, dict):
            return fields
        if isinstance(fields, list):
            return {field.get("name", ""): field for field in fields if isinstance(field, dict)}
        inner = schema.get("schema")
        if not isinstance(inner, dict):
            return {}
        schema = inner
    return {}


def _only_objects(schema: object) -> bool:
    """Tell whether a schema of pydantic's takes instances of a class, and nothing else."""
    if not isinstance(schema, dict):
        return False
    match schema.get("type"):
        case "is-instance" | "is-subclass" | "callable" | "generator":
            return True
        case "json-or-python":
            return _only_objects(schema.get("json_schema"))
        case "lax-or-strict":
            return _only_objects(schema.get("lax_schema"))
        case "list" | "set" | "frozenset":
            return _only_objects(schema.get("items_schema"))
        case _:
            return False
