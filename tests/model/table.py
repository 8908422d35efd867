"""The items that all contenders write, one in each location of the key, kept as values.

A write is judged by the library's own `conditions.holds`; the attributes are read here, not by the
library, so that the invariants do not depend on its words. Equal items are one object, which makes
states quick to compare.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor
from typing import Literal, final

from aioidempotency._core import conditions
from aioidempotency._core.model import AttributeNames, Item, Location, Locations, Role, Table
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
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
    Write,
)

PLACE = Location(table=Table("records", "id", None, AttributeNames()), partition="shop#1234")
"""The one location of a key that has no other."""


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Cell:
    """An item that is in the table. `ends` is the end of its lease, in seconds as all times here.

    `freed` says that somebody has freed its key: the record keeps an old owner out.
    """

    item: Item
    running: bool
    owner: str
    token: int
    ends: float
    expiration: int
    fingerprint: str | None
    data: str | None
    freed: bool = False

    @property
    def left(self) -> bool:
        """Whether it is what `forget` leaves of a running record: nobody's, and any claim's to take over."""
        return self.running and self.freed and self.ends == 0

    def expired(self, now: float) -> bool:
        """Say whether a clock that shows `now` is past the expiration."""
        return floor(now) > self.expiration

    def vacant(self, now: float, *, clock_skew: float) -> bool:
        """Say whether a contender whose clock shows `now` may take the record over."""
        return self.expired(now) or (self.running and now > self.ends + clock_skew)

    def protects(self, fingerprint: str | None, now: float) -> bool:
        """Say whether the record keeps its key from a request with this other fingerprint."""
        return None not in (fingerprint, self.fingerprint) and fingerprint != self.fingerprint and not self.expired(now)


Cells = tuple[Cell | None, ...]
"""What is in each location of the key, in the order of `Shelf.locations`."""

Entry = tuple[Cell | None] | None
"""What the table says of one location: what is there; None where it has nothing to say against the write."""

Answer = tuple[Literal["applied", "refused", "declined", "found", "found all"], tuple[Entry, ...]]

APPLIED: Answer = ("applied", ())


@final
class Shelf:
    """Makes cells, and executes operations on them."""

    def __init__(self, locations: Locations = (PLACE,)) -> None:
        self.locations = locations
        self._cells: dict[str, Cell] = {}
        self._indices = {location.partition: index for index, location in enumerate(locations)}

    def cell(self, item: Item) -> Cell:
        """Have the one cell with this content."""
        content = repr(sorted(item.items()))
        if content not in self._cells:
            self._cells[content] = _read(item)
        return self._cells[content]

    def holding(self, items: Iterable[Item]) -> Cells:
        """Have these items in their locations, and nothing in the others."""
        found = {each["pk" if "pk" in each else "id"]["S"]: self.cell(each) for each in items}
        return tuple(found.get(location.partition) for location in self.locations)

    def index(self, location: Location) -> int:
        """Say which of the locations it is."""
        return self._indices[location.partition]

    def at(self, cells: Cells, location: Location) -> Cell | None:
        """Say what is in a location. Nobody writes into one that is not listed."""
        index = self._indices.get(location.partition)
        return None if index is None else cells[index]

    def execute(self, operation: Operation, cells: Cells) -> tuple[Answer, Cells]:
        """Execute an operation; its answer, and what is in the locations then."""
        match operation:
            case Get(location):
                return ("found", ((self.at(cells, location),),)), cells
            case GetAll(locations):
                return ("found all", tuple((self.at(cells, location),) for location in locations)), cells
            case Transact(writes):
                failures = tuple(self._refusal(write, cells) for write in writes)
                return (
                    (APPLIED, self._applied(writes, cells))
                    if set(failures) == {None}
                    else (("declined", failures), cells)
                )
            case Query():
                raise AssertionError("no procedure over a key reads a partition")
            case write:
                refusal = self._refusal(write, cells)
                return (
                    (APPLIED, self._applied((write,), cells)) if refusal is None else (("refused", (refusal,)), cells)
                )

    def _refusal(self, write: Write | Check, cells: Cells) -> Entry:
        found = self.at(cells, write.location)
        held = conditions.holds(write.condition, None if found is None else found.item, write.location.table)
        return None if held else (found,)

    def _applied(self, writes: tuple[Write | Check, ...], cells: Cells) -> Cells:
        written = list(cells)
        for write in writes:
            if not isinstance(write, Check):
                written[self.index(write.location)] = self._written(write, self.at(cells, write.location))
        return tuple(written)

    def _written(self, write: Write, found: Cell | None) -> Cell | None:
        if isinstance(write, Delete):
            return None
        if isinstance(write, Put):
            return self.cell(write.item)
        changes = {write.location.table.names[role]: value for role, value in write.changes.items()}
        return self.cell({**(write.location.item if found is None else found.item), **changes})


def written(operation: Operation) -> Locations:
    """Name the places that an operation changes, if it is applied."""
    if isinstance(operation, Get | GetAll):
        return ()
    writes = operation.writes if isinstance(operation, Transact) else (operation,)
    return tuple(write.location for write in writes if not isinstance(write, Check))


def reply(answer: Answer) -> Reply:
    """Say it as a backend does."""
    kind, entries = answer
    items = tuple(None if entry is None or entry[0] is None else entry[0].item for entry in entries)
    match kind:
        case "applied":
            return Applied()
        case "refused":
            return ConditionFailed(items[0])
        case "declined":
            return TransactionFailed(
                tuple(
                    None if entry is None else ConditionFailed(item) for entry, item in zip(entries, items, strict=True)
                )
            )
        case "found":
            return Found(items[0])
        case "found all":
            return FoundAll(items)


def silent(answer: Answer) -> Answer:
    """Have a refusal that says nothing of what was there."""
    kind, entries = answer
    return (kind, tuple(None if entry is None else (None,) for entry in entries)) if kind in REFUSALS else answer


REFUSALS = ("refused", "declined")


def _read(item: Item) -> Cell:
    number = {role: float(str(item.get(role, {"N": "0"})["N"])) for role in _NUMBERS}
    text = {role: str(item[role]["S"]) if role in item else None for role in _TEXTS}
    return Cell(
        item=item,
        running=text["status"] == "INPROGRESS",
        owner=text["owner"] or "",
        token=int(number["fencing_token"]),
        ends=number["in_progress_expiration"] / 1000,
        expiration=int(number["expiration"]),
        fingerprint=text["validation"],
        data=text["data"],
        freed="freed_by" in item,
    )


_NUMBERS: tuple[Role, ...] = ("fencing_token", "in_progress_expiration", "expiration")
_TEXTS: tuple[Role, ...] = ("status", "owner", "validation", "data")
