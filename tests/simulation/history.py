"""What the table held when, by key: the only thing that calls are judged by."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import final

from tests.simulation.calls import Call
from tests.simulation.plan import Span
from tests.simulation.table import Place, Row, Write


@final
@dataclass(slots=True)
class Held:
    """One record as it was in one location, from one write until the next. `until` is infinite for the last.

    `stray` says that nobody may rely on it: a late copy of a claim, beside another record that counts.
    """

    location: Place
    row: Row
    since: float
    stray: bool
    until: float = float("inf")


@final
@dataclass
class History:
    """All calls and all writes of a run. `over` names the processes that have ended, `freed` the keys."""

    over: set[str] = field(default_factory=set)
    freed: set[str] = field(default_factory=set)
    calls: dict[str, Call] = field(default_factory=dict)
    _writes: dict[str, list[Write]] = field(default_factory=lambda: defaultdict(list))
    _held: dict[str, list[Held]] = field(default_factory=lambda: defaultdict(list))
    _last: dict[tuple[str, Place], Held] = field(default_factory=dict)

    def add(self, write: Write, *, stray: bool = False) -> None:
        """Note a write."""
        self._writes[write.key].append(write)
        for location in (write.location, *(each for each, _ in write.cleared)):
            before = self._last.pop((write.key, location), None)
            if before is not None:
                before.until = write.time
        if write.after is not None:
            held = self._last[write.key, write.location] = Held(write.location, write.after, write.time, stray)
            self._held[write.key].append(held)

    def is_stray(self, key: str, location: Place) -> bool:
        """Whether what is in a location is a stray."""
        held = self._last.get((key, location))
        return held is not None and held.stray

    def owner_of(self, row: Row) -> Call | None:
        """Find the call that a record belongs to."""
        return next((call for call in self.calls.values() if call.owner == row.owner), None)

    def beside(self, call: Call) -> Iterator[Call]:
        """Find the calls of the same process, the call among them."""
        return (each for each in self.calls.values() if each.host is call.host)

    def held(self, call: Call) -> Iterator[Held]:
        """Tell what the locations of the call's record held, in the order in which it was written."""
        return iter(self._held[call.key])

    def owned(self, call: Call) -> list[Held]:
        """Tell when the record was running and the call's."""
        return [each for each in self.held(call) if each.row.owner == call.owner and each.row.running]

    def away(self, call: Call) -> list[Span]:
        """Tell when another owned the record, after the claim under which this call's body began.

        A copy of that claim that arrives when the other is gone brings the record back.
        """
        began = float("inf") if call.body_began is None else call.body_began
        spans: list[Span] = []
        other: float | None = None
        for held in self.held(call):
            mine = held.row.owner == call.owner
            if held.stray:
                continue
            if mine and held.since <= began:
                spans, other = [], None
            elif mine and other is not None:
                spans, other = [*spans, (other, held.since)], None
            elif not mine and held.row.running and other is None:
                other = held.since
        return spans if other is None else [*spans, (other, float("inf"))]

    def last_of(self, call: Call) -> Write | None:
        """Find the last change that the call made."""
        return next((each for each in reversed(self._writes[call.key]) if each.sender == call.name), None)

    def changes(self, call: Call) -> int:
        """Count the changes of the call's record by others since it has started."""
        return sum(each.time >= (call.started or 0.0) and each.sender != call.name for each in self._writes[call.key])

    def stored_by(self, call: Call) -> bool:
        """Whether the call's own result was ever stored."""
        return any(not each.row.running and each.row.owner == call.owner for each in self.held(call))

    def still_held(self, call: Call) -> bool:
        """Whether the record has been running and the call's own without a break since it was claimed."""
        owned = self.owned(call)
        until = owned[0].until if owned else 0.0
        for each in owned[1:]:
            if each.since <= until:
                until = max(until, each.until)
        return until == float("inf")
