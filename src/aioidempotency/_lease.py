"""Keeping a lease while the body runs, and deadlines.

A renewal is due after each third of the lease. All leases of a loop share one timer, so a call that ends sooner costs
no timer and no task.

Invariants:

1. A body never runs beyond its lease. A lease without a renewal before its safe point is lost, and so is a
   lease with another owner: the task of the body is cancelled.
2. A task has one cancellation of ours outstanding at most, held by one `RunningLease`. Who leaves that block takes
   the cancellation back, so afterwards `Task.cancelling` is as before. Another lost block of the task is marked, and
   cancels a body that goes on at the end of its lease, or after the first block is left. Cancel scopes cannot do so:
   scopes must be left in the reverse order of entry, and cancel every await of the body's own clean-up.
3. Instants are the event loop's time, which no change of the wall clock moves. That time stands still while the
   machine sleeps, and leases do not: so a watch compares it with a clock that counts sleep.
4. A lease counts from the request for the lease, not from the answer: a slow answer has used up a part of the lease.
5. A lease belongs to the event loop of its body, and to its process. There is one `Leases` for each loop, so closing
   a store in one loop leaves the renewals of other loops alone, and a forked process has none.
6. A renewal runs in a copy of the context in which its call began. The shared timer may belong to any call, and the
   spans and log lines of a renewal must not go to a stranger.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from math import inf, isnan
from typing import Any, Final, Self, final
from weakref import WeakKeyDictionary, WeakSet

import anyio
from msgspec import Struct

from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import CLEANUP_LIMIT, PROCESS, Nested, innermost
from aioidempotency._core.model import Lease, Record
from aioidempotency.exceptions import ConfigurationError, LeaseLostError

WATCH_INTERVAL: Final = 1.0
"""Seconds between two looks for a machine that slept, while leases are held."""

UNWINDING_LOOK: Final = 0.1
"""Seconds between two looks whether a task has left another lost block."""

LEAST_SLEEP: Final = 0.05
"""Seconds of a difference between the clocks that count as sleep: two clocks cannot be read at one instant."""

SAFE_PART = 0.9
"""The part of a lease that may pass without a renewal. The rest is time for the cancelled body to unwind."""


@final
class Deadline(Nested, eq=False):
    """One `deadline` block.

    Attributes:
        ends: The instant of `time.monotonic` before which calls must end.
    """

    ends: float

    def leave(self) -> None:
        """End the deadline, in all tasks and contexts that it has reached."""
        self._left = True
        if DEADLINE.get() is self:
            DEADLINE.set(innermost(self._outer))


DEADLINE: ContextVar[Deadline | None] = ContextVar("aioidempotency_deadline", default=None)
"""The innermost deadline. None without a `deadline`. A task may find one that was left; `time_left` skips those."""


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

    A deadline may be entered in one task or context, and left in another one, as fixtures and dependencies with `yield`
    do. The deadline counts where its context reaches: in the code inside the block, and in tasks started there. FastAPI
    runs a plain `def` dependency in a context of its own, so a deadline in there reaches no endpoint. The end of the
    block ends the deadline everywhere.

    Args:
        seconds: Seconds from now. With 0 or less, leases end at once, and the key is free again after the clock skew.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or isnan(seconds):
        raise ConfigurationError(f"deadline(seconds) takes a number of seconds from now: not {seconds!r}")
    mine = Deadline(time.monotonic() + seconds)
    mine._outer = innermost(DEADLINE.get())  # noqa: SLF001 - a block makes its deadline
    DEADLINE.set(mine)
    try:
        yield
    finally:
        mine.leave()


def time_left() -> float | None:
    """Read the seconds until the earliest deadline, 0 after the deadline, None without one."""
    found = innermost(DEADLINE.get())
    if found is None:
        return None
    ends = found.ends
    # An outer deadline may have been left before this one, so the earliest of those in force is found anew.
    while (found := innermost(found._outer)) is not None:  # noqa: SLF001 - how blocks nest is `Nested`'s
        ends = min(ends, found.ends)
    return max(0.0, ends - time.monotonic())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Find the running loop. None if a coroutine is closed after the end of its loop."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def seconds_asleep() -> float:
    """Read how many seconds this machine has slept since it was started, on Linux; elsewhere 0."""
    if sys.platform != "linux":
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


_CANCELLED: Final[WeakKeyDictionary["asyncio.Task[object]", "RunningLease"]] = WeakKeyDictionary()
"""The tasks that a lost lease has cancelled, until the block of that lease is left."""


BACKGROUND: Final[WeakSet["asyncio.Task[None]"]] = WeakSet()
"""The renewals and releases under way, of all stores: whoever waits for the end of a loop's work lets them end."""


