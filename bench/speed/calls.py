"""What is measured of a contestant that is a coroutine: one idempotent call after another, on one client."""

import asyncio
from abc import ABC, abstractmethod

from bench.speed.jobs import RESULT


class Calls(ABC):
    """The calls of one contestant, and their body.

    Attributes:
        bodies: How often the body ran.
        barrier: Where bodies wait, if a measurement wants calls in flight; None: they answer at once.
    """

    def __init__(self) -> None:
        self.bodies = 0
        self.barrier: asyncio.Barrier | None = None

    @abstractmethod
    async def call(self, key: str) -> object:
        """Execute the body for this key, or replay what it answered."""

    @abstractmethod
    async def aclose(self) -> None:
        """Close the client."""

    async def body(self) -> dict[str, str]:
        """Do the work that must not be done twice."""
        self.bodies += 1
        if self.barrier is not None:
            await self.barrier.wait()
        return RESULT
