"""What a worker needs of its contestant."""

from typing import Protocol


class Gate(Protocol):
    """Where bodies wait, if a measurement wants calls in flight."""

    async def wait(self) -> object:
        """Wait until the measurement is over."""
        ...


class Calls(Protocol):
    """A contestant: one idempotent call after another, on one client.

    Attributes:
        bodies: How often the body ran.
        gate: Where the body waits; None: it answers at once.
    """

    bodies: int
    gate: Gate | None

    async def call(self, key: str) -> object:
        """Execute the body for this key, or replay what it answered."""
        ...

    async def body(self) -> object:
        """Do the work that must not be done twice."""
        ...

    async def aclose(self) -> None:
        """Close the client."""
        ...
