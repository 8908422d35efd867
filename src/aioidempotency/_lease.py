"""Keeping a lease while the body runs, and deadlines.

A renewal is due after each third of the lease. A call that ends sooner costs one timer and no task.

Invariants:

1. A body never runs beyond its lease. A lease without a renewal before its safe point is lost, and so is a
   lease with another owner: the body is cancelled.
2. Instants are the event loop's time, which no change of the wall clock moves.
3. A lease counts from the request for the lease, not from the answer: a slow answer has used up a part of the lease.
4. A lease belongs to the event loop of its body. There is one `Leases` for each loop, so closing a store in one
   loop leaves the renewals of other loops alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import final

import anyio

from aioidempotency._backoff import Backoff
from aioidempotency._core.model import Lease, Record
from aioidempotency.exceptions import LeaseLostError

SAFE_PART = 0.9
"""The part of a lease that may pass without a renewal. The rest is time for the cancelled body to unwind."""

DEADLINE: ContextVar[float | None] = ContextVar("aioidempotency_deadline", default=None)
"""The instant of `time.monotonic` before which calls must end. None without a `deadline`."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Limit the time of the calls inside the block, for an environment that ends them (AWS Lambda, a job runner).

    ```python
    from aioidempotency import AsyncIdempotencyStore, deadline

    store = AsyncIdempotencyStore.in_memory()

    with deadline(25.0):
        async with store.execute("invoice-42") as execution:
            execution.complete("sent")
    ```

    A lease inside the block lasts for the remaining time, without renewals, and a `Wait` for another owner ends with
    the deadline. The deadline does not limit requests to the store; the backend's time limit does. Nested
    deadlines: the earlier one counts.

    Args:
        seconds: Seconds from now. With 0 or less, leases end at once, and the key is free again after the clock skew.
    """
    outer = DEADLINE.get()
    ends = time.monotonic() + seconds
    token = DEADLINE.set(ends if outer is None else min(outer, ends))
    try:
        yield
    finally:
        DEADLINE.reset(token)


def time_left() -> float | None:
    """Read the seconds until the deadline, 0 after the deadline, None without one."""
    ends = DEADLINE.get()
    return None if ends is None else max(0.0, ends - time.monotonic())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Find the running loop. None if a coroutine is closed after the end of its loop."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@final
class RunningLease:
    """One lease while the body runs.

    Args:
        lease: The lease as granted.
        since: The loop's time of the request for the lease.
        interval: Seconds between two renewals.

    Attributes:
        lease: The lease as last renewed.
        lost: Whether the loss of the lease cancelled the body.
        record: The successor's record, if known.
        ended: Whether the body has ended. No renewal and no cancellation follows.
        since: The loop's time from which the lease counts.
    """

    __slots__ = ("_scope", "_task", "ended", "interval", "lease", "lost", "record", "since", "timer")

    def __init__(self, lease: Lease, *, since: float, interval: float) -> None:
        self.lease = lease
        self.since = since
        self.interval = interval
        self.lost = False
        self.ended = False
        self.record: Record | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._task = asyncio.current_task()
        self._scope = anyio.CancelScope()
        self._scope.__enter__()

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """End the body. True if `lose` cancelled the body, and the cancellation stops here."""
        self.ended = True
        if self.timer is not None:
            self.timer.cancel()
        try:
            task = asyncio.current_task()
        except RuntimeError:  # the coroutine is closed after the end of its loop
            return False
        # A test's fixture may leave the block in another task. anyio refuses to exit a scope there, and the scope
        # ended with the first task anyway.
        if task is not self._task:
            return False
        return bool(self._scope.__exit__(kind, error, trace))

    @property
    def safe_until(self) -> float:
        """The loop's time until which the body may run without another renewal."""
        return self.since + SAFE_PART * self.lease.duration

    @property
    def ends_at(self) -> float:
        """The loop's time at which the lease ends."""
        return self.since + self.lease.duration

    def extend(self, lease: Lease, *, since: float) -> None:
        """Accept a renewal, requested at the loop's time `since`."""
        self.lease = lease
        self.since = since

    def lose(self, record: Record | None) -> None:
        """Cancel the body."""
        if not self.ended:
            self.lost = True
            self.record = record
            self._scope.cancel()


@final
class Leases:
    """The leases and background tasks of one event loop.

    Args:
        renew: Renews a lease in the table.
    """

    def __init__(self, renew: Callable[[Lease], Awaitable[Lease]]) -> None:
        self._renew = renew
        self._loop = asyncio.get_running_loop()
        self._running: set[RunningLease] = set()
        self._background: set[asyncio.Task[None]] = set()

    def keep(self, running: RunningLease) -> None:
        """Renew a lease from now on, until the end of the body."""
        self._running.add(running)
        # A lease may have been cut by the end of a time window. The interval then follows the lease's real duration.
        due = running.since + min(running.interval, running.lease.duration / 3)
        running.timer = self._loop.call_at(due, self._begin_renewal, running)

    def forget(self, running: RunningLease) -> None:
        """Stop keeping a lease. A renewal under way ends without effect."""
        self._running.discard(running)

    def spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run background work without a waiting caller. After the end of the loop, drop the work."""
        if _running_loop() is not self._loop:
            work.close()
            return
        # The set holds a reference, because the loop keeps only a weak one, and `aclose` must find the task.
        task = self._loop.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def aclose(self) -> None:
        """Cancel all timers and background tasks of the loop, and wait for their end.

        A body that still runs loses its renewals, and is cancelled at the safe point of its lease.
        """
        for running in self._running:
            if running.timer is not None:
                running.timer.cancel()
            # The lease still stands, so the body may use the rest. Without this timer the body would run on beside a
            # successor.
            running.timer = self._loop.call_at(running.safe_until, running.lose, None)
        self._running.clear()
        background = list(self._background)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._running)

    def _begin_renewal(self, running: RunningLease) -> None:
        self.spawn(self._renewed(running), f"renew {running.lease.key}")

    async def _renewed(self, running: RunningLease) -> None:
        """Renew one lease, with retries until the safe point. Cancel the body if all fail."""
        pause = running.interval / 10
        backoff = Backoff(pause, pause, until=running.safe_until)
        while not running.ended:
            since = self._loop.time()
            # A renewal may start late, after a slow claim or in a busy loop. Beyond the safe point, one attempt
            # until the lease's end is still worth more than the loss of the body's work.
            limit = running.safe_until if since < running.safe_until else running.ends_at
            try:
                with anyio.fail_after(limit - since):
                    renewed = await self._renew(running.lease)
            except LeaseLostError as error:
                return running.lose(error.record)
            except Exception:  # noqa: BLE001 - a foreign backend may raise anything, and the lease must still end
                if not await backoff.pause():
                    return running.lose(None)
            else:
                running.extend(renewed, since=since)
                # The body may have ended during the request. A new timer would then renew a finished record.
                return None if running.ended else self.keep(running)
        return None
