"""The layout item: the strategy by which the records of a namespace are spread over the table.

A changed strategy on live data is silent double execution: a second attempt looks where the first attempt did not
write. So the table keeps the strategy of its records, and refuses a store that would look elsewhere.

1. Each namespace has one item, with the description of the strategy, its beginning, and the strategy before. The
   first store that opens the table writes the item.
2. A move with `Reshard` has four phases: old, prepare, cutover, new. Nodes of two neighbouring phases exclude each
   other, so a store may be one phase ahead of the table or one behind. A store that is ahead moves the item on.
   Only `aioidempotency layout set` moves the item back.
3. The phase after a move no longer looks at one strategy's locations. So `new` waits for a retention since the
   cutover, and `old` since the return from the move.
4. Stores with `Static` values of their own share a table, as functions of Powertools do. The item lists their values;
   a store with a new value adds its own. So nobody notices a changed value. A table that is shared so does not
   move: the item can follow one move only, and records of the other values would not be found by `new`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import cast, final

from aioidempotency._core.conditions import Absent, Condition, Unchanged
from aioidempotency._core.model import Item, Location, Table
from aioidempotency._core.operations import Applied, Put
from aioidempotency._core.placements import Procedure, look
from aioidempotency.exceptions import ConfigurationError, LayoutMismatchError

Description = Mapping[str, object]
"""A strategy in JSON's terms: `{"strategy": its class, argument: value, ...}`."""

KEY = "aioidempotency#layout"
"""The key of the layout item; a namespace follows it. No record's key looks so: each ends with a digest."""

ATTEMPTS = 5
"""How often the item may change while it is looked at."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class WantedLayout:
    """How a store says that its records lie.

    Attributes:
        location: Where the layout item is.
        description: The store's strategy.
        retention: Seconds that its records answer.
    """

    location: Location
    description: Description
    retention: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TableLayout:
    """What the layout item says.

    Attributes:
        description: The strategy of the newest phase that has begun.
        since: Epoch seconds at which it began.
        before: The strategy before it; None where there was none.
        changes: How often the item was written.
        beside: The values of other `Static` strategies that share the table with a `Static` one.
    """

    description: Description
    since: float
    before: Description | None = None
    changes: int = 1
    beside: tuple[str, ...] = ()

    def lists(self, wanted: Description) -> bool:
        """Tell whether the item lists a `Static` strategy; the values of another kind are never listed."""
        return _is_static(self.description) and (wanted == self.description or wanted.get("value") in self.beside)


@final
@dataclass(frozen=True, slots=True)
class Fits:
    """The store looks where the table's records are. `layout` is what the table says now."""

    layout: TableLayout


@final
@dataclass(frozen=True, slots=True)
class Differs:
    """The store would not look where records are; from the epoch second `until` on it would, if there is one."""

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
    """Read what the table says."""
    (item,) = yield from look((location,))
    return None if item is None else _parse(item, location)


def verify(wanted: WantedLayout, *, now: float) -> Procedure[Verdict]:
    """Hold a store's strategy against the table's; move the item on where the store is a phase ahead."""
    return _settle(wanted, now=now, commanded=False)


def move(wanted: WantedLayout, *, now: float, forced: bool = False) -> Procedure[Verdict]:
    """Have the table say this strategy, at most one phase from what it says; the same one begins anew.

    `forced`: whatever it says.
    """
    return _settle(wanted, now=now, commanded=True, forced=forced)


def _settle(wanted: WantedLayout, *, now: float, commanded: bool, forced: bool = False) -> Procedure[Verdict]:
    layout = TableLayout(description=wanted.description, since=now)
    for _ in range(ATTEMPTS):
        (item,) = yield from look((wanted.location,))
        found = None if item is None else _parse(item, wanted.location)
        if found is not None:
            verdict = Fits(found) if forced else judge(found, wanted, now=now)
            if isinstance(verdict, Differs):
                return verdict
            if not forced and _is_static(found.description) and _is_static(wanted.description):
                if found.lists(wanted.description):
                    return verdict
                beside = (*found.beside, str(wanted.description["value"]))
                layout = replace(found, beside=beside, changes=found.changes + 1)
            else:
                steps = _steps(found.description, wanted.description)
                if not (commanded or steps == 1):
                    return verdict
                before = found.before if steps == 0 else found.description
                layout = TableLayout(
                    description=wanted.description, since=now, before=before, changes=found.changes + 1
                )
        condition: Condition = Absent() if item is None else Unchanged(item)
        reply = yield Put(wanted.location, _item(layout, wanted.location), condition)
        if isinstance(reply, Applied):
            return Fits(layout)
    return Differs(layout)


