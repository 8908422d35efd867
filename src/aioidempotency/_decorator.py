"""The decorator: makes a coroutine function idempotent."""

import functools
import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, final

from aioidempotency._core.model import Record
from aioidempotency._keys import check_namespace, is_missing, selector
from aioidempotency._options import Duration, OnInProgress, one_of
from aioidempotency._signatures import (
    Parameters,
    check_awaitable,
    first_name,
    namespace_of,
    return_type,
    unbound,
)
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.codecs import JsonCodec
from aioidempotency.exceptions import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

KeySource = str | Callable[..., object] | None
OnReplay = Callable[[Any, Record], object]
Find = Callable[[tuple[object, ...], Mapping[str, object]], object]
"""Finds key or fingerprint material in the arguments of a call."""


def idempotent(
    store: AsyncIdempotencyStore,
    *,
    key: KeySource = None,
    fingerprint: KeySource = None,
    namespace: str | None = None,
    retention: Duration | None = None,
    lease: Duration | None = None,
    heartbeat: bool | Duration = True,
    on_in_progress: OnInProgress = "raise",
    on_error: Literal["release", "hold"] = "release",
    store_errors: tuple[type[Exception], ...] = (),
    read_first: bool | None = None,
    missing_key: Literal["raise", "run"] = "raise",
    on_replay: OnReplay | None = None,
    result_type: object = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Make a coroutine function run once for each key; a later call gets the first one's result.

    Everything about a call is decided before its body runs: a body that changes its arguments changes
    nothing. An error that the body raises releases the key and passes on as itself.

    Args:
        store: Where the records are.
        key: What makes two calls the same: a JMESPath expression over `{argument name: value}`, a
            callable over the arguments, or None for all arguments. `self` and `cls` count only where
            the expression or the callable names them.
        fingerprint: What must be equal between two calls with one key, given likewise; None checks
            nothing.
        namespace: The part of the key that tells functions apart; by default `module.qualname`, which
            a renaming changes.
        retention: Seconds that a finished record answers, instead of the store's.
        lease: Seconds after which a call whose process died frees its key, instead of the store's.
        heartbeat: Whether the lease is renewed while the body runs; or the seconds between renewals,
            a third of the lease at the most.
        on_in_progress: What a duplicate does while the first call runs: raise `InProgressError`, or
            `Wait(seconds)` for its result.
        on_error: Whether an error of the body gives the key back, or holds it until its lease ends.
        store_errors: Errors that are results: stored, and raised again by replays; as the same class
            where it can be rebuilt from its arguments, else as an `IdempotencyError` that names it.
        read_first: Whether to read before claiming, instead of the store's.
        missing_key: What to do with a call that has no key: raise `MissingKeyError`, or run it
            unprotected, with one warning in the log.
        on_replay: Called with the stored result and its record, and awaited if need be; what it
            returns is the answer, unless it is None.
        result_type: What a replay is read back as; by default the return annotation.

    Raises:
        ConfigurationError: When decorating: the function is not a coroutine function, its return type
            cannot be read back, or a setting makes no sense.
    """
    one_of(missing_key, "missing_key", ("raise", "run"))

    options = store._options(  # noqa: SLF001 - the decorator is the store's other half
        lease=lease,
        retention=retention,
        heartbeat=heartbeat,
        on_in_progress=on_in_progress,
        on_error=on_error,
        store_errors=store_errors,
        read_first=read_first,
    )

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        if isinstance(function, classmethod | staticmethod):
            method: Any = function
            return type(method)(decorate(method.__func__))  # type: ignore[no-any-return] # it binds to the same call
        check_awaitable(function)
        target = _Target(
            store, function, key=key, fingerprint=fingerprint, namespace=namespace, result_type=result_type
        )
        find_key, find_payload = target.find_key, target.find_payload

        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            material = find_key(args, kwargs)
            payload = None if find_payload is None else find_payload(args, kwargs)
            if missing_key == "run" and is_missing(material):
                target.warn_once()
                return await function(*args, **kwargs)
            async with options.call(
                material,
                fingerprint=payload,
                namespace=target.namespace,
                result_type=target.resolved[0] if target.resolved else target.result_type(),
            ) as execution:
                if not execution.replayed:
                    execution.result = await function(*args, **kwargs)
            result = execution.result
            if on_replay is not None and execution.record is not None:
                result = await _replaced(on_replay, result, execution.record)
            return result  # type: ignore[return-value] # read back as the function's return type

        is_function = inspect.isfunction(target.function)  # the attributes of an object with `__call__` are its own
        functools.update_wrapper(call, target.function, updated=functools.WRAPPER_UPDATES if is_function else ())
        call.__wrapped__ = function  # type: ignore[attr-defined] # what `inspect.signature` looks at
        return call

    return decorate


async def _replaced(on_replay: OnReplay, result: object, record: Record) -> object:
    """Ask the hook for the answer to a replay; None leaves it as it is."""
    answer = on_replay(result, record)
    if inspect.isawaitable(answer):
        answer = await answer
    return result if answer is None else answer


@final
class _Target:
    """One decorated function: where its calls find their keys, and what their results are read back as.

    Attributes:
        function: The function itself, without the arguments that a `partial` holds.
        namespace: The part of the key that tells functions apart.
        find_key: Finds the key's material.
        find_payload: Finds the fingerprint's material; None where there is no fingerprint.
        resolved: What results are read back as, once that is known.
    """

    def __init__(
        self,
        store: AsyncIdempotencyStore,
        function: Callable[..., Awaitable[object]],
        *,
        key: KeySource,
        fingerprint: KeySource,
        namespace: str | None,
        result_type: object,
    ) -> None:
        self.function, held_args, held_kwargs = unbound(function)
        self.namespace = namespace_of(self.function) if namespace is None else namespace
        check_namespace(self.namespace)
        parameters = Parameters.of(self.function)
        self.find_key = _holding(_finder(key, parameters), held_args, held_kwargs)
        self.find_payload = (
            None if fingerprint is None else _holding(_finder(fingerprint, parameters), held_args, held_kwargs)
        )
        self.resolved: list[object] = []
        self._store = store
        self._given_type = result_type
        self._warned = False
        self._resolve_early()

    def result_type(self) -> object:
        """Resolve what a replay is read back as.

        Raises:
            ConfigurationError: The annotation cannot be resolved, or not be read back.
        """
        expected = return_type(self.function) if self._given_type is None else self._given_type
        if isinstance(self._store.codec, JsonCodec):
            self._store.codec.decoder(expected)
        self.resolved = [expected]
        return expected

    def warn_once(self) -> None:
        """Report the first call without a key."""
        if not self._warned:
            self._warned = True
            self._store.warn_of_missing_key(self.namespace)

    def _resolve_early(self) -> None:
        """Find a bad return type when decorating; one that is defined later is looked at by the first call."""
        try:
            self.result_type()
        except ConfigurationError as error:
            if not isinstance(error.__cause__, NameError):
                raise


def _finder(source: KeySource, parameters: Parameters) -> Find:
    """Make what finds key or fingerprint material in a call's arguments."""
    if source is None:
        return parameters.without_receiver
    if isinstance(source, str):
        select = selector(source)
        names_receiver = parameters.receiver in re.findall(r"\w+", source)
        named = parameters.named if names_receiver or parameters.receiver is None else parameters.without_receiver
        return lambda args, kwargs: select(named(args, kwargs))
    if (
        not callable(source)
        or inspect.iscoroutinefunction(source)
        or inspect.iscoroutinefunction(type(source).__call__)
    ):
        raise ConfigurationError(f"key= and fingerprint= take a JMESPath text or a plain callable: not {source!r}")
    skipped = 0 if parameters.receiver is None or parameters.receiver == first_name(source) else 1

    def find(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        bound = parameters.bind(args, kwargs)
        return source(*bound.args[skipped:], **bound.kwargs)

    return find


def _holding(find: Find, held_args: tuple[object, ...], held_kwargs: Mapping[str, object]) -> Find:
    """Have the arguments that a `partial` holds count like any others."""
    if not held_args and not held_kwargs:
        return find
    return lambda args, kwargs: find((*held_args, *args), {**held_kwargs, **kwargs})
