"""Records in the memory of this process, for tests and first steps. The records end with the process."""

from typing import assert_never, final

import anyio.lowlevel

from aioidempotency._concurrency import running_loop
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
    """Items in a dictionary. Stores with the same `MemoryBackend` share their records.

    ```python
    from aioidempotency import AsyncIdempotencyStore, MemoryBackend

    backend = MemoryBackend()
    first, second = (AsyncIdempotencyStore("orders", backend=backend) for _ in range(2))

    async with first.execute("order-1") as execution:
        execution.complete("charged")
    async with second.execute("order-1") as execution:
        assert execution.replayed
        assert execution.result == "charged"
    ```

    Nothing is deleted at expiration: a test with many keys takes a new backend.
    """

    def __init__(self) -> None:
        self._items: dict[ItemKey, Item] = {}

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation. Other tasks may run before the operation, none during the operation."""
        # A real backend yields to the loop and can be cancelled; so must this one, or tests would miss races. No
        # await follows: the atomicity of an operation rests on that.
        running_loop()  # under trio the records would be there, and the leases would not
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
        """Do nothing: a dictionary needs no table."""

    def _transacted(
        self, writes: tuple[Write | Check, ...], effects: tuple[Effect | Put, ...]
    ) -> Applied | TransactionFailed:
        events = tuple(each for each in effects if isinstance(each, Put))
        if len(events) < len(effects):
            # Never apply the record without the effects: a test would pass, and prove nothing.
            raise ConfigurationError(
                "an in-memory store has none of your tables, and cannot write them in a transaction; "
                "test such code on an emulator of DynamoDB, with endpoint_url="
            )
        # All conditions before the first write: a transaction is applied completely or not at all.
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
        """Read a partition by sort key, behind the location."""
        table, partition, _ = _item_key(location)
        found = {key[2] or "": item for key, item in self._items.items() if key[:2] == (table, partition)}
        return tuple(found[sort] for sort in sorted(found) if sort > (location.sort or ""))

    def _found(self, location: Location) -> Item | None:
        return self._items.get(_item_key(location))

    def __repr__(self) -> str:
        return f"<MemoryBackend: {len(self._items)} items>"


def _item_key(location: Location) -> ItemKey:
    return location.table.name, location.partition, location.sort
