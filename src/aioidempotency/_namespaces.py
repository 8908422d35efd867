"""The namespace of a function: the part of a key that keeps two functions with equal arguments apart.

A derived namespace must be the same wherever the same function runs (as a script, with `-m`, imported), and differ
between two functions that can answer differently. Where names cannot tell two functions apart, the second one is
refused when it is decorated: nobody would notice before one has answered the other's call.
"""

import datetime as dt
import functools
import inspect
import os
import sys
import weakref
from collections.abc import Callable, Container, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, Final, final
from uuid import UUID

from msgspec import Struct

from aioidempotency._signatures import unbound
from aioidempotency.exceptions import ConfigurationError

MARK: Final = "__idempotency_namespace__"
"""The attribute of a decorated function that holds its `Namespace`."""

MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""What Python calls the module of a program, and its copy in a process that `multiprocessing` spawned."""

MOST_VALUES: Final = 1000
"""How many of the values that a function holds are compared; of what an application holds, the rest does not count."""


def namespace_of(function: Callable[..., object]) -> str:
    """Tell the namespace of a function's records, for `store.get` and `store.forget`.

    A decorated function has the one of its `namespace=`, or `module.qualname`, as any function has under `store.run`:

    - in AWS Lambda, the name of the Lambda function and a dot come first;
    - for a program's main module stands its name as given to `-m`, or the name of its file without `.py`;
    - a method of a class that inherited it has `@` and the name of that class behind it.

        async def charge(order_id: str) -> str: ...

        record = await store.get("1", namespace=namespace_of(charge))
    """
    target = unbound(function)[0]
    receiver = target.__self__ if inspect.ismethod(target) else None
    return Namespace.of(target).of_receiver(receiver)


@final
class Namespace(Struct, frozen=True, weakref=False):
    """Names the records of one function.

    Attributes:
        text: The namespace, without a receiver.
        module: The module of the function, as Python calls it; None where the user gave the namespace.
        scope: The qualified name of the class that defines a method.
    """

    text: str
    module: str | None = None
    scope: str = ""

    @classmethod
    def of(cls, function: Callable[..., object]) -> "Namespace":
        """Read the namespace of a decorated function, or derive that of any other."""
        known = getattr(function, MARK, None)
        return known if isinstance(known, Namespace) else cls.derived(function)

    @classmethod
    def derived(cls, function: Callable[..., object]) -> "Namespace":
        """Name a function by its module and qualified name; an object with `__call__` by its class."""
        named: Any = function if hasattr(function, "__qualname__") else type(function)
        module = named.__module__ or "builtins"
        lambda_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        name = f"{_module_name(module, getattr(named, '__globals__', None))}.{named.__qualname__}"
        scope = named.__qualname__.rpartition(".")[0]
        return cls(f"{lambda_name}.{name}" if lambda_name else name, module, scope)

    def of_receiver(self, receiver: object) -> str:
        """Add the class of a method's receiver, where that is not the class which defines the method."""
        if receiver is None or self.module is None:
            return self.text
        kind = receiver if isinstance(receiver, type) else type(receiver)
        if kind.__qualname__ == self.scope and kind.__module__ == self.module:
            return self.text
        return f"{self.text}@{_module_name(kind.__module__, None)}.{kind.__qualname__}"


def _module_name(module: str, scope: Mapping[str, object] | None) -> str:
    """Name a module as an import would, also where it is a program's main module."""
    if module not in MAIN:
        return module
    if scope is None:
        scope = vars(sys.modules[module]) if module in sys.modules else {}
    name = getattr(scope.get("__spec__"), "name", None)
    if isinstance(name, str) and name not in MAIN:
        return name.removesuffix(".__main__")
    file = scope.get("__file__")
    return PurePath(file).stem if isinstance(file, str) else "__main__"


@final
class Functions:
    """The living decorated functions of one store, by derived namespace."""

    def __init__(self) -> None:
        self._known: dict[str, list[tuple[weakref.ref[Callable[..., object]], _Definition]]] = {}

    def add(
        self,
        namespace: str,
        function: Callable[..., object],
        wrapper: Callable[..., object],
        *,
        in_key: Container[str] = (),
    ) -> None:
        """Note a decorated function, as long as its wrapper lives.

        Args:
            namespace: The derived one.
            function: The function as it was given.
            wrapper: The decorated function.
            in_key: The parameters that are in the key: two functions that hold other values of them share no record.

        Raises:
            ConfigurationError: Another living function has this namespace, and could answer differently.
        """
        new = _Definition.of(function, in_key)
        living = [(ref, old) for ref, old in self._known.get(namespace, ()) if ref() is not None]
        for _, old in living:
            trouble = _conflict(old, new)
            if trouble is not None:
                raise ConfigurationError(
                    f"two functions of one store have the namespace {namespace!r}, and each would be answered with "
                    f"the other's results: {trouble}. Give each a name of its own: @idempotent(store, namespace=...)"
                )
        self._known[namespace] = [*living, (weakref.ref(wrapper), new)]


