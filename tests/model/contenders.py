"""Contenders: what each may do, and its procedure, rebuilt from the answers it was given.

A generator cannot be copied. So a contender is a value: the call that it is in, and the answers
that it has had. To learn what it asks next, its procedure is run again from the start. Equal
contenders are one object, and each step is taken once, however many states it occurs in.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, final

from aioidempotency._core import placements, protocol
from aioidempotency._core.decisions import Claimed, Decision
from aioidempotency._core.model import Encoded, Lease
from aioidempotency._core.operations import Applied, Found, Get, Operation, Refused, Reply
from aioidempotency._core.protocol import Claim, Completed, Lost, Released, Renewed
from tests.model.table import PLACE, Cell

Kind = Literal["claim", "renew", "complete", "release"]
Outcome = Decision | Completed | Renewed | Released | Lost
Answer = tuple[Literal["applied", "refused", "found"], Cell | None]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one contender does: claim, then any of its renewals, then complete or release.

    Attributes:
        clock: Seconds that its clock is ahead.
        attempts: How often it may claim, each time as a new owner: a caller that tries again.
        ends: How it may end what it has claimed.
    """

    clock: float = 0.0
    fingerprint: str | None = None
    read_first: bool = False
    renewals: int = 0
    attempts: int = 1
    ends: tuple[Kind, ...] = ("complete", "release")


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One procedure with its arguments. `now` is its contender's clock when it began."""

    kind: Kind
    attempt: Claim
    now: float
    lease: Lease | None

    def procedure(self) -> placements.Procedure[Any]:
        """Start the procedure."""
        if self.kind == "claim":
            return protocol.claim(self.attempt)
        if self.kind == "release":
            return protocol.release(PLACE, self.attempt.owner)
        assert self.lease is not None
        if self.kind == "renew":
            return protocol.renew(self.lease, now=self.now, clock_skew=self.attempt.clock_skew)
        return protocol.complete(self.lease, Encoded(result_of(self.attempt.owner)), now=self.now)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """An operation on its way to the table, and the call that sent it."""

    call: Call
    operation: Operation


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Contender:
    """One contender at one moment.

    Attributes:
        attempt: Its claim, from when it begins until its key is given up or finished.
        lease: What it was told of its lease.
        sure: Whether it goes by that lease: not once a renewal was lost or a completion unanswered.
        request: What it has asked and waits for; None between calls.
    """

    name: str
    script: Script
    attempts: int
    renewals: int
    attempt: Claim | None = None
    lease: Lease | None = None
    sure: bool = True
    call: Call | None = None
    answers: tuple[Answer, ...] = ()
    request: Request | None = None

    @property
    def untouched(self) -> bool:
        """Whether it has not begun at all."""
        return self.attempt is None and self.attempts == self.script.attempts

    @property
    def runs(self) -> bool:
        """Whether its body runs, and goes by the lease: not once it completes or releases."""
        return self.lease is not None and self.sure and (self.call is None or self.call.kind == "renew")

    @property
    def choices(self) -> Iterator[Kind]:
        """Which calls it may begin now."""
        if self.call is not None:
            return
        if self.attempts and self.lease is None:
            yield "claim"
        if self.lease is not None and self.sure and self.renewals:
            yield "renew"
        if self.lease is not None and "complete" in self.script.ends:
            yield "complete"
        if self.attempt is not None and ("release" in self.script.ends or self.lease is None):
            yield "release"


