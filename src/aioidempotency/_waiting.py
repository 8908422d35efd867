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
from aioidempotency._core.model import Finished, Record
from aioidempotency._core.protocol import Claim, Vacant
from aioidempotency._lease import Leases, RunningLease
from aioidempotency._records import Records
from aioidempotency.exceptions import StoreError

FIRST_LOOK, LAST_LOOK = 0.05, 1.0
"""Seconds of the first and of the longest pause between two reads of the table, doubled each time, with jitter."""


Left = Record | Finished | None
"""What a call has left in the table."""


@final
class InFlightCall(Struct, eq=False):
    """One call from claim to end, as duplicates in the same loop see the call.

    Attributes:
        running: The lease of the call, once the claim was answered.
        left: The key's record after the call, or the completion that left one; None if there is none. Set when the call
            is `over`.
        over: Whether the call has ended.
        failure: The reason why the store did not answer the claim. Followers fail for the same reason.
        changed: Wakes the followers. None as long as the call has no followers.
    """

    running: RunningLease | None = None
    left: Left = None
    over: bool = False
    failure: StoreError | None = None
    # Most calls have no duplicate, and an event for each call would cost every one of them. The type is quoted, because
    # anyio loads the half of itself when somebody asks for `Event`.
    changed: "anyio.Event | None" = None

    @property
    def record(self) -> Record | None:
        """The key's record with the lease as last renewed. None until the claim is answered."""
        if self.over or self.running is None:
            return None if self.left is None else model.record_of(self.left)
        # Made from the renewed lease. With the lease as granted, a follower would see a lapsed lease and ask the
        # table again and again.
        lease = self.running.lease
        return model.parse(model.running(lease), lease.location)

    @property
    def lapsed(self) -> bool:
        """Whether the call still runs, and its lease is over: then another call may claim the key."""
        return not self.over and self.running is not None and (self.running.lost or self.running.remaining <= 0)

    def end(self, left: Left, failure: StoreError | None = None) -> None:
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
        leases: The leases of these calls.
        polled: The records of other processes' calls that are being watched, by key.
        closed: Whether the store was closed in this loop, and no call has begun since.
        drained: Set when the last call has ended, if the store waits for that.
    """

    def __init__(self, records: Records) -> None:
        self.in_flight: dict[str, InFlightCall] = {}
        self.leases = Leases(records.renew, records.used, records.held, records.asleep)
        self.polled: dict[str, InFlightCall] = {}
        self.closed = False
        self.drained: anyio.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether any call is under way, or any lease is kept."""
        return bool(self.in_flight) or len(self.leases) > 0

    async def drain(self) -> None:
        """Wait until no call is under way."""
        while self.in_flight:
            self.drained = anyio.Event()
            await self.drained.wait()


async def follow(other: InFlightCall, attempt: Callable[[], Claim], *, gives_up: float) -> Decision | None:
    """Watch a call in this loop, until the loop's time `gives_up`. None if the key may be free.

    A running call is judged by the loop's clock. The process knows that its own body still runs, whatever leaps the
    wall clock makes meanwhile.
    """
    while True:
        if other.failure is not None:
            failure = other.failure
            # A new error for each follower: all of them would add their frames to a shared one.
            raise StoreError(
                failure.operation,
                failure.table_name,
                failure.reason,
                contended=failure.contended,
                refused=failure.refused,
            ) from failure
        record = other.record
        if record is None or other.lapsed:
            if other.over or record is not None:
                return None
            await other.wait()
            continue
        now = attempt()
        if not other.over and other.running is not None:
            now = now.at(other.running.now, lease=now.lease)
        verdict = protocol.judge(record, now)
        if isinstance(verdict, Vacant | Claimed):  # Claimed: a late copy of an own claim, which is claimed again
            return None
        remaining = gives_up - anyio.current_time()
        if not isinstance(verdict, InProgress) or remaining <= 0 or other.over:
            return verdict
        with anyio.move_on_after(min(remaining, max(verdict.retry_after, FIRST_LOOK))):
            await other.wait()


async def poll(
    refusal: InProgress,
    calls: RunningCalls,
    records: Records,
    attempt: Callable[[], Claim],
    *,
    gives_up: float,
) -> Decision | None:
    """Watch another process's record until it is finished, or until the loop's time `gives_up`.

    None if the key may be free. One of the waiting calls reads the table, and the others watch what it reads.
    """
    key = refusal.record.key
    while True:
        if gives_up <= anyio.current_time():
            return refusal  # newer than what is watched: judging that would free the key for a call that may not wait
        watched = calls.polled.get(key)
        if watched is None:
            watched = calls.polled[key] = InFlightCall(left=refusal.record)
            try:
                return await _read_until_finished(watched, refusal, records, attempt, gives_up=gives_up)
            finally:
                del calls.polled[key]
                watched.wake()  # a reader that gives up, or is cancelled, leaves the reading to another call
        while calls.polled.get(key) is watched and not watched.over:
            record = watched.record
            assert record is not None  # noqa: S101 - a refusal has a record
            verdict = protocol.judge(record, attempt())
            remaining = gives_up - anyio.current_time()
            if isinstance(verdict, Mismatch) or remaining <= 0:
                return None if isinstance(verdict, Vacant | Claimed) else verdict
            with anyio.move_on_after(remaining):
                await watched.wait()
        if watched.over:
            if (record := watched.record) is None:
                return None
            verdict = protocol.judge(record, attempt())
            if not isinstance(verdict, InProgress):
                return None if isinstance(verdict, Vacant | Claimed) else verdict
            refusal = verdict
        if gives_up <= anyio.current_time():
            return refusal


async def _read_until_finished(
    watched: InFlightCall,
    refusal: InProgress,
    records: Records,
    attempt: Callable[[], Claim],
    *,
    gives_up: float,
) -> Decision | None:
    """Read a record with pauses until it is finished, and let others watch what was read."""
    backoff = Backoff(FIRST_LOOK, LAST_LOOK)
    while (remaining := gives_up - anyio.current_time()) > 0:
        await backoff.pause(at_most=min(remaining, max(refusal.retry_after, FIRST_LOOK)))
        try:
            verdict = await records.run(protocol.inspect(attempt()))
        except StoreError:  # the last answer still counts, and the next read may get another one
            continue
        match verdict:
            case InProgress():
                refusal = verdict
                watched.left = verdict.record
            case Replay() | Mismatch():
                watched.end(verdict.record)
                return verdict
            case Vacant() | Claimed():  # a late copy of the own claim is claimed again
                watched.end(None)
                return None
    return refusal