@final
class _Definition(Struct, frozen=True):
    """What tells two functions of one name apart.

    Attributes:
        code: The code that runs.
        local: Whether the function is defined in another one, and can exist several times.
        stale: Tells whether the function around it was defined anew since.
        held: The values that the function holds, by name, as far as they are data or functions.
    """

    code: CodeType | None
    local: bool
    stale: Callable[[], bool]
    held: dict[str, object]

    # The values are the program's own data.
    def __repr__(self) -> str:
        return f"<_Definition: holds {len(self.held)} values>"

    @classmethod
    def of(cls, function: Callable[..., object], in_key: Container[str]) -> "_Definition":
        target, args, kwargs = unbound(function)
        inner: Any = target.__func__ if isinstance(target, MethodType) else target
        called = inner if inspect.isroutine(inner) else type(inner).__call__
        look = _Look()
        held = look.held_by(called)
        arguments = inspect.signature(target).bind_partial(*args, **kwargs).arguments
        for name, value in arguments.items():
            if name not in in_key:
                held[f"argument {name!r}"] = look.describe(value)
        if not inspect.isroutine(inner):
            attributes = getattr(inner, "__dict__", {})
            held.update((f"attribute {name!r}", look.describe(value)) for name, value in attributes.items())
        code = getattr(called, "__code__", None)
        name = getattr(called, "__qualname__", "")
        scope = getattr(called, "__globals__", {})
        return cls(code, "<locals>" in name, lambda: _is_stale(code, name, scope), held)


def _conflict(old: _Definition, new: _Definition) -> str | None:
    """Say how two functions of one namespace differ; None where they do not, or where the new one replaces the old."""
    if old.code is not new.code and not new.local:
        return None  # a module was loaded again, or a notebook's cell was run again
    if _place(old.code) != _place(new.code):
        return None if old.stale() else f"one is defined at {_place(old.code)}, the other at {_place(new.code)}"
    differing = sorted(name for name in old.held.keys() | new.held.keys() if _differ(old.held, new.held, name))
    if differing:
        return f"both are made at {_place(new.code)}, with another {' and '.join(differing)}"
    return None


def _place(code: CodeType | None) -> str:
    return "an unknown place" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _is_stale(code: CodeType | None, name: str, scope: Mapping[str, object]) -> bool:
    """Tell whether the function around a local one was defined anew: then nobody makes the old one any more."""
    outer_name, *inner = name.partition(".<locals>")[0].split(".")
    outer: object = scope.get(outer_name)
    for each in inner:
        outer = getattr(outer, each, None)
    outer_code = getattr(inspect.unwrap(outer), "__code__", None) if callable(outer) else None
    return isinstance(outer_code, CodeType) and all(each is not code for each in _codes(outer_code))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@final
class _Opaque:
    """Stands for a value that is neither data nor a function: a client, a store, an application. It does not count."""


_OPAQUE: Final = _Opaque()
_DATA: Final = (
    str,
    bytes,
    int,
    float,
    complex,
    Decimal,
    Enum,
    UUID,
    PurePath,
    dt.date,
    dt.time,
    dt.timedelta,
    type(None),
)


@final
class _Look:
    """Describes data and functions so that they can be compared without being kept alive."""

    def __init__(self) -> None:
        self._left = MOST_VALUES
        self._seen: set[int] = set()

    def held_by(self, function: object) -> dict[str, object]:
        """Describe what a function holds: its free variables and its defaults."""
        if not isinstance(function, FunctionType) or id(function) in self._seen:
            return {}
        self._seen.add(id(function))
        held: dict[str, object] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                # Two functions that share a variable (of a loop, say) see one value, whatever it was when they were made.
                held[f"variable {name!r}"] = (id(cell), self.describe(cell.cell_contents))
            except ValueError:  # it is set later
                continue
        defaults = function.__defaults__ or ()
        by_position = function.__code__.co_varnames[: function.__code__.co_argcount]
        last = by_position[len(by_position) - len(defaults) :]
        for name, value in (*zip(last, defaults, strict=True), *(function.__kwdefaults__ or {}).items()):
            held[f"default {name!r}"] = self.describe(value)
        return held

    def describe(self, value: Any) -> object:  # noqa: PLR0911 - one for each kind of value
        """Describe one value; `_OPAQUE` stands for what does not count."""
        self._left -= 1
        kind = type(value)
        if self._left < 0:
            return _OPAQUE
        if issubclass(kind, _DATA):  # a mock says by its `__class__` that it is a text, and is none
            return (kind.__qualname__, repr(value))
        if issubclass(kind, dict):
            return {repr(name): self.describe(each) for name, each in value.items() if issubclass(type(name), _DATA)}
        if issubclass(kind, list | tuple):
            return [self.describe(each) for each in value]
        if issubclass(kind, set | frozenset):
            return sorted(repr(each) for each in value if issubclass(type(each), _DATA))
        if issubclass(kind, type | BuiltinFunctionType):
            return (value.__module__, value.__qualname__)
        if issubclass(kind, functools.partial):
            return [self.describe(value.func), self.describe(value.args), self.describe(value.keywords)]
        if issubclass(kind, MethodType):
            return [self.describe(value.__func__), self.describe(type(value.__self__))]
        if issubclass(kind, FunctionType):
            return {"": _place(value.__code__), **self.held_by(value)}
        return _OPAQUE


def _differ(old: Any, new: Any, name: str) -> bool:
    """Tell whether two mappings differ in a member that counts."""
    return name in old and name in new and _unlike(old[name], new[name])


def _unlike(old: Any, new: Any) -> bool:
    """Tell whether two descriptions differ in what counts."""
    if old is _OPAQUE or new is _OPAQUE:
        return False
    match old, new:
        case (int() as one, before), (int() as other, after):
            return one != other and _unlike(before, after)
        case dict(), dict():
            return old.keys() != new.keys() or any(_unlike(old[name], new[name]) for name in old)
        case list(), list():
            return len(old) != len(new) or any(map(_unlike, old, new))
        case _:
            return bool(old != new)
