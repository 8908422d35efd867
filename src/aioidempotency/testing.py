"""For the tests of code that uses aioidempotency: a clock to set, a store in memory, and a check of a partition function.

The module is a pytest plugin, too: with `pytest_plugins = ["aioidempotency.testing"]` in a
`conftest.py`, tests have the fixtures `idempotency_clock` and `idempotency_store`.
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
    """A clock that stands still until it is told to move; give it to a store as `clock=`.

    It starts in the year 2100: an emulator that deletes by TTL goes by the real time, and would take
    the records of a clock in the past for expired.
    """

    def __init__(self, now: float = 4_102_444_800.0) -> None:
        self._now = now

    def __call__(self) -> float:
        """Read the clock: epoch seconds."""
        return self._now

    def advance(self, duration: float | timedelta) -> None:
        """Move the clock on by seconds, or back by less than none."""
        self._now += duration.total_seconds() if isinstance(duration, timedelta) else duration

    def __repr__(self) -> str:
        return f"FakeClock({self._now!r})"


EXAMPLE_KEYS: Final = tuple(f"example#{hashlib.sha256(bytes([number])).hexdigest()}" for number in range(64))
"""Keys as a store makes them: a namespace, and a digest."""


def check_partition_function(
    function: Callable[[str], str | Iterable[str]], keys: Iterable[str] = EXAMPLE_KEYS
) -> None:
    """Check that the answers of a function for `CustomPartition` depend on the key and on nothing else.

    Calls the function for each key and watches which built-in functions it calls. Then calls it for each key again,
    in the opposite order. Give keys of your own (`namespace#digest`) where the function takes them apart. A function
    for `elsewhere=` can be checked, too.

    The check sees what the function asks for, not why: a function that writes a log asks for the time, and is
    refused. It watches the calling thread only, by `sys.setprofile`: call it from a test, not in a service.

    Raises:
        PartitioningError: The function gave two answers for one key, or asked for the time, for chance, or for what
            differs between processes (as `hash` of a text does). The message names the cause.

    Example:
        >>> def by_tenant(key):
        ...     return "tenant-" + key.partition("#")[0]
        >>> check_partition_function(by_tenant)

        >>> def by_hash(key):
        ...     return f"bucket-{hash(key) % 32}"
        >>> check_partition_function(by_hash)
        Traceback (most recent call last):
            ...
        aioidempotency.exceptions.PartitioningError: ...by_hash asks for what differs between processes (builtins.hash)...
    """
    asked: set[str] = set()
    answers = {key: _watched(function, key, asked) for key in keys}
    again = {key: _watched(function, key, asked) for key in reversed(answers)}
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
    "what differs between processes": {
        ("builtins", "hash"),
        ("builtins", "id"),
        ("posix", "getpid"),
        ("nt", "getpid"),
        ("_thread", "get_ident"),
        ("_socket", "gethostname"),
    },
}
"""What a function may ask for that is not its key, by the modules and names of the built-in functions that answer."""


def _watched(function: Callable[[str], object], key: str, asked: set[str]) -> object:
    """Call a function; add to `asked` what it asks for that is not its key."""

    def note(_: object, event: str, called: object) -> None:
        if event == "c_call" and (cause := _cause(called)):
            asked.add(cause)

    profile, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # a collection may run callbacks of other tools, which ask for the time
    sys.setprofile(note)
    try:
        answer = function(key)
        return answer if isinstance(answer, str) or not isinstance(answer, Iterable) else list(answer)
    finally:
        sys.setprofile(profile)
        if collects:
            gc.enable()


def _cause(called: Any) -> str | None:
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
