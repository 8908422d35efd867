"""What the table held when, by key: the only thing that calls are judged by."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import final

from tests.simulation.calls import Call
from tests.simulation.plan import Span
from tests.simulation.table import Row, Write


@final
@dataclass(frozen=True, slots=True)
class Held:
    """One record as it was from one write until the next. `until` is infinite for the last."""

    row: Row
    since: float
    until: float


@final
@dataclass
class History:
    """All calls and all writes of a run."""

    calls: dict[str, Call] = field(default_factory=dict)
    _writes: dict[str, list[Write]] = field(default_factory=lambda: defaultdict(list))

    def add(self, write: Write) -> None:
        """Note a write."""
        self._writes[write.key].append(write)

    def owner_of(self, row: Row) -> Call | None:
        """Find the call that a record belongs to."""
        return next((call for call in self.calls.values() if call.owner == row.owner), None)

    def held(self, call: Call) -> Iterator[Held]:
        """Tell what the place of the call's record held."""
        writes = self._writes[call.key]
        for index, write in enumerate(writes):
            until = writes[index + 1].time if index + 1 < len(writes) else float("inf")
            if write.after is not None:
                yield Held(write.after, write.time, until)

    def owned(self, call: Call) -> list[Held]:
        """Tell when the record was running and the call's."""
        return [each for each in self.held(call) if each.row.owner == call.owner and each.row.running]

    def now(self, call: Call) -> Row | None:
        """Read what the place of the call's record holds."""
        writes = self._writes[call.key]
        return writes[-1].after if writes else None

    def away(self, call: Call) -> list[Span]:
        """Tell when another owned the record, after the claim under which this call's body began.

        A copy of that claim that arrives when the other is gone brings the record back.
        """
        began = float("inf") if call.body_began is None else call.body_began
        spans: list[Span] = []
        other: float | None = None
        for held in self.held(call):
            mine = held.row.owner == call.owner
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

    def stored_by(self, call: Call) -> bool:
        """Whether the call's own result was ever stored."""
        return any(not each.row.running and each.row.owner == call.owner for each in self.held(call))

    def still_held(self, call: Call) -> bool:
        """Whether the record has been running and the call's own without a break since it was claimed."""
        owned = self.owned(call)
        unbroken = all(one.until == other.since for one, other in pairwise(owned))
        return bool(owned) and unbroken and owned[-1].until == float("inf")
