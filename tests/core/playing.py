"""Playing procedures without a store: by scripted replies, or against items held in a dictionary."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeVar, get_args

from aioidempotency._core import model
from aioidempotency._core.conditions import holds
from aioidempotency._core.model import AttributeNames, AttributeValue, Item, Lease, Location, Locations, Role, Table
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Effect,
    Found,
    FoundAll,
    Get,
    GetAll,
    Operation,
    Put,
    Query,
    Reply,
    Transact,
    TransactionFailed,
    Update,
    Write,
)
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim
from tests.support.values import replace

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
        claimed_by="cb",
        freed_by="fb",
        result_class="rc",
    ),
)
PLACE = Location(table=SIMPLE, partition="shop#1234")
RENAMED_PLACE = Location(table=RENAMED, partition="bucket#7", sort="shop#1234")
"""Procedures are played here: no attribute has the name of its role, so none is found by luck."""


def bucket(number: int) -> Location:
    """One of the locations of a key that may be in several."""
    return replace(RENAMED_PLACE, partition=f"bucket#{number}")


@dataclass(frozen=True)
class Spreading:
    """A route over several locations, the first one home; claims look at all of them until an instant."""

    at: Locations = (bucket(7), bucket(8), bucket(9))
    until: float = inf
    key: str = "shop#1234"
    answer_within: float = inf

    def locations(self, now: float) -> Locations:
        """Name them."""
        return self.at

    def searched_until(self, location: Location) -> float:
        """The instant."""
        return self.until


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
        self.effects: tuple[Effect | Put, ...] = ()

    def answer(self, operation: Operation) -> Reply:
        """Execute one operation."""
        if isinstance(operation, Get):
            return Found(self.found(operation.location))
        if isinstance(operation, GetAll):
            return FoundAll(tuple(map(self.found, operation.locations)))
        if isinstance(operation, Query):
            return FoundAll(self._page(operation))
        if isinstance(operation, Transact):
            failures = tuple(map(self._refusal, operation.writes))
            if any(failures):
                return TransactionFailed(failures)
            for write in operation.writes:
                self._apply(write)
            self.effects += operation.effects
            return Applied()
        refusal = self._refusal(operation)
        if refusal is None:
            self._apply(operation)
        return refusal or Applied()

    def found(self, location: Location) -> Item | None:
        """Look at one location."""
        return self.items.get((location.partition, location.sort))

    def _page(self, query: Query) -> tuple[Item, ...]:
        found = {location: item for location, item in self.items.items() if location[0] == query.location.partition}
        behind = (each for each in sorted(found, key=str) if str(each[1]) > (query.location.sort or ""))
        return tuple(found[location] for location in behind)[: query.limit]

    def _refusal(self, write: Write | Check) -> ConditionFailed | None:
        found = self.found(write.location)
        return None if holds(write.condition, found, write.location.table) else ConditionFailed(found)

    def _apply(self, write: Write | Check) -> None:
        location = write.location
        key = (location.partition, location.sort)
        if isinstance(write, Put):
            self.items[key] = write.item
        elif isinstance(write, Update):
            self.items[key] = {**(self.found(location) or location.item), **named(location.table, write.changes)}
        elif not isinstance(write, Check):
            self.items.pop(key, None)

    def run(self, procedure: Procedure[T]) -> T:
        """Execute a whole procedure, undisturbed."""
        try:
            operation = next(procedure)
            while True:
                operation = procedure.send(self.answer(operation))
        except StopIteration as end:
            outcome: T = end.value
            return outcome


class Contender:
    """One procedure, advanced one operation at a time."""

    def __init__(self, procedure: Procedure[Any]) -> None:
        self._procedure = procedure
        self._operation: Operation | None = next(procedure)
        self.outcome: Any = None

    def step(self, shelf: Shelf, *, lost: bool = False) -> None:
        """Execute the next operation; if its answer gets lost, the client sends it once more, as botocore does."""
        if self._operation is None:
            return
        reply = shelf.answer(self._operation)
        if lost:
            reply = shelf.answer(self._operation)
        self._send(reply)

    def finish(self, shelf: Shelf) -> Any:
        """Go on undisturbed."""
        while self._operation is not None:
            self.step(shelf)
        return self.outcome

    def _send(self, reply: Reply) -> None:
        try:
            self._operation = self._procedure.send(reply)
        except StopIteration as end:
            self._operation, self.outcome = None, end.value


def named(table: Table, values: Mapping[Role, AttributeValue]) -> dict[str, AttributeValue]:
    """Call the attributes what the table calls them."""
    return {table.names[role]: value for role, value in values.items()}


def attempt(**changes: Any) -> Claim:
    """One claim by the owner "me" at `NOW`: a lease of 60 s, a retention of an hour, a skew of 1 s."""
    made = Claim(route=RENAMED_PLACE, owner="me", now=NOW, lease=60.0, retention=3600.0, clock_skew=1.0)
    return replace(made, **changes)


def held(**changes: Any) -> Lease:
    """The lease that `attempt()` is granted."""
    made = Lease(
        location=RENAMED_PLACE,
        route=RENAMED_PLACE,
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
    return model.parse(item, RENAMED_PLACE)


def _wire(value: str | int) -> AttributeValue:
    return {"S": value} if isinstance(value, str) else {"N": str(value)}
