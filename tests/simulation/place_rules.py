"""What must be true of the locations of one key, taken together.

1. One of them holds a record that counts: a running one whose lease is not over, or a finished one that
   lives, by every clock. The writer of another one has missed it.
2. Two kinds of writes may miss it, and nobody may rely on what they wrote: it is a stray. One is a claim
   that arrived later than the library relies on the locations of an instant, where those change with time;
   the other, what a process left on its way that had ended before the layout moved on. A stray is, too,
   what is written where nobody looks any more.
3. While another record counts, a stray is not finished by a call that is under way. That it may be renewed
   keeps no body running: see the rules of bodies.
4. Records end before claims stop to look at their location.
"""

from collections.abc import Iterator

from tests.simulation.calls import EPOCH, Call
from tests.simulation.history import History
from tests.simulation.plan import Plan
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.table import Row, Write
from tests.simulation.table_rules import TICK, lives

RELIED_ON = 10.0
"""Seconds for which the locations of an instant are relied on, where they change with time."""


def counts(plan: Plan, row: Row, time: float) -> bool:
    """Whether a record protects its key, by every clock."""
    return lives(plan, row, time) and (not row.running or EPOCH + time + plan.latest <= row.lease_end + CLOCK_SKEW)


def is_stray(plan: Plan, history: History, write: Write, call: Call) -> bool:
    """Whether a write leaves a record that nobody may rely on."""
    if write.after is None:
        return False
    if EPOCH + write.time > plan.scheme.searched_until(write.location[1], plan.reach) + 1 + CLOCK_SKEW:
        return True
    if not any(lives(plan, row, write.time) for _, row in write.beside):
        return False
    if write.before is not None and write.before.owner == call.owner:
        return history.is_stray(write.key, write.location) and (write.after.running or _has_ended(history, call))
    return (len(plan.stages) > 1 and call.host.name in history.over) or _is_late(
        plan, history, write.after, write, call
    )


def broken_by(plan: Plan, history: History, write: Write, call: Call, *, stray: bool) -> Iterator[str]:
    """Name the rules that a write breaks, told before it is noted. What starts with "counted: " is allowed."""
    after = write.after
    if after is None:
        return
    until = plan.scheme.searched_until(write.location[1], plan.reach)
    if after.expiration > until or (after.running and after.lease_end > until - CLOCK_SKEW + TICK):
        yield f"{call.name} wrote a record that outlasts the time for which its location is looked at"
    if stray:
        yield "counted: a late copy beside a record"
    elif counts(plan, after, write.time) and (other := _other(plan, history, write)) is not None:
        owner = history.owner_of(other)
        what = "relies on a late copy" if history.is_stray(write.key, write.location) else "has a record"
        yield f"{call.name} {what} beside one of {owner.name if owner else '?'} that counts"


def _other(plan: Plan, history: History, write: Write) -> Row | None:
    """Find what counts in another location."""
    others = (row for location, row in write.beside if not history.is_stray(write.key, location))
    return next((row for row in others if counts(plan, row, write.time)), None)


def _is_late(plan: Plan, history: History, after: Row, write: Write, call: Call) -> bool:
    """Whether a write arrived when the locations of its instant were not relied on any more."""
    if plan.scheme.window is None:
        return False
    asked = after.lease_end - call.script.lease
    return call.clock(write.time) - asked > RELIED_ON - TICK if after.running else _has_ended(history, call)


def _has_ended(history: History, call: Call) -> bool:
    return call.ended is not None or call.host.name in history.over
