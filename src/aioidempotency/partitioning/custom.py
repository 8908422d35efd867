"""A partition value by a function of the user's own, and a guard against those that are no function of the key.

A random suffix, or one by the hour, is the usual advice for hot tables. Here it breaks idempotency: the
second attempt writes into another partition, meets nothing there, and runs.
"""

import gc
import inspect
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Any, final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import Settled, check_text

_SOURCES = {
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
"""What a function may ask that is not its key, by the names of the built-in functions that answer."""

_SAFE = (
    "Two attempts with one key would look in two locations, and both run. Derive the value from the key alone; or take "
    "HashBuckets(n), which spreads keys by a hash, or TimeBuckets and RandomBuckets, which look at every location"
)


@final
@dataclass(frozen=True, slots=True, init=False)
class CustomPartition(Settled):
    """The partition value that `function(key)` names, and others where `elsewhere(key)` says a record may be.

    `key` is `namespace#digest`. On first use each function is called twice with one key, and watched:
    one that gives two answers, or asks for the time, for chance, or for what differs between processes
    (as `hash` of a text does), is refused.

    With `SimpleKey`, the value is the whole key of the record, and has to hold the digest.
    """

    function: Callable[[str], str]
    alternatives: Callable[[str], Iterable[str]] | None = None
    _checked: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)

    def __init__(self, function: Callable[[str], str], elsewhere: Callable[[str], Iterable[str]] | None = None) -> None:
        for each in (function, elsewhere):
            if each is not None and (not callable(each) or inspect.iscoroutinefunction(each)):
                raise PartitioningError(f"CustomPartition takes plain functions of a key: not {each!r}")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "alternatives", elsewhere)
        object.__setattr__(self, "_checked", [])

    def home(self, key: str, now: float) -> str:
        """Answer as the function does.

        Raises:
            PartitioningError: It is not a function of its key, or its answer is no partition value.
        """
        self._check(key)
        return _value(self.function, self.function(key))

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer as the other function does, if there is one."""
        if self.alternatives is None:
            return ()
        self._check(key)
        home = self.home(key, now)
        named = dict.fromkeys(_value(self.alternatives, each) for each in _listed(self.alternatives, key))
        return tuple(each for each in named if each != home)

    def partitions(self, now: float) -> None:
        """Say nothing: what a function answers cannot be listed."""

    def description(self) -> dict[str, object]:
        """Describe the functions by their names."""
        names = [None if each is None else _name(each) for each in (self.function, self.alternatives)]
        return {"strategy": "CustomPartition", "function": names[0], "elsewhere": names[1]}

    def _check(self, key: str) -> None:
        """Try both functions, once."""
        if self._checked:
            return
        _check_pure(self.function, key)
        if self.alternatives is not None:
            _check_pure(self.alternatives, key)
        self._checked.append(True)


def _check_pure(function: Callable[[str], object], key: str) -> None:
    """Call a function twice, and watch what it asks."""
    answers, asked = zip(*(_watched(function, key) for _ in range(2)), strict=True)
    first, second = (each if isinstance(each, str) else list(_iterable(each)) for each in answers)
    if first != second:
        raise PartitioningError(f"{_name(function)} gave two answers for one key. {_SAFE}")
    if causes := sorted(asked[0] | asked[1]):
        raise PartitioningError(f"{_name(function)} asks for {', '.join(causes)}. {_SAFE}")


def _watched(function: Callable[[str], object], key: str) -> tuple[object, set[str]]:
    """Call a function; name what it asked that is not its key."""
    asked: set[str] = set()

    def note(_: object, event: str, called: object) -> None:
        if event == "c_call" and (cause := _cause(called)):
            asked.add(cause)

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # what a collection calls, as a tool that measures it, is not the function's doing
    sys.setprofile(note)
    try:
        answer = function(key)
        return (answer if isinstance(answer, str) else list(_iterable(answer))), asked
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()


def _cause(called: Any) -> str | None:
    name, owner = getattr(called, "__name__", ""), getattr(called, "__self__", None)
    spelled = f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
    if isinstance(owner, random.Random):
        return f"chance ({spelled})"
    if isinstance(owner, type) and issubclass(owner, date) and name in {"now", "utcnow", "today"}:
        return f"the time ({spelled})"
    asked = getattr(called, "__module__", None), name
    return next((f"{cause} ({spelled})" for cause, names in _SOURCES.items() if asked in names), None)


def _iterable(answer: object) -> Iterable[object]:
    return answer if isinstance(answer, Iterable) else (answer,)


def _listed(function: Callable[[str], Iterable[str]], key: str) -> list[object]:
    answer: object = function(key)
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise PartitioningError(f"{_name(function)} has to name other locations in a list: not {type(answer).__name__}")
    return list(answer)


def _value(function: Callable[..., object], answer: object) -> str:
    check_text(answer, f"what {_name(function)} returns is a partition value, and CustomPartition", "partition value")
    return str(answer)


def _name(function: object) -> str:
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
