"""Forks, values for each event loop, actions done once, blocks left in any order, and work after a cancellation.

No exception group leaves this module, and no cancellation is swallowed.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from threading import Lock
from typing import Final, Generic, Self, TypeVar, final

import anyio
from msgspec import Struct

from aioidempotency.exceptions import ConfigurationError, LeaseLostError

A = TypeVar("A")
T = TypeVar("T")

CLEANUP_LIMIT = 5.0
"""Seconds that a completion or a release may take after the cancellation of the caller."""


def running_loop() -> asyncio.AbstractEventLoop:
    """Return the running event loop.

    Raises:
        ConfigurationError: No loop of asyncio runs, but trio's, or none.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError as error:
        raise ConfigurationError(
            "this library runs on asyncio alone, and no event loop of asyncio is running here; under anyio, choose "
            "backend='asyncio', and under trio run the calls with trio-asyncio"
        ) from error


@final
class _Process:
    """Tells a process from the one that it was forked from.

    Attributes:
        forks: How many forks lie between this process and the first one.
    """

    def __init__(self) -> None:
        self.forks = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self.forks += 1


PROCESS: Final = _Process()


@final
class PerLoop(dict[asyncio.AbstractEventLoop, T], Generic[T]):
    """One value for each event loop, made at the first access: `values[asyncio.get_running_loop()]`.

    Another loop must not touch the value. A new loop drops the values of closed loops, which cannot be closed
    properly any more.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, loop: asyncio.AbstractEventLoop) -> T:
        # A copy, because another thread, with a loop of its own, may add a value during the iteration.
        for each in list(self):
            if each.is_closed():
                self.pop(each, None)
        made = self[loop] = self._make()
        return made


class Nested(Struct, eq=False, kw_only=True):
    """What a block puts around the code inside, found through a context variable.

    A block may be entered in one task or context, and left in another one. Each task, and each context, has a copy of
    the variable: so leaving a block cannot reset the variable everywhere, and a token of the variable would be refused.
    Therefore a block that was left is marked, and a reader of the variable skips marked ones, see `innermost`.
    """

    _left: bool = False
    _outer: Self | None = None


N = TypeVar("N", bound=Nested)


def innermost(nested: N | None) -> N | None:
    """Find the innermost block that was not left yet, from `nested` outwards."""
    found = nested
    while found is not None and found._left:  # noqa: SLF001 - the subclass's blocks write, and readers ask here
        found = found._outer  # noqa: SLF001
    # Without this, blocks that overlap in an endless row would keep each other alive.
    if found is not None and found._outer is not None:  # noqa: SLF001
        found._outer = innermost(found._outer)  # noqa: SLF001
    return found


async def concurrently(action: Callable[[A], Awaitable[T]], arguments: Iterable[A], *, limit: int) -> list[T]:
    """Call the action for each argument, at most `limit` at a time. Return the results in the order of the arguments.

    The first error cancels the other calls, and is raised without an exception group.
    """
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ConfigurationError(f"limit= takes a number of concurrent calls, 1 or more: not {limit!r}")
    # Each letter would be a key.
    if isinstance(arguments, str) or not isinstance(arguments, Iterable):
        raise ConfigurationError(f"keys= takes keys in a list, or another iterable: not one {type(arguments).__name__}")
    limiter = anyio.CapacityLimiter(limit)
    answers: dict[int, T] = {}

    async def call(index: int, argument: A) -> None:
        async with limiter:
            answers[index] = await action(argument)

    try:
        async with anyio.create_task_group() as tasks:
            for index, argument in enumerate(arguments):
                tasks.start_soon(call, index, argument)
    except BaseExceptionGroup as group:
        # Callers catch errors by type, and an exception group would pass their `except`.
        raise _first(group) from None
    return [answers[index] for index in sorted(answers)]


@final
class Once:
    """Does something once, for any number of concurrent callers.

    Later callers wait for the first one, and share its failure. After a cancellation of the first caller, the
    next caller does the work. After `again`, the next caller does the work anew.
    """

    def __init__(self, action: Callable[[], Awaitable[object]]) -> None:
        self.done = False
        self._action = action
        self._asked = 0
        self._lock = Lock()  # threads with loops of their own share a store
        self._under_way: _Attempt | None = None

    async def __call__(self) -> None:
        """Do the work, or wait until another caller has done it."""
        while not self.done:
            other = self._under_way
            # An event of another loop would never wake this one. Both loops then do the work.
            if other is None or other.loop is not asyncio.get_running_loop():
                return await self._do()
            await other.ended.wait()
            # After a failure, each waiting caller would otherwise try in turn, and wait as many time limits.
            if other.failure is not None:
                # Each caller adds its frames to the error: without this, a thousand callers would add theirs to one.
                raise other.failure.with_traceback(None)
        return None

    def again(self) -> None:
        """Have the work done anew: what it is about has changed."""
        with self._lock:
            self._asked += 1
            self.done = False

    async def _do(self) -> None:
        mine = self._under_way = _Attempt()
        asked = self._asked
        try:
            await self._action()
            with self._lock:
                # Work that began before the last change knows nothing of the change.
                self.done = self.done or asked == self._asked
        except Exception as error:
            mine.failure = error
            raise
        finally:
            self._under_way = None
            mine.ended.set()


class _Attempt:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended = anyio.Event()
        self.failure: Exception | None = None


async def in_any_case(action: Callable[[], Awaitable[T]], *, otherwise: Callable[[], object]) -> T:
    """Run an idempotent action. After a cancellation, run the action again to its end, and pass the cancellation on."""
    try:
        # Without a second task on the common path: only a cancelled call pays for one.
        return await action()
    except anyio.get_cancelled_exc_class():
        await to_the_end(action, otherwise=otherwise)
        raise


async def to_the_end(action: Callable[[], Awaitable[object]], *, otherwise: Callable[[], object]) -> None:
    """Run an action in a separate task, out of reach of the caller's cancellation, for `CLEANUP_LIMIT` seconds.

    Raises nothing: `otherwise` is called if the action fails or exceeds the limit.
    """
    # A shielded scope alone does not suffice: `Task.cancel` reaches into a shield, and a task may be cancelled twice.
    running = asyncio.ensure_future(_bounded(action))
    with anyio.CancelScope(shield=True):
        while not running.done():
            with suppress(asyncio.CancelledError):  # the caller raises its cancellation after the action
                await asyncio.wait([running])
    failure = None if running.cancelled() else running.exception()
    if running.cancelled() or not (isinstance(failure, LeaseLostError) or (failure is None and running.result())):
        otherwise()


async def _bounded(action: Callable[[], Awaitable[object]]) -> bool:
    with anyio.move_on_after(CLEANUP_LIMIT) as scope:
        await action()
    return not scope.cancelled_caught


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
