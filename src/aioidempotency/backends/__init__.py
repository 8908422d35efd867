"""Where operations are executed. A backend is anything with `execute`; what else it may have is told here, too."""

from typing import Protocol, runtime_checkable

from aioidempotency._core.model import Table
from aioidempotency._core.operations import Operation, Reply


class Backend(Protocol):
    """Executes one operation at a time, each atomically."""

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation.

        A condition that does not hold is a reply, `Refused`.

        Raises:
            StoreError: The store did not answer, or refused for another reason.
        """
        ...


@runtime_checkable
class CreatesTables(Protocol):
    """A backend that can create its table."""

    async def create_table(self, table: Table) -> None:
        """Create it, or find it as it should be; wait until it can be used."""
        ...


@runtime_checkable
class DescribesKeys(Protocol):
    """A backend that can say by which attributes a table names its items."""

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Name them."""
        ...


@runtime_checkable
class Closes(Protocol):
    """A backend that has something to close."""

    async def aclose(self) -> None:
        """Close it; a later operation opens anew."""
        ...
