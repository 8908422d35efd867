"""Faults that only several locations can show: each that is planted breaks the invariant that speaks of it."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from aioidempotency._core import placements, protocol
from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import Status
from aioidempotency._core.operations import Check
from tests.model.calls import Script
from tests.model.configurations import COPIES
from tests.model.configurations_over_places import LAPSED, ON_CUTOVER, ON_PREPARE, there
from tests.model.configurations_over_windows import AHEAD, OVER_WINDOWS, PLAIN, SHORT, SHORT_AHEAD
from tests.model.explorer import ViolationError, explore
from tests.model.routes import IN_TIME, WINDOWS, Within, route, windows
from tests.model.setting import Configuration, Faults
from tests.support.values import replace

Fault = Callable[[pytest.MonkeyPatch], None]

MOVE = Configuration(scripts=(ON_PREPARE, ON_CUTOVER))
LAPSED_TWICE = replace(MOVE, start=(LAPSED, there(LAPSED)))
CLOCK_AHEAD = replace(LAPSED_TWICE, scripts=(ON_PREPARE, replace(ON_CUTOVER, clock=5)))
IN_WINDOWS = Configuration(scripts=(PLAIN, AHEAD), arrives_within=2.0)
LONG_LEASES = OVER_WINDOWS["leases as long as windows"].configuration
SHORT_WINDOWS = Configuration(
    scripts=(replace(SHORT, renewals=2), SHORT_AHEAD), retention=1.0, arrives_within=1.0, ends_within=1.0
)


def _in_windows(path: Within) -> Configuration:
    return replace(IN_WINDOWS, scripts=(Script(route=path), Script(route=path, clock=1)))


def _replacing(module: Any, name: str, make: Callable[[Any], Any]) -> Fault:
    """Plant something else for a name; `make` is given the original."""
    return lambda patch: patch.setattr(module, name, make(getattr(module, name)))


def nothing(_: pytest.MonkeyPatch) -> None:
    """Plant nothing: the fault is in how the configuration is set up."""


def _home_only(original: Any) -> Any:
    return property(lambda attempt: original.fget(attempt)[:1])


def _finished_at_home_only(original: Any) -> Any:
    def put(locations: Any, item: Any, seen: Any) -> Any:
        return original(locations[:1] if item["status"]["S"] == Status.COMPLETED else locations, item, seen)

    return put


def _checked(_: Any) -> Any:
    return lambda location, found: Check(location, Absent() if found is None else Unchanged(found))


def _known_to_none(original: Any) -> Any:
    return lambda locations, seen, _=None: original(locations, seen)


def _running_first(_: Any) -> Any:
    def weight(record: Any, attempt: Any) -> Any:
        return record.owner == attempt.owner, record.status is Status.INPROGRESS, record.fencing_token

    return weight


def _nobody(original: Any) -> Any:
    return lambda record, attempt, **options: original(record, replace(attempt, owner=""), **options)


def _same_token(original: Any) -> Any:
    return lambda attempt, location, _: original(attempt, location, round(attempt.now * 1000))


class _LookedAtForEver:
    """A route whose locations are said to be looked at for ever."""

    def __init__(self, route: Any) -> None:
        self._route = route

    def __getattr__(self, name: str) -> Any:
        return getattr(self._route, name)

    def searched_until(self, _: Any) -> float:
        return inf


def _unbounded_leases(patch: pytest.MonkeyPatch) -> None:
    grant, renew = protocol.grant, protocol.renew

    def granting(attempt: Any, location: Any, token: int) -> Any:
        rightly = grant(attempt, location, token)
        lease = grant(replace(attempt, route=_LookedAtForEver(attempt.route)), location, token)
        return replace(lease, route=attempt.route, expiration=rightly.expiration)

    def renewing(lease: Any, **arguments: Any) -> Any:
        outcome = yield from renew(replace(lease, route=_LookedAtForEver(lease.route)), **arguments)
        if isinstance(outcome, protocol.Renewed):
            return protocol.Renewed(replace(outcome.lease, route=lease.route))
        return outcome

    patch.setattr(protocol, "grant", granting)
    patch.setattr(protocol, "renew", renewing)


def _put_anew(original: Any) -> Any:
    def complete(lease: Any, result: Any, **arguments: Any) -> Any:
        return original(replace(lease, route=replace(lease.route, answer_within=inf)), result, **arguments)

    return complete


def _released(_: Any) -> Any:
    def take_back(lease: Any) -> Any:
        yield from protocol.release(lease)

    return take_back


def _own_first(_: Any) -> Any:
    def weight(record: Any, attempt: Any) -> Any:
        return record.owner == attempt.owner, record.status is Status.COMPLETED, record.fencing_token

    return weight


FAULTS: dict[str, tuple[Configuration, Fault, str]] = {
    "a claim ignores the other locations": (MOVE, _replacing(protocol.Claim, "locations", _home_only), "(15|16)"),
    "what is taken over elsewhere is only checked": (MOVE, _replacing(placements, "_cleared", _checked), "16"),
    "what is finished again is put without a look elsewhere": (
        MOVE,
        _replacing(placements, "put", _finished_at_home_only),
        "16",
    ),
    "who loses a take-over judges the winner by its clock": (
        CLOCK_AHEAD,
        _replacing(protocol, "parse_found", _known_to_none),
        "1",
    ),
    "its own write is another's": (
        replace(MOVE, faults=Faults(lost=1)),
        _replacing(protocol, "judge", _nobody),
        "10",
    ),
    "a token does not grow from location to location": (
        LAPSED_TWICE,
        _replacing(protocol, "grant", _same_token),
        "4",
    ),
    "what runs answers before what is finished": (
        LONG_LEASES,
        _replacing(protocol, "_weight", _running_first),
        "(10|17)",
    ),
    "the next window is not looked at": (
        _in_windows(Within(route(replace(windows(retention=6.0), ahead=0.0)), IN_TIME)),
        nothing,
        "16",
    ),
    "an answer counts for ever": (_in_windows(replace(WINDOWS, answer_within=inf)), nothing, "16"),  # type: ignore[arg-type]
    "a result is put in the windows of its beginning": (
        IN_WINDOWS,
        _replacing(protocol, "complete", _put_anew),
        "16",
    ),
    "a lease outlasts the looks at its window": (
        SHORT_WINDOWS,
        _unbounded_leases,
        "(14|16)",
    ),
    "a result outlasts the looks at its window": (
        IN_WINDOWS,
        _replacing(protocol, "expiration_of", lambda _: lambda route, location, wanted: int(wanted)),
        "(15|16|17)",
    ),
    "what is claimed too late is released by its owner": (
        replace(LONG_LEASES, faults=Faults(copy=1), limits=COPIES),
        _replacing(protocol, "take_back", _released),
        "(14|16)",
    ),
    "its own record counts beside another's": (
        replace(LONG_LEASES, faults=Faults(copy=1), limits=COPIES),
        _replacing(protocol, "_weight", _own_first),
        "(14|16|17)",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_over_places_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the invariant that speaks of it, with the way there."""
    configuration, plant, invariant = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(ViolationError, match=f"^invariant {invariant}:") as found:
        explore(configuration)
    assert "begins to claim" in str(found.value)
