"""One write: read from its request, judged against what is stored, applied.

`PutItem`, `UpdateItem` and `DeleteItem` are one action each, `TransactWriteItems` is many, and a
PartiQL statement that writes is one more way to write an action down.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, final

from bench.model.expressions import Request, Tests, resolve
from bench.model.partitions import Demand, Point
from bench.model.refusals import MisfitError, invalid
from bench.model.tables import Database, Table
from bench.model.values import LARGEST_ITEM, Item, Stored, measured_item

_UNIT: Final = 1024
Change = Callable[[Stored | None], Stored | None]
"""What is stored afterwards, given what is stored."""

_COMMON: Final = frozenset(
    {
        "TableName",
        "ConditionExpression",
        "ExpressionAttributeNames",
        "ExpressionAttributeValues",
        "ReturnValuesOnConditionCheckFailure",
    }
)
"""Parameters of every kind of action."""

PARAMETERS: Final[Mapping[str, frozenset[str]]] = {
    "Put": _COMMON | {"Item"},
    "Update": _COMMON | {"Key", "UpdateExpression"},
    "Delete": _COMMON | {"Key"},
    "ConditionCheck": _COMMON | {"Key"},
}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """A write with its condition, or the condition alone."""

    table: Table
    point: Point
    tests: Tests
    change: Change
    shows_refused: bool


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an action comes to: whether its condition holds, and the item before and after."""

    action: Action
    holds: bool
    before: Stored | None
    after: Stored | None

    def demand(self, factor: float = 1.0) -> Demand:
        """Tell what it costs: the larger of both items in steps of 1 KB; refused, both are the stored one."""
        before = 0 if self.before is None else self.before.size
        after = 0 if self.after is None else self.after.size
        units = factor * max(1, -(-before // _UNIT), -(-after // _UNIT))
        return Demand(table=self.action.table.partitions, point=self.action.point, writes=units)

    def apply(self) -> None:
        """Store what is there afterwards."""
        if self.after is not self.before:
            self.action.table.put(self.action.point, self.after)

    @property
    def shown(self) -> Item | None:
        """The item that a refusal brings, if it was asked for."""
        return self.before.item if self.before is not None and self.action.shows_refused else None


def read(kind: str, request: Request, database: Database) -> Action:
    """Read one action of this kind: Put, Update, Delete or ConditionCheck.

    Raises:
        MisfitError: It does not fit the key of its table.
        ServiceError: It would not fit any.
    """
    table = database.table(request)
    fields = ("ConditionExpression", "UpdateExpression") if kind == "Update" else ("ConditionExpression",)
    tests, *assignments = resolve(request, *fields)
    if kind == "ConditionCheck" and not tests:
        raise invalid("The expression can not be empty;")
    shows = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
    if kind == "Put":
        return put(table, request.get("Item"), tests=tests, shows_refused=shows)
    key, point = table.key.named_by(request.get("Key"))
    change = update(table, key, assignments[0]) if kind == "Update" else delete if kind == "Delete" else _keep
    return Action(table=table, point=point, tests=tests, change=change, shows_refused=shows)


def put(table: Table, item: object, *, tests: Tests, shows_refused: bool) -> Action:
    """Make the action that stores a whole item.

    Raises:
        ServiceError: It is no item, does not fit the key of its table, or is too large.
    """
    stored = measured_item(item)
    point = table.key.point(stored.item)
    if stored.size > LARGEST_ITEM:
        raise invalid("Item size has exceeded the maximum allowed size")
    return Action(table=table, point=point, tests=tests, change=lambda _: stored, shows_refused=shows_refused)


def judge(action: Action) -> Outcome:
    """Judge an action against what is stored now; nothing changes yet.

    Raises:
        MisfitError: The item would grow too large.
    """
    before = action.table.get(action.point)
    present: Item = {} if before is None else before.item
    holds = all(test.holds(present) for test in action.tests)
    return Outcome(action=action, holds=holds, before=before, after=action.change(before) if holds else before)


def delete(_: Stored | None) -> None:
    """Store nothing."""


def _keep(before: Stored | None) -> Stored | None:
    return before


def update(table: Table, key: Item, assignments: Tests, removed: tuple[str, ...] = ()) -> Change:
    """Make the change that sets some attributes of an item, removes others, and leaves the rest.

    Raises:
        ServiceError: An attribute is there twice, or is part of the key.
    """
    changes = {each.attribute: each.value for each in assignments}
    if len({*changes, *removed}) != len(assignments) + len(removed):
        raise invalid("Invalid UpdateExpression: Two document paths overlap with each other")
    for name in table.key.names:
        if name in changes or name in removed:
            part = f"Cannot update attribute {name}. This attribute is part of the key"
            raise MisfitError(f"One or more parameter values were invalid: {part}")

    def change(before: Stored | None) -> Stored:
        after = measured_item(_without(removed, {**(key if before is None else before.item), **changes}))
        if after.size > LARGEST_ITEM:
            raise MisfitError("Item size to update has exceeded the maximum allowed size")
        return after

    return change


def _without(removed: tuple[str, ...], item: Item) -> Item:
    return {name: value for name, value in item.items() if name not in removed} if removed else item
