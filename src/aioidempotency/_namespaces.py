"""The namespace of a function: the part of a key that keeps two functions with equal arguments apart.

1. A derived namespace is the same wherever the same function runs: as a script, with `-m`, or imported.
2. Two functions with different answers have different namespaces. If names cannot keep two functions apart, the second
   one is refused when decorated. Otherwise one function would silently answer the other's calls.
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

from aioidempotency._signatures import receiver_name, unbound
from aioidempotency.exceptions import ConfigurationError

MARK: Final = "__idempotency_namespace__"
"""The attribute of a decorated function that holds its `Namespace`."""

MAIN: Final = frozenset({"__main__", "__mp_main__"})
"""Python's names for a program's main module, and for the copy in a process spawned by `multiprocessing`."""

MOST_VALUES: Final = 1000
"""The most values of a function to compare. Further values, such as those of a large application, are ignored."""


def namespace_of(function: Callable[..., object]) -> str:
    """Name the namespace of a function's records, for `store.get` and `store.forget`.

    ```python
    from aioidempotency import AsyncIdempotencyStore, namespace_of

    async def charge(order_id: str) -> str:
        return f"receipt for {order_id}"

    store = AsyncIdempotencyStore.in_memory()
    await store.run("1", charge, "1")
    record = await store.get("1", namespace=namespace_of(charge))
    print(record and record.result)
    ```

    A decorated function has the namespace given as `namespace=`. All other functions have `module.qualname`:

    - In AWS Lambda, the Lambda function's name and a dot come first.
    - The main module of a program goes by the name given to `-m`, or by the file's name without `.py`.
    - The namespace of an inherited method ends with `@` and the name of the inheriting class.
    """
    if not callable(function):
        raise ConfigurationError(f"namespace_of takes a function: not {type(function).__name__}")
    target, args, kwargs = unbound(function)
    receiver = target.__self__ if inspect.ismethod(target) else None
    if (name := receiver_name(target)) is not None:  # a `partial` may hold the receiver of a method
        receiver = args[0] if args else kwargs.get(name)
    return Namespace.of(target).of_receiver(receiver)


@final
class Namespace(Struct, frozen=True, weakref=False):
    """The name of one function's records.

    Attributes:
        text: The namespace, without the class of a receiver.
        module: The function's `__module__`. None for a namespace given by the user.
        scope: The qualified name of the class that defines a method.
    """

    text: str
    module: str | None = None
    scope: str = ""

    @classmethod
    def of(cls, function: Callable[..., object]) -> "Namespace":
        """Read the namespace of a decorated function, or derive the namespace of any other."""
        known = getattr(function, MARK, None)
        return known if isinstance(known, Namespace) else cls.derived(function)

    @classmethod
    def derived(cls, function: Callable[..., object]) -> "Namespace":
        """Derive a namespace from module and qualified name. An object with `__call__` goes by its class."""
        named: Any = function if hasattr(function, "__qualname__") else type(function)
        module = named.__module__ or "builtins"
        # Two Lambda functions are often deployed from one code base, with one table.
        lambda_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
        # A wrapper with `functools.wraps` has the name of the wrapped function, but the globals of the wrapper's module.
        module_globals = getattr(inspect.unwrap(named), "__globals__", None)
        name = f"{_module_name(module, module_globals)}.{named.__qualname__}"
        scope = named.__qualname__.rpartition(".")[0]
        return cls(f"{lambda_name}.{name}" if lambda_name else name, module, scope)

    def of_receiver(self, receiver: object) -> str:
        """Add the class of a method's receiver, unless that class defines the method."""
        # A namespace given by the user is used unchanged, for all classes.
        if receiver is None or self.module is None:
            return self.text
        kind = receiver if isinstance(receiver, type) else type(receiver)
        if kind.__qualname__ == self.scope and kind.__module__ == self.module:
            return self.text
        return f"{self.text}@{_module_name(kind.__module__, None)}.{kind.__qualname__}"


def _module_name(module: str, module_globals: Mapping[str, object] | None) -> str:
    """Name a module as an import would, even if the module is a program's main module."""
    if module not in MAIN:
        return module
    if module_globals is None or module_globals.get("__name__") != module:
        module_globals = vars(sys.modules[module]) if module in sys.modules else {}
    # `-m` stores the full name of the module in `__spec__`. An import gives the same name.
    name = getattr(module_globals.get("__spec__"), "name", None)
    if isinstance(name, str) and name not in MAIN:
        return name.removesuffix(".__main__")
    file = module_globals.get("__file__")
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
        """Add a decorated function, for as long as its wrapper lives.

        Args:
            namespace: The derived namespace.
            function: The given function.
            wrapper: The decorated function.
            in_key: The parameters in the key. Two functions that hold different values of these parameters share no
                record.

        Raises:
            ConfigurationError: Another living function has this namespace, and could answer differently.
        """
        new = _Definition.of(function, in_key)
        # Weak references, so that a function made for one request can be collected.
        living = [(ref, old) for ref, old in self._known.get(namespace, ()) if ref() is not None]
        for _, old in living:
            trouble = _conflict(old, new)
            if trouble is not None:
                raise ConfigurationError(
                    f"two functions of one store have the namespace {namespace!r}, and each would get the other's "
                    f"results: {trouble}. Give each a name of its own: @idempotent(store, namespace=...)"
                )
        self._known[namespace] = [*living, (weakref.ref(wrapper), new)]


