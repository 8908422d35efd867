"""What must be true where keys are freed while others contend for them.

1. Nobody frees what is free already. Without the wish to shut an owner out, no record is freed whose lease is not over by the
   caller's clock and `clock_skew`.
2. A running record from which its owner is to be shut out is not deleted: what is left in its place has the caller's
   owner, no payload, and a lease that is over by every clock, and expires no earlier.
3. An owner that was shut out changes the key's record no more, whatever it asks, whenever that arrives, and whoever
   has claimed and given back in between. It may claim anew, with a larger token: it had not heard of its claim yet.
4. So whoever takes over a record that keeps an owner out says the same in its own; and whoever gives such a
   record back, or frees it, leaves another one. This ends when the record has expired, by a claimant's clock or by TTL's.
   A late copy of the old owner's claim may come into a window that is not looked at, where nobody relies on it.
5. Each of these has a larger fencing token than the one in whose place it is.
6. Who is told that there was nothing to free has missed no result that lived all the while.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from tests.simulation.calls import Call
from tests.simulation.history import History
from tests.simulation.plan import Plan
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.table import Place, Row, Write
from tests.simulation.table_rules import TICK, lives


@final
@dataclass
class Doors:
    """Who is shut out of which key, with the token of the record that was taken from it."""

    plan: Plan
    history: History
    _until: dict[str, int] = field(default_factory=dict)
    _out: dict[str, dict[str | None, int]] = field(default_factory=lambda: defaultdict(dict))

    def expires(self, write: Write) -> None:
        """Take in a deletion by TTL."""
        if any(row.freed for row in write.replaced):
            self._out[write.key].clear()

    def broken_by(self, write: Write, call: Call, *, stray: bool) -> Iterator[str]:
        """Name the rules that a write breaks. A stray may come back: nobody relies on it."""
        out, after = self._out[write.key], write.after
        if call.owner in out and not stray:
            if after is not None and after.running and not after.left and after.token > out[call.owner]:
                del out[call.owner]
            else:
                yield f"{call.name} was shut out, and is back"
        for location, before in write.before_by_location:
            left = write.after_by_location.get(location)
            if call.script.manner == "forget":
                yield from self._frees(write, call, before, left)
            else:
                yield from self._replaces(write, call, before)

    def _frees(self, write: Write, call: Call, before: Row, left: Row | None) -> Iterator[str]:
        shuts_out = call.script.shuts_out and before.running
        if before.left:
            yield f"{call.name} freed what is free"
        if before.running and not shuts_out and call.latest(write.time) < before.lease_end + CLOCK_SKEW - TICK:
            yield f"{call.name} freed a key that is running"
        if left is not None:
            yield from _leaves(call, before, left)
        elif shuts_out:
            yield f"{call.name} deleted a record, and does not keep its owner out"
        elif before.freed:
            yield f"{call.name} deleted a record that keeps an owner out"
        if shuts_out:
            self._out[write.key][before.owner] = before.token
            self._until[write.key] = 0 if left is None else left.expiration
            owner = self.history.owner_of(before)
            if owner is not None:
                owner.shut_out_at = write.time

    def _replaces(self, write: Write, call: Call, before: Row) -> Iterator[str]:
        """Judge a claim, a completion or a release by what it replaces."""
        after = write.after
        living = lives(self.plan, before, write.time)
        if after is None:
            if before.freed and living:
                yield f"{call.name} gave back a record that keeps an owner out, and left none"
        elif after.left:
            if not before.freed:
                yield f"{call.name} left a record that keeps nobody out"
            if after.token <= before.token:
                yield f"{call.name} left a record with a fencing token that did not grow"
            # A renewal that was not answered yet may have made the record's own life longer.
            if after.expiration < min(before.expiration, self._until.get(write.key, 0)):
                yield f"{call.name} left a record that expires before an owner need not be kept out"
        elif before.freed and not after.freed:
            if living:
                yield f"{call.name} took over a record that keeps an owner out, and does not"
            self._out[write.key].clear()
        elif before.owner != after.owner and after.token <= before.token:
            yield f"{call.name} took over with a fencing token that did not grow"


def _leaves(call: Call, before: Row, left: Row) -> Iterator[str]:
    if not left.left or left.owner != call.owner or left.payload is not None:
        yield f"{call.name} left a record that is somebody's"
    if left.token <= before.token:
        yield f"{call.name} left a record with a fencing token that did not grow"
    if left.expiration < before.expiration:
        yield f"{call.name} left a record that expires before the one in whose place it is"


def at_end(plan: Plan, history: History, call: Call, *, freed: bool, now: float) -> Iterator[str]:
    """Judge what a caller is told that frees a key."""
    began = call.started or 0.0
    late = 3 * plan.weather.limit + sum(ends - begins for begins, ends in call.host.stopped)
    there = [each for each in history.held(call) if each.until >= began - late]
    if freed and not there:
        yield f"{call.name} was told that it has freed a key, and there was nothing"
    missed = (each for each in there if not each.row.running and not each.stray and lives(plan, each.row, now))
    if not freed and any(each.since < began and each.until > now for each in missed):
        yield f"{call.name} was told that there is nothing to free, and there is a result"


def counting(row: Row | None) -> Row | None:
    """Take what is left of a record for nothing: it answers nobody, and holds up nobody."""
    return None if row is None or row.left else row


def plain(write: Write) -> Write | None:
    """See a write as if nothing were left of records; None where it changes nothing then."""
    others = tuple((place, row) for place, row in write.cleared if not row.left)
    before, after = counting(write.before), counting(write.after)
    if before is None and after is None and not others:
        return None
    beside: tuple[tuple[Place, Row], ...] = tuple((place, row) for place, row in write.beside if not row.left)
    return Write(
        time=write.time,
        key=write.key,
        sender=write.sender,
        location=write.location,
        before=before,
        after=after,
        with_effects=write.with_effects,
        cleared=others,
        beside=beside,
    )
