"""Tools for your tests: a clock to set, a store in memory, and a check of partition functions.

The module is a pytest plugin, too. With `pytest_plugins = ["aioidempotency.testing"]` in a `conftest.py`, tests have
the fixtures `idempotency_clock` and `idempotency_store`.
"""

import gc
import hashlib
import random
import sys
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any, Final, final

from aioidempotency import AsyncIdempotencyStore, PartitioningError
from aioidempotency.partitioning.custom import SAFE, function_name


@final
class FakeClock:
    """A clock that stands still between calls of `advance`. Give the clock to a store as `clock=`.

    ```python
    from aioidempotency import AsyncIdempotencyStore
    from aioidempotency.testing import FakeClock

    clock = FakeClock()
    store = AsyncIdempotencyStore.in_memory(retention=3600, clock=clock)

    async with store.execute("order-1") as execution:
        execution.complete("paid")
    assert await store.get("order-1") is not None
    clock.advance(3601)  # the record expires
    assert await store.get("order-1") is None
    ```

    The clock starts in the year 2100. An emulator's TTL follows the real time, and would delete the records of a clock
    in the past.

    Args:
        now: The first instant, in epoch seconds.
    """

    def __init__(self, now: float = 4_102_444_800.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """Read the clock, in epoch seconds."""
        return self._now

    def advance(self, duration: float | timedelta) -> None:
        """Move the clock by seconds: forward, or backward with a negative number."""
        self._now += duration.total_seconds() if isinstance(duration, timedelta) else duration

    def __repr__(self) -> str:
        return f"FakeClock({self._now!r})"


EXAMPLE_KEYS: Final = tuple(f"example#{hashlib.sha256(bytes([number])).hexdigest()}" for number in range(64))
"""Keys in a store's form: a namespace and a digest."""


def check_partition_function(
    function: Callable[[str], str | Iterable[str]], keys: Iterable[str] = EXAMPLE_KEYS
) -> None:
    """Check that the answers of a function for `CustomPartition` depend on the key and on nothing else.

    The check calls the function for each key, and watches the built-in functions that it uses. Then the check calls the
    function for each key again, in the opposite order. Functions for `elsewhere=` can be checked, too.

    The check cannot see the purpose of a call: a function that writes a log asks for the time, and is refused. Only the
    calling thread is watched, by `sys.setprofile`, so the check belongs in a test, not in a service.

    Args:
        function: The function of a key.
        keys: Keys in the form `namespace#digest`, for a function that takes keys apart.

    Raises:
        PartitioningError: The function gave two answers for one key, or asked for the time, for chance, or for facts
            that differ between processes (`hash` of a text, for example). The message names the cause.

    Example:
        >>> def by_tenant(key):
        ...     return "tenant-" + key.partition("#")[0]
        >>> check_partition_function(by_tenant)

        >>> def by_hash(key):
        ...     return f"bucket-{hash(key) % 32}"
        >>> check_partition_function(by_hash)
        Traceback (most recent call last):
            ...
        aioidempotency.exceptions.PartitioningError: ...by_hash asks for a fact of this process (builtins.hash)...
    """
    asked: set[str] = set()
    answers = {key: _watched(function, key, asked) for key in keys}
    # In the opposite order, so that a function which counts its calls gives itself away.
    again = {key: _watched(function, key, asked) for key in reversed(answers)}
    # First the cause: a function that asks for the time may still have answered twice alike.
    if asked:
        raise PartitioningError(f"{function_name(function)} asks for {', '.join(sorted(asked))}. {SAFE}")
    if again != answers:
        raise PartitioningError(f"{function_name(function)} gave two answers for one key. {SAFE}")


_SOURCES: Final = {
    "the time": {
        ("time", name)
        for name in (
            *("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"),
            *("localtime", "gmtime", "ctime", "asctime"),
        )
    },
    "chance": {("posix", "urandom"), ("nt", "urandom"), ("posix", "getrandom")},
    "a fact of this process": {
        ("builtins", "hash"),
        ("builtins", "id"),
        ("posix", "getpid"),
        ("nt", "getpid"),
        ("_thread", "get_ident"),
        ("_socket", "gethostname"),
    },
}
"""Causes of an unsafe answer, by module and name of the built-in functions."""


def _watched(function: Callable[[str], object], key: str, asked: set[str]) -> object:
    """Call a function. Add the causes of an unsafe answer to `asked`."""

    def note(_: object, event: str, called: object) -> None:
        if event == "c_call" and (cause := _cause(called)):
            asked.add(cause)

    profile, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # a collection may run callbacks of other tools, which ask for the time
    # A profiler sees calls of built-in functions, however they are reached. A patched `time.time` would miss a name
    # imported earlier.
    sys.setprofile(note)
    try:
        # A generator runs while it is read, so it is read under watch.
        answer = function(key)
        return answer if isinstance(answer, str) or not isinstance(answer, Iterable) else list(answer)
    finally:
        sys.setprofile(profile)
        if collects:
            gc.enable()


def _cause(called: Any) -> str | None:
    """Name the cause behind a built-in function. None for a safe one."""
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    shown = f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
    if isinstance(owner, random.Random):
        return f"chance ({shown})"
    if isinstance(owner, type) and issubclass(owner, date) and name in {"now", "utcnow", "today"}:
        return f"the time ({shown})"
    location = getattr(called, "__module__", None), name
    return next((f"{cause} ({shown})" for cause, names in _SOURCES.items() if location in names), None)


try:
    import pytest
except ImportError:  # the module is of use without pytest, too
    pass
else:

    @pytest.fixture
    def idempotency_clock() -> FakeClock:
        """The clock of `idempotency_store`."""
        return FakeClock()

    @pytest.fixture
    def idempotency_store(idempotency_clock: FakeClock) -> AsyncIdempotencyStore:
        """A store in memory, new for each test."""
        return AsyncIdempotencyStore.in_memory(clock=idempotency_clock)
