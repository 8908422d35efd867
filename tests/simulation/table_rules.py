"""What must be true of each write, whatever the library says about it.

1. A call writes records that it owns, and nothing else: it replaces another's only by claiming, or by a commit
   that needs no claim, to which the rules of claims apply.
2. A finished record does not change while it lives by every clock.
3. A running record is claimed by another only when its lease is over by the claimant's own clock and
   `clock_skew`; where the clocks agree, that is after its true end.
4. Claiming over a record gives a larger fencing token.
5. A record that lives is never claimed for another payload.
6. A renewal keeps the record running, changes its ends only, and never brings the lease's end nearer, but for what its
   clock was set back.
   Before its body begins, and to store its result, a call may also claim anew what it had claimed.
7. A completion stores what the call's own body came to.
8. Nobody gives back the key of finished work, nor one that is to be held; but a claim that came too late to
   store it may be taken back.
"""

from collections.abc import Iterator

from tests.simulation.calls import EPOCH, Call
from tests.simulation.plan import Plan
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.table import Row, Write
from tests.support.values import replace

TICK = 0.002
"""Seconds that are lost in rounding."""


def lives(plan: Plan, row: Row, time: float) -> bool:
    """Whether a record counts by every clock."""
    return EPOCH + time + plan.latest <= row.expiration


def differ(one: str | None, other: str | None) -> bool:
    """Whether two fingerprints belong to two requests; none fits any."""
    return one != other and None not in {one, other}


def broken_by(plan: Plan, write: Write, call: Call, *, was_stray: bool) -> Iterator[str]:
    """Name the rules that a write breaks. A stray is nobody's: its writer may take it back at any time."""
    after = write.after
    if after is not None and after.owner != call.owner:
        yield f"{call.name} wrote a record with another's owner"
    elif after is not None and not write.replaced:
        yield from _appears(after, call)
    for before in write.replaced:
        if before.owner != call.owner:
            yield from _claims_over(plan, write, before, call)
        elif not (was_stray and after is None):
            yield from _changes_own(plan, write, before, call)


def _appears(after: Row, call: Call) -> Iterator[str]:
    if not after.running:
        yield from _stores(after, call)


def _claims_over(plan: Plan, write: Write, before: Row, call: Call) -> Iterator[str]:
    after = write.after
    if after is None:
        yield f"{call.name} deleted another's record"
    elif not before.running and lives(plan, before, write.time):
        yield f"{call.name} overwrote a stored result that lives"
    elif not after.running and call.script.manner != "at once":
        yield f"{call.name} stored its result over another's record"
    else:
        early = before.lease_end + CLOCK_SKEW - call.latest(write.time)
        if before.running and early > TICK:
            yield f"{call.name} took over a lease {early:.3f} s before it was over"
        if after.token <= before.token:
            yield f"{call.name} took over with a fencing token that did not grow"
        if lives(plan, before, write.time) and differ(before.payload, after.payload):
            yield f"{call.name} took over the key of another payload"


def _changes_own(plan: Plan, write: Write, before: Row, call: Call) -> Iterator[str]:
    after = write.after
    if after is None:
        yield from _gives_back(write.time, before, call)
    elif not before.running:
        if after.running and call.latest(write.time) <= before.expiration:
            yield f"{call.name} revived its finished record"
        elif lives(plan, before, write.time):
            yield f"{call.name} changed its stored result"
    elif not after.running:
        yield from _stores(after, call)
    elif after.token > before.token and (call.body_began is None or call.body_ended is not None):
        return
    elif after != replace(before, lease_end=after.lease_end, expiration=after.expiration):
        yield f"{call.name} changed more than the ends of its running record"
    elif after.lease_end < before.lease_end - TICK - call.host.set_back(call.started or 0.0, write.time):
        yield f"{call.name} brought its lease's end nearer by {before.lease_end - after.lease_end:.3f} s"


def _stores(after: Row, call: Call) -> Iterator[str]:
    unstorable = call.script.ending == "unstorable"
    if call.body_how not in {"value", "declines"}:
        yield f"{call.name} stored a result, and its body came to {call.body_how}"
    elif after.author != (None if unstorable else call.name):
        yield f"{call.name} stored what its body did not return"


def _gives_back(write_time: float, before: Row, call: Call) -> Iterator[str]:
    if not before.running:
        yield f"{call.name} deleted its stored result"
    elif call.body_ended is not None and before.token / 1000 >= call.earliest(call.body_ended, write_time) - TICK:
        return  # it was claimed anew, for the result alone
    elif call.body_how in {"value", "declines"}:
        yield f"{call.name} gave back the key of finished work"
    elif call.script.on_error == "hold" and call.body_began is not None:
        yield f"{call.name} gave back a key that is to be held"
