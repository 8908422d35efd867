"""Contenders: what each has been told, and the step that it takes by that.

Equal contenders are one object, and each step is taken once, however many states it occurs in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import msgspec

from aioidempotency._core.decisions import Claimed
from aioidempotency._core.model import Lease
from aioidempotency._core.operations import Operation, Transact
from aioidempotency._core.protocol import Claim, Completed, Lost, Renewed
from tests.model.calls import FREEING, Call, Ended, Kind, Outcome, Request, Script, rerun
from tests.model.table import Answer
from tests.support.values import replace


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Contender:
    """One contender at one moment.

    Attributes:
        attempt: Its claim, from when it begins until its key is given up or finished.
        lease: What it was told of its lease.
        sure: Whether it goes by that lease: not once a renewal was lost or a completion unanswered.
        again: The call that it has to make next: what it claimed too late is taken back, and then claimed again.
        late: The lease that it takes back.
        request: What it has asked and waits for; None between calls.
        given_up: What its claim had asked last, when it gave that up.
    """

    name: str
    script: Script
    attempts: int
    renewals: int
    attempt: Claim | None = None
    lease: Lease | None = None
    sure: bool = True
    again: Kind | None = None
    late: Lease | None = None
    call: Call | None = None
    answers: tuple[Answer, ...] = ()
    request: Request | None = None
    given_up: Request | None = None

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
        if self.again is not None:
            yield self.again
            return
        if self.attempts and self.script.frees is not None:
            yield self.script.frees
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
        self._begun: dict[tuple[Contender, Kind, float], tuple[Contender, Outcome | None]] = {}
        self._told: dict[tuple[Contender, Answer, bool], tuple[Contender, Outcome | None]] = {}

    def enter(self, name: str, script: Script) -> Contender:
        """Make a contender that has done nothing yet."""
        return self._one(Contender(name=name, script=script, attempts=script.attempts, renewals=script.renewals))

    def begin(self, contender: Contender, kind: Kind, time: float) -> tuple[Contender, Outcome | None]:
        """Begin a call: all that it needs is decided now, by the contender's clock. It may end by that, too."""
        asked = contender, kind, time
        if asked not in self._begun:
            self._begun[asked] = self._begin(contender, kind, time + contender.script.clock)
        return self._begun[asked]

    def tell(self, contender: Contender, answer: Answer, time: float) -> tuple[Contender, Outcome | None]:
        """Answer what a contender has asked; with the outcome when its call ends by that."""
        assert contender.call is not None
        late = contender.call.too_late(time) or contender.call.lapsed(time)
        told = contender, answer, late
        if told not in self._told:
            answered = replace(contender, answers=(*contender.answers, answer))
            self._told[told] = self._go_on(answered, late=late)
        return self._told[told]

    def give_up(self, contender: Contender) -> Contender:
        """End a call without an answer, as a `StoreError` or a cancellation does."""
        assert contender.call is not None
        sure = contender.call.kind == "renew"
        gone = contender.call.kind in {"release", "take back", *FREEING}
        given_up = contender.request if contender.call.kind == "claim" else None
        left = replace(contender, call=None, answers=(), request=None, sure=sure, given_up=given_up)
        return self._one(_apart(left) if gone else left)

    def crash(self, contender: Contender) -> Contender:
        """End a contender's process; it may be started anew as long as it has attempts."""
        return self._one(_apart(contender))

    def _begin(self, contender: Contender, kind: Kind, now: float) -> tuple[Contender, Outcome | None]:
        if kind in {"claim", *FREEING}:
            contender = self._attempting(contender, now)
        if kind == "renew":
            contender = replace(contender, renewals=contender.renewals - 1)
        assert contender.attempt is not None
        lease = contender.late if kind == "take back" else contender.lease
        given_up = contender.given_up if kind == "release" else None
        call = Call(kind, contender.attempt, now, lease, contender.script.clock, given_up)
        return self._go_on(replace(contender, call=call))

    def _attempting(self, contender: Contender, now: float) -> Contender:
        """Make an attempt: as a new owner, or once more."""
        if contender.again is not None:
            assert contender.attempt is not None
            return replace(contender, attempt=replace(contender.attempt, now=now), again=None)
        script = contender.script
        attempt = replace(
            self._terms,
            route=script.route,
            owner=f"{contender.name}{1 + script.attempts - contender.attempts}",
            now=now,
            fingerprint=script.fingerprint,
            read_first=script.read_first,
        )
        return replace(contender, attempt=attempt, attempts=contender.attempts - 1, sure=True, given_up=None)

    def _go_on(self, contender: Contender, *, late: bool = False) -> tuple[Contender, Outcome | None]:
        assert contender.call is not None
        asked = rerun(contender.call, contender.answers)
        if not isinstance(asked, Ended):
            return self._one(replace(contender, request=self._request(contender.call, asked))), None
        if late and isinstance(asked.outcome, Completed | Renewed):  # told as lost, whatever the table says
            return self._one(self._rested(contender, Lost(None), late=late)), None
        return self._one(self._rested(contender, asked.outcome, late=late)), asked.outcome

    def _rested(self, contender: Contender, outcome: Outcome | None, *, late: bool) -> Contender:
        """Be told what a call came to."""
        assert contender.call is not None
        rested = replace(contender, call=None, answers=(), request=None)
        match outcome:
            case Claimed(lease) if late:
                return replace(rested, again="take back", late=lease)
            case Claimed(lease) | Renewed(lease):
                return replace(rested, lease=lease)
            case Lost() if contender.call.kind == "renew":
                return replace(rested, sure=False)
            case None:  # it was taken back
                return replace(rested, again="claim", late=None)
            case _:
                return _apart(rested)

    def _request(self, call: Call, operation: Operation) -> Request:
        return self._requests.setdefault(
            f"{call.kind} {call.attempt!r} {_content(operation)}", Request.of(call, operation)
        )

    def _one(self, contender: Contender) -> Contender:
        each = contender
        content = (
            each.name,
            each.attempts,
            each.renewals,
            each.attempt,
            each.lease,
            each.sure,
            each.again,
            each.late,
            each.call,
            each.answers,
            each.given_up,
        )
        return self._contenders.setdefault(content, each)


def _apart(contender: Contender) -> Contender:
    """Have nothing more to do with the record; what is left are attempts."""
    renewals = contender.script.renewals if contender.attempts else 0
    return Contender(name=contender.name, script=contender.script, attempts=contender.attempts, renewals=renewals)


def _content(operation: Operation) -> str:
    """Write an operation with all its data, which its own `repr` does not show."""
    writes = operation.writes if isinstance(operation, Transact) else (operation,)
    return f"{[type(write).__name__ for write in writes]} {msgspec.json.encode(operation)!r}"
