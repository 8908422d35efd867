"""The model must be able to fail: each fault that is planted in the library breaks an invariant."""

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from aioidempotency._core import conditions, freeing, model, protocol
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Requirement, Unchanged
from aioidempotency._core.model import Role, Status, Table
from aioidempotency._core.operations import Delete
from aioidempotency._core.protocol import Vacant
from tests.model.calls import Script
from tests.model.configurations import COPIES, LAPSED
from tests.model.configurations_with_freeing import FORGETS, SHUTS_OUT
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


SHUTTING_OUT = replace(TWO, scripts=(Script(), Script(), SHUTS_OUT), horizon=2.0)


def _leaving(**wrong: Callable[[Any], Any]) -> Fault:
    """Plant something else in what is left of a record."""
    original = model.vacant

    def vacant(location: Any, **right: Any) -> Any:
        return original(
            location, **{name: wrong[name](value) if name in wrong else value for name, value in right.items()}
        )

    return lambda patch: patch.setattr(model, "vacant", vacant)


def _deleting(patch: pytest.MonkeyPatch) -> None:
    """Delete a running record, whose owner then finds nothing."""
    patch.setattr(freeing, "_freed", lambda found, *_, **__: Delete(found.location, Unchanged(found.item)))


def _dutiless(original: Any) -> Any:
    """Take over what keeps an owner out, and forget about it."""
    return lambda *given: replace(original(*given), freed_by=None)


def _unjudged(patch: pytest.MonkeyPatch) -> None:
    """Forget whatever is there, also what runs."""
    patch.setattr(freeing, "judge_all", lambda *_: Vacant())
    patch.setattr(freeing, "judge", lambda *_: Vacant())


def _found_by_nobody(original: Any) -> Any:
    """Withdraw a claim whatever it may have taken over."""
    return lambda attempt, _: protocol.release(protocol.grant(attempt, attempt.locations[0], 0))


def _expiring_as_usual(_: Any) -> Any:
    return lambda lease, wanted: int(wanted)


FREEING_FAULTS: dict[str, tuple[Configuration, Fault, str]] = {
    "who runs is deleted": (SHUTTING_OUT, _deleting, "invariant (18|19):"),
    "what is left has the same token": (
        SHUTTING_OUT,
        _leaving(fencing_token=lambda token: token - 1),
        "invariant 19: the fencing token",
    ),
    "what is left expires early": (
        SHUTTING_OUT,
        _leaving(expiration=lambda expiration: expiration - 6),
        "invariant 19: what keeps the owner out",
    ),
    "who takes over lets the old owner in": (SHUTTING_OUT, _replacing("take_over", _dutiless), "invariant 18:"),
    "who gives back lets the old owner in": (
        SHUTTING_OUT,
        _replacing("_give_back", lambda _: lambda lease, condition: Delete(lease.location, condition)),
        "invariant 18:",
    ),
    "who gives up lets the old owner in": (
        replace(SHUTTING_OUT, faults=Faults(give_up=1), limits=COPIES),
        _replacing("withdraw", _found_by_nobody),
        "invariant 18:",
    ),
    "who finishes lets the old owner in": (
        replace(SHUTTING_OUT, retention=1.0, horizon=4.0),
        _replacing("finished_until", _expiring_as_usual),
        "invariant (14|18):",
    ),
    "who runs is forgotten": (replace(TWO, scripts=(Script(), FORGETS)), _unjudged, "invariant 19:"),
    "what is left holds up a call": (
        SHUTTING_OUT,
        lambda patch: patch.setattr(model, "FREED", 9_000_000),
        "invariant (10|15|19):",
    ),
}


@pytest.mark.parametrize("name", FREEING_FAULTS)
def test_a_planted_fault_of_freeing_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """C21: as every other one."""
    configuration, plant, invariant = FREEING_FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(ViolationError, match=f"^{invariant}"):
        explore(configuration)


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the invariant that speaks of it, with the way there."""
    configuration, plant, invariant = FAULTS[name]
    plant(monkeypatch)
    with pytest.raises(ViolationError, match=f"^{invariant}") as found:
        explore(configuration)
    assert "begins to claim" in str(found.value)
