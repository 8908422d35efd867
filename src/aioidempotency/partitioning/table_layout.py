"""The layout item: the table's own note of the strategy of a namespace's records.

A changed strategy on live data runs keys twice, without an error: a second attempt looks elsewhere than the first
attempt wrote. So the table notes the strategy of its records, and a store with another strategy is refused at the
first call.

1. One item for each namespace holds the strategy's description, the start of the phase, the strategy before, and the
   longest retentions promised. Without an item, the first store writes its own strategy.
2. A move with `Reshard` has four phases: old, prepare, cutover, new. Nodes of two neighbouring phases
   exclude each other, so a store may be one phase ahead of the table or one phase behind. A store ahead
   moves the item on. Only `aioidempotency layout set` moves the item back.
3. A node that leaves a move stops looking at the locations of one strategy. So `new` waits after the cutover, and `old`
   after the return from the cutover, for the longest retention that any store or call has promised for a record in
   those locations. A store writes its promise before the first record that relies on it, and nobody lowers a promise.
   The two strategies of a move have a promise each. Otherwise a longer call on the last `cutover` node, whose record
   `new` finds, would keep `new` waiting.
4. Stores with `Static` values of their own share a table, as functions of Powertools do. The item lists their values,
   and a store with a new value adds its own. So nobody notices a changed value. A shared namespace does not move: the
   item can follow a single move, and `new` would not find the records of the other values.

Why the promise is a duration, and no instant. The last record of the old locations is finished before `since`, because a
move goes on when no node of the phase before runs any more (`layout set` begins the wait anew then). So that record
answers until `since` and the longest retention at the most: `promised_until`. An instant in the item would have to be
moved on before it is reached, by a read in every process and a write each hour, as long as there are calls, and by a
clock on the path of each call. The duration changes only with a longer retention than any before. A store finds that out
where the options of a call are read, once for each function; the claim then waits for the same flag as the first claim
of a store. A call with a known retention sends nothing and compares nothing. A lease that is longer than the retention
counts as one: a killed call, or `on_error="hold"`, keeps its key until then.

Each clock may differ from the others by `clock_skew`, so a record has answered for its retention less `clock_skew` at the
least. That is what a record of an unmoved table is sure of, too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import cast, final

from aioidempotency._core.conditions import Absent, Condition, Unchanged
from aioidempotency._core.model import Item, Location, Table
from aioidempotency._core.operations import Applied, Put
from aioidempotency._core.placements import Procedure, look
from aioidempotency.exceptions import ConfigurationError, LayoutMismatchError

Description = Mapping[str, object]
"""A strategy in JSON: `{"strategy": the class, argument: value, ...}`."""

KEY = "aioidempotency#layout"
"""The key of the layout item, followed by the namespace. A record's key ends with a digest, so the two never clash."""

ATTEMPTS = 5
"""The most attempts while other stores change the item."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLayout:
    """The strategy of a store.

    Attributes:
        location: The location of the layout item.
        description: The store's strategy.
        retention: The longest that a record of the store counts, in seconds: its retention, or a longer lease.
        promises: Whether the item has to know the retention. Not if somebody only asks.
    """

    location: Location
    description: Description
    retention: float
    promises: bool = True


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """The content of the layout item.

    Attributes:
        description: The strategy of the newest phase.
        since: Epoch seconds at the start of the phase.
        before: The strategy before the phase. None for the first one.
        changes: How often the item was written.
        beside: The values of other `Static` strategies that share the table with a `Static` one.
        promised: The longest retention of a store or a call whose records are put where this phase puts records, in
            seconds. None if the item does not tell.
        promised_before: The same for the other strategy of a move.
    """

    description: Description
    since: float
    before: Description | None = None
    changes: int = 1
    beside: tuple[str, ...] = ()
    promised: float | None = None
    promised_before: float | None = None

    @property
    def promised_until(self) -> float | None:
        """Epoch seconds until which records of a move's other strategy may answer. None if the item does not tell."""
        return None if self.promised_before is None else self.since + self.promised_before

    def lists(self, wanted: Description) -> bool:
        """Tell whether the item lists a `Static` strategy; the values of another kind are never listed."""
        return _is_static(self.description) and (wanted == self.description or wanted.get("value") in self.beside)


@final
@dataclass(frozen=True, slots=True)
class Fits:
    """The store looks where the table's records are. `layout` is the table's note."""

    layout: TableLayout


@final
@dataclass(frozen=True, slots=True)
class Differs:
    """The store would not look where the table's records are. The conflict ends at epoch second `until`, if any."""

    layout: TableLayout
    until: float | None = None


Verdict = Fits | Differs


