"""A partition value by a function of the user's own, and a guard against functions that change their answer.

A random suffix, or one by the hour, is the usual advice for hot tables. Here it breaks idempotency: the
second attempt writes into another partition, meets nothing there, and runs.

The guard compares answers and nothing else, so it costs nothing that a user's process would notice:

1. Before the strategy first answers, it asks the functions 16 times for that key.
2. It asks again for that first key every 1,000 questions, and when a minute has passed since it last asked.
3. Once two answers have differed, every question is refused.

What differs between processes alone, as `hash` of a text does, this guard cannot see;
`aioidempotency.testing.check_partition_function` can.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import Settled, check_text

FIRST_ANSWERS: Final = 16
"""Answers that are compared on first use: one of two at random is the same 16 times once in 32,768 keys."""

CHECK_EVERY: Final = 1000
"""Questions from one check of the first key to the next, at the most."""

CHECK_AFTER: Final = 60.0
"""Seconds from one check of the first key to the next, if there is a question."""

SAFE: Final = (
    "Two attempts with one key would look in two locations, and both run. Derive the value from the key alone; or take "
    "HashBuckets(n), which spreads keys by a hash, or TimeBuckets and RandomBuckets, which look at every location"
)
"""What to do about a function whose answer does not depend on the key alone."""

Locations = tuple[str, frozenset[str]]


class _Checks:
    """What the guard remembers.

    Two threads may use one strategy, and there is no lock: a thread that waits for one could hold another that the
    user's function needs. Each attribute is replaced as a whole, and `first` and `refusal` are right whichever
    thread sets them. A lost increment makes a check a question later.
    """

    __slots__ = ("asked", "checked_at", "first", "refusal")

    def __init__(self) -> None:
        self.first: tuple[str, Locations] | None = None
        self.refusal: str | None = None
        self.asked = 0
        self.checked_at = 0.0


@final
@dataclass(frozen=True, slots=True, init=False)
class CustomPartition(Settled):
    """The partition value that `function(key)` names, and others where `elsewhere(key)` says a record may be.

    `key` is `namespace#digest`. Each function must give the same answer for one key at any time and in any
    process. A function that was seen to give two is refused from then on. Test yours with
    `aioidempotency.testing.check_partition_function`, which also finds what differs between processes.

    With `SimpleKey`, the value is the whole key of the record, and has to hold the digest.

    Example:
        >>> def by_tenant(key):
        ...     return "tenant-" + key.partition("#")[0]
        >>> CustomPartition(by_tenant).home("acme#6b86b273", now=0)
        'tenant-acme'
    """

    function: Callable[[str], str]
    alternatives: Callable[[str], Iterable[str]] | None = None
    _checks: _Checks = field(default_factory=_Checks, init=False, repr=False, compare=False)

    def __init__(self, function: Callable[[str], str], elsewhere: Callable[[str], Iterable[str]] | None = None) -> None:
        for each in (function, elsewhere):
            if each is not None and (not callable(each) or inspect.iscoroutinefunction(each)):
                raise PartitioningError(f"CustomPartition takes plain functions of a key: not {each!r}")
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "alternatives", elsewhere)
        object.__setattr__(self, "_checks", _Checks())

    def home(self, key: str, now: float) -> str:
        """Answer as the function does.

        Raises:
            PartitioningError: A function has given two answers for one key, or what it answers is no partition value.
        """
        self._check(key, now)
        return _value(self.function, self.function(key))

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer as the other function does, if there is one.

        Raises:
            PartitioningError: As of `home`.
        """
        if self.alternatives is None:
            return ()
        home = self.home(key, now)
        return tuple(each for each in _others(self.alternatives, key) if each != home)

    def partitions(self, now: float) -> None:
        """Say nothing: what a function answers cannot be listed."""

    def description(self) -> dict[str, object]:
        """Describe the functions by their names."""
        names = [None if each is None else function_name(each) for each in (self.function, self.alternatives)]
        return {"strategy": "CustomPartition", "function": names[0], "elsewhere": names[1]}

    def _check(self, key: str, now: float) -> None:
        """Compare answers where it is time to. `now` may go back: clocks are set."""
        checks = self._checks
        if checks.refusal is None:
            checks.asked += 1
            if checks.first is None:
                expected = self._locations(key)
                for _ in range(FIRST_ANSWERS - 1):
                    self._compare(key, expected)
                checks.first, checks.asked, checks.checked_at = (key, expected), 0, now
            elif checks.asked >= CHECK_EVERY or abs(now - checks.checked_at) >= CHECK_AFTER:
                checks.asked, checks.checked_at = 0, now
                self._compare(*checks.first)
        if checks.refusal is not None:
            raise PartitioningError(checks.refusal)

    def _compare(self, key: str, expected: Locations) -> None:
        try:
            found = self._locations(key)
        except PartitioningError as error:  # it was a partition value before
            self._checks.refusal = str(error)
            raise
        if found != expected:
            function = self.function if found[0] != expected[0] else self.alternatives
            self._checks.refusal = f"{function_name(function)} gave two answers for one key. {SAFE}"

    def _locations(self, key: str) -> Locations:
        others = () if self.alternatives is None else _others(self.alternatives, key)
        return _value(self.function, self.function(key)), frozenset(others)


def function_name(function: object) -> str:
    """Name a function as its module and itself, anything else that can be called as its class."""
    named: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _others(function: Callable[[str], Iterable[str]], key: str) -> dict[str, None]:
    answer: object = function(key)
    if isinstance(answer, str) or not isinstance(answer, Iterable):
        raise PartitioningError(
            f"{function_name(function)} has to name other locations in a list: not {type(answer).__name__}"
        )
    return dict.fromkeys(_value(function, each) for each in answer)


def _value(function: Callable[..., object], answer: object) -> str:
    named = f"what {function_name(function)} returns is a partition value, and CustomPartition"
    check_text(answer, named, "partition value")
    return str(answer)
