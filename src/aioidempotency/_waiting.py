"""The calls of one process that are under way, and waiting for a call that runs elsewhere.

A duplicate of a call that runs in the same event loop looks at that call, not at the table: it sends nothing,
and is woken when the call ends. A duplicate of another process's call looks at the table, with pauses.
"""

from collections.abc import Callable
from typing import final

import anyio
from msgspec import Struct

from aioidempotency._backoff import Backoff
from aioidempotency._core import model, protocol
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Record
from aioidempotency._core.protocol import Claim, Vacant
from aioidempotency._lease import Leases, RunningLease
from aioidempotency._records import Records
from aioidempotency.exceptions import StoreError

FIRST_LOOK, LAST_LOOK = 0.05, 1.0
"""Seconds before a waiting duplicate looks at the table; doubled after each look, with jitter."""


@final
class InFlightCall(Struct, eq=False):
    """One call while it claims, runs and finishes, as its duplicates in the same loop see it.

    Most calls have no duplicates: so nothing is made for them before the first one comes.

    Attributes:
        running: The lease of the call, once its claim was answered.
        left: The record that the call has left, None if nothing; known when the call is `over`.
        over: Whether the call has ended.
        failure: Why its claim was not answered; who followed it then is not answered either.
    """

    running: RunningLease | None = None
    left: Record | None = None
    over: bool = False
    failure: StoreError | None = None
    changed: anyio.Event | None = None

    @property
    def record(self) -> Record | None:
        """The key's record as this call knows it, with its lease as it was renewed; None while it is claimed."""
        if self.over or self.running is None:
            return self.left
        lease = self.running.lease
        return model.parse(model.running(lease), lease.location)

    def end(self, left: Record | None, failure: StoreError | None = None) -> None:
        """Say that the call has ended: with this record, or because the store did not answer its claim."""
        self.over, self.left, self.failure = True, left, failure
        self.wake()

    def wake(self) -> None:
        """Wake the duplicates that wait for more to be known."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    async def wait(self) -> None:
        """Wait until more is known."""
        self.changed = self.changed or anyio.Event()
        await self.changed.wait()


@final
class RunningCalls:
    """The calls of one store that run in one event loop.

    Attributes:
        in_flight: The calls under way, by key.
        leases: Their leases.
    """

    def __init__(self, records: Records) -> None:
        self.in_flight: dict[str, InFlightCall] = {}
        self.leases = Leases(records.renew)


async def follow(
    other: InFlightCall, records: Records, attempt: Callable[[], Claim], *, gives_up: float
) -> Decision | None:
    """Look at a call that is under way in this loop, until the loop's time `gives_up`.

    None: the call has ended, and the key may be free.
    """
    while True:
        if other.failure is not None:
            failure = other.failure
            raise StoreError(failure.operation, failure.table_name, failure.reason) from failure
        record = other.record
        if record is None:
            if other.over:
                return None
            await other.wait()
            continue
        verdict = protocol.judge(record, attempt())
        if isinstance(verdict, Vacant | Claimed):  # a late copy of our own claim is claimed again, and renewed
            return await records.claim(attempt())
        remaining = gives_up - anyio.current_time()
        if not isinstance(verdict, InProgress) or remaining <= 0 or other.over:
            return verdict
        with anyio.move_on_after(min(remaining, max(verdict.retry_after, FIRST_LOOK))):
            await other.wait()


async def poll(
    refusal: InProgress, records: Records, attempt: Callable[[], Claim], *, gives_up: float
) -> Decision | None:
    """Look at another process's record until it is finished, or until the loop's time `gives_up`.

    None: the key may be free.
    """
    backoff = Backoff(FIRST_LOOK, LAST_LOOK)
    while (remaining := gives_up - anyio.current_time()) > 0:
        await backoff.pause(at_most=min(remaining, max(refusal.retry_after, FIRST_LOOK)))
        try:
            verdict = await records.run(protocol.inspect(attempt()))
        except StoreError:  # the last answer still counts; the next look may get another
            continue
        match verdict:
            case InProgress():
                refusal = verdict
            case Replay() | Mismatch():
                return verdict
            case Vacant() | Claimed():  # a late copy of our own claim is claimed again, as long as it lasts
                return None
    return refusal
