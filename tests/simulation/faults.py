"""Faults to plant in the library, one at a time: the simulation must find each of them.

This is white-box by nature.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import anyio
import pytest

from aioidempotency import _call, _waiting
from aioidempotency._call import Call
from aioidempotency._core import model, protocol
from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.decisions import Claimed, InProgress
from aioidempotency._core.model import Record, Status
from aioidempotency._core.operations import Put, Update
from aioidempotency._core.protocol import Claim, Vacant
from aioidempotency._lease import Leases, RunningLease
from aioidempotency._records import Records
from aioidempotency._waiting import InFlightCall
from tests.simulation.planting import (
    ANYTHING,
    claiming,
    judging,
    nothing,
    nothing_async,
    on,
    requirements,
    rewriting,
    unconditional,
    without,
)
from tests.support.values import replace


@final
@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what is wrong, what the simulation must say of it, and how it is planted.

    With `windows`, only runs with windows of time can show it; with `short`, only runs whose results answer for a
    moment, and few of those; with `promised`, only verified moves with calls or deployments of different retentions.
    """

    name: str
    symptom: str
    plant: Callable[[pytest.MonkeyPatch], None]
    windows: bool = False
    short: bool = False
    promised: bool = False


def _unchanged_ignored(patch: pytest.MonkeyPatch) -> None:
    requirements(patch, lambda condition, required: () if isinstance(condition, Unchanged) else required)


def _without_until(operation: Any) -> Any:
    if not isinstance(operation, Update) or not isinstance(operation.condition, HeldBy):
        return operation
    return replace(operation, condition=HeldBy(operation.condition.owner))


def _reviving(operation: Any) -> Any:
    if not isinstance(operation, Update):
        return operation
    changes = {**operation.changes, "status": {"S": Status.INPROGRESS.value}}
    return Update(operation.location, changes, ANYTHING)


def _finished_is_vacant(judge: Callable[..., Any], record: Any, attempt: Claim) -> Any:
    return Vacant() if record.status is Status.COMPLETED else judge(record, attempt)


def _lapsed_is_running(judge: Callable[..., Any], record: Any, attempt: Claim) -> Any:
    verdict = judge(record, attempt)
    lapsed = isinstance(verdict, Vacant) and record.status is Status.INPROGRESS
    return InProgress(record, 1.0) if lapsed else verdict


def _refused_runs(attempt: Claim, decision: Any) -> Any:
    token = model.milliseconds(attempt.now)
    return (
        Claimed(protocol.grant(attempt, attempt.locations[0], token)) if isinstance(decision, InProgress) else decision
    )


def _told_more(attempt: Claim, decision: Any) -> Any:
    if not isinstance(decision, Claimed):
        return decision
    return Claimed(replace(decision.lease, expires_at=decision.lease.expires_at + attempt.clock_skew))


def _same_token(patch: pytest.MonkeyPatch) -> None:
    real = protocol.grant
    patch.setattr(protocol, "grant", lambda attempt, location, _: real(attempt, location, 1))


def _read_then_write(patch: pytest.MonkeyPatch) -> None:
    claiming(lambda attempt: replace(attempt, read_first=True), lambda _, decision: decision)(patch)
    rewriting("claim", lambda operation: unconditional(operation) if isinstance(operation, Put) else operation)(patch)


def _completion_swallowed(patch: pytest.MonkeyPatch) -> None:
    async def complete(self: Records, lease: Any, result: Any) -> Record:
        item = model.finished(lease, result, expiration=round(self.now() + lease.retention))
        return model.parse(item, lease.location)

    patch.setattr(Records, "complete", complete)


def _refused_before_the_answer(patch: pytest.MonkeyPatch) -> None:
    real = _waiting.follow

    async def follow(other: InFlightCall, attempt: Callable[[], Claim], *, gives_up: float) -> Any:
        if other.record is None and not other.over:
            made = attempt()
            lease = protocol.grant(made, made.locations[0], 0)
            return InProgress(model.parse(model.running(lease), lease.location), 0.0)
        return await real(other, attempt, gives_up=gives_up)

    patch.setattr(_call, "follow", follow)


