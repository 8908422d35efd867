"""The one item that all contenders write, kept as a value.

A write is judged by the library's own `conditions.holds`; the attributes are read here, not by the
library, so that the invariants do not depend on its words. Equal items are one object, which makes
states quick to compare.
"""

from dataclasses import dataclass
from math import floor
from typing import final

from aioidempotency._core import conditions
from aioidempotency._core.model import AttributeNames, Item, Location, Role, Table
from aioidempotency._core.operations import Delete, Get, GetAll, Operation, Put, Transact

PLACE = Location(table=Table("records", "id", None, AttributeNames()), partition="shop#1234")


@final
@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Cell:
    """An item that is in the table. `ends` is the end of its lease, in seconds as all times here."""

    item: Item
    running: bool
    owner: str
    token: int
    ends: float
    expiration: int
    fingerprint: str | None
    data: str | None

    def expired(self, now: float) -> bool:
        """Say whether a clock that shows `now` is past the expiration."""
        return floor(now) > self.expiration

    def vacant(self, now: float, *, clock_skew: float) -> bool:
        """Say whether a contender whose clock shows `now` may take the record over."""
        return self.expired(now) or (self.running and now > self.ends + clock_skew)

    def protects(self, fingerprint: str | None, now: float) -> bool:
        """Say whether the record keeps its key from a request with this other fingerprint."""
        return None not in (fingerprint, self.fingerprint) and fingerprint != self.fingerprint and not self.expired(now)


Change = tuple[bool, Cell | None]
"""Whether an operation was applied, and what is in the table now."""


@final
class Shelf:
    """Makes cells, and executes operations on them."""

    def __init__(self) -> None:
        self._cells: dict[str, Cell] = {}

    def cell(self, item: Item) -> Cell:
        """Have the one cell with this content."""
        content = repr(sorted(item.items()))
        if content not in self._cells:
            self._cells[content] = _read(item)
        return self._cells[content]

    def execute(self, operation: Operation, cell: Cell | None) -> Change:
        """Execute an operation where `cell` is in the table."""
        assert not isinstance(operation, Transact | GetAll), "one place is asked for without a transaction"
        found = None if cell is None else cell.item
        if isinstance(operation, Get) or not conditions.holds(operation.condition, found, PLACE.table):
            return False, cell
        if isinstance(operation, Delete):
            return True, None
        if isinstance(operation, Put):
            return True, self.cell(operation.item)
        changes = {PLACE.table.names[role]: value for role, value in operation.changes.items()}
        return True, self.cell({**(found or PLACE.item), **changes})


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
    )


_NUMBERS: tuple[Role, ...] = ("fencing_token", "in_progress_expiration", "expiration")
_TEXTS: tuple[Role, ...] = ("status", "owner", "validation", "data")
