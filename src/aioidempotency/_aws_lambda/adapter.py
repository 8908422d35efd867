"""Coroutine handlers for Lambda's runtime, which calls plain functions.

Invariants:

1. A process has one event loop for all handlers and invocations. The loop is never closed: a client of aiobotocore
   belongs to its loop, and a new loop would mean a new client and a new connection for each invocation.
2. The loop of a forked process, or of a process that was restored from a snapshot, is never used or closed: it shares
   the parent's file descriptors, and its connections are dead.
3. Lambda freezes the process when the handler returns. Whatever then still runs would go on in a later invocation, so
   nothing of the library does, and tasks of the user are dealt with first.
4. No `CancelledError` leaves: it is no `Exception`, and would end Amazon's runtime client.
"""

import asyncio
import contextvars
import functools
import inspect
import os
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Literal, ParamSpec, TypeVar, final, overload

from aioidempotency import _label
from aioidempotency._aws_lambda.facts import remaining_seconds, request_id
from aioidempotency._concurrency import CLEANUP_LIMIT
from aioidempotency._lease import BACKGROUND, deadline
from aioidempotency._options import Duration, one_of, seconds
from aioidempotency._signatures import check_awaitable, qualified_name
from aioidempotency.events import TasksLeftBehind, report
from aioidempotency.exceptions import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")

MARGIN: Final = 0.5
"""Seconds between the cancellation of the handler and the end of the invocation."""

OnLeftover = Literal["cancel", "report"]

BODY_ENDS: contextvars.ContextVar[float | None] = contextvars.ContextVar("aioidempotency_body_ends", default=None)
"""The loop's time at which the adapter cancels the handler. None without an adapter."""


@overload
def lambda_handler(function: Callable[P, Awaitable[T]], /) -> Callable[P, T]: ...
@overload
def lambda_handler(
    *, margin: Duration = ..., on_leftover: OnLeftover = ...
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, T]]: ...
def lambda_handler(
    function: Callable[P, Awaitable[T]] | None = None,
    /,
    *,
    margin: Duration = MARGIN,
    on_leftover: OnLeftover = "cancel",
) -> Callable[P, T] | Callable[[Callable[P, Awaitable[T]]], Callable[P, T]]:
    """Make a plain function of a coroutine handler, for Lambda's runtime.

    ```python
    from aioidempotency import AsyncIdempotencyStore, idempotent
    from aioidempotency.aws_lambda import lambda_handler

    store = AsyncIdempotencyStore.in_memory()

    @lambda_handler
    @idempotent(store, key="event.order_id")
    async def handler(event: dict, context: object) -> dict:
        return {"charged": event["order_id"]}
    ```

    All invocations of a process share one event loop, and so the store's client and its connection. Each invocation has
    context variables of its own. The lease of a call inside lasts until Lambda ends the invocation. The handler is
    cancelled `margin` earlier, also if it waits for another owner: its keys are free at once, and Lambda gets a
    `TimeoutError`.

    Tests that have a running event loop await the coroutine function: `await handler.__wrapped__(event, context)`.

    Args:
        function: A coroutine function of Lambda's event and context.
        margin: Seconds between the cancellation of the handler and the end of the invocation.
        on_leftover: The reaction to tasks that the handler has started and not awaited: `"cancel"` cancels and awaits
            them, `"report"` leaves them to the next invocation. Both are logged, as `TasksLeftBehind`.

    Raises:
        ConfigurationError: When decorating: the function is no coroutine function of two arguments, or a setting makes
            no sense. When called: an event loop is running, or the context does not tell the remaining time.
        TimeoutError: When called: the time was up before the handler ended.
    """
    terms = _Terms(seconds(margin, "margin", zero=True), on_leftover)
    one_of(on_leftover, "on_leftover", ("cancel", "report"))

    def adapt(function: Callable[P, Awaitable[T]]) -> Callable[P, T]:
        check_handler(function)
        name = qualified_name(function)
        context_name = list(inspect.signature(function).parameters)[1:2]

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            context = args[1] if len(args) > 1 else next((kwargs.get(each) for each in context_name), None)
            return LOOP.run(lambda: _invocation(lambda: function(*args, **kwargs), context, name, terms), name)

        # The attributes of an object with `__call__` are its own.
        functools.update_wrapper(call, function, updated=("__dict__",) if inspect.isfunction(function) else ())
        return call

    return adapt if function is None else adapt(function)


def check_handler(function: Callable[..., object]) -> None:
    """Require a coroutine function of an event and a context.

    Raises:
        ConfigurationError: The function is another one.
    """
    if not callable(function):
        raise ConfigurationError(f"lambda_handler takes a coroutine function: not {type(function).__name__}")
    name = qualified_name(function)
    if inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{name} is an async generator, and an invocation has one answer: return the answer")
    try:
        check_awaitable(function)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{name} is not a coroutine function: Lambda's runtime calls it as it is. Write `async def`, or leave "
            "lambda_handler out. A decorator that returns a plain function goes above lambda_handler"
        ) from error
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise ConfigurationError(
            f"{name} does not take two arguments: write `async def {name.rpartition('.')[2]}(event, context)`; "
            "to handle each record of a batch, put @sqs_batch or @stream_batch between"
        ) from error


