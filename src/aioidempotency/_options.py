"""The settings of stores and calls, validated at construction."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from math import inf
from types import UnionType
from typing import Literal, final

from aioidempotency import _keys as keys
from aioidempotency import _label
from aioidempotency._core.model import Route, Table
from aioidempotency.codecs import Codec, JsonCodec
from aioidempotency.exceptions import ConfigurationError
from aioidempotency.partitioning import KeySchema, Terms, table_layout
from aioidempotency.partitioning.table_layout import WantedLayout

Duration = float | timedelta

DISABLED = "AIOIDEMPOTENCY_DISABLED"
"""The environment variable that disables stores."""

LONGEST_DURATION = 300 * 365 * 86_400.0
"""Seconds. A longer duration is a mistake, and would exceed the numbers of the record."""


@final
@dataclass(frozen=True, slots=True)
class Wait:
    """The setting of a duplicate that waits for the running call's result, `timeout` seconds at most.

    ```python
    from aioidempotency import AsyncIdempotencyStore, Wait, idempotent

    store = AsyncIdempotencyStore.in_memory()

    @idempotent(store, key="order_id", on_in_progress=Wait(5.0))
    async def charge(order_id: str) -> str:
        return f"receipt for {order_id}"

    print(await charge("1"))
    ```

    A `deadline` around the call ends the wait earlier. After the wait, the duplicate raises `InProgressError`.
    """

    timeout: Duration

    def __post_init__(self) -> None:
        seconds(self.timeout, "Wait(timeout)")


OnInProgress = Literal["raise"] | Wait


@final
class Auto(Enum):
    """The type of `AUTO`."""

    AUTO = "AUTO"

    def __repr__(self) -> str:
        return self.value


AUTO = Auto.AUTO
"""The default of a setting that the store chooses by itself. Users leave the argument out."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A store's settings. Durations are seconds."""

    table: Table
    layout: KeySchema
    namespace: str
    terms: Terms
    read_first: bool
    clock: Callable[[], float]
    codec: Codec = JsonCodec()  # noqa: RUF009 - it has no state
    compress_over: int | None = 32 * 1024
    fail_open: bool = False
    on_completion_failure: Literal["report", "raise"] = "report"
    label: str | Auto | None = None
    disabled: bool = False

    route_of: Callable[[str], Route] = field(init=False, repr=False, compare=False)
    """Names the possible locations of a key's record."""

    def __post_init__(self) -> None:
        self.kept(self.terms.retention)
        # Each call uses the router, so the layout prepares a function once. The class is frozen, hence the detour.
        object.__setattr__(self, "route_of", self.layout.router(self.table))

    def key(self, material: object, namespace: str) -> str:
        """Make a record's key, `namespace#digest`.

        Raises:
            MissingKeyError: The material is None or empty.
            SerializationError: The material has no canonical form.
        """
        return keys.record_key(material, self.namespace, namespace)

    def route(self, material: object, namespace: str) -> Route:
        """Name the possible locations of a key's record."""
        return self.route_of(self.key(material, namespace))

    def wanted_layout(self, retention: float) -> WantedLayout | None:
        """Make the layout that the store expects of the table. None if all layouts of the store's key are alike.

        Args:
            retention: The longest that a record of the store's calls counts, in seconds.
        """
        if self.layout.partitioning is None:
            return None
        return WantedLayout(
            location=table_layout.location_of(self.table, self.namespace),
            description=self.layout.partitioning.description(),
            retention=retention,
        )

    def kept(self, retention: Duration) -> float:
        """Read a retention in seconds.

        Raises:
            ConfigurationError: The retention is longer than claims look back.
        """
        return self._within(seconds(retention, "retention"), "retention", self._longest)

    def protected(self, lease: Duration) -> float:
        """Read a lease in seconds.

        Raises:
            ConfigurationError: The lease is longer than claims look back.
        """
        # A record that expired under its own lease would be vacant while the owner runs. The second is the precision
        # of the attribute `expiration`.
        return self._within(seconds(lease, "lease"), "lease", self._longest - self.terms.clock_skew - 1)

    @property
    def _longest(self) -> float:
        return inf if self.layout.partitioning is None else self.layout.partitioning.longest_retention

    @staticmethod
    def _within(given: float, name: str, longest: float) -> float:
        if given > longest:
            raise ConfigurationError(
                f"{name}={given:g} is longer than the store's windows look back, {longest:g} s; "
                "give TimeBuckets your longest retention: TimeBuckets(..., retention=...)"
            )
        return given


def seconds(duration: Duration, name: str, *, zero: bool = False) -> float:
    """Read a duration in seconds. With `zero`, the duration may be 0.

    Raises:
        ConfigurationError: The duration is no number of seconds, or out of bounds.
    """
    value = duration.total_seconds() if isinstance(duration, timedelta) else duration
    # `True` is an `int`, and no duration.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (0 < value <= LONGEST_DURATION or (zero and value == 0)):
        return float(value)
    bounds = "0 or more" if zero else "above 0"
    raise ConfigurationError(f"{name}= takes seconds or a timedelta, {bounds} and under 300 years: not {duration!r}")


