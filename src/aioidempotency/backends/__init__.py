"""Backends execute operations. Everything that a backend of your own needs is here.

A backend is any object with `async def execute(operation)`. A backend reads and writes single items under
conditions; the protocol, which decides who runs a key, is not a backend's business. `Backend` has a complete example.
The contract of a backend:

1. **Each operation is atomic.** The backend evaluates the condition and writes the item in one step: no other
   operation of any task, process or machine touches the location in between. A read is strongly
   consistent: the read finds every write answered before the read began.
2. **A failed condition is a reply**, not an error: `ConditionFailed` with the existing item, or
   `TransactionFailed` for a transaction. `holds` evaluates a condition on an item; `requirements` lists the
   requirements of a condition for stores that evaluate conditions themselves.
3. **A store that does not answer raises `StoreError`.** The write may have been applied all the same: the
   library repeats the write, and an owner recognises the first one.
4. **Wrong settings raise `ConfigurationError`**: an absent table, a missing permission, an unsupported operation.
   Failing open never hides a `ConfigurationError`.
5. **No error and no `repr` shows data.** Items hold results, and an error's text goes into logs. A location's
   `key` is a digest and may be shown, except if the location is `typed`: such a key is the caller's.
6. **An item stays as written**, with every attribute, at least until its `expiration`, or for ever without
   one. A backend may delete the item at any time after that: readers compare the time themselves.

A store's options decide which operations the store sends:

| The store | sends |
|---|---|
| has one location for each key: `SimpleKey`, or `CompositeKey` with `Static` or `HashBuckets` | `Put`, `Update`, `Delete`, `Get` |
| has several locations: `TimeBuckets`, `RandomBuckets`, `Reshard`, `CustomPartition` with `elsewhere=` | the same, `Transact` and `GetAll` |
| commits the caller's writes, or events (`Execution.transaction`) | the same, and `Transact` with `effects` |
| reads events (`store.outbox`) | the same, and `Query` |

Optional abilities are `CreatesTables`, `DescribesKeys` and `Closes`. A store uses the abilities that a backend has.
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
"""Another name of `ConditionFailed`, from the design of the protocol."""


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
            # No await between the read and the write: so no other task comes between.
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
    assert await store.run("order-1", charge) == "receipt"  # a replay
    ```
    """

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation.

        A failed condition is a reply: `ConditionFailed` or `TransactionFailed`.

        Raises:
            StoreError: The store did not answer, or refused for a temporary reason.
            ConfigurationError: The store will never execute the operation, however often repeated.
        """
        ...


@runtime_checkable
class CreatesTables(Protocol):
    """A backend that creates tables, for `await store.create_table()`."""

    async def create_table(self, table: Table) -> bool | None:
        """Create a table, or check an existing one. Return once the table is usable.

        Returns:
            False if nothing deletes expired items, and the operator has to: the store then reports `TtlUnavailable`.

        Raises:
            StoreError: The store did not answer.
            ConfigurationError: A table of this name has another key.
        """
        ...


@runtime_checkable
class DescribesKeys(Protocol):
    """A backend that can read the names of a table's key attributes.

    A transaction with the caller's own writes needs the names, to find two writes of one item before the send.
    """

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Name the key attributes of a table.

        Raises:
            StoreError: The store did not answer.
            ConfigurationError: There is no such table, or no permission to describe the table.
        """
        ...


@runtime_checkable
class Closes(Protocol):
    """A backend with resources to close. A store closes only a backend of its own, never a given `backend=`."""

    async def aclose(self) -> None:
        """Close the resources opened in the running loop. A later operation opens them again."""
        ...
