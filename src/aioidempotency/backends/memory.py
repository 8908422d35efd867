"""Records in this process, for tests and for trying things out. They end with the process."""

from typing import assert_never, final

import anyio.lowlevel

from aioidempotency._core.conditions import holds
from aioidempotency._core.model import Item, Location, Table
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
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
from aioidempotency.exceptions import ConfigurationError, Reason

ItemKey = tuple[str, str, str | None]


@final
class MemoryBackend:
    """A table's worth of items in a dictionary. Stores that share the backend share their records."""

    def __init__(self) -> None:
        self._items: dict[ItemKey, Item] = {}

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation; other tasks may run before it, none during it."""
        await anyio.lowlevel.checkpoint()
        match operation:
            case Get(location):
                return Found(self._found(location))
            case GetAll(locations):
                return FoundAll(tuple(self._found(location) for location in locations))
            case Query(location, limit):
                return FoundAll(self._page(location)[:limit])
            case Transact(writes, effects):
                return self._transacted(writes, effects)
            case _:
                refusal = self._refusal(operation)
                if refusal is None:
                    self._apply(operation)
                return refusal or Applied()

    async def create_table(self, table: Table) -> None:
        """Do nothing: there is room for every table."""

    def _transacted(
        self, writes: tuple[Write | Check, ...], effects: tuple[Effect | Put, ...]
    ) -> Applied | TransactionFailed:
        events = tuple(each for each in effects if isinstance(each, Put))
        if len(events) < len(effects):
            raise ConfigurationError(
                "an in-memory store has none of your tables, and cannot write them in a transaction; "
                "test such code on an emulator of DynamoDB, with endpoint_url="
            )
        failures = tuple(self._refusal(write) for write in writes)
        reasons = tuple(self._refusal(event) and Reason("ConditionalCheckFailed") for event in events)
        if any((*failures, *reasons)):
            return TransactionFailed(failures, reasons)
        for write in (*writes, *events):
            self._apply(write)
        return Applied()

    def _refusal(self, write: Write | Check) -> ConditionFailed | None:
        found = self._found(write.location)
        return None if holds(write.condition, found, write.location.table) else ConditionFailed(found)

    def _apply(self, write: Write | Check) -> None:
        location = write.location
        match write:
            case Check():
                return
            case Put(_, item):
                self._items[_item_key(location)] = item
            case Update(_, changes):
                named = {location.table.names[role]: value for role, value in changes.items()}
                self._items[_item_key(location)] = {**(self._found(location) or location.item), **named}
            case Delete():
                self._items.pop(_item_key(location), None)
            case _ as never:
                assert_never(never)

    def _page(self, location: Location) -> tuple[Item, ...]:
        """Read a partition, in the order of its sort keys."""
        table, partition, _ = _item_key(location)
        found = {key[2] or "": item for key, item in self._items.items() if key[:2] == (table, partition)}
        return tuple(found[sort] for sort in sorted(found))

    def _found(self, location: Location) -> Item | None:
        return self._items.get(_item_key(location))

    def __repr__(self) -> str:
        return f"<MemoryBackend: {len(self._items)} items>"


def _item_key(location: Location) -> ItemKey:
    return location.table.name, location.partition, location.sort
