"""Keeping a lease while its body runs, and the time that is left.

A renewal is due every third of the lease; until then a call costs a timer and no task. A lease that
cannot be renewed before its safe point, or that is lost, cancels the body: it must not go on while
someone else runs. Times here are the event loop's, which no clock change moves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import final

import anyio

from aioidempotency._core.model import Lease, Record
from aioidempotency.exceptions import LeaseLostError

SAFE_PART = 0.9
"""How much of a lease may pass without a renewal; the rest is for the body to unwind."""

_deadline: ContextVar[float | None] = ContextVar("aioidempotency_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Say how long the calls inside can run at the most, before the environment ends them.

    Inside, a lease is the time that is left, without renewals, and no other owner is waited for longer.
    What the store takes to answer is bounded by its own time limit, not by the deadline. With
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


def loop_time() -> float:
    """Read the running loop's clock, which no change of the wall clock moves."""
    return asyncio.get_running_loop().time()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Find the running loop; None where a coroutine is closed after its loop has ended."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


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
        self._scope = anyio.CancelScope()
        self._task = asyncio.current_task()
        self._since = since
        self._ended = False

    def enter(self) -> None:
        """Begin the body, in the running task."""
        self._scope.__enter__()

    def leave(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """End the body; tell whether it was `lose` that ended it.

        A block that is left in another task than it was entered in (a test's fixture may do so) cannot
        be cancelled by then, and its scope ended with the first task.
        """
        if _running_loop() is None or asyncio.current_task() is not self._task:
            return False
        return bool(self._scope.__exit__(kind, error, trace))

    @property
    def ended(self) -> bool:
        """Whether the body has ended: nothing is renewed or cancelled any more."""
        return self._ended

    @property
    def due(self) -> float:
        """The loop's time of the next renewal."""
        return self._since + min(self.interval, self.lease.duration / 3)

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
            self._scope.cancel()

    def end(self) -> None:
        """Note that the body has ended."""
        self._ended = True
        self.end_renewals()

    def end_renewals(self) -> None:
        """Take back what is scheduled."""
        if self.timer is not None:
            self.timer.cancel()


@final
class Heartbeats:
    """The renewals of one store's running calls."""

    def __init__(self, renew: Callable[[Lease], Awaitable[Lease]]) -> None:
        self._renew = renew
        self._held: set[Held] = set()
        self._background: set[asyncio.Task[None]] = set()

    def begin(self, held: Held) -> None:
        """Renew a lease from now on, until `end`."""
        self._held.add(held)
        self._schedule(held)

    def end(self, held: Held) -> None:
        """Stop renewing. A renewal that is on its way finishes by itself, and changes nothing more."""
        held.end()
        self._held.discard(held)

    def spawn(self, work: Coroutine[object, object, None], name: str) -> None:
        """Run something that its caller cannot wait for; not at all where no loop runs any more."""
        loop = _running_loop()
        if loop is None:
            work.close()
            return
        task = loop.create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def aclose(self) -> None:
        """Cancel all that is scheduled or on its way, and wait until it has ended.

        A body that still runs is not renewed any more, and is cancelled at its lease's safe point.
        """
        for held in self._held:
            self._let_lapse(held)
        self._held.clear()
        background = [task for task in self._background if task.get_loop() is asyncio.get_running_loop()]
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    def __len__(self) -> int:
        return len(self._held)

    def _schedule(self, held: Held) -> None:
        held.timer = asyncio.get_running_loop().call_at(held.due, self._due, held)

    def _due(self, held: Held) -> None:
        self.spawn(self._keep(held), f"renew {held.lease.key}")

    def _let_lapse(self, held: Held) -> None:
        held.end_renewals()
        held.timer = asyncio.get_running_loop().call_at(held.safe_until, held.lose, None)

    async def _keep(self, held: Held) -> None:
        """Renew one lease, trying again until its safe point; else cancel its body."""
        pause = held.interval / 10
        while not held.ended:
            since = loop_time()
            # A renewal that comes late, because the claim or the loop was slow, is tried once all the same.
            limit = held.safe_until if since < held.safe_until else held.ends_at
            try:
                with anyio.fail_after(limit - since):
                    renewed = await self._renew(held.lease)
            except LeaseLostError as error:
                return held.lose(error.record)
            except Exception:  # noqa: BLE001 - whatever kept the renewal from being answered, the lease is not kept
                if loop_time() + pause >= held.safe_until:
                    return held.lose(None)
                await anyio.sleep(pause)
            else:
                held.extend(renewed, since=since)
                return None if held.ended else self._schedule(held)
        return None
