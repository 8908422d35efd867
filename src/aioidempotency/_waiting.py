"""The calls under way in one process, and waiting for a call in another process.

A duplicate of a call in the same event loop watches the call, not the table: the duplicate sends no request,
and wakes at the end of the call. A duplicate of a call in another process reads the table, with pauses.
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
"""Seconds of the first and of the longest pause between two reads of the table, doubled each time, with jitter."""


@final
class InFlightCall(Struct, eq=False):
    """One call from claim to end, as duplicates in the same loop see the call.

    Attributes:
        running: The lease of the call, once the claim was answered.
        left: The key's record after the call, None if there is none. Set when the call is `over`.
        over: Whether the call has ended.
        failure: The reason why the store did not answer the claim. Followers fail for the same reason.
        changed: Wakes the followers. None as long as the call has no followers.
    """

    running: RunningLease | None = None
    left: Record | None = None
    over: bool = False
    failure: StoreError | None = None
    # Most calls have no duplicate, and an event for each call would cost every one of them.
    changed: anyio.Event | None = None

    @property
    def record(self) -> Record | None:
        """The key's record with the lease as last renewed. None until the claim is answered."""
        if self.over or self.running is None:
            return self.left
        # Made from the renewed lease. With the lease as granted, a follower would see a lapsed lease and ask the
        # table again and again.
        lease = self.running.lease
        return model.parse(model.running(lease), lease.location)

    def end(self, left: Record | None, failure: StoreError | None = None) -> None:
        """End the call: with the record left in the table, or because the store did not answer the claim."""
        self.over, self.left, self.failure = True, left, failure
        self.wake()

    def wake(self) -> None:
        """Wake the followers after a change."""
        if self.changed is not None:
            self.changed.set()
            # An event stays set, so the next wait needs a new one.
            self.changed = None

    async def wait(self) -> None:
        """Wait for the next change."""
        self.changed = self.changed or anyio.Event()
        await self.changed.wait()


@final
class RunningCalls:
    """The calls of one store in one event loop.

    Attributes:
        in_flight: The calls under way, by key.
        leases: The leases of the calls.
    """

    def __init__(self, records: Records) -> None:
        self.in_flight: dict[str, InFlightCall] = {}
        self.leases = Leases(records.renew)


async def follow(
    other: InFlightCall, records: Records, attempt: Callable[[], Claim], *, gives_up: float
) -> Decision | None:
    """Watch a call under way in this loop, until the loop's time `gives_up`.

    None if the call has ended and the key may be free.
    """
    while True:
        if other.failure is not None:
            # Each follower would otherwise claim in turn, and twenty callers would wait twenty time limits for a store
            # that is down. Each gets an error of its own, because callers may add notes.
            failure = other.failure
            raise StoreError(
                failure.operation, failure.table_name, failure.reason, contended=failure.contended
            ) from failure
        record = other.record
        if record is None:
            if other.over:
                return None
            await other.wait()
            continue
        verdict = protocol.judge(record, attempt())
        # Vacant: the lease of the call is over, so the table decides again. Claimed: the record is a late copy of
        # our own claim, with an old lease; a new claim renews the lease.
        if isinstance(verdict, Vacant | Claimed):
            return await records.claim(attempt())
        remaining = gives_up - anyio.current_time()
        if not isinstance(verdict, InProgress) or remaining <= 0 or other.over:
            return verdict
        with anyio.move_on_after(min(remaining, max(verdict.retry_after, FIRST_LOOK))):
            await other.wait()


async def poll(
    refusal: InProgress, records: Records, attempt: Callable[[], Claim], *, gives_up: float
) -> Decision | None:
    """Read another process's record until the key is finished, or until the loop's time `gives_up`.

    None if the key may be free.
    """
    backoff = Backoff(FIRST_LOOK, LAST_LOOK)
    while (remaining := gives_up - anyio.current_time()) > 0:
        await backoff.pause(at_most=min(remaining, max(refusal.retry_after, FIRST_LOOK)))
        try:
            verdict = await records.run(protocol.inspect(attempt()))
        except StoreError:
            # The last answer still counts: a failed read must not let a second body run beside the owner, not
            # even with `fail_open`.
            continue
        match verdict:
            case InProgress():
                refusal = verdict
            case Replay() | Mismatch():
                return verdict
            case Vacant() | Claimed():  # Claimed: a late copy of our own claim; a new claim renews the lease
                return None
    return refusal
