"""Playing procedures without a store: by scripted replies, or against items held in a dictionary."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar, get_args

from aioidempotency._core import records
from aioidempotency._core.conditions import holds
from aioidempotency._core.model import AttributeNames, AttributeValue, Item, Lease, Location, Role, Table
from aioidempotency._core.operations import Applied, Found, Get, Operation, Put, Refused, Reply, Update
from aioidempotency._core.protocol import Claim, Procedure

T = TypeVar("T")

NOW = 1_700_000_000.0
SIMPLE = Table("records", "id", None, AttributeNames())
RENAMED = Table(
    "renamed",
    "part",
    "sort",
    AttributeNames(
        status="s",
        expiration="e",
        in_progress_expiration="ipe",
        data="d",
        validation="v",
        owner="o",
        fencing_token="f",
        encoding="c",
    ),
)
PLACE = Location(table=SIMPLE, partition="shop#1234")
RENAMED_PLACE = Location(table=RENAMED, partition="bucket#7", sort="shop#1234")
"""Procedures are played here: no attribute has the name of its role, so none is found by luck."""


@dataclass(frozen=True)
class Played(Generic[T]):
    """What a procedure asked, in order, and what it came to."""

    operations: tuple[Operation, ...]
    outcome: T


def play(procedure: Procedure[T], *replies: Reply) -> Played[T]:
    """Answer a procedure's operations with these replies: all of them, and no more are asked for."""
    asked: list[Operation] = []
    waiting = list(replies)
    try:
        operation = next(procedure)
        while True:
            asked.append(operation)
            assert waiting, f"nothing is scripted to answer {operation}"
            operation = procedure.send(waiting.pop(0))
    except StopIteration as end:
        assert not waiting, f"the procedure ended before {waiting}"
        return Played(tuple(asked), end.value)


class Shelf:
    """One table's items: every write is judged by `conditions.holds`, as a backend would."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str | None], Item] = {}

    def answer(self, operation: Operation) -> Reply:
        """Execute one operation."""
        location = operation.location
        place = (location.partition, location.sort)
        found = self.items.get(place)
        if isinstance(operation, Get):
            return Found(found)
        if not holds(operation.condition, found, location.table):
            return Refused(found)
        if isinstance(operation, Put):
            self.items[place] = operation.item
        elif isinstance(operation, Update):
            self.items[place] = {**(found or location.item), **named(location.table, operation.changes)}
        else:
            self.items.pop(place, None)
        return Applied()

    def run(self, procedure: Procedure[T]) -> T:
        """Execute a whole procedure, undisturbed."""
        try:
            operation = next(procedure)
            while True:
                operation = procedure.send(self.answer(operation))
        except StopIteration as end:
            outcome: T = end.value
            return outcome


def named(table: Table, values: Mapping[Role, AttributeValue]) -> dict[str, AttributeValue]:
    """Call the attributes what the table calls them."""
    return {table.names[role]: value for role, value in values.items()}


def attempt(**changes: Any) -> Claim:
    """One claim by the owner "me" at `NOW`: a lease of 60 s, a retention of an hour, a skew of 1 s."""
    made = Claim(location=RENAMED_PLACE, owner="me", now=NOW, lease=60.0, retention=3600.0, clock_skew=1.0)
    return replace(made, **changes)


def held(**changes: Any) -> Lease:
    """The lease that `attempt()` is granted."""
    made = Lease(
        location=RENAMED_PLACE,
        owner="me",
        fencing_token=1_700_000_000_000,
        expires_at=NOW + 60,
        expiration=1_700_003_600,
        duration=60.0,
        retention=3600.0,
    )
    return replace(made, **changes)


Attributes = dict[str, str | int | None]


def stored(location: Location = RENAMED_PLACE, /, **attributes: str | int | None) -> Item:
    """An item of another owner, running since 10 s; None takes an attribute away, a number is written as N."""
    wanted: Attributes = {
        "status": "INPROGRESS",
        "expiration": 1_700_003_590,
        "in_progress_expiration": 1_700_000_050_000,
        "owner": "other",
        "fencing_token": 1_699_999_990_000,
        **attributes,
    }
    assert wanted.keys() <= set(get_args(Role)), "an attribute that no record has"
    given = {role: _wire(value) for role, value in wanted.items() if value is not None}
    return {**location.item, **{location.table.names[role]: value for role, value in given.items()}}


def done(location: Location = RENAMED_PLACE, /, **attributes: str | int | None) -> Item:
    """An item that another owner has finished."""
    return stored(location, **{"status": "COMPLETED", "data": '"first"', **attributes})


def parsed(item: Item) -> Any:
    """Read an item as the procedures do."""
    return records.parse(item, RENAMED_PLACE)


def _wire(value: str | int) -> AttributeValue:
    return {"S": value} if isinstance(value, str) else {"N": str(value)}
