"""The model must be able to fail: each fault that is planted in the library breaks an invariant."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from aioidempotency._core import conditions, protocol
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Requirement, Unchanged
from aioidempotency._core.model import Role, Status, Table
from tests.model.calls import Script
from tests.model.configurations import COPIES, LAPSED
from tests.model.explorer import ViolationError, explore
from tests.model.setting import Configuration, Faults
from tests.support.values import replace

Fault = Callable[[pytest.MonkeyPatch], None]

TWO = Configuration(scripts=(Script(renewals=1), Script()))
A_COPY = replace(TWO, faults=Faults(copy=1), limits=COPIES)
A_LOST_ANSWER = replace(TWO, faults=Faults(lost=1))
BEHIND = Configuration(scripts=(Script(clock=-1), Script()))
OTHERS = Configuration(scripts=(Script(fingerprint="f"), Script(fingerprint="g")))
SHORT = replace(TWO, retention=0.5)
TOKEN_AHEAD = replace(TWO, start=(LAPSED,))


def _forgetting(kind: type[Condition], *roles: Role) -> Fault:
    """Plant conditions of this kind that do not look at these attributes."""
    original = conditions.requirements

    def requirements(condition: Condition, table: Table) -> tuple[Requirement, ...]:
        spelled = original(condition, table)
        return tuple(each for each in spelled if not isinstance(condition, kind) or each[0] not in roles)

    return lambda patch: patch.setattr(conditions, "requirements", requirements)


def _judging(**wrong: Callable[[Any, Any], Any]) -> Fault:
    """Plant a judgement that takes the record or the attempt for another."""
    original = protocol.judge
    taken = {"record": lambda record, _: record, "attempt": lambda _, attempt: attempt, **wrong}

    def judge(record: Any, attempt: Any, **options: Any) -> Any:
        return original(taken["record"](record, attempt), taken["attempt"](record, attempt), **options)

    return lambda patch: patch.setattr(protocol, "judge", judge)


def _replacing(name: str, make: Callable[[Any], Any]) -> Fault:
    """Plant something else for a name of `protocol`; `make` is given the original."""
    return lambda patch: patch.setattr(protocol, name, make(getattr(protocol, name)))


def _lapsed_is_free(record: Any, attempt: Any) -> Any:
    over = record.status is Status.INPROGRESS and record.lease_ends_at + attempt.clock_skew < attempt.now
    return replace(attempt, fingerprint=None) if over else attempt


def _always_renewed(original: Any) -> Any:
    def renew(lease: Any, **arguments: Any) -> Any:
        outcome = yield from original(lease, **arguments)
        return protocol.Renewed(lease) if isinstance(outcome, protocol.Lost) else outcome

    return renew


def _always_completed(original: Any) -> Any:
    def complete(lease: Any, result: Any, **arguments: Any) -> Any:
        outcome = yield from original(lease, result, **arguments)
        return protocol.Completed(outcome.record) if isinstance(outcome, protocol.Lost) and outcome.record else outcome

    return complete


def _expiring_early(original: Any) -> Any:
    return lambda attempt, *rest: replace(original(attempt, *rest), expiration=int(attempt.now + attempt.retention))


def _same_token(original: Any) -> Any:
    return lambda attempt, location, _: original(attempt, location, round(attempt.now * 1000))


FAULTS: dict[str, tuple[Configuration, Fault, str]] = {
    "a claim puts, whatever is there": (TWO, _forgetting(Absent, "key"), "invariant 1:"),
    "anyone holds a running record": (TWO, _forgetting(HeldBy, "owner"), "invariant 2:"),
    "a finished record is held": (A_LOST_ANSWER, _forgetting(HeldBy, "status"), "invariant 3:"),
    "a renewal comes late": (
        replace(TWO, scripts=(Script(renewals=2),), faults=Faults(copy=1)),
        _forgetting(HeldBy, "in_progress_expiration"),
        "invariant 6:",
    ),
    "a finished record is unchanged": (
        replace(TWO, scripts=(Script(), Script())),
        _forgetting(Unchanged, "status", "expiration", "in_progress_expiration"),
        "invariant 3:",
    ),
    "a renewed record is unchanged": (
        TWO,
        _forgetting(Unchanged, "expiration", "in_progress_expiration"),
        "invariant 1:",
    ),
    "no skew is allowed for": (BEHIND, _judging(attempt=lambda _, it: replace(it, clock_skew=0.0)), "invariant [17]:"),
    "a lease is over an instant too early": (
        BEHIND,
        _judging(attempt=lambda _, it: replace(it, now=it.now + 0.001)),
        "invariant [17]:",
    ),
    "a record expires a second too early": (
        replace(TWO, retention=4.0),
        _judging(record=lambda it, _: replace(it, expiration=it.expiration - 1)),
        "invariant (3|15):",
    ),
    "a record never expires": (SHORT, _judging(record=lambda it, _: replace(it, expiration=inf)), "invariant (9|15):"),
    "a lapsed lease frees the key for any request": (OTHERS, _judging(attempt=_lapsed_is_free), "invariant (5|15):"),
    "a result answers any request": (
        OTHERS,
        _judging(attempt=lambda _, it: replace(it, fingerprint=None)),
        "invariant (9|15):",
    ),
    "its own write is another's": (
        A_LOST_ANSWER,
        _judging(attempt=lambda _, it: replace(it, owner="")),
        "invariant 10:",
    ),
    "a lease is never over": (
        TWO,
        _judging(record=lambda it, _: replace(it, in_progress_expiration=9e9)),
        "invariant 15:",
    ),
    "a record expires before its lease ends": (SHORT, _replacing("grant", _expiring_early), "invariant 6:"),
    "a token does not grow": (TOKEN_AHEAD, _replacing("grant", _same_token), "invariant 4:"),
    "a lost renewal is told as one": (TWO, _replacing("renew", _always_renewed), "invariant 13:"),
    "a lost completion is told as one": (TWO, _replacing("complete", _always_completed), "invariant 11:"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the invariant that speaks of it, with the way there."""
    configuration, plant, invariant = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(ViolationError, match=f"^{invariant}") as found:
        explore(configuration)
    assert "begins to claim" in str(found.value)