def location_of(table: Table, namespace: str) -> Location:
    """Find the layout item of a namespace."""
    key = f"{KEY}#{namespace}" if namespace else KEY
    if table.sort_attribute is None:
        return Location(table=table, partition=key)
    return Location(table=table, partition=KEY, sort=key)


def read(location: Location) -> Procedure[TableLayout | None]:
    """Read the table's note."""
    (item,) = yield from look((location,))
    return None if item is None else _parse(item, location)


def verify(wanted: WantedLayout, *, now: float) -> Procedure[Verdict]:
    """Compare a store's strategy with the table's, and write the store's promise if the promise is longer.

    A store one phase ahead moves the item on. A refused store writes nothing.
    """
    return _write_layout(wanted, now=now, requested=False)


def move(wanted: WantedLayout, *, now: float, forced: bool = False) -> Procedure[Verdict]:
    """Write a strategy into the layout item, at most one phase away. The same strategy begins anew.

    `forced`: from any strategy.
    """
    return _write_layout(wanted, now=now, requested=True, forced=forced)


def _write_layout(wanted: WantedLayout, *, now: float, requested: bool, forced: bool = False) -> Procedure[Verdict]:
    given = wanted.retention if wanted.promises else None
    # Who used the table before it had an item is unknown. The best guess for both strategies of a move is this store.
    layout = TableLayout(
        description=wanted.description,
        since=now,
        promised=given,
        promised_before=given if _phases(wanted.description) else None,
    )
    # All stores of a deployment start together, and write the item under a condition. The losers read the item again.
    for _ in range(ATTEMPTS):
        (item,) = yield from look((wanted.location,))
        found = None if item is None else _parse(item, wanted.location)
        if found is not None:
            verdict = Fits(found) if forced else judge(found, wanted, now=now)
            if isinstance(verdict, Differs):
                return verdict
            layout = _next(found, wanted, now=now, requested=requested, forced=forced)
            if layout == found:
                return verdict
            layout = replace(layout, changes=found.changes + 1)
        # Two stores of neighbouring phases may write at once. Without the condition, the later write could move the
        # item back.
        condition: Condition = Absent() if item is None else Unchanged(item)
        reply = yield Put(wanted.location, _item(layout, wanted.location), condition)
        if isinstance(reply, Applied):
            return Fits(layout)
    return Differs(layout)


def _next(found: TableLayout, wanted: WantedLayout, *, now: float, requested: bool, forced: bool) -> TableLayout:
    """Make the note that a fitting store leaves: the same note if the store has nothing to add."""
    given = wanted.retention if wanted.promises else None
    if not forced and _is_static(found.description) and _is_static(wanted.description):
        listed = found.lists(wanted.description)
        beside = found.beside if listed else (*found.beside, str(wanted.description["value"]))
        return replace(found, beside=beside, promised=_longest(found.promised, given))
    steps = _steps(found.description, wanted.description)
    note = found
    if requested or steps == 1:
        before = found.before if steps == 0 else found.description
        note = TableLayout(description=wanted.description, since=now, before=before, changes=found.changes)
    # Nothing is lowered: a store that promised more may have ended long ago, and its records still answer.
    here, left = _carried(found, note.description)
    puts_here = _home(wanted.description) == _home(note.description)
    # A person speaks for all stores, of both phases.
    if puts_here or requested:
        here = _longest(here, given)
    if not puts_here or requested:
        left = _longest(left, given)
    # After a move, nothing is left that could answer from the other locations.
    return replace(note, promised=here, promised_before=left if _phases(note.description) else None)


def _carried(found: TableLayout, description: Description) -> tuple[float | None, float | None]:
    """Assign the item's promises to the two strategies of another phase."""
    if _home(found.description) == _home(description):
        return found.promised, found.promised_before
    if _phases(found.description) and _phases(description):
        return found.promised_before, found.promised
    longest = _longest(found.promised, found.promised_before)  # only by force, so nobody knows where records are
    return longest, longest


def _home(description: Description) -> object:
    """Find the strategy that puts new records."""
    if not _phases(description):
        return description
    return description["old" if description["phase"] == "prepare" else "new"]


def _longest(*promises: float | None) -> float | None:
    return max((each for each in promises if each is not None), default=None)


def judge(found: TableLayout, wanted: WantedLayout, *, now: float) -> Verdict:
    """Compare a store's strategy with the table's note."""
    if _is_static(found.description) and _is_static(wanted.description):
        return Fits(found)
    steps = _steps(found.description, wanted.description)
    if steps is None or abs(steps) > 1 or found.beside:
        return Differs(found)
    if _ends_move(found, wanted.description):
        # Without a promise, the asking store's own retention has to do.
        until = found.since + wanted.retention if found.promised_until is None else found.promised_until
        if now < until:
            return Differs(found, until=until)
    return Fits(found)


