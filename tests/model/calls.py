"""What a contender may do, and its procedure, rebuilt from the answers it was given.

A generator cannot be copied. So a call is a value: the procedure's arguments, and the answers that it
has had. To learn what it asks next, the procedure is run again from the start.
"""

from dataclasses import dataclass
from typing import Any, Literal, final

from aioidempotency._core import freeing, placements, protocol
from aioidempotency._core.decisions import Decision
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.model import Lease, Location, Locations, Route, SerializedResult
from aioidempotency._core.operations import Get, GetAll, Operation
from aioidempotency._core.protocol import Claim, Completed, Contended, Lost, Released, Renewed
from tests.model.table import PLACE, Answer, reply, written

Kind = Literal["claim", "renew", "complete", "release", "take back", "forget", "shut out"]
Outcome = Decision | Completed | Renewed | Released | Lost | Contended | Forgotten


FREEING: tuple[Kind, Kind] = ("forget", "shut out")
"""The calls that free a key, and leave it to the next claim."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What one contender does: claim, then any of its renewals, then complete or release.

    Attributes:
        route: Where it looks for the record, and puts it.
        clock: Seconds that its clock is ahead.
        attempts: How often it may claim, each time as a new owner: a caller that tries again.
        ends: How it may end what it has claimed.
        frees: It claims nothing, and frees the key: as often as it has attempts, with or without shutting an owner out.
    """

    route: Route = PLACE
    clock: float = 0.0
    fingerprint: str | None = None
    read_first: bool = False
    renewals: int = 0
    attempts: int = 1
    ends: tuple[Kind, ...] = ("complete", "release")
    frees: Kind | None = None


@final
@dataclass(frozen=True, slots=True)
class Call:
    """One procedure with its arguments. `now` is its contender's clock when it began, `clock` seconds ahead.

    `given_up` is what a claim had sent last that is given back.
    """

    kind: Kind
    attempt: Claim
    now: float
    lease: Lease | None
    clock: float
    given_up: "Request | None" = None

    @property
    def location(self) -> Location:
        """Where the record is put, or was put."""
        return self.attempt.locations[0] if self.lease is None else self.lease.location

    def procedure(self) -> placements.Procedure[Any]:
        """Start the procedure."""
        if self.kind == "claim":
            return protocol.claim(self.attempt)
        if self.kind in FREEING:
            return freeing.forget(self.attempt, running=self.kind == "shut out")
        if self.kind == "release":
            sent = () if self.given_up is None else (self.given_up.operation,)
            return protocol.withdraw(self.attempt, sent) if self.lease is None else protocol.release(self.lease)
        assert self.lease is not None
        if self.kind == "take back":
            return protocol.take_back(self.lease)
        if self.kind == "renew":
            return protocol.renew(self.lease, now=self.now, clock_skew=self.attempt.clock_skew)
        return protocol.complete(self.lease, SerializedResult(result_of(self.attempt.owner)), now=self.now)

    def age(self, time: float) -> float:
        """Say how long ago it began."""
        return time + self.clock - self.now

    def too_late(self, time: float) -> bool:
        """Say whether what is claimed then is not relied upon any more."""
        return self.kind == "claim" and self.age(time) > self.attempt.route.answer_within

    def lapsed(self, time: float) -> bool:
        """Say whether the lease is over by then where that alone ends it."""
        return self.lease is not None and protocol.lapsed(self.lease, now=time + self.clock)


@final
@dataclass(frozen=True, eq=False, slots=True)
class Request:
    """An operation on its way to the table, and the call that sent it."""

    call: Call
    operation: Operation
    written: Locations
    reads: bool

    @classmethod
    def of(cls, call: Call, operation: Operation) -> "Request":
        """Make it. One that reads changes nothing, whenever it arrives."""
        return cls(call, operation, written(operation), isinstance(operation, Get | GetAll))


@final
@dataclass(frozen=True, slots=True)
class Ended:
    """A procedure has returned this."""

    outcome: Outcome | None


def result_of(owner: str) -> str:
    """Name the result that the body of this owner comes to."""
    return f'"{owner}"'


def rerun(call: Call, answers: tuple[Answer, ...]) -> Operation | Ended:
    """Run a procedure as far as these answers lead."""
    procedure: placements.Procedure[Any] = call.procedure()
    try:
        operation = next(procedure)
        for answer in answers:
            operation = procedure.send(reply(answer))
    except StopIteration as end:
        return Ended(end.value)
    return operation
