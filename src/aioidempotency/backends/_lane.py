"""How operations gather, and when they leave; see the rules of `group_commit`."""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import final

from aioidempotency._core.operations import Operation, Reply
from aioidempotency._core.statements import place
from aioidempotency.backends._batches import BatchError, Batches
from aioidempotency.exceptions import IdempotencyError, StoreError

ENOUGH = 2
"""Requests under way besides which only full batches are sent: one that is slow holds nobody up, and batches are full."""

FIRST_PAUSE, LAST_PAUSE = 0.05, 1.0
"""Seconds before a statement that was throttled is sent again; doubled each time, with jitter."""


@final
class _Waiting:
    """One operation that waits for its batch, and whoever waits for its answer."""

    __slots__ = ("answer", "operation", "since", "tries")

    def __init__(self, operation: Operation, loop: asyncio.AbstractEventLoop) -> None:
        self.operation = operation
        self.answer: asyncio.Future[Reply] = loop.create_future()
        self.since = loop.time()
        self.tries = 0

    def settle(self, outcome: Reply | IdempotencyError) -> None:
        """Answer, if anybody still waits."""
        if self.answer.done():
            return
        if isinstance(outcome, IdempotencyError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


@final
class Lane:
    """The reads, or the writes, of one event loop."""

    def __init__(
        self,
        inner: Batches,
        refused: Callable[[BatchError], bool],
        *,
        max_batch: int,
        max_in_flight: int,
        max_waiting: int,
    ) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.in_flight = 0
        self._inner = inner
        self._refused = refused
        self._max_batch, self._max_in_flight, self._max_waiting = max_batch, max_in_flight, max_waiting
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._items: set[object] = set()
        self._room = asyncio.Event()

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation: at once where nothing is under way, else with the next batch."""
        if not self.in_flight and not self.waiting:
            self.in_flight += 1
            try:
                return await self._inner.execute(operation)
            finally:
                self.in_flight -= 1
                if self.waiting:
                    self._loop.call_soon(self._send)
        waiting = _Waiting(operation, self._loop)
        while len(self.waiting) >= self._max_waiting and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise _unanswered(operation, "the store was closed")
        self.waiting.append(waiting)
        self._send_full()
        return await waiting.answer

    async def aclose(self) -> None:
        """End all batches, and let what waits fail."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for waiting in self.waiting:
            waiting.settle(_unanswered(waiting.operation, "the store was closed"))
        self.waiting.clear()
        self._room.set()

    def _land(self, batch: list[_Waiting]) -> None:
        """Note that a batch has returned, once those that it answered had the time to add to the next one."""
        self._items.difference_update(place(waiting.operation.location) for waiting in batch)
        self.in_flight -= 1
        self._send()

    def _send(self) -> None:
        """Send what has gathered, unless two requests are under way: then they will; and what fills a batch."""
        if self.waiting and self._has_room and self.in_flight < ENOUGH:
            self._send_one()
        self._send_full()

    def _send_full(self) -> None:
        """Send what fills a batch; and whatever there is, where nothing is under way that would wake it."""
        while self._has_room and (len(self.waiting) >= self._max_batch or (self.waiting and not self.in_flight)):
            if not self._send_one():
                return

    @property
    def _has_room(self) -> bool:
        return self.in_flight < self._max_in_flight and not self._closed

    def _send_one(self) -> bool:
        batch = self._next()
        self._room.set()
        if batch:
            self.in_flight += 1
            task = self._loop.create_task(self._carry(batch), name="group commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return bool(batch)

    def _next(self) -> list[_Waiting]:
        """Take the next batch: the oldest first; who left or waited too long is passed over.

        What is about an item of this batch, or of one that is under way, waits: a release does not overtake its claim.
        """
        batch: list[_Waiting] = []
        later: deque[_Waiting] = deque()
        latest = self._loop.time() - self._inner.time_limit
        while self.waiting and len(batch) < self._max_batch:
            waiting = self.waiting.popleft()
            item = place(waiting.operation.location)
            if waiting.answer.done():
                continue
            if waiting.since < latest:
                waiting.settle(_unanswered(waiting.operation, f"not sent within {self._inner.time_limit:g} s"))
            elif item in self._items:
                later.append(waiting)
            else:
                self._items.add(item)
                batch.append(waiting)
        self.waiting.extendleft(reversed(later))
        return batch

    async def _carry(self, batch: list[_Waiting]) -> None:
        """Send a batch, and answer each of its operations."""
        try:
            await self._answer(batch)
        except IdempotencyError as error:
            _fail(batch, error)
        except BaseException as error:
            _fail(batch, _unanswered(batch[0].operation, f"its batch ended with {type(error).__name__}"))
            raise
        finally:
            self._loop.call_soon(self._land, batch)

    async def _answer(self, batch: list[_Waiting]) -> None:
        if len(batch) == 1:
            batch[0].settle(await self._inner.execute(batch[0].operation))
            return
        try:
            outcomes = await self._inner.execute_many([waiting.operation for waiting in batch])
        except BatchError as error:
            if not self._refused(error):
                raise
            await asyncio.gather(*(self._alone(waiting) for waiting in batch))
            return
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, str):
                self._again(waiting, outcome)
            else:
                waiting.settle(outcome)

    async def _alone(self, waiting: _Waiting) -> None:
        try:
            waiting.settle(await self._inner.execute(waiting.operation))
        except IdempotencyError as error:
            waiting.settle(error)

    def _again(self, waiting: _Waiting, reason: str) -> None:
        """Send an operation again after a pause, as long as its time lasts."""
        pause = min(LAST_PAUSE, FIRST_PAUSE * 2**waiting.tries) * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
        waiting.tries += 1
        if self._loop.time() + pause > waiting.since + self._inner.time_limit:
            waiting.settle(_unanswered(waiting.operation, reason))
        else:
            self._loop.call_later(pause, self._rejoin, waiting)

    def _rejoin(self, waiting: _Waiting) -> None:
        if self._closed:
            waiting.settle(_unanswered(waiting.operation, "the store was closed"))
            return
        self.waiting.appendleft(waiting)
        self._send_full()


def _fail(batch: list[_Waiting], error: IdempotencyError) -> None:
    """Fail each operation with an error of its own."""
    for waiting in batch:
        own = copy(error)
        own.__cause__ = error.__cause__
        waiting.settle(own)


def _unanswered(operation: Operation, reason: str) -> StoreError:
    return StoreError(type(operation).__name__, operation.location.table.name, reason)
