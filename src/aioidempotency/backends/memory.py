"""Records in this process, for tests and for trying things out. They end with the process."""

from typing import assert_never, final

import anyio.lowlevel

from aioidempotency._core.conditions import holds
from aioidempotency._core.model import Item, Location, Table
from aioidempotency._core.operations import Applied, Delete, Found, Get, Operation, Put, Refused, Reply, Update, Write

Place = tuple[str, str, str | None]


@final
class MemoryBackend:
    """A table's worth of items in a dictionary. Stores that share the backend share their records."""

    def __init__(self) -> None:
        self._items: dict[Place, Item] = {}

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation; other tasks may run before it, none during it."""
        await anyio.lowlevel.checkpoint()
        place = _place(operation.location)
        found = self._items.get(place)
        if isinstance(operation, Get):
            return Found(found)
        if not holds(operation.condition, found, operation.location.table):
            return Refused(found)
        written = _written(operation, found)
        if written is None:
            self._items.pop(place, None)
        else:
            self._items[place] = written
        return Applied()

    async def create_table(self, table: Table) -> None:
        """Do nothing: there is room for every table."""

    def __repr__(self) -> str:
        return f"<MemoryBackend: {len(self._items)} items>"


def _place(location: Location) -> Place:
    return location.table.name, location.partition, location.sort


def _written(operation: Write, found: Item | None) -> Item | None:
    """Make the item that a write leaves behind; None where it leaves none."""
    match operation:
        case Put(_, item):
            return item
        case Delete():
            return None
        case Update(location, changes):
            named = {location.table.names[role]: value for role, value in changes.items()}
            return {**(found or location.item), **named}
        case _ as never:
            assert_never(never)
