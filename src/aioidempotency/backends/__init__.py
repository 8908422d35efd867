"""Where operations are executed. A backend is anything with this one method."""

from typing import Protocol

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
