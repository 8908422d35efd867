"""What belongs to a loop, what is done once, and how work ends under cancellation.

No exception group leaves, and no cancellation is swallowed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar, final

import anyio

from aioidempotency.exceptions import ConfigurationError, LeaseLostError

A = TypeVar("A")
T = TypeVar("T")

CLEANUP_LIMIT = 5.0
"""Seconds that a completion or release may still take once its caller was cancelled."""


@final
class PerLoop(dict[asyncio.AbstractEventLoop, T], Generic[T]):
    """One value for each event loop, made when it is first asked for: `values[asyncio.get_running_loop()]`.

    What belongs to a loop must not be touched from another one. What closed loops have left is dropped when
    a new loop comes; it cannot be closed any more.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, loop: asyncio.AbstractEventLoop) -> T:
        for each in list(self):  # another thread, with a loop of its own, may add to it meanwhile
            if each.is_closed():
                self.pop(each, None)
        made = self[loop] = self._make()
        return made


async def concurrently(action: Callable[[A], Awaitable[T]], arguments: Iterable[A], *, limit: int) -> list[T]:
    """Call for each argument, `limit` at a time; answer in the order of the arguments.

    The first error cancels the other calls and is raised as itself.
    """
    if limit < 1:
        raise ConfigurationError(f"limit= takes a number of concurrent calls, 1 or more: not {limit}")
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
        raise _first(group) from None
    return [answers[index] for index in sorted(answers)]


@final
class Once:
    """Does something once, however many ask for it at a time.

    Who asks while it is being done waits for that, and shares its failure; when it was cancelled, the
    next one does it.
    """

    def __init__(self, action: Callable[[], Awaitable[object]]) -> None:
        self.done = False
        self._action = action
        self._under_way: _Attempt | None = None

    async def __call__(self) -> None:
        """Have it done."""
        while not self.done:
            other = self._under_way
            if other is None or other.loop is not asyncio.get_running_loop():
                return await self._do()
            await other.ended.wait()
            if other.failure is not None:
                raise other.failure
        return None

    async def _do(self) -> None:
        mine = self._under_way = _Attempt()
        try:
            await self._action()
            self.done = True
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
    """Run an idempotent action; if it is cancelled, run it again to its end, and pass the cancellation on."""
    try:
        return await action()
    except anyio.get_cancelled_exc_class():
        await to_the_end(action, otherwise=otherwise)
        raise


async def to_the_end(action: Callable[[], Awaitable[object]], *, otherwise: Callable[[], object]) -> None:
    """Run an action in a task of its own, which no cancellation of the caller's reaches, bounded in time.

    It raises nothing: `otherwise` is called when the action fails, or when the bound is reached.
    """
    running = asyncio.ensure_future(_bounded(action))
    with anyio.CancelScope(shield=True):
        while not running.done():
            with suppress(asyncio.CancelledError):  # the caller passes its cancellation on when this is over
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
