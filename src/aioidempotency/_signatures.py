"""What is decorated: whether it can be awaited, what it is called, what it takes and returns."""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Self, final

from aioidempotency.exceptions import ConfigurationError

AnyFunction = Callable[..., object]


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """How a function names its arguments.

    Attributes:
        signature: The function's own, without `self` where it is bound.
        receiver: The name under which a method takes its instance or class; None for a function.
        plain: All names, where each argument may be given by position; else None.
    """

    signature: inspect.Signature
    receiver: str | None
    plain: tuple[str, ...] | None

    @classmethod
    def of(cls, function: AnyFunction) -> Self:
        """Read a function's parameters. By convention, a method calls its first one `self` or `cls`."""
        signature = inspect.signature(function)
        first = first_name(function)
        scope = getattr(function, "__qualname__", "").rpartition(".")[0]
        is_method = bool(scope) and not scope.endswith("<locals>") and first in {"self", "cls"}
        by_position = all(each.kind is each.POSITIONAL_OR_KEYWORD for each in signature.parameters.values())
        return cls(signature, first if is_method else None, tuple(signature.parameters) if by_position else None)

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Name the arguments of a call, defaults included.

        Raises:
            TypeError: The function cannot be called with them.
        """
        if not kwargs and self.plain is not None and len(args) == len(self.plain):
            return dict(zip(self.plain, args, strict=True))  # each by position: nothing is left to find out
        return dict(self.bind(args, kwargs).arguments)

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        """Bind the arguments of a call, defaults included.

        Raises:
            TypeError: The function cannot be called with them.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def without_receiver(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Name the arguments of a call, without the method's instance or class."""
        named = self.named(args, kwargs)
        if self.receiver is not None:
            named.pop(self.receiver, None)
        return named


def first_name(function: AnyFunction) -> str | None:
    """Read the name of a function's first parameter; None where it has none, or does not say."""
    try:
        return next(iter(inspect.signature(function).parameters), None)
    except ValueError:
        return None


def check_awaitable(function: AnyFunction) -> None:
    """Refuse what is not a coroutine function.

    Raises:
        ConfigurationError: It is a plain function, or an async generator.
    """
    target = unbound(function)[0]
    called = _called(target)
    name = namespace_of(target)
    if inspect.isasyncgenfunction(called):
        raise ConfigurationError(f"{name} is an async generator: it has many results, and a record holds one")
    if not inspect.iscoroutinefunction(called):
        raise ConfigurationError(
            f"{name} is not a coroutine function: it would run before its key is claimed; write it with `async def`"
        )


def unbound(function: Callable[..., Any]) -> tuple[Callable[..., Any], tuple[object, ...], dict[str, object]]:
    """Take a `partial` apart, so that the arguments it holds count like any others."""
    args: tuple[object, ...] = ()
    kwargs: dict[str, object] = {}
    while isinstance(function, functools.partial):
        args, kwargs = (*function.args, *args), {**function.keywords, **kwargs}
        function = function.func
    return function, args, kwargs


def _called(target: Callable[..., Any]) -> Callable[..., Any]:
    """Find what runs when an object is called: itself, or its class's `__call__`."""
    return target if inspect.isroutine(target) or inspect.isclass(target) else type(target).__call__


def namespace_of(function: object) -> str:
    """Name a function as `module.qualname`; an object with `__call__` by its class."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def return_type(function: AnyFunction) -> object:
    """Read the return annotation; `typing.Any` where there is none.

    Raises:
        ConfigurationError: The annotation names something that cannot be found.
    """
    called = _called(unbound(function)[0])
    annotation = getattr(called, "__annotations__", {}).get("return", Any)
    plain = inspect.unwrap(called)
    scope = getattr(plain, "__globals__", {})
    try:
        hints = typing.get_type_hints(
            SimpleNamespace(__annotations__={"return": annotation}), scope, include_extras=True
        )
    except NameError as error:
        raise ConfigurationError(
            f"the return annotation of {namespace_of(function)} cannot be resolved: {error}; "
            "import its names at run time, or give result_type="
        ) from error
    return hints["return"]
