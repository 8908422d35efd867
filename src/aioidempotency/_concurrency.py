"""Manners under concurrency: no exception group leaves, and no cancellation is swallowed."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import anyio

from aioidempotency.exceptions import ConfigurationError

A = TypeVar("A")
T = TypeVar("T")

CLEANUP_LIMIT = 5.0
"""Seconds that a completion or release may still take once its caller was cancelled."""


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


async def in_any_case(action: Callable[[], Awaitable[T]], *, otherwise: Callable[[], object]) -> T:
    """Run an idempotent action; if it is cancelled, run it again, shielded and bounded, and pass on.

    `otherwise` is called when the bound is reached.
    """
    try:
        return await action()
    except anyio.get_cancelled_exc_class():
        with anyio.move_on_after(CLEANUP_LIMIT, shield=True) as scope:
            await action()
        if scope.cancelled_caught:
            otherwise()
        raise


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
