"""The decorator: makes a coroutine function idempotent."""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, final
from weakref import WeakKeyDictionary

from aioidempotency._core.model import Record
from aioidempotency._keys import check_namespace, digest, is_missing
from aioidempotency._namespaces import MARK, Namespace
from aioidempotency._options import Duration, OnInProgress, one_of
from aioidempotency._selection import Find, KeySource, MissingParts, Parameters, finder
from aioidempotency._signatures import check_awaitable, parameter_types, qualified_name, return_type, unbound
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.codecs import JsonCodec
from aioidempotency.exceptions import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

OnReplay = Callable[[Any, Record], object]


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
    missing_parts: MissingParts = "raise",
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
            nothing. An expression that finds nothing is the fingerprint of null.
        namespace: The part of the key that tells functions apart. The default is the one that
            `namespace_of` tells, `module.qualname` for most functions: it changes when the function is renamed.
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
        missing_parts: What to do with a call in whose key a part is null, such as `[tenant, order_id]`
            without a tenant: raise `MissingKeyError`, or take null for a value like any other.
        on_replay: Called with the stored result and its record, and awaited if need be; what it
            returns is the answer, unless it is None.
        result_type: What a replay is read back as; by default the return annotation.

    Raises:
        ConfigurationError: When decorating: the function is not a coroutine function, an expression begins
            with a name that is no parameter, the return type cannot be read back, another function of the
            store has the same namespace, or a setting makes no sense.
    """
    one_of(missing_key, "missing_key", ("raise", "run"))
    one_of(missing_parts, "missing_parts", ("raise", "allow"))

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
            store,
            function,
            key=key,
            fingerprint=fingerprint,
            namespace=namespace,
            missing_parts=missing_parts,
            result_type=result_type,
        )
        find_key, find_payload, namespace_for = target.find_key, target.find_payload, target.namespace_for
        constant = target.namespace.text

        async def call(*args: P.args, **kwargs: P.kwargs) -> T:
            material = find_key(args, kwargs)
            if missing_key == "run" and is_missing(material):
                target.warn_once()
                return await function(*args, **kwargs)
            payload = None if find_payload is None else digest(find_payload(args, kwargs), subject="the fingerprint")
            async with options.call(
                material,
                fingerprint=payload,
                namespace=constant if namespace_for is None else namespace_for(args, kwargs),
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
        setattr(call, MARK, target.namespace)
        if namespace is None:
            store._functions.add(constant, function, call, in_key=target.in_key)  # noqa: SLF001 - the decorator is the store's other half
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
        namespace_for: Finds the namespace of a method's call, which depends on the receiver; None for a function.
        find_key: Finds the key's material.
        find_payload: Finds the fingerprint's material; None where there is no fingerprint.
        in_key: The parameters whose values are in the key, as far as that is known.
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
        missing_parts: MissingParts,
        result_type: object,
    ) -> None:
        self.function, held_args, held_kwargs = unbound(function)
        self.namespace = Namespace.derived(self.function) if namespace is None else Namespace(namespace)
        check_namespace(self.namespace.text)
        name, types = qualified_name(self.function), parameter_types(self.function)
        find, self.in_key = finder(
            key, self.function, option="key", name=name, types=types, missing_parts=missing_parts
        )
        self.find_key = _holding(find, held_args, held_kwargs)
        self.find_payload: Find | None = None
        if fingerprint is not None:
            find, _ = finder(fingerprint, self.function, option="fingerprint", name=name, types=types)
            self.find_payload = _holding(find, held_args, held_kwargs)
        self.namespace_for = self._receiver_namespace() if namespace is None else None
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
            self._store.warn_of_missing_key(self.namespace.text)

    def _receiver_namespace(self) -> Callable[[tuple[object, ...], Mapping[str, object]], str] | None:
        """Make a function that names the namespace of a method's call; None where all calls have one."""
        namespace = self.namespace
        if inspect.ismethod(self.function):
            bound = namespace.of_receiver(self.function.__self__)
            self.namespace = Namespace(bound)
            return None
        receiver = Parameters.of(self.function).receiver
        if receiver is None:
            return None
        names: WeakKeyDictionary[type, str] = WeakKeyDictionary()  # by class: a method is called with few of them

        def find(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
            value = args[0] if args else kwargs.get(receiver)
            kind = value if isinstance(value, type) else type(value)
            name = names.get(kind)
            if name is None:
                name = names[kind] = namespace.of_receiver(kind)
            return name

        return find

    def _resolve_early(self) -> None:
        """Find a bad return type when decorating; one that is defined later is looked at by the first call."""
        try:
            self.result_type()
        except ConfigurationError as error:
            if not isinstance(error.__cause__, NameError):
                raise


def _holding(find: Find, held_args: tuple[object, ...], held_kwargs: Mapping[str, object]) -> Find:
    """Have the arguments that a `partial` holds count like any others."""
    if not held_args and not held_kwargs:
        return find
    return lambda args, kwargs: find((*held_args, *args), {**held_kwargs, **kwargs})
