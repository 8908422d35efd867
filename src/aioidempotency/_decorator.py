"""The decorator, `idempotent`, makes a coroutine function idempotent.

All facts of a function (namespace, parameters, types) are found when decorating. A call finds its key and runs.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Literal, ParamSpec, TypeVar, final
from weakref import WeakKeyDictionary

from aioidempotency._core.model import Record
from aioidempotency._keys import check_namespace, digest, is_missing
from aioidempotency._namespaces import MARK, Namespace
from aioidempotency._options import Duration, OnInProgress, one_of
from aioidempotency._selection import Find, KeySource, MissingParts, finder
from aioidempotency._signatures import (
    check_awaitable,
    parameter_types,
    qualified_name,
    receiver_name,
    return_type,
    unbound,
)
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.codecs import JsonCodec
from aioidempotency.exceptions import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

FindNamespace = Callable[[tuple[object, ...], Mapping[str, object]], str]
"""Finds the namespace of a method's call in its arguments."""

OnReplay = Callable[[Any, Record], object]
"""Called with a stored result and its record. The answer replaces the result, unless the answer is None."""


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
    """Make a coroutine function run once for each key. A later call gets the first call's result.

    ```python
    from aioidempotency import AsyncIdempotencyStore, idempotent

    store = AsyncIdempotencyStore.in_memory()

    @idempotent(store, key="order_id")
    async def charge(order_id: str) -> str:
        return f"receipt for {order_id}"

    assert await charge("1") == await charge("1")  # the second call replays
    ```

    The call's key and fingerprint are read before the body runs, so a body may change its arguments. An error in the
    body releases the key and passes on unchanged. The errors of a call are those of `AsyncIdempotencyStore.execute`.

    Args:
        store: The store of the records.
        key: The source of the key: a JMESPath expression over `{argument name: value}`, a callable over the arguments,
            or None for all arguments. `self` and `cls` count only if the expression or the callable uses them.
        fingerprint: The source of a value that must be the same in all calls with one key, given like `key`. With None,
            nothing is compared. An expression without a match gives the fingerprint of null.
        namespace: The part of the key that keeps functions apart. The default is the answer of `namespace_of`:
            `module.qualname` for most functions. With the default, a renamed function finds none of its records.
        retention: Seconds for which a finished record answers duplicates, in place of the store's setting.
        lease: Seconds until the key of a dead process is free again, in place of the store's setting.
        heartbeat: Whether to renew the lease while the body runs, or the seconds between renewals: a third of the lease
            at most.
        on_in_progress: The reaction of a duplicate while the first call runs: raise `InProgressError`, or wait for the
            result with `Wait(seconds)`.
        on_error: Whether an error in the body releases the key, or holds the key until the end of the lease.
        store_errors: Classes of errors to store like results. A replay raises the stored error again. If the error
            cannot be rebuilt from its arguments, the replay raises an `IdempotencyError` that names the class.
        read_first: Whether to read before claiming, in place of the store's setting.
        missing_key: The reaction to a call without a key: raise `MissingKeyError`, or run unprotected, with one warning
            in the log.
        missing_parts: The reaction to a null part of a key, such as `[tenant, order_id]` without a tenant: raise
            `MissingKeyError`, or allow null as a value.
        on_replay: Called with the stored result and its record, and awaited if necessary. The answer replaces the
            result, unless the answer is None.
        result_type: The type of a replayed result. Without one, the return annotation counts.

    Raises:
        ConfigurationError: When decorating: the function is no coroutine function, an expression begins with an unknown
            parameter, the return type cannot be read back, another function of the store has the same namespace, or a
            setting makes no sense.
    """
    _check_store(store)
    one_of(missing_key, "missing_key", ("raise", "run"))
    one_of(missing_parts, "missing_parts", ("raise", "allow"))

    if on_replay is not None and not callable(on_replay):
        raise ConfigurationError(f"on_replay= takes a function of a result and its record: not {on_replay!r}")
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
        # `@idempotent` may stand above or below `@classmethod` and `@staticmethod`.
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
            # Key and fingerprint are found here, once. The body may change the arguments, and a call that waits must
            # keep its key.
            material = find_key(args, kwargs)
            if missing_key == "run" and is_missing(material):
                target.warn_once()
                return await function(*args, **kwargs)
            payload = None if find_payload is None else digest(find_payload(args, kwargs), subject="the fingerprint")
            async with options.call(
                material,
                fingerprint=payload,
                namespace=constant if namespace_for is None else namespace_for(args, kwargs),
                # An annotation may name a class that is defined later, so the first call resolves the type. Later calls
                # read the list.
                result_type=target.resolved[0] if target.resolved else target.result_type(),
            ) as execution:
                if not execution.replayed:
                    execution.result = await function(*args, **kwargs)
            result = execution.result
            # The hook runs after the block, so an error in the hook does not change the record.
            if on_replay is not None and execution.record is not None:
                result = await _replaced(on_replay, result, execution.record)
            return result  # type: ignore[return-value] # read back as the function's return type

        is_function = inspect.isfunction(target.function)  # the attributes of an object with `__call__` are its own
        functools.update_wrapper(call, target.function, updated=functools.WRAPPER_UPDATES if is_function else ())
        call.__wrapped__ = function  # type: ignore[attr-defined] # what `inspect.signature` looks at
        setattr(call, MARK, target.namespace)
        # Functions may share a given namespace on purpose. A derived namespace is shared only by accident.
        if namespace is None:
            store._functions.add(constant, function, call, in_key=target.in_key)  # noqa: SLF001 - the decorator is the store's other half
        return call

    return decorate


