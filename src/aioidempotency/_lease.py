"""Keeping a lease while its body runs, and the time that is left.

A renewal is due every third of the lease; until then a call costs a timer and no task. A lease that
cannot be renewed before its safe point, or that is lost, cancels the body: it must not go on while
someone else runs. Times here are the event loop's, which no clock change moves.

Leases belong to the event loop in which their bodies run: `Leases` is one for each loop, so closing a store
in one loop ends no renewal of another.
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
"""How much of a lease may pass without a renewal; the rest is for the body to unwind."""

DEADLINE: ContextVar[float | None] = ContextVar("aioidempotency_deadline", default=None)
"""The instant of `time.monotonic` before which calls must end; None outside of any `deadline`."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Say how long the calls inside can run at the most, before the environment ends them.

    Inside, a lease is the time that is left, without renewals, and no other owner is waited for longer.
    What the store takes to answer is bounded by its own time limit, not by the deadline. With
    0 or less, leases end at once: the key is free again when the clock skew has passed. Inside another
    deadline, the earlier one counts.
    """
    outer = DEADLINE.get()
    ends = time.monotonic() + seconds
    token = DEADLINE.set(ends if outer is None else min(outer, ends))
    try:
        yield
    finally:
        DEADLINE.reset(token)


def time_left() -> float | None:
    """Read the seconds until the deadline, 0 where it has passed; None outside of any."""
    ends = DEADLINE.get()
    return None if ends is None else max(0.0, ends - time.monotonic())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Find the running loop; None where a coroutine is closed after its loop has ended."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@final
class RunningLease:
    """One lease while its body runs.

    Args:
        lease: As it was granted.
        since: The loop's time at which the lease was asked for.
        interval: Seconds between two renewals.

    Attributes:
        lease: As it was renewed last.
        lost: Whether the body was cancelled because the lease is lost.
        record: What was found in its location, if that is known.
        ended: Whether the body has ended: nothing is renewed or cancelled any more.
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
        """End the body; tell whether it was `lose` that ended it.

        A block that is left in another task than it was entered in (a test's fixture may do so) cannot
        be cancelled by then, and its scope ended with the first task.
        """
        self.ended = True
        if self.timer is not None:
            self.timer.cancel()
        try:
            task = asyncio.current_task()
        except RuntimeError:  # a coroutine is closed after its loop has ended
            return False
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
        """Take a renewal in; `since` is when it was asked for."""
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
    """The leases that are kept in one event loop, and what runs there in the background.

    Args:
        renew: Renews a lease in the table.
    """

    def __init__(self, renew: Callable[[Lease], Awaitable[Lease]]) -> None:
        self._renew = renew
        self._loop = asyncio.get_running_loop()
        self._running: set[RunningLease] = set()
        self._background: set[asyncio.Task[None]] = set()

    def keep(self, running: RunningLease) -> None:
        """Renew a lease from now on, until its body ends."""
        self._running.add(running)
        due = running.since + min(running.interval, running.lease.duration / 3)
        running.timer = self._loop.call_at(due, self._begin_renewal, running)

    def forget(self, running: RunningLease) -> None:
        """Stop keeping a lease. A renewal that is on its way finishes by itself, and changes nothing more."""
        self._running.discard(running)

    def spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run something that its caller cannot wait for; not at all where the loop does not run any more."""
        if _running_loop() is not self._loop:
            work.close()
            return
        task = self._loop.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def aclose(self) -> None:
        """Cancel all that is scheduled or on its way, and wait until it has ended.

        A body that still runs is not renewed any more, and is cancelled at its lease's safe point.
        """
        for running in self._running:
            if running.timer is not None:
                running.timer.cancel()
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
        """Renew one lease, trying again until its safe point; else cancel its body."""
        pause = running.interval / 10
        backoff = Backoff(pause, pause, until=running.safe_until)
        while not running.ended:
            since = self._loop.time()
            # A renewal that comes late, because the claim or the loop was slow, is tried once all the same.
            limit = running.safe_until if since < running.safe_until else running.ends_at
            try:
                with anyio.fail_after(limit - since):
                    renewed = await self._renew(running.lease)
            except LeaseLostError as error:
                return running.lose(error.record)
            except Exception:  # noqa: BLE001 - whatever kept the renewal from being answered, the lease is not kept
                if not await backoff.pause():
                    return running.lose(None)
            else:
                running.extend(renewed, since=since)
                return None if running.ended else self.keep(running)
        return None
