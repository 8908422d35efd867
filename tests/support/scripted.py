"""A backend that answers as a test tells it to, and else like the one behind it."""

import asyncio
from collections.abc import Callable
from typing import final

from aioidempotency import Backend, StoreError
from aioidempotency._core.operations import Operation, Reply

Rule = Callable[[Operation], "Fault | None"]


class Fault:
    """What happens to one operation instead of its execution."""

    async def answer(self, backend: Backend, operation: Operation) -> Reply:
        """Answer for the backend."""
        raise NotImplementedError


@final
class Down(Fault):
    """The store does not answer; nothing is written."""

    async def answer(self, backend: Backend, operation: Operation) -> Reply:
        """Fail."""
        raise StoreError(type(operation).__name__, operation.location.table.name, "down")


@final
class Broken(Fault):
    """The backend raises what no backend should."""

    async def answer(self, backend: Backend, operation: Operation) -> Reply:
        """Fail in a way of its own."""
        raise RuntimeError("the session is closed")


@final
class LostReply(Fault):
    """The operation is executed, and its answer never comes."""

    async def answer(self, backend: Backend, operation: Operation) -> Reply:
        """Execute, then fail."""
        await backend.execute(operation)
        raise StoreError(type(operation).__name__, operation.location.table.name, "lost")


@final
class SlowlyDown(Fault):
    """Nothing answers for ten seconds, which is the time limit of one operation."""

    async def answer(self, backend: Backend, operation: Operation) -> Reply:
        """Wait, then fail."""
        await asyncio.sleep(10)
        raise StoreError(type(operation).__name__, operation.location.table.name, "no answer within 10 s")


@final
class Stall(Fault):
    """The operation is not executed, and nothing answers."""

    async def answer(self, backend: Backend, operation: Operation) -> Reply:
        """Wait for ever."""
        await asyncio.Event().wait()
        raise AssertionError


@final
class ScriptedBackend:
    """Asks `rule` about each operation; None lets it through. Keeps all operations, in order."""

    def __init__(self, inner: Backend, rule: Rule = lambda _: None) -> None:
        self.rule = rule
        self.operations: list[Operation] = []
        self._inner = inner

    def count(self, kind: type[Operation]) -> int:
        """Count the operations of one kind."""
        return sum(isinstance(operation, kind) for operation in self.operations)

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, or fail as the rule says."""
        self.operations.append(operation)
        fault = self.rule(operation)
        return await (self._inner.execute(operation) if fault is None else fault.answer(self._inner, operation))