def judge(found: TableLayout, wanted: WantedLayout, *, now: float) -> Verdict:
    """Say whether a store looks where the table's records are."""
    if _is_static(found.description) and _is_static(wanted.description):
        return Fits(found)
    steps = _steps(found.description, wanted.description)
    if steps is None or abs(steps) > 1 or found.beside:
        return Differs(found)
    if _leaves(found, wanted.description) and now < found.since + wanted.retention:
        return Differs(found, until=found.since + wanted.retention)
    return Fits(found)


def check(verdict: Verdict, wanted: WantedLayout) -> None:
    """Refuse a store that would not look where records are.

    Raises:
        LayoutMismatchError: It would not.
    """
    if isinstance(verdict, Differs):
        found, asked = as_code(verdict.layout.description), as_code(wanted.description)
        raise LayoutMismatchError(wanted.location.table.name, found, asked, advice(verdict))


def advice(trouble: Differs) -> str:
    """Say what to do about a strategy that does not fit."""
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
        "Deploy what the table says; or move to the other one step by step with Reshard(old, new, phase). Where the "
        "table's word is wrong and no record is live, `aioidempotency layout set --force` changes it; verify_layout=False "
        "looks away"
    )


def _is_static(description: Description) -> bool:
    return description["strategy"] == "Static"


def _steps(one: Description, other: Description) -> int | None:
    """Count the phases from one strategy to another; None where no one move has both."""
    if one == other:
        return 0
    for each in (one, other):
        phases = _phases(each)
        if one in phases and other in phases:
            return phases.index(other) - phases.index(one)
    return None


def _phases(move: Description) -> list[Description]:
    """List the four phases of the move that a description belongs to; none where it is no `Reshard`."""
    if move["strategy"] != "Reshard":
        return []
    old, new = (cast("Description", move[name]) for name in ("old", "new"))
    return [old, {**move, "phase": "prepare"}, {**move, "phase": "cutover"}, new]


def _leaves(found: TableLayout, other: Description) -> bool:
    """Tell whether records may be in the places that are not looked at any more once a move is left."""
    phases = _phases(found.description)
    if other not in phases:
        return False
    old, prepare, cutover, new = phases
    if other == new:
        return found.description == cutover and found.before != new
    return other == old and found.before == cutover and found.description == prepare


def as_code(description: Description) -> str:
    """Write a description as the call that makes the strategy."""
    arguments = {name: value for name, value in description.items() if name != "strategy"}
    return f"{description['strategy']}({', '.join(f'{name}={_argument(value)}' for name, value in arguments.items())})"


def _argument(value: object) -> str:
    return as_code(value) if isinstance(value, Mapping) else repr(value)


def _item(layout: TableLayout, location: Location) -> Item:
    said: dict[str, object] = {"layout": layout.description, "since": layout.since, "before": layout.before}
    if layout.beside:
        said["beside"] = layout.beside
    names = location.table.names
    return {
        **location.item,
        names["data"]: {"S": json.dumps(said)},
        names["fencing_token"]: {"N": str(layout.changes)},
    }


def _parse(item: Item, location: Location) -> TableLayout:
    names = location.table.names
    try:
        said = json.loads(str(item[names["data"]]["S"]))
        return TableLayout(
            description=dict(said["layout"]),
            since=float(said["since"]),
            before=said["before"],
            changes=int(str(item[names["fencing_token"]]["N"])),
            beside=tuple(map(str, said.get("beside", ()))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the item {location.key!r} of table {location.table.name!r} does not say how records lie; "
            "`aioidempotency layout set` cannot mend it: delete the item, and set the layout anew"
        ) from error
