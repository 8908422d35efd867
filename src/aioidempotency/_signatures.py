"""Facts about a decorated function: whether the function is awaitable, and the types of parameters and result."""

import functools
import inspect
import sys
import typing
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from aioidempotency.exceptions import ConfigurationError

AnyFunction = Callable[..., object]


def check_awaitable(function: AnyFunction, usage: str = "@idempotent(store)") -> None:
    """Require a coroutine function.

    Args:
        usage: How the function is given, for messages.

    Raises:
        ConfigurationError: The function is a plain function, an async generator, a mock, or was called already.
    """
    if inspect.isawaitable(function) and not callable(function):
        if inspect.iscoroutine(function):
            function.close()  # else Python warns that nobody has awaited the coroutine
        raise ConfigurationError(
            f"{usage} takes a function, not what its call returned: leave out the parentheses, and give the arguments "
            "after the function"
        )
    target = unbound(function)[0]
    mock = sys.modules.get("unittest.mock")
    # By the type: a mock may claim any class by its `__class__`.
    if mock is not None and issubclass(type(target), mock.NonCallableMock):
        raise ConfigurationError(
            f"{usage} takes a coroutine function, and {type(target).__name__} tells no parameters and no type of a result: "
            "write `async def` around it"
        )
    # Python calls an object through its class, so the class decides whether the call can be awaited.
    called = _called(target)
    name = qualified_name(target)
    if inspect.isasyncgenfunction(called):
        raise ConfigurationError(
            f"{name} is an async generator: it has many results, and a record holds one; return a list"
        )
    if not inspect.iscoroutinefunction(called):
        raise ConfigurationError(
            f"{name} is not a coroutine function: it would run before its key is claimed; write `async def`"
        )


def unbound(function: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
    """Take a `partial` apart: the function, and the held arguments, which count like any others."""
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = {}
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def first_name(function: AnyFunction) -> str | None:
    """Read the name of a function's first parameter. None without parameters or without a signature."""
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except ValueError:
        return None


def receiver_name(function: AnyFunction) -> str | None:
    """Read the name under which a method takes its instance or class. None for a function, and for a bound method.

    By convention, a method's first parameter is `self` or `cls`.
    """
    first = first_name(function)
    # A decorator sees a method as a plain function, before the class exists. Only the qualified name tells.
    scope = getattr(function, "__qualname__", "").rpartition(".")[0]
    is_method = bool(scope) and not scope.endswith("<locals>") and first in {"self", "cls"}
    return first if is_method else None


def _called(target: Callable[..., Any]) -> Callable[..., Any]:
    """Find the code behind an object: the function, or the `__call__` of the class."""
    return target if inspect.isroutine(target) or inspect.isclass(target) else type(target).__call__


def qualified_name(named: object) -> str:
    """Name a function or a class as `module.qualname`, and another object by class."""
    named_one: Any = named if hasattr(named, "__qualname__") else type(named)
    return f"{named_one.__module__}.{named_one.__qualname__}"


def return_type(function: AnyFunction) -> object:
    """Read the return annotation, `typing.Any` without one.

    Raises:
        ConfigurationError: The annotation contains an unknown name.
    """
    called = _called(unbound(function)[0])
    annotation = getattr(called, "__annotations__", {}).get("return", Any)
    try:
        return _resolved(called, annotation)
    except NameError as error:
        raise ConfigurationError(
            f"the return annotation of {qualified_name(function)} cannot be resolved: {error}; "
            "import its names at run time, or give result_type="
        ) from error


def parameter_types(function: AnyFunction) -> dict[str, object]:
    """Read the annotations of a function's parameters, without the unresolvable ones."""
    called = _called(function)
    known: dict[str, object] = {}
    for name, annotation in getattr(called, "__annotations__", {}).items():
        if name != "return":
            with suppress(Exception):  # what an annotation raises is for type checkers: here it says nothing
                known[name] = _resolved(called, annotation)
    return known


def _resolved(called: Callable[..., Any], annotation: object) -> object:
    """Resolve one annotation in the scope of the function."""
    scope = getattr(inspect.unwrap(called), "__globals__", {})
    # A bare holder of the one annotation, because `get_type_hints` fails as a whole if one name is unknown.
    only = SimpleNamespace(__annotations__={"this": annotation})
    return typing.get_type_hints(only, scope, include_extras=True)["this"]