def _check_store(store: object) -> None:
    """Require a store. Say what to write in place of the usual mistakes."""
    if isinstance(store, AsyncIdempotencyStore):
        return
    if isinstance(store, type):
        trouble = "not a class; make one: store = AsyncIdempotencyStore(table_name)"
    elif isinstance(store, str):
        trouble = f"not a table's name; write @idempotent(AsyncIdempotencyStore({store!r}))"
    elif callable(store):
        trouble = f"not a function; write @idempotent(store) above {qualified_name(store)}"
    else:
        trouble = f"not {type(store).__name__}; a backend of yours goes into AsyncIdempotencyStore(..., backend=...)"
    raise ConfigurationError(f"@idempotent(store) takes an AsyncIdempotencyStore: {trouble}")


async def _replaced(on_replay: OnReplay, result: object, record: Record) -> object:
    """Ask the hook for the answer to a replay."""
    answer = on_replay(result, record)
    if inspect.isawaitable(answer):
        answer = await answer
    return result if answer is None else answer


@final
class _Target:
    """One decorated function: the source of its keys, and the type of its results.

    Attributes:
        function: The function itself, without the arguments held by a `partial`.
        namespace: The part of the key that keeps functions apart.
        namespace_for: Finds the namespace of a method's call, by receiver. None for a function.
        find_key: Finds the key's material.
        find_payload: Finds the fingerprint's material. None without a fingerprint.
        in_key: The parameters whose values are in the key, as far as known.
        resolved: The type of results, once known. Empty before.
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
        # An inherited method may answer differently for each class, so the receiver's class is part of the namespace.
        self.namespace_for: FindNamespace | None = None
        if namespace is None and (find_namespace := self._receiver_namespace()) is not None:
            self.namespace_for = _holding(find_namespace, held_args, held_kwargs)
        self.resolved: list[object] = []
        self._store = store
        self._given_type = result_type
        self._warned = False
        self._resolve_early()

    def result_type(self) -> object:
        """Resolve the type of a replayed result.

        Raises:
            ConfigurationError: The annotation cannot be resolved, or results of its type cannot be read back.
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

    def _receiver_namespace(self) -> FindNamespace | None:
        """Make a function that finds the namespace of a method's call. None if all calls have one namespace."""
        namespace = self.namespace
        # A bound method has one receiver, so all its calls have one namespace.
        if inspect.ismethod(self.function):
            bound = namespace.of_receiver(self.function.__self__)
            self.namespace = Namespace(bound)
            return None
        receiver = receiver_name(self.function)
        if receiver is None:
            return None
        # Kept by class, because a method has few classes of receivers and many calls. Weak, so that a class made at run
        # time can be collected.
        names: WeakKeyDictionary[type, str] = WeakKeyDictionary()

        def find(args: tuple[object, ...], kwargs: Mapping[str, object]) -> str:
            value = args[0] if args else kwargs.get(receiver)
            kind = value if isinstance(value, type) else type(value)
            name = names.get(kind)
            if name is None:
                name = names[kind] = namespace.of_receiver(kind)
            return name

        return find

    def _resolve_early(self) -> None:
        """Find a bad return type when decorating."""
        try:
            self.result_type()
        except ConfigurationError as error:
            # A name defined further down in the module is unknown now. The first call looks again.
            if not isinstance(error.__cause__, NameError):
                raise


def _holding(
    find: Callable[[tuple[object, ...], Mapping[str, object]], T],
    held_args: tuple[object, ...],
    held_kwargs: Mapping[str, object],
) -> Callable[[tuple[object, ...], Mapping[str, object]], T]:
    """Add the arguments held by a `partial` to the arguments of each call."""
    if not held_args and not held_kwargs:
        return find
    return lambda args, kwargs: find((*held_args, *args), {**held_kwargs, **kwargs})