@final
class _Definition(Struct, frozen=True):
    """The facts that distinguish two functions of one name.

    Attributes:
        code: The code that runs.
        local: Whether another function defines this one. There may then be several.
        stale: Tells whether the outer function has been defined again since.
        held: The values held by the function, by name: data and functions only.
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
            # A held argument inside the key already keeps the records apart.
            if name not in in_key:
                held[f"argument {name!r}"] = look.describe(value)
        if not inspect.isroutine(inner):
            attributes = getattr(inner, "__dict__", {})
            held.update((f"attribute {name!r}", look.describe(value)) for name, value in attributes.items())
        # All functions under one decorator share the wrapper's code. The code of the wrapped function tells them apart.
        original = inspect.unwrap(called)
        code = getattr(original, "__code__", None)
        name = getattr(original, "__qualname__", "")
        scope = getattr(original, "__globals__", {})
        return cls(code, "<locals>" in name, lambda: _is_stale(code, name, scope), held)


def _conflict(old: _Definition, new: _Definition) -> str | None:
    """Describe the difference between two functions of one namespace. None if both may share the namespace."""
    if old.code is not new.code and not new.local:
        return None  # a module was loaded again, or a notebook's cell was run again
    if _place(old.code) != _place(new.code):
        return None if old.stale() else f"one is defined at {_place(old.code)}, the other at {_place(new.code)}"
    differing = sorted(name for name in old.held.keys() | new.held.keys() if _differ(old.held, new.held, name))
    if differing:
        return f"both are made at {_place(new.code)}, and differ in {' and '.join(differing)}"
    return None


def _place(code: CodeType | None) -> str:
    return "an unknown place" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _is_stale(code: CodeType | None, name: str, scope: Mapping[str, object]) -> bool:
    """Tell whether the outer function has been defined again. The old inner function is then never made again."""
    outer_name, *inner = name.partition(".<locals>")[0].split(".")
    outer: object = scope.get(outer_name)
    for each in inner:
        outer = getattr(outer, each, None)
    # The present outer function makes its inner functions from code objects among its own constants.
    outer_code = getattr(inspect.unwrap(outer), "__code__", None) if callable(outer) else None
    return isinstance(outer_code, CodeType) and all(each is not code for each in _codes(outer_code))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


@final
class _Opaque:
    """Stands for an ignored value, neither data nor a function: a client, a store, an application."""


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
    """Describes data and functions for a comparison, without keeping the values alive."""

    def __init__(self) -> None:
        self._left = MOST_VALUES
        self._seen: set[int] = set()

    def held_by(self, function: object) -> dict[str, object]:
        """Describe the values held by a function: free variables and defaults."""
        if not isinstance(function, FunctionType) or id(function) in self._seen:
            return {}
        # A function may hold itself, or another one that holds the first.
        self._seen.add(id(function))
        held: dict[str, object] = {}
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                # The cell's id, because two functions that share a variable (of a loop, say) always see one value.
                held[f"variable {name!r}"] = (id(cell), self.describe(cell.cell_contents))
            except ValueError:  # the variable has no value yet
                continue
        defaults = function.__defaults__ or ()
        by_position = function.__code__.co_varnames[: function.__code__.co_argcount]
        last = by_position[len(by_position) - len(defaults) :]
        for name, value in (*zip(last, defaults, strict=True), *(function.__kwdefaults__ or {}).items()):
            held[f"default {name!r}"] = self.describe(value)
        return held

    def describe(self, value: Any) -> object:  # noqa: C901, PLR0911 - one branch for each kind of value
        """Describe one value. `_OPAQUE` stands for an ignored value."""
        self._left -= 1
        kind = type(value)
        # A function may hold a whole application. The bound keeps decorating fast.
        if self._left < 0:
            return _OPAQUE
        if issubclass(kind, _DATA):  # no `isinstance`: a mock may claim any class by `__class__`
            return (kind.__qualname__, repr(value))
        if issubclass(kind, dict):
            return {repr(name): self.describe(each) for name, each in value.items() if issubclass(type(name), _DATA)}
        if issubclass(kind, list | tuple):
            return [self.describe(each) for each in value]
        if issubclass(kind, set | frozenset):
            # Two equal sets may iterate in different orders.
            return sorted(repr(each) for each in value if issubclass(type(each), _DATA))
        if issubclass(kind, type | BuiltinFunctionType):
            return (value.__module__, value.__qualname__)
        if issubclass(kind, functools.partial):
            return [self.describe(value.func), self.describe(value.args), self.describe(value.keywords)]
        if issubclass(kind, MethodType):
            return [self.describe(value.__func__), self.describe(type(value.__self__))]
        if issubclass(kind, FunctionType):
            # A function at module level goes by name: a new definition counts as the same function.
            if "<locals>" not in value.__qualname__:
                return (value.__module__, value.__qualname__)
            return {"": _place(value.__code__), **self.held_by(value)}
        return _OPAQUE


def _differ(old: Any, new: Any, name: str) -> bool:
    """Tell whether two mappings differ in a member that counts."""
    return name in old and name in new and _unlike(old[name], new[name])


def _unlike(old: Any, new: Any) -> bool:
    """Tell whether two descriptions differ in a part that counts."""
    # To the user, a new client or store for each function makes no difference.
    if old is _OPAQUE or new is _OPAQUE:
        return False
    match old, new:
        # Two variables: the cell's id and the described value.
        case (int() as old_cell, before), (int() as new_cell, after):
            return old_cell != new_cell and _unlike(before, after)
        case dict(), dict():
            return old.keys() != new.keys() or any(_unlike(old[name], new[name]) for name in old)
        case list(), list():
            return len(old) != len(new) or any(map(_unlike, old, new))
        case _:
            return bool(old != new)