def interval(heartbeat: bool | Duration, lease: float) -> float | None:  # noqa: FBT001 - the value of heartbeat=
    """Read `heartbeat=`: the seconds between two renewals, or None for no renewals.

    Raises:
        ConfigurationError: The interval is longer than a third of the lease.
    """
    if heartbeat is False:
        return None
    if heartbeat is True:
        return lease / 3
    given = seconds(heartbeat, "heartbeat")
    # Two renewals may fail before the lease ends. With a longer interval, one slow answer would cost the lease.
    if given > lease / 3:
        raise ConfigurationError(
            f"heartbeat={given:g} is longer than a third of the lease, {lease / 3:g} s; "
            "give a shorter heartbeat= or a longer lease="
        )
    return given


def patience(on_in_progress: OnInProgress) -> float:
    """Read `on_in_progress=`: the seconds of waiting for another owner.

    Raises:
        ConfigurationError: The value is neither `"raise"` nor a `Wait`.
    """
    if isinstance(on_in_progress, Wait):
        return seconds(on_in_progress.timeout, "Wait(timeout)")
    if on_in_progress != "raise":
        raise ConfigurationError(f"on_in_progress= is 'raise' or Wait(seconds): not {on_in_progress!r}")
    return 0.0


def whole_number(value: int, name: str) -> int:
    """Require a whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{name}= takes a whole number, 0 or more: not {value!r}")
    return value


def labelled(label: str | Auto | None) -> str | Auto | None:
    """Read `label=`, cut to the longest label. `AUTO` stays, because each claim makes the text anew.

    Raises:
        ConfigurationError: The label is neither text nor None, or is empty.
    """
    if label is None or isinstance(label, Auto):
        return label
    if not isinstance(label, str) or not label.strip():
        raise ConfigurationError(f"label= takes a text that is not empty, or None to leave it out: not {label!r}")
    return _label.cut(label)


def one_of(value: str, name: str, choices: tuple[str, ...]) -> None:
    """Require one of the given words."""
    if value not in choices:
        raise ConfigurationError(f"{name}= is {' or '.join(map(repr, choices))}: not {value!r}")


def check_kind(value: object, name: str, kind: type | UnionType) -> None:
    """Require a setting of the given type."""
    if not isinstance(value, kind):
        wanted = getattr(kind, "__name__", str(kind).replace("aioidempotency.partitioning.", ""))
        raise ConfigurationError(f"{name}= takes an instance of {wanted}: not {value!r}")


def flag(value: bool, name: str) -> bool:  # noqa: FBT001 - the value of a setting
    """Require True or False: `"no"` would count as True."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}= is True or False: not {value!r}")
    return value


def check_function(value: object, name: str) -> None:
    """Require a plain function, which is called without await."""
    if not callable(value) or inspect.iscoroutinefunction(value):
        raise ConfigurationError(f"{name}= takes a plain function, which is called without await: not {value!r}")


def check_methods(value: object, name: str, *methods: str) -> None:
    """Require an object with methods. A class is no object of its own."""
    lacking = [method for method in methods if not callable(getattr(value, method, None))]
    if isinstance(value, type) or lacking:
        wanted = " and ".join(f"`{method}`" for method in methods)
        made = f"; write {name}={value.__qualname__}()" if isinstance(value, type) and not lacking else ""
        raise ConfigurationError(f"{name}= takes an object with {wanted}: not {value!r}{made}")


def check_errors(store_errors: tuple[type[Exception], ...]) -> None:
    """Require a tuple of exception classes. A cancellation is no error."""
    if isinstance(store_errors, tuple) and all(isinstance(e, type) and issubclass(e, Exception) for e in store_errors):
        return
    raise ConfigurationError(f"store_errors= takes a tuple of exception classes: not {store_errors!r}")


def disabled_by_environment() -> bool:
    """Read the variable that disables stores.

    Raises:
        ConfigurationError: The variable has an unknown value.
    """
    given = os.environ.get(DISABLED, "")
    word = given.strip().lower()
    if word in {"1", "true"}:
        return True
    # A mistyped value must not decide in silence whether calls are protected.
    if word in {"", "0", "false"}:
        return False
    raise ConfigurationError(f"{DISABLED} is 1 or true, or 0, false or empty: not {given!r}")


def not_disabled(action: str) -> ConfigurationError:
    """Make the error for an action that needs the table, in a disabled store."""
    return ConfigurationError(
        f"the store is disabled, by the environment variable {DISABLED} or by `override(disabled=True)`, and {action} "
        "needs the table; enable the store"
    )


def time_limit(lease: float) -> float:
    """Choose the time limit of one operation, in seconds."""
    # The lease counts from the request, so an answer after the lease is useless, and a late answer leaves no time for
    # a retry. A short lease still allows a slow answer: up to a second, or half of the lease.
    return min(10.0, max(lease / 4, min(1.0, lease / 2)))


def check_table_name(table_name: str, name: str = "table_name") -> None:
    """Require a text for a table's name. What else a name must be, each backend knows."""
    if not isinstance(table_name, str) or not table_name or any("\ud800" <= char <= "\udfff" for char in table_name):
        raise ConfigurationError(f"{name}= {table_name!r} is not a table's name; give a text that is not empty")
