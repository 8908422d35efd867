"""A backend that stops at one operation, so that a test can act at exactly that moment."""

import asyncio
from typing import Literal, final

from aioidempotency import Backend
from aioidempotency._core.operations import Operation, Reply


@final
class GateBackend:
    """Holds the first operation of one kind until `open` is called; `reached` says that it has come.

    `when="before"` holds it unapplied, `when="after"` holds its reply.
    """

    def __init__(self, inner: Backend, kind: type[Operation], when: Literal["before", "after"]) -> None:
        self.reached = asyncio.Event()
        self._inner = inner
        self._kind = kind
        self._when = when
        self._opened = asyncio.Event()
        self._used = False

    def open(self) -> None:
        """Let the held operation go on."""
        self._opened.set()

    async def execute(self, operation: Operation) -> Reply:
        """Carry out one operation, stopping at the gate if it is the one."""
        if self._used or not isinstance(operation, self._kind):
            return await self._inner.execute(operation)
        self._used = True
        if self._when == "before":
            await self._hold()
        reply = await self._inner.execute(operation)
        if self._when == "after":
            await self._hold()
        return reply

    async def _hold(self) -> None:
        self.reached.set()
        await self._opened.wait()
