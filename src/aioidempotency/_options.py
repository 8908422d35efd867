"""Settings as users give them, checked when they are given: of a store, and of calls."""

import re
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

LONGEST_DURATION = 300 * 365 * 86_400.0
"""Seconds; what is longer is a mistake, and would not fit the record's numbers."""


@final
@dataclass(frozen=True, slots=True)
class Wait:
    """What a duplicate of a running call does: wait for its result, `timeout` seconds at the most.

    It waits no longer than a `deadline` around the call allows.
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
"""A setting that the store chooses by itself; users leave the argument out."""


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

    route_of: Callable[[str], Route] = field(init=False, repr=False, compare=False)
    """Says where the record of a key may be."""

    def __post_init__(self) -> None:
        self.kept(self.terms.retention)
        object.__setattr__(self, "route_of", self.layout.router(self.table))

    def key(self, material: object, namespace: str) -> str:
        """Make a record's key, `namespace#digest`.

        Raises:
            MissingKeyError: The material is None or empty.
            SerializationError: The material has no canonical form.
        """
        return keys.record_key(material, self.namespace, namespace)

    def route(self, material: object, namespace: str) -> Route:
        """Say where a key's record may be."""
        return self.route_of(self.key(material, namespace))

    @property
    def wanted_layout(self) -> WantedLayout | None:
        """How the store says that its records lie; None where they cannot lie otherwise."""
        if self.layout.partitioning is None:
            return None
        return WantedLayout(
            location=table_layout.location_of(self.table, self.namespace),
            description=self.layout.partitioning.description(),
            retention=self.terms.retention,
        )

    def kept(self, retention: Duration) -> float:
        """Read a retention; no record lives longer than claims look back."""
        return self._within(seconds(retention, "retention"), "retention", self._longest)

    def protected(self, lease: Duration) -> float:
        """Read a lease; it ends, by every clock, before the second in which its record could expire."""
        return self._within(seconds(lease, "lease"), "lease", self._longest - self.terms.clock_skew - 1)

    @property
    def _longest(self) -> float:
        return inf if self.layout.partitioning is None else self.layout.partitioning.longest_retention

    @staticmethod
    def _within(given: float, name: str, longest: float) -> float:
        if given > longest:
            raise ConfigurationError(
                f"{name}={given:g} is longer than the store's windows look back, {longest:g} s; "
                "give TimeBuckets the longest one: TimeBuckets(..., retention=...)"
            )
        return given


def seconds(duration: Duration, name: str, *, zero: bool = False) -> float:
    """Read a duration; `zero` says whether it may be 0.

    Raises:
        ConfigurationError: It is not a number of seconds, or out of bounds.
    """
    value = duration.total_seconds() if isinstance(duration, timedelta) else duration
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and (0 < value <= LONGEST_DURATION or (zero and value == 0)):
        return float(value)
    bounds = "0 or more" if zero else "above 0"
    raise ConfigurationError(f"{name}= takes seconds or a timedelta, {bounds} and under 300 years: not {duration!r}")


def interval(heartbeat: bool | Duration, lease: float) -> float | None:  # noqa: FBT001 - the value of heartbeat=
    """Read `heartbeat=`: the seconds between two renewals; None for no renewals.

    Raises:
        ConfigurationError: It is longer than a third of the lease.
    """
    if heartbeat is False:
        return None
    if heartbeat is True:
        return lease / 3
    given = seconds(heartbeat, "heartbeat")
    if given > lease / 3:
        raise ConfigurationError(f"heartbeat={given:g} is longer than a third of the lease, {lease / 3:g} s")
    return given


def patience(on_in_progress: OnInProgress) -> float:
    """Read `on_in_progress=`: the seconds to wait for another owner."""
    if isinstance(on_in_progress, Wait):
        return seconds(on_in_progress.timeout, "Wait(timeout)")
    if on_in_progress != "raise":
        raise ConfigurationError(f"on_in_progress= is 'raise' or Wait(seconds): not {on_in_progress!r}")
    return 0.0


def whole_number(value: int, name: str) -> int:
    """Refuse what is not a whole number, 0 or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigurationError(f"{name}= takes a whole number, 0 or more: not {value!r}")
    return value


def labelled(label: str | Auto | None) -> str | Auto | None:
    """Read `label=`: the text of `claimed_by`, or `AUTO` where each claim asks for it."""
    if label is None or isinstance(label, Auto):
        return label
    if not isinstance(label, str) or not label.strip():
        raise ConfigurationError(f"label= takes a text that is not empty, or None to leave it out: not {label!r}")
    return _label.cut(label)


def one_of(value: str, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a word that is not among the choices."""
    if value not in choices:
        raise ConfigurationError(f"{name}= is {' or '.join(map(repr, choices))}: not {value!r}")


def check_kind(value: object, name: str, kind: type | UnionType) -> None:
    """Refuse a setting of another type."""
    if not isinstance(value, kind):
        wanted = getattr(kind, "__name__", str(kind).replace("aioidempotency.partitioning.", ""))
        raise ConfigurationError(f"{name}= takes an instance of {wanted}: not {value!r}")


def check_errors(store_errors: tuple[type[Exception], ...]) -> None:
    """Refuse `store_errors` that are no classes of errors; a cancellation is not an error."""
    if isinstance(store_errors, tuple) and all(isinstance(e, type) and issubclass(e, Exception) for e in store_errors):
        return
    raise ConfigurationError(f"store_errors= takes a tuple of exception classes: not {store_errors!r}")


def time_limit(lease: float) -> float:
    """Bound one operation well below the lease, but leave it the time that a slow answer takes."""
    return min(10.0, max(lease / 4, min(1.0, lease / 2)))


def check_table_name(table_name: str) -> None:
    """Refuse what cannot be the name of a table, or its ARN."""
    if not isinstance(table_name, str) or not re.fullmatch(r"[A-Za-z0-9_.:/-]{1,1024}", table_name):
        raise ConfigurationError(f"{table_name!r} is not a table's name: letters, digits, _, . and -, or an ARN")