def check(verdict: Verdict, wanted: WantedLayout) -> None:
    """Refuse a store that would not look where records are.

    Raises:
        LayoutMismatchError: The strategies differ.
    """
    if isinstance(verdict, Differs):
        found, asked = as_code(verdict.layout.description), as_code(wanted.description)
        raise LayoutMismatchError(wanted.location.table.name, found, asked, advice(verdict))


def advice(trouble: Differs) -> str:
    """Advise on a strategy that does not fit."""
    if trouble.until is not None:
        until = trouble.until
        return (
            f"Records of the other phase may live until the epoch second {until:.0f}: keep the phase before until then"
        )
    if (values := trouble.layout.beside) and _is_static(trouble.layout.description):
        return (
            f"Stores with other values of Static share the namespace ({', '.join(map(repr, values))}), and their records would "
            "not be found. Deploy Static; or, where only one value has live records, have the table forget the others with "
            "`aioidempotency layout set --force`, and move"
        )
    return (
        "Deploy the table's strategy; or move to the other one step by step with Reshard(old, new, phase). If the "
        "layout item is wrong and no record is live, `aioidempotency layout set --force` corrects the item; "
        "verify_layout=False skips the check"
    )


def _is_static(description: Description) -> bool:
    return description["strategy"] == "Static"


def _steps(one: Description, other: Description) -> int | None:
    """Count the phases from one strategy to another. None if the two belong to no common move."""
    if one == other:
        return 0
    for each in (one, other):
        phases = _phases(each)
        if one in phases and other in phases:
            return phases.index(other) - phases.index(one)
    return None


def _phases(move: Description) -> list[Description]:
    """List the four phases of a move. Empty if the description is no `Reshard`."""
    if move["strategy"] != "Reshard":
        return []
    old, new = (cast("Description", move[name]) for name in ("old", "new"))
    return [old, {**move, "phase": "prepare"}, {**move, "phase": "cutover"}, new]


def _ends_move(found: TableLayout, other: Description) -> bool:
    """Tell whether live records may be in locations that nobody looks at after the move."""
    phases = _phases(found.description)
    if other not in phases:
        return False
    old, prepare, cutover, new = phases
    # A table that came back from `new` to the cutover has waited before, and the cutover puts records in `new` only.
    # Before a first cutover, no record is in the locations of `new`, so a return to `old` need not wait.
    if other == new:
        return found.description == cutover and found.before != new
    return other == old and found.before == cutover and found.description == prepare


def as_code(description: Description) -> str:
    """Write a description as the constructor call of the strategy."""
    arguments = {name: value for name, value in description.items() if name != "strategy"}
    return f"{description['strategy']}({', '.join(f'{name}={_argument(value)}' for name, value in arguments.items())})"


def _argument(value: object) -> str:
    return as_code(value) if isinstance(value, Mapping) else repr(value)


def _item(layout: TableLayout, location: Location) -> Item:
    stored: dict[str, object] = {"layout": layout.description, "since": layout.since, "before": layout.before}
    if layout.beside:
        stored["beside"] = layout.beside
    if layout.promised is not None:
        stored["promised"] = layout.promised
    if layout.promised_before is not None:
        stored["promised_before"] = layout.promised_before
    names = location.table.names
    return {
        **location.item,
        names["data"]: {"S": json.dumps(stored)},
        # `Unchanged` compares the fencing token, so the count of changes stands there.
        names["fencing_token"]: {"N": str(layout.changes)},
    }


def _parse(item: Item, location: Location) -> TableLayout:
    names = location.table.names
    try:
        stored = json.loads(str(item[names["data"]]["S"]))
        return TableLayout(
            description=dict(stored["layout"]),
            since=_finite(stored["since"]),
            before=stored["before"],
            changes=int(str(item[names["fencing_token"]]["N"])),
            beside=tuple(map(str, stored.get("beside", ()))),
            promised=_promise(stored.get("promised")),
            promised_before=_promise(stored.get("promised_before")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the item {location.key!r} of table {location.table.name!r} does not name a strategy; "
            "`aioidempotency layout set` cannot repair the item: delete the item, and set the layout anew"
        ) from error


def _promise(stored: object) -> float | None:
    return None if stored is None else _finite(stored)


def _finite(number: object) -> float:
    # JSON of Python has NaN, and no wait would end, or begin, at that instant.
    if not isinstance(number, int | float) or not isfinite(number):
        raise ValueError("no finite number")
    return float(number)