_ENDED: Final = Context()
"""Stands for the context of a call that has ended."""


def due_after(since: float, interval: float, lease: Lease) -> float:
    """Tell when the next renewal is due. A lease cut by the end of a time window is renewed after its own third."""
    third = lease.duration / 3
    return since + (interval if interval < third else third)  # noqa: FURB136 - without a call, on the path of every call


@final
class RunningLease(Struct, eq=False):
    """One lease while the body runs.

    Attributes:
        lease: The lease as last renewed.
        since: The loop's time from which the lease counts: that of the request for the lease.
        interval: Seconds between two renewals.
        due: The loop's time at which the next renewal is due, see `due_after`.
        context: A copy of the call's context, in which its renewals run; an empty one after the end of the body.
        lost: Whether the lease was lost while the body ran.
        record: The successor's record, if known.
        cause: The last error of a renewal, if the lease was lost for want of an answer.
        ended: Whether the body has ended. No renewal and no cancellation follows.
        timer: The end of a lease that nobody renews any more; or, while a task with two lost leases unwinds, the
            cancellation for this one.
        renewing: Whether a renewal is under way.
        request: The time limit of a renewal under way.
    """

    lease: Lease
    since: float
    interval: float
    due: float
    context: Context
    _loop: asyncio.AbstractEventLoop
    _task: "asyncio.Task[Any] | None"
    _cancelling: int
    lost: bool = False
    record: Record | None = None
    cause: Exception | None = None
    ended: bool = False
    timer: asyncio.TimerHandle | None = None
    renewing: bool = False
    request: anyio.CancelScope | None = None

    @classmethod
    def of(cls, lease: Lease, since: float, interval: float, loop: asyncio.AbstractEventLoop) -> Self:
        """Hold a lease for the running task."""
        task = asyncio.current_task(loop)
        cancelling = 0 if task is None else task.cancelling()
        due = due_after(since, interval, lease)
        return cls(lease, since, interval, due, copy_context(), loop, task, cancelling)

    # The lease names the record, and nothing else is of interest.
    def __repr__(self) -> str:
        return f"<RunningLease: {self.lease!r}{', lost' if self.lost else ''}{', ended' if self.ended else ''}>"

    def take_back(self, error: BaseException | None) -> bool:
        """Take back the cancellation of a lost lease, if this lease holds one.

        `error` is what ended the body. True if the caller of the body cancelled the body as well: then the
        cancellation passes.
        """
        task = self._task
        if task is None or _CANCELLED.get(task) is not self:
            # Another lost block, or the caller, cancelled the task.
            return isinstance(error, asyncio.CancelledError)
        del _CANCELLED[task]
        return task.uncancel() > self._cancelling

    @property
    def safe_until(self) -> float:
        """The loop's time until which the body may run without another renewal."""
        return self.since + SAFE_PART * self.lease.duration

    @property
    def ends_at(self) -> float:
        """The loop's time at which the lease ends."""
        return self.since + self.lease.duration

    @property
    def remaining(self) -> float:
        """Seconds until the lease ends, by the loop's time; less than 0 after its end."""
        return self.ends_at - self._loop.time()

    @property
    def now(self) -> float:
        """The epoch seconds by which this process knows the lease, however the wall clock was set meanwhile."""
        return self.lease.expires_at - self.remaining

    def extend(self, lease: Lease, *, since: float) -> None:
        """Accept a renewal, requested at the loop's time `since`."""
        self.lease = lease
        self.since = since
        self.due = due_after(since, self.interval, lease)

    def lose(self, record: Record | None, cause: Exception | None = None) -> None:
        """Cancel the task of the body, once. A task that another lost block has cancelled is on its way out."""
        if self.ended or self.lost:
            return
        self.lost, self.record, self.cause = True, record, cause
        self._cancel()

    def _cancel(self) -> None:
        """Cancel the task of the body; later, while the task unwinds from another lost block.

        The body may go on after that other block, so its own cancellation must follow. But nothing interrupts the
        clean-up between the blocks before the end of the lease, unless the record belongs to another owner already.
        """
        task = self._task
        # A block may be left in another task than the one that entered; that one may have ended.
        if self.ended or task is None or task.done():
            return
        if task in _CANCELLED:
            left = 0.0 if isinstance(self.cause, LeaseLostError) else self.remaining
            self.timer = self._loop.call_later(max(left, UNWINDING_LOOK), self._cancel)
            return
        _CANCELLED[task] = self
        task.cancel()