def _lease_from_the_wait(patch: pytest.MonkeyPatch) -> None:
    entered: dict[Call, float] = {}
    enter, decided = Call.__aenter__, Call._decided

    async def entering(self: Call) -> Any:
        entered[self] = anyio.current_time()
        return await enter(self)

    def deciding(self: Call, decision: Any, loop: asyncio.AbstractEventLoop) -> Any:
        execution = decided(self, decision, loop)
        if self._running is not None:
            self._running.since = entered[self]
        return execution

    patch.setattr(Call, "__aenter__", entering)
    patch.setattr(Call, "_decided", deciding)


async def _impatient(refusal: InProgress, *_: Any, **__: Any) -> InProgress:
    return refusal


def _as_attempted(attempt: Claim) -> Claim:
    return attempt


UNLOCKED = "took over a lease .* before it was over"
STUCK = "locked past its lease"
KEPT = "did not give its key back"
RAN_ON = "the body of .* went on"

FAULTS = (
    Fault("a write does not check the owner", "deleted another's|another's owner", without("owner")),
    Fault("a finished record counts as held", "its stored result", without("status")),
    Fault("a completion has no condition", "another's owner", rewriting("complete", unconditional)),
    Fault("a release has no condition", "deleted another's", rewriting("release", unconditional)),
    Fault("a renewal does not insist on the end", "its lease's end nearer", rewriting("renew", _without_until)),
    Fault("a renewal revives a finished record", "revived", rewriting("renew", _reviving)),
    Fault("a take-over ignores Unchanged", f"{UNLOCKED}|overwrote a stored result", _unchanged_ignored),
    Fault("a claim reads, and then writes unconditionally", f"{UNLOCKED}|overwrote a stored", _read_then_write),
    Fault(
        "a first claim does not insist on absence",
        f"{UNLOCKED}|overwrote a stored",
        rewriting("claim", on(Put, lambda put: unconditional(put) if isinstance(put.condition, Absent) else put)),
    ),
    Fault(
        "the judge ignores the fingerprint",
        "another payload",
        judging(lambda judge, record, attempt: judge(record, replace(attempt, fingerprint=None))),
    ),
    Fault(
        "the judge subtracts the clock skew",
        UNLOCKED,
        judging(lambda judge, record, attempt: judge(record, replace(attempt, clock_skew=-attempt.clock_skew))),
    ),
    Fault(
        "the judge does not know its own owner",
        STUCK,
        judging(lambda judge, record, attempt: judge(record, replace(attempt, owner="nobody"))),
    ),
    Fault("the judge takes a finished record for vacant", "overwrote a stored", judging(_finished_is_vacant)),
    Fault("the judge never finds a lease over", STUCK, judging(_lapsed_is_running)),
    Fault("every claim has the same fencing token", "token that did not grow", _same_token),
    Fault("a refused claim runs", "without ever having owned", claiming(_as_attempted, _refused_runs)),
    Fault("a lease is said to be longer than it is", "after the table's", claiming(_as_attempted, _told_more)),
    Fault("a lost lease does not stop the body", RAN_ON, nothing(RunningLease, "lose")),
    Fault("a heartbeat never begins", RAN_ON, nothing(Leases, "keep")),
    Fault("a lease is counted from the start of the wait", "lease is lost, and it is not", _lease_from_the_wait),
    Fault("a completion is swallowed", "result was not stored", _completion_swallowed),
    Fault("a cancelled claim is not given back", KEPT, nothing_async(Records, "give_back")),
    Fault("a failed body does not give its key back", KEPT, nothing_async(Call, "_release")),
    Fault("a duplicate is refused before the claim is answered", STUCK, _refused_before_the_answer),
    Fault(
        "a duplicate does not wait",
        "before its patience had ended",
        lambda patch: patch.setattr(_call, "poll", _impatient),
    ),
    Fault("a call that ends wakes nobody", "a call never ends", nothing(InFlightCall, "wake")),
)
