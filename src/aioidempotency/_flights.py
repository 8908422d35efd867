"""Calls of one key inside one process: duplicates of a running call look at it, not at the table."""

import asyncio
from typing import final

import anyio

from aioidempotency._core import records
from aioidempotency._core.model import Record
from aioidempotency._lease import Held
from aioidempotency.exceptions import StoreError


@final
class Flight:
    """What is known of a key while one call in this process claims, runs and finishes it.

    Attributes:
        failure: Why its claim was not answered; who followed it then is not answered either.
    """

    def __init__(self) -> None:
        self._known: Held | Record | None = None
        self._over = False
        self.failure: StoreError | None = None
        self._changed: anyio.Event | None = None
        self._loop = asyncio.get_running_loop()

    def is_of_this_loop(self) -> bool:
        """Tell whether the call can still end: one that a closed event loop left behind cannot."""
        return self._loop is asyncio.get_running_loop()

    @property
    def over(self) -> bool:
        """Whether the call has ended; then `record` is what it left, None if nothing."""
        return self._over

    @property
    def record(self) -> Record | None:
        """The key's record as this call knows it, with its lease as it was renewed; None while it is claimed."""
        if isinstance(self._known, Held):
            return records.parse(records.running(self._known.lease), self._known.lease.location)
        return self._known

    def land(self, left: Record | None, failure: StoreError | None) -> None:
        """Say that the call has ended: with this record, or because the store did not answer its claim."""
        self._over, self.failure = True, failure
        self.show(left)

    def show(self, known: Held | Record | None) -> None:
        """Say what is known now, and wake who waits for it."""
        self._known = known
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def change(self) -> None:
        """Wait until more is known."""
        self._changed = self._changed or anyio.Event()
        await self._changed.wait()
