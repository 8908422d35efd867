"""Calls while they are simulated: what each one is to do, and what is known of it so far."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, final

from tests.simulation.plan import Host, Script, Span
from tests.simulation.table import digest

EPOCH = 1_700_000_000.0
"""What a right clock says at the start of a run."""

How = Literal["value", "fails", "declines", "refused", "cancelled", "died"]


class BodyFailedError(Exception):
    """A body failed in a way that nobody stores."""


class DeclinedError(Exception):
    """A body failed in a way that is its result."""


@final
@dataclass(slots=True)
class Request:
    """One request on its way, or a copy of one. `arrived` counts the requests that had arrived before."""

    sent: float
    troubled: bool
    arrived: int | None = None


@final
@dataclass(slots=True)
class Call:
    """One call.

    Attributes:
        owner: The owner that was drawn for it.
        acknowledged: Until when, by its own clock, the table's answers say that it holds its lease.
        overdue: Whether anything was answered when the lease was over that it held by the answers before.
        failures: When it was told that the store did not answer.
        shut_out_at: When its key was taken from it while it ran.
        effects_applied: How often the effects that it commits with its result were applied.
        relied_on: The instants of the run between which its lease ends, by the answers that it got and its loop's
            clock. Where nobody sets the clock, they are one.
        renewing: Until when its last renewal that was refused was to extend the lease, and when it left.
        arriving: When the request was sent that has just arrived.
        refusals: How often it was refused the right to update its record.
        given_up: When it gave its completion up, and said so.
        second: The call whose block it holds as well.
        cancels: How often its caller has cancelled its task.
    """

    script: Script
    host: Host
    owner: str | None = None
    started: float | None = None
    ended: float | None = None
    cancelled_at: float | None = None
    body_began: float | None = None
    body_ended: float | None = None
    body_how: How | None = None
    acknowledged: float = 0.0
    overdue: bool = False
    requests: list[Request] = field(default_factory=list)
    failures: list[float] = field(default_factory=list)
    impatient: bool = False
    shut_out_at: float | None = None
    effects_applied: int = 0
    relied_on: Span | None = None
    renewing: Span | None = None
    arriving: float = 0.0
    refusals: int = 0
    given_up: float | None = None
    second: "Call | None" = None
    cancels: int = 0
    outcome: object = None

    @property
    def name(self) -> str:
        """What the trace calls it."""
        return self.script.name

    @property
    def key(self) -> str:
        """The key of its record, as the table has it."""
        return f"sim#{digest(self.script.key)}"

    @property
    def payload(self) -> str | None:
        """Its fingerprint, as the table has it."""
        return None if self.script.payload is None else digest(self.script.payload)

    @property
    def interval(self) -> float:
        """Seconds between two renewals."""
        return self.script.lease / 3

    def clock(self, now: float) -> float:
        """Read its process's clock."""
        return EPOCH + now + self.host.off(now)

    def latest(self, now: float) -> float:
        """The most that its process's clock has read since the call has started, or a little more."""
        return EPOCH + now + max(self.host.offs(self.started or 0.0, now))

    def earliest(self, first: float, last: float) -> float:
        """The least that its process's clock has read from one instant to another, or a little less."""
        return EPOCH + first + min(self.host.offs(first, last))

    @property
    def undisturbed(self) -> bool:
        """Whether all its requests arrived and were answered in time, in the order in which they were sent."""
        arrivals = [request.arrived for request in self.requests if request.arrived is not None]
        whole = len(arrivals) == len(self.requests) and not any(each.troubled for each in self.requests)
        return whole and not self.impatient and arrivals == sorted(arrivals)


CALL: ContextVar[Call | None] = ContextVar("CALL", default=None)
"""The call that the current callback works for."""