@final
class _Terms:
    """The settings of one handler."""

    __slots__ = ("margin", "on_leftover")

    def __init__(self, margin: float, on_leftover: OnLeftover) -> None:
        self.margin = margin
        self.on_leftover: OnLeftover = on_leftover


async def _invocation(body: Callable[[], Awaitable[T]], context: object, name: str, terms: _Terms) -> T:
    """Run a handler, as one task, until shortly before the end of the invocation."""
    loop = asyncio.get_running_loop()
    left = remaining_seconds(context)
    if left is None:
        raise ConfigurationError(
            f"{name} got {type(context).__name__} as its context, which does not tell the remaining time: pass "
            "Lambda's context, or an object with get_remaining_time_in_millis()"
        )
    ends = loop.time() + left
    body_ends = ends - terms.margin
    if left <= terms.margin:
        # A claim would only be given back, and could no longer be if its answer came late.
        raise TimeoutError(f"{name} did not start: {left:.3f} s are left, and margin= keeps {terms.margin:g} s")
    before = asyncio.all_tasks()
    _label.REQUEST_ID.set(request_id(context))
    BODY_ENDS.set(body_ends)
    limit = asyncio.timeout_at(body_ends)
    try:
        with deadline(left):
            async with limit:
                return await body()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise TimeoutError(
            f"{name} was cancelled {terms.margin:g} s before the end of the invocation; give the function more time"
        ) from error
    finally:
        # Half of the margin is left to the runtime, which still has to send the answer.
        await _clear(before, name, terms.on_leftover, until=ends - terms.margin / 2)


async def _clear(before: set[asyncio.Task[Any]], name: str, on_leftover: OnLeftover, *, until: float) -> None:
    """Deal with the tasks that an invocation leaves behind, until the loop's time `until`."""
    loop, told = asyncio.get_running_loop(), set[asyncio.Task[Any]]()
    until = min(until, loop.time() + CLEANUP_LIMIT)
    while left := asyncio.all_tasks() - before:
        # The library's own tasks are awaited: a key that is being given back would else be locked in the freeze.
        others = {task for task in left if task not in BACKGROUND}
        if new := others - told:
            names = tuple(sorted(_coroutine_name(task) for task in new))
            report(TasksLeftBehind(name, names, cancelled=on_leftover == "cancel"), None)
            told |= new
        awaited = left if on_leftover == "cancel" else left - others
        for task in awaited & new:
            task.cancel()
        if not awaited or (patience := until - loop.time()) <= 0:
            return
        await asyncio.wait(awaited, timeout=patience)


def _coroutine_name(task: asyncio.Task[Any]) -> str:
    """Name the code of a task. The task's own name is the user's, and may hold data."""
    return str(getattr(task.get_coro(), "__qualname__", "a task"))


@final
class _Loop:
    """The event loop of this process, made at the first invocation."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._process = os.getpid()
        # Kept, because a loop that is collected closes itself, and with it a part of the parent's loop.
        self._abandoned: list[asyncio.Runner] = []

    def run(self, invocation: Callable[[], Coroutine[Any, Any, T]], name: str) -> T:
        """Run one invocation to its end.

        Raises:
            ConfigurationError: An event loop is running in this thread, or an invocation in another thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass  # as in Lambda
        else:
            raise ConfigurationError(
                f"{name} was called inside a running event loop, where a plain function cannot wait: "
                f"write `await {name.rpartition('.')[2]}.__wrapped__(event, context)`"
            )
        if self._process != os.getpid():
            self.abandon()
        runner = self._runner
        if runner is None:
            runner = self._runner = asyncio.Runner()
        if runner.get_loop().is_running():
            raise ConfigurationError(
                f"{name} was called while an invocation runs in another thread; a process handles one at a time"
            )
        try:
            # A copy: variables set by an invocation end with it, and those of decorators above still reach the handler.
            return runner.run(invocation(), context=contextvars.copy_context())
        except asyncio.CancelledError as error:
            raise RuntimeError(f"{name} was cancelled from inside; a handler must not cancel its own task") from error

    def abandon(self) -> None:
        """Leave the loop as it is, and make a new one at the next invocation."""
        if self._runner is not None:
            self._abandoned.append(self._runner)
        self._runner, self._process = None, os.getpid()


LOOP: Final = _Loop()


def restored() -> None:
    """Begin anew in an environment that was restored from a snapshot, as many others were from the same one."""
    LOOP.abandon()
    # The environments would otherwise all have one jitter, and come back together.
    random.seed()
    # A restored environment has a log stream of its own.
    _label.forget()


try:
    from snapshot_restore_py import register_after_restore
except ImportError:  # Lambda's runtime brings the module; elsewhere there are no snapshots
    pass
else:
    register_after_restore(restored)