@final
class Leases:
    """The leases and background tasks of one event loop.

    Args:
        renew: Renews a lease in the table.
        used: Reads the age of a lease by the wall clock.
        held: The leases of the store's running bodies in all loops, by owner.
        asleep: Reads how many seconds the machine has slept.

    Attributes:
        forks: Tells the process that made the claims; a process that was forked from it owns nothing.
    """

    def __init__(
        self,
        renew: Callable[[Lease], Awaitable[Lease]],
        used: Callable[[Lease], float],
        held: dict[str, RunningLease],
        asleep: Callable[[], float] = seconds_asleep,
    ) -> None:
        self._renew = renew
        self._used = used
        self._held = held
        self._asleep = asleep
        self._slept = asleep()
        self._loop = asyncio.get_running_loop()
        self._looked = self._loop.time()
        self.forks = PROCESS.forks
        # A dict for its order: of two leases that one task loses at once, the older one cancels the task.
        self._running: dict[RunningLease, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        # No lease is due before this instant. The lease of a call that has ended may have set it.
        self._next_due = inf
        self._renewals: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[None]] = set()

    def keep(self, running: RunningLease) -> None:
        """Renew a lease from now on, until the end of the body."""
        self._running[running] = None
        timer = self._timer
        if timer is None:  # one timer for all leases, which goes on until a second has passed without any
            # A sleep while there was nothing to watch concerns none of the leases to come.
            self._slept, self._looked = self._asleep(), self._loop.time()
            self._next_due = running.due
            self._timer = self._loop.call_at(min(running.due, self._looked + WATCH_INTERVAL), self._look)
        elif running.due < self._next_due:
            self._next_due = running.due
            if running.due < timer.when():
                timer.cancel()
                self._timer = self._loop.call_at(running.due, self._look)

    def end(self, running: RunningLease) -> None:
        """Stop keeping a lease, since its body has ended. A renewal under way ends without effect."""
        self._running.pop(running, None)
        self._held.pop(running.lease.owner, None)
        running.ended = True
        # An ended lease is known to the execution around later blocks. With its context, each would keep the one before.
        running.context = _ENDED
        if running.timer is not None:
            running.timer.cancel()

    def release(self, work: Coroutine[object, object, None], name: str) -> None:
        """Give a key back without a waiting caller. After the end of the loop, drop the work."""
        self._spawn(work, name, self._releases, None)

    def _spawn(
        self, work: Coroutine[object, object, None], name: str, among: set[asyncio.Task[None]], context: Context | None
    ) -> None:
        if _running_loop() is not self._loop:
            work.close()
            return
        # The set holds a reference, because the loop keeps only a weak one, and `aclose` must find the task.
        task = self._loop.create_task(work, name=name, context=context)
        among.add(task)
        BACKGROUND.add(task)
        task.add_done_callback(among.discard)

    async def aclose(self) -> None:
        """Cancel all timers and renewals of the loop, and wait for their end, and for releases under way.

        A body that still runs loses its renewals, and is cancelled at the safe point of its lease.
        """
        for running in self._running:
            if running.lost:
                continue
            # The lease still stands, so the body may use the rest. Without this timer the body would run on beside a
            # successor.
            running.timer = self._loop.call_at(running.safe_until, running.lose, None)
        self._running.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        renewals = list(self._renewals)
        for task in renewals:
            task.cancel()
        await asyncio.gather(*renewals, return_exceptions=True)
        # A key that is not given back stays locked until its lease ends.
        if self._releases:
            await asyncio.wait(self._releases, timeout=CLEANUP_LIMIT)

    def __len__(self) -> int:
        return len(self._running)

    def _look(self) -> None:
        """Look for a machine that slept, and renew what is due."""
        if self.forks != PROCESS.forks:  # a forked process runs a copy of the loop, with its timers
            return
        self._timer = None
        if not self._running:
            return
        self._count_sleep()
        now = self._loop.time()
        if self._next_due <= now:
            self._renew_due(now)
        # The context of a lease that runs: else a busy store would keep that of its first call for good. A copy, because
        # an eager task cannot enter the context of the timer that starts the task.
        context = next(iter(self._running)).context.copy()
        self._timer = self._loop.call_at(min(self._next_due, now + WATCH_INTERVAL), self._look, context=context)

    def _renew_due(self, now: float) -> None:
        """Begin the renewals that are due, and find the next ones."""
        self._next_due = inf
        for running in self._running:
            if running.renewing or running.lost:
                continue
            if running.due <= now:
                running.renewing = True
                self._spawn(self._renewed(running), f"renew {running.lease.key}", self._renewals, running.context)
            else:
                self._next_due = min(self._next_due, running.due)

    def _count_sleep(self) -> None:
        """Let the time in which the machine slept count for all leases; renew or lose each of them."""
        slept, now = self._asleep() - self._slept, self._loop.time()
        looked, self._looked = self._looked, now
        if slept < LEAST_SLEEP:
            return
        self._slept += slept
        for running in self._running:
            if running.lost:
                continue
            slept_since = slept
            if running.since > looked:
                # The lease was requested since the last look: before the sleep, or after. Only the wall clock tells,
                # within bounds, because somebody may have set the wall clock.
                slept_since = min(slept, max(0.0, self._used(running.lease) - (now - running.since)))
            running.since -= slept_since
            if running.request is not None:
                running.request.deadline -= slept_since
            if now >= running.ends_at:
                running.lose(None)
            else:
                running.due -= slept_since
                self._next_due = min(self._next_due, running.due)
        if self._timer is not None and self._next_due < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._next_due, self._look)

    async def _renewed(self, running: RunningLease) -> None:
        """Renew one lease, with retries until the safe point. Cancel the body if all fail."""
        pause = running.interval / 10
        while not running.ended and not running.lost:
            self._count_sleep()  # the watch may look later than this renewal, if both are due when the machine wakes
            if running.lost:
                return None
            since = self._loop.time()
            # A renewal may start late, after a slow claim or in a busy loop. Beyond the safe point, one attempt
            # until the lease's end is still worth more than the loss of the body's work.
            limit = running.safe_until if since < running.safe_until else running.ends_at
            try:
                with anyio.fail_after(limit - since) as running.request:
                    renewed = await self._renew(running.lease)
            except LeaseLostError as error:
                return running.lose(error.record, error)
            except Exception as error:  # noqa: BLE001 - a foreign backend may raise anything, and the lease must still end
                # The safe point is read anew: it comes sooner when the machine has slept meanwhile.
                if not await Backoff(pause, pause, until=running.safe_until).pause():
                    return running.lose(None, error)
            else:
                # Extended first: a sleep during the request counts for the new lease, and not for the old one.
                running.extend(renewed, since=since)
                self._count_sleep()
                running.renewing = False
                # The body may have ended during the request. Another renewal would then renew a finished record.
                return None if running.ended or running.lost else self.keep(running)
        return None
