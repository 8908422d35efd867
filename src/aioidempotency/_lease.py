"""Keeping a lease while its body runs, and the time that is left.

A renewal is due every third of the lease; until then a call costs a timer and no task. A lease that
cannot be renewed before its safe point, or that is lost, cancels the body: it must not go on while
someone else runs. Times here are the event loop's, which no clock change moves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

import anyio

from aioidempotency._core.model import Lease, Record
from aioidempotency.exceptions import IdempotencyError, LeaseLostError

SAFE_PART = 0.9
"""How much of a lease may pass without a renewal; the rest is for the body to unwind."""

_deadline: ContextVar[float | None] = ContextVar("aioidempotency_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Say how long the calls inside can run at the most, before the environment ends them.

    Inside, a lease is the time that is left, without renewals, and nothing is waited for longer. With
    0 or less, leases end at once: the key is free again when the clock skew has passed. Inside another
    deadline, the earlier one counts.
    """
    outer = _deadline.get()
    ends = time.monotonic() + seconds
    token = _deadline.set(ends if outer is None else min(outer, ends))
    try:
        yield
    finally:
        _deadline.reset(token)


def time_left() -> float | None:
    """Read the seconds until the deadline, 0 where it has passed; None outside of any."""
    ends = _deadline.get()
    return None if ends is None else max(0.0, ends - time.monotonic())


@final
class Held:
    """One lease while its body runs.

    Attributes:
        lease: As it was renewed last.
        lost: Whether the body was cancelled because the lease is lost.
        record: What was found in its place, if that is known.
    """

    def __init__(self, lease: Lease, *, since: float, interval: float) -> None:
        self.lease = lease
        self.lost = False
        self.record: Record | None = None
        self.interval = interval
        self.timer: asyncio.TimerHandle | None = None
        self.scope = anyio.CancelScope()
        self._since = since
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the body has ended: nothing is renewed or cancelled any more."""
        return self._ended

    @property
    def due(self) -> float:
        """The loop's time of the next renewal."""
        return self._since + self.interval

    @property
    def safe_until(self) -> float:
        """The loop's time until which the body may run without another renewal."""
        return self._since + SAFE_PART * self.lease.duration

    @property
    def ends_at(self) -> float:
        """The loop's time at which the lease ends."""
        return self._since + self.lease.duration

    def extend(self, lease: Lease, *, since: float) -> None:
        """Take a renewal in; `since` is when it was asked for."""
        self.lease = lease
        self._since = since

    def lose(self, record: Record | None) -> None:
        """Cancel the body."""
        if not self._ended:
            self.lost = True
            self.record = record
            self.scope.cancel()

    def end(self) -> None:
        """Note that the body has ended."""
        self._ended = True
        if self.timer is not None:
            self.timer.cancel()


@final
class Heartbeats:
    """The renewals of one store's running calls."""

    def __init__(self, renew: Callable[[Lease], Awaitable[Lease]]) -> None:
        self._renew = renew
        self._held: set[Held] = set()
        self._renewing: set[asyncio.Task[None]] = set()

    def begin(self, held: Held) -> None:
        """Renew a lease from now on, until `end`."""
        self._held.add(held)
        self._schedule(held)

    def end(self, held: Held) -> None:
        """Stop renewing. A renewal that is on its way finishes by itself, and changes nothing more."""
        held.end()
        self._held.discard(held)

    async def aclose(self) -> None:
        """Cancel all that is scheduled or on its way, and wait until it has ended."""
        for held in self._held:
            held.end()
        self._held.clear()
        renewing = [task for task in self._renewing if task.get_loop() is asyncio.get_running_loop()]
        for task in renewing:
            task.cancel()
        await asyncio.gather(*renewing, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._held)

    def _schedule(self, held: Held) -> None:
        held.timer = asyncio.get_running_loop().call_at(held.due, self._due, held)

    def _due(self, held: Held) -> None:
        task = asyncio.get_running_loop().create_task(self._keep(held), name=f"renew {held.lease.key}")
        self._renewing.add(task)
        task.add_done_callback(self._renewing.discard)

    async def _keep(self, held: Held) -> None:
        """Renew one lease, trying again until its safe point; else cancel its body."""
        pause = held.interval / 10
        while not held.ended:
            since = anyio.current_time()
            # A renewal that comes late, because the claim or the loop was slow, is tried once all the same.
            limit = held.safe_until if since < held.safe_until else held.ends_at
            try:
                with anyio.fail_after(limit - since):
                    renewed = await self._renew(held.lease)
            except LeaseLostError as error:
                return held.lose(error.record)
            except (IdempotencyError, TimeoutError):
                if anyio.current_time() + pause >= held.safe_until:
                    return held.lose(None)
                await anyio.sleep(pause)
            else:
                held.extend(renewed, since=since)
                return None if held.ended else self._schedule(held)
        return None