@final
class Troupe:
    """Makes contenders and takes their steps; each distinct one once."""

    def __init__(self, terms: Claim) -> None:
        self._terms = terms
        self._contenders: dict[object, Contender] = {}
        self._requests: dict[str, Request] = {}
        self._begun: dict[tuple[Contender, Kind, float], Contender] = {}
        self._told: dict[tuple[Contender, Answer], tuple[Contender, Outcome | None]] = {}

    def enter(self, name: str, script: Script) -> Contender:
        """Make a contender that has done nothing yet."""
        return self._one(Contender(name=name, script=script, attempts=script.attempts, renewals=script.renewals))

    def begin(self, contender: Contender, kind: Kind, time: float) -> Contender:
        """Begin a call: all that it needs is decided now, by the contender's clock."""
        asked = contender, kind, time
        if asked not in self._begun:
            self._begun[asked] = self._begin(contender, kind, time + contender.script.clock)
        return self._begun[asked]

    def tell(self, contender: Contender, answer: Answer) -> tuple[Contender, Outcome | None]:
        """Answer what a contender has asked; with the outcome when its call ends by that."""
        told = contender, answer
        if told not in self._told:
            self._told[told] = self._go_on(replace(contender, answers=(*contender.answers, answer)))
        return self._told[told]

    def give_up(self, contender: Contender) -> Contender:
        """End a call without an answer, as a `StoreError` or a cancellation does."""
        assert contender.call is not None
        sure = contender.call.kind == "renew"
        gone = contender.call.kind == "release"
        left = replace(contender, call=None, answers=(), request=None, sure=sure)
        return self._one(_apart(left) if gone else left)

    def crash(self, contender: Contender) -> Contender:
        """End a contender's process; it may be started anew as long as it has attempts."""
        return self._one(_apart(contender))

    def _begin(self, contender: Contender, kind: Kind, now: float) -> Contender:
        if kind == "claim":
            owner = f"{contender.name}{1 + contender.script.attempts - contender.attempts}"
            script = contender.script
            attempt = replace(
                self._terms, owner=owner, now=now, fingerprint=script.fingerprint, read_first=script.read_first
            )
            contender = replace(contender, attempt=attempt, attempts=contender.attempts - 1, sure=True)
        if kind == "renew":
            contender = replace(contender, renewals=contender.renewals - 1)
        assert contender.attempt is not None
        call = Call(kind, contender.attempt, now, contender.lease)
        begun, outcome = self._go_on(replace(contender, call=call))
        assert outcome is None, "a procedure ended before it asked anything"
        return begun

    def _go_on(self, contender: Contender) -> tuple[Contender, Outcome | None]:
        assert contender.call is not None
        asked = _rerun(contender.call, contender.answers)
        if not isinstance(asked, Ended):
            return self._one(replace(contender, request=self._request(contender.call, asked))), None
        rested = replace(contender, call=None, answers=(), request=None)
        if isinstance(asked.outcome, Claimed | Renewed):
            return self._one(replace(rested, lease=asked.outcome.lease)), asked.outcome
        if contender.call.kind == "renew":
            return self._one(replace(rested, sure=False)), asked.outcome
        return self._one(_apart(rested)), asked.outcome

    def _request(self, call: Call, operation: Operation) -> Request:
        return self._requests.setdefault(f"{call.kind} {call.attempt!r} {operation!r}", Request(call, operation))

    def _one(self, contender: Contender) -> Contender:
        each = contender
        content = (
            each.name,
            each.attempts,
            each.renewals,
            each.attempt,
            each.lease,
            each.sure,
            each.call,
            each.answers,
        )
        return self._contenders.setdefault(content, each)


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """A procedure has returned this."""

    outcome: Outcome


def result_of(owner: str) -> str:
    """Name the result that the body of this owner comes to."""
    return f'"{owner}"'


def _rerun(call: Call, answers: tuple[Answer, ...]) -> Operation | Ended:
    """Run a procedure as far as these answers lead."""
    procedure: placements.Procedure[Any] = call.procedure()
    try:
        operation = next(procedure)
        for answer in answers:
            operation = procedure.send(_reply(answer))
    except StopIteration as end:
        return Ended(end.value)
    return operation


def _reply(answer: Answer) -> Reply:
    kind, cell = answer
    item = None if cell is None else cell.item
    if kind == "applied":
        return Applied()
    return Refused(item) if kind == "refused" else Found(item)


def _apart(contender: Contender) -> Contender:
    """Have nothing more to do with the record; what is left are attempts."""
    renewals = contender.script.renewals if contender.attempts else 0
    return Contender(name=contender.name, script=contender.script, attempts=contender.attempts, renewals=renewals)


def reads(request: Request) -> bool:
    """Say whether a request changes nothing, whenever it arrives."""
    return isinstance(request.operation, Get)
