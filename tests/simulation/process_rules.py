"""What must be true of one process, by what it knows itself.

1. A duplicate in a process does not take over a body that runs there and has renewed its lease, by the clock of the
   event loop, which nobody sets. Nor does it free the key, unless it shuts the owner out.
2. A body with a heartbeat does not go on past the end of its lease, by the answers that its process got: not for longer
   than a second after a machine that slept has woken, and not at all after its process was stopped. Where its task has
   held another block whose lease was lost first, not for longer than a moment after that block was left.
3. A completion that is refused for want of rights is given up when its lease ends, and no sooner; or after three tries,
   in a process that has never completed anything. An event tells the cause.
4. Such a process runs no other body, until the table has answered one of its completions.
5. Nobody is refused for want of rights but by such a process, or when it completes or renews by hand, or when its
   claim was answered so late that the lease is renewed before its body may begin.
6. No call leaves its task cancelled.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from aioidempotency import ConfigurationError, LeaseLostError, StoreError
from tests.simulation.calls import Call
from tests.simulation.history import History
from tests.simulation.table import Write
from tests.simulation.table_rules import TICK

NOTICED = 1.0
"""Seconds after which a process knows that its machine has slept."""

UNWINDING = 0.1
"""Seconds after which a task that has left one lost block is cancelled for another one."""

LAST_TRY = 0.4
"""Seconds before the end of a lease from which on a completion is not tried again."""

REFUSALS = 3
"""After how many refusals a process takes it that it has no right to complete."""


@final
@dataclass(slots=True)
class Rights:
    """What one process has met of its rights.

    Attributes:
        answered: Whether the table has applied a completion of its: then it has the right, or had it.
        missing_since: Since when it has to know that it has not.
        missed: Whether it may have taken it so, at any time.
    """

    answered: bool = False
    missing_since: float | None = None
    missed: bool = False
    _times: dict[str, int] = field(default_factory=dict)

    def refused(self, call: Call) -> None:
        """Take in that a completion was refused."""
        self._times[call.name] = self._times.get(call.name, 0) + 1
        self.missed |= self._times[call.name] >= REFUSALS and not self.answered

    def times(self, call: Call) -> int:
        """Say how often a call's completion was refused."""
        return self._times.get(call.name, 0)

    def found(self, *, applied: bool) -> None:
        """Take in that a completion was answered: the right is there, even if the condition did not hold."""
        self.answered |= applied
        self.missing_since = None


def at_write(history: History, write: Write, call: Call) -> Iterator[str]:
    """Judge a change of a record whose owner is in the same process."""
    for before in write.replaced:
        owner = history.owner_of(before)
        if owner is None or owner is call or owner.host is not call.host or not before.running:
            continue
        if call.script.manner == "forget" and call.script.shuts_out:
            continue
        block = owner.script.manner not in {"by hand", "at once"}
        runs = owner.body_began is not None and owner.body_began < call.arriving and owner.body_ended is None
        if block and runs and owner.relied_on is not None and call.arriving < owner.relied_on[0] - TICK:
            yield f"{call.name} took the key of {owner.name}, whose body runs in the same process"


def unwound(history: History, call: Call) -> float:
    """Say until when a body may go on whose task was on its way out of another block, of which it had lost the lease."""
    first = next((each for each in history.calls.values() if each.second is call), None)
    if first is None or not isinstance(first.outcome, LeaseLostError):
        return 0.0
    return (first.ended or 0.0) + UNWINDING


def at_body_end(history: History, call: Call, ended: float) -> Iterator[str]:
    """Judge for how long a body went on."""
    if not call.script.heartbeat or call.relied_on is None:
        return
    lease_ends = until = call.relied_on[1]
    for begins, ends in call.host.stopped:
        asleep = any(ends == woken for _, woken in call.host.asleep)
        if begins < ended:
            until = max(until, ends + (NOTICED if asleep else 0.0))
    until = max(until, unwound(history, call))
    if ended > until + TICK:
        yield f"the body of {call.name} went on for {ended - until:.3f} s past the end of its lease"
    elif ended > lease_ends + TICK:
        yield "counted: ran on when woken"


def at_giving_up(
    history: History, rights: Rights, call: Call, cause: BaseException | None, now: float
) -> Iterator[str]:
    """Judge a completion that is given up."""
    if cause is None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            yield f"{call.name} gave its completion up, and does not say why"
        return
    if not isinstance(cause, ConfigurationError):
        if not isinstance(cause, StoreError):
            yield f"{call.name} gave its completion up for {type(cause).__name__}"
        return
    yield "counted: a completion is given up for want of rights"
    hopeless = rights.times(call) >= REFUSALS and not rights.answered
    if hopeless:
        if not any(history.stored_by(each) for each in history.beside(call)):
            rights.missing_since = now
    elif call.relied_on is not None and now < call.relied_on[0] - LAST_TRY - TICK:
        yield f"{call.name} gave its completion up {call.relied_on[0] - now:.3f} s before the end of its lease"


def at_begin(rights: Rights, call: Call) -> Iterator[str]:
    """Judge a body that begins: its first request may not have left when the right was known to be missing."""
    missing = rights.missing_since
    if missing is not None and call.requests and call.requests[0].sent > missing + TICK:
        yield f"{call.name} runs in a process that cannot store any result"


def at_refusal(rights: Rights, call: Call) -> Iterator[str]:
    """Judge a call that is told that rights are missing."""
    yield "counted: refused for want of rights"
    itself = call.refusals and (call.script.manner == "by hand" or call.body_began is None)
    if not rights.missed and not itself:
        yield f"{call.name} was refused for want of rights, and they are not missing"
