"""Backends execute operations: here is what a backend of your own needs.

A backend is any object with `async def execute(operation)`. The protocol that decides who runs a key is not
its business: it reads and writes single items, under conditions. `Backend` has a complete example. What a
backend must keep to:

1. **Each operation is atomic.** The condition is judged, and the item written, in one step: no other
   operation on that location comes between, of any task, process or machine. A read is strongly consistent:
   it finds every write that was answered before the read began.
2. **A condition that does not hold is a reply**, no error: `ConditionFailed`, with the item that is there, or
   `TransactionFailed` for a transaction. `holds` judges a condition on an item; `requirements` says what a condition
   asks for, where the store can judge that itself.
3. **A store that does not answer raises `StoreError`.** The write may have been applied all the same: the
   library asks again, and an owner recognises its own write.
4. **Settings that are wrong raise `ConfigurationError`**: a table that is not there, a permission that is
   missing, an operation that the backend does not know. It is never answered by failing open.
5. **Data is in no error and in no `repr`.** Items hold results, and an error's text goes into logs. A
   location's `key` is a digest and may be shown, unless the location is `typed`: then it is a caller's.
6. **An item stays as it was written**, every attribute of it, until its `expiration` at the least; without
   one, for ever. It may be deleted at any time after that: readers judge the time themselves.

Which operations a store asks for depends on its options:

| The store | asks for |
|---|---|
| has one location for each key: `SimpleKey`, or `CompositeKey` with `Static` or `HashBuckets` | `Put`, `Update`, `Delete`, `Get` |
| has several locations: `TimeBuckets`, `RandomBuckets`, `Reshard`, `CustomPartition` with `elsewhere=` | these, `Transact` and `GetAll` |
| commits the caller's writes, or events (`Execution.transaction`) | these, and `Transact` with `effects` |
| reads events (`store.outbox`) | these, and `Query` |

What else a backend may have is `CreatesTables`, `DescribesKeys` and `Closes`; a store uses what is there.
"""

from typing import Protocol, runtime_checkable

from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged, holds, requirements
from aioidempotency._core.model import AttributeValue, Item, Location, Role, Table
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
from aioidempotency.exceptions import Reason

__all__ = [
    "Absent",
    "Applied",
    "AttributeValue",
    "Backend",
    "Check",
    "Closes",
    "Condition",
    "ConditionFailed",
    "CreatesTables",
    "Delete",
    "DescribesKeys",
    "Effect",
    "Found",
    "FoundAll",
    "Get",
    "GetAll",
    "HeldBy",
    "Item",
    "Location",
    "Operation",
    "Put",
    "Query",
    "Reason",
    "Refused",
    "Reply",
    "Role",
    "Table",
    "Transact",
    "TransactionFailed",
    "Unchanged",
    "Update",
    "Write",
    "holds",
    "requirements",
]

Refused = ConditionFailed
"""`ConditionFailed` under the name that the protocol's design gives it."""


class Backend(Protocol):
    """Executes one operation at a time, each atomically.

    A backend on a dictionary, complete for stores that have one location for each key:

    ```python
    from aioidempotency import AsyncIdempotencyStore, ConfigurationError
    from aioidempotency.backends import Applied, ConditionFailed, Delete, Found, Get, Put, Update, holds


    class DictBackend:
        def __init__(self):
            self.items = {}

        async def execute(self, operation):
            # Nothing is awaited between the look and the write: so no other task comes between.
            location = operation.location
            key = (location.table.name, location.partition, location.sort)
            found = self.items.get(key)
            match operation:
                case Get():
                    return Found(found)
                case Put() | Update() | Delete() if not holds(operation.condition, found, location.table):
                    return ConditionFailed(found)
                case Put(_, item):
                    self.items[key] = item
                case Update(_, changes):
                    named = {location.table.names[role]: value for role, value in changes.items()}
                    self.items[key] = {**found, **named}
                case Delete():
                    del self.items[key]
                case _:
                    raise ConfigurationError("DictBackend has one location for each key, and no transactions")
            return Applied()


    async def charge():
        return "receipt"


    store = AsyncIdempotencyStore("orders", backend=DictBackend())
    assert await store.run("order-1", charge) == "receipt"
    assert await store.run("order-1", charge) == "receipt"  # this is a replay
    ```
    """

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation.

        A condition that does not hold is a reply, `ConditionFailed` or `TransactionFailed`.

        Raises:
            StoreError: The store did not answer, or refused for another reason that may pass.
            ConfigurationError: The operation cannot be had here, however often it is asked for.
        """
        ...


@runtime_checkable
class CreatesTables(Protocol):
    """A backend that can create its tables: `await store.create_table()` asks for that."""

    async def create_table(self, table: Table) -> None:
        """Create a table, or find it as it should be; wait until it can be used.

        Raises:
            StoreError: The store did not answer.
            ConfigurationError: A table of this name has another key.
        """
        ...


@runtime_checkable
class DescribesKeys(Protocol):
    """A backend that can say by which attributes a table names its items.

    A transaction with writes of the caller's asks for that, to find two writes of one item before they are sent.
    """

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Name the attributes of a table's key.

        Raises:
            StoreError: The store did not answer.
            ConfigurationError: There is no such table, or no permission to look at it.
        """
        ...


@runtime_checkable
class Closes(Protocol):
    """A backend that has something to close. A store closes only what it made itself, never a given `backend=`."""

    async def aclose(self) -> None:
        """Close what was opened in the running loop; a later operation opens it again."""
        ...
