"""A backend that remembers what it was asked."""

from typing import Generic, Protocol, TypeVar

OperationT_contra = TypeVar("OperationT_contra", contravariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Executes(Protocol[OperationT_contra, ReplyT_co]):
    """Anything with the library's one backend method."""

    async def execute(self, operation: OperationT_contra) -> ReplyT_co:
        """Carry out one operation."""


class CountingBackend(Generic[OperationT_contra, ReplyT_co]):
    """Passes every operation on and keeps it in ``operations``, in order of arrival."""

    def __init__(self, inner: Executes[OperationT_contra, ReplyT_co]) -> None:
        """Count what reaches ``inner``."""
        self.operations: list[object] = []
        self._inner = inner

    async def execute(self, operation: OperationT_contra) -> ReplyT_co:
        """Note the operation, then carry it out."""
        self.operations.append(operation)
        return await self._inner.execute(operation)
