"""Group commit: the operations of concurrent tasks, sent together.

Invariants:

1. With no request under way, an operation leaves at once, as a plain call: a lone caller never waits.
   While requests are under way, operations gather. A batch leaves when full, or when a request
   returns and fewer than two are under way.
2. Each operation gets a reply of its own. A failed, cancelled or throttled statement changes nothing for its
   neighbours. A batch is no transaction.
3. An item occurs once in a batch, because DynamoDB rejects a batch with two statements on one item. An
   item occurs once in all batches under way, too: else the release of a cancelled claim could overtake
   the claim, and the key would stay taken.
4. A batch belongs to no caller. Each batch runs in a task of the queue's own, out of reach of any caller's
   cancellation.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PerLoop
from aioidempotency._core.model import Table
from aioidempotency._core.operations import Get, Operation, Reply
from aioidempotency.backends import DescribesKeys
from aioidempotency.backends.dynamodb.batches import BatchError, Batches
from aioidempotency.backends.dynamodb.partiql import has_statement, item_key
from aioidempotency.exceptions import ConfigurationError, IdempotencyError, StoreError

LARGEST_BATCH: Final = 25
"""The most statements in one request, by DynamoDB's limit for `BatchExecuteStatement`."""

ENOUGH_IN_FLIGHT: Final = 2
"""With so many requests under way, only full batches are sent.

With two, a slow request delays nobody, and batches still fill.
"""

FIRST_PAUSE: Final = 0.05
"""Seconds before a throttled operation is sent again. Each further pause is twice as long."""

LAST_PAUSE: Final = 1.0
"""Seconds of the longest pause."""


@final
@dataclass(frozen=True, slots=True)
class GroupCommit:
    """Settings of group commit: concurrent operations share requests, and cost less processor time each.

    ```python
    from aioidempotency import AsyncIdempotencyStore, GroupCommit

    store = AsyncIdempotencyStore("idempotency", group_commit=GroupCommit(max_in_flight=8))
    ```

    A lone call is sent as without group commit. Batches cost the same write units as plain calls. Besides
    the permissions of plain calls, batches need `dynamodb:PartiQLInsert`, `PartiQLUpdate`, `PartiQLDelete` and
    `BatchGetItem`. A batch is no transaction: each operation succeeds or fails alone.

    Args:
        max_batch: The most operations in one request, 25 at the most, by DynamoDB's limit.
        max_in_flight: The most requests under way at a time, for reads and for writes each.
        max_waiting: The most operations waiting to be sent. Further callers wait until there is room.
        fallback: Whether to send plain calls, with one event, where the permissions for batches are missing.
            Without the fallback, missing permissions are a `ConfigurationError`.

    Raises:
        ConfigurationError: A number is out of bounds.
    """

    max_batch: int = LARGEST_BATCH
    max_in_flight: int = 4
    max_waiting: int = field(default=10_000, kw_only=True)
    fallback: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        bounds = {"max_batch": LARGEST_BATCH, "max_in_flight": 1000, "max_waiting": 10_000_000}
        for name, most in bounds.items():
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= most:
                raise ConfigurationError(f"GroupCommit takes {name}= as a whole number from 1 to {most}: not {given!r}")


def grouped(
    inner: object, settings: GroupCommit, *, closes_inner: bool, fell_back: Callable[[], object]
) -> "GroupCommitBackend":
    """Put group commit around a backend.

    Raises:
        ConfigurationError: The inner backend takes no batches.
    """
    if not isinstance(settings, GroupCommit):
        raise ConfigurationError(f"group_commit= takes an instance of GroupCommit: not {settings!r}")
    if not isinstance(inner, Batches):
        raise ConfigurationError(f"group_commit= sends batches, and {inner!r} takes none; leave it out, or backend=")
    return GroupCommitBackend(inner, settings, closes_inner=closes_inner, fell_back=fell_back)


@final
class GroupCommitBackend:
    """Gathers operations for a backend that executes many at once.

    Args:
        closes_inner: Whether `aclose` also closes the inner backend.
        fell_back: Called once, when plain calls replace batches.
    """

    def __init__(
        self, inner: Batches, settings: GroupCommit, *, closes_inner: bool, fell_back: Callable[[], object]
    ) -> None:
        self._inner = inner
        self._closes_inner = closes_inner
        self._settings = settings
        self._fell_back = fell_back
        self._plain = False
        self._queues: PerLoop[_Queues] = PerLoop(self._make_queues)

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, alone or in a batch.

        Raises:
            StoreError: DynamoDB did not answer within the time limit.
            ConfigurationError: The engine has no PartiQL, or the permissions are missing.
        """
        reads = isinstance(operation, Get)
        # A batch is for one table with text keys. A `typed` location is in a table of the caller's own, and
        # another table in the batch would be answered by the wrong attribute names.
        typed = operation.location.typed is not None
        if self._plain or typed or not (reads or has_statement(operation)):
            return await self._inner.execute(operation)
        queues = self._queues[asyncio.get_running_loop()]
        return await (queues.reads if reads else queues.writes).execute(operation)

    async def create_table(self, table: Table) -> None:
        """Create the table, as the inner backend does."""
        await self._inner.create_table(table)

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Name the key attributes of a table, as the inner backend does."""
        if not isinstance(self._inner, DescribesKeys):
            raise ConfigurationError(f"{self._inner!r} cannot describe the key of a table")
        return await self._inner.key_of(table_name)

    async def aclose(self) -> None:
        """Fail the operations waiting in the running loop, and close the inner backend if `closes_inner`."""
        for queue in self._queues.pop(asyncio.get_running_loop(), ()):
            await queue.aclose()
        if self._closes_inner:
            await self._inner.aclose()

    def _make_queues(self) -> "_Queues":
        reads, writes = (BatchQueue(self._inner, self._settings, falls_back=self._falls_back) for _ in range(2))
        return _Queues(reads, writes)

    def _falls_back(self, error: BatchError) -> bool:
        """Tell whether to send a refused batch as plain calls. From then on, every operation is a plain call."""
        if not (self._settings.fallback and error.denied):
            return False
        if not self._plain:
            # Never back to batches: a permission seldom returns, and each attempt would cost a refused request.
            self._plain = True
            self._fell_back()
        return True

    def __repr__(self) -> str:
        queues = [queue for each in self._queues.values() for queue in each]
        waiting, in_flight = sum(len(queue.waiting) for queue in queues), sum(queue.in_flight for queue in queues)
        doing = "plain calls only" if self._plain else f"{waiting} operations waiting, {in_flight} requests under way"
        return f"<GroupCommitBackend: {doing}, on {self._inner!r}>"


class _Queues(NamedTuple):
    """The two queues of one event loop: a request carries only reads, or only writes."""

    reads: "BatchQueue"
    writes: "BatchQueue"


@final
class BatchQueue:
    """The reads, or the writes, of one event loop: operations waiting to be sent, and batches under way.

    Args:
        falls_back: Tells whether a refused batch is sent as plain calls instead.

    Attributes:
        waiting: The operations waiting to be sent, oldest first.
        in_flight: The number of requests under way.
    """

    def __init__(self, inner: Batches, settings: GroupCommit, *, falls_back: Callable[[BatchError], bool]) -> None:
        self.waiting: deque[_Queued] = deque()
        self.in_flight = 0
        self._inner = inner
        self._settings = settings
        self._falls_back = falls_back
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._items_under_way: set[object] = set()
        self._room = asyncio.Event()

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation: at once where no request is under way, else in the next batch."""
        if not self.in_flight and not self.waiting:
            # A lone caller needs no task and no future, and a cancellation ends the request directly.
            self.in_flight += 1
            try:
                return await self._inner.execute(operation)
            finally:
                self.in_flight -= 1
                if self.waiting:
                    # Send in the loop's next turn, not here: the caller continues first, so the caller's
                    # next operation joins the batch.
                    self._loop.call_soon(self._send)
        # Made before the wait for room: the wait counts towards the operation's time limit. An operation
        # stamped after the wait would be sent although its caller's time is over.
        queued = _Queued(operation, self._loop)
        # A loop, because every waiter wakes at once, and the first ones may fill the room again.
        while len(self.waiting) >= self._settings.max_waiting and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise _unanswered(operation, "the store was closed")
        self.waiting.append(queued)
        self._send_full_batches()
        return await queued.answer

    async def aclose(self) -> None:
        """Cancel all requests under way, and fail the waiting operations."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queued in self.waiting:
            queued.resolve(_unanswered(queued.operation, "the store was closed"))
        self.waiting.clear()
        # Callers waiting for room wake too. They would otherwise wait for ever on a queue without a sender.
        self._room.set()

    def _send(self) -> None:
        """Send a batch of any size if few requests are under way, and then all full batches."""
        if self.waiting and self._may_send and self.in_flight < ENOUGH_IN_FLIGHT:
            self._send_batch()
        self._send_full_batches()

    def _send_full_batches(self) -> None:
        """Send full batches, and a partial one where no request under way will trigger the next send."""
        while self._may_send and (
            len(self.waiting) >= self._settings.max_batch or (self.waiting and not self.in_flight)
        ):
            if not self._send_batch():
                # Every waiting operation concerns an item under way. The end of that batch sends again;
                # another round here would spin for ever.
                return

    @property
    def _may_send(self) -> bool:
        return self.in_flight < self._settings.max_in_flight and not self._closed

    def _send_batch(self) -> bool:
        """Send one batch. False if no waiting operation can be sent now."""
        batch = self._next_batch()
        self._room.set()
        if batch:
            self.in_flight += 1
            # A separate task, so that no caller's cancellation reaches the batch (rule 4). The set holds a
            # reference, because the loop keeps only a weak one.
            task = self._loop.create_task(self._run(batch), name="group commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return bool(batch)

    def _next_batch(self) -> "list[_Queued]":
        """Take the next batch, oldest operations first.

        Cancelled and timed-out operations are dropped. An operation on an item under way stays queued (rule 3).
        """
        batch: list[_Queued] = []
        later: deque[_Queued] = deque()
        latest = self._loop.time() - self._inner.time_limit
        while self.waiting and len(batch) < self._settings.max_batch:
            queued = self.waiting.popleft()
            item = item_key(queued.operation.location)
            if queued.answer.done():
                # The caller was cancelled before the send, so no write can have happened.
                continue
            if queued.since < latest:
                queued.resolve(_unanswered(queued.operation, f"not sent within {self._inner.time_limit:g} s"))
            elif item in self._items_under_way:
                later.append(queued)
            else:
                self._items_under_way.add(item)
                batch.append(queued)
        self.waiting.extendleft(reversed(later))
        return batch

    async def _run(self, batch: "list[_Queued]") -> None:
        """Execute a batch, and resolve every operation in all circumstances."""
        try:
            await self._execute(batch)
        except IdempotencyError as error:
            _fail(batch, error)
        except BaseException as error:
            _fail(batch, _unanswered(batch[0].operation, f"the batch ended with {type(error).__name__}"))
            raise
        finally:
            # In the loop's next turn: the answered tasks run first, and their next operations fill the next
            # batch. An immediate send would find the queue nearly empty, and batches would stay small.
            self._loop.call_soon(self._ended, batch)

    def _ended(self, batch: "list[_Queued]") -> None:
        """Note the end of a batch, and send the next one."""
        self._items_under_way.difference_update(item_key(queued.operation.location) for queued in batch)
        self.in_flight -= 1
        self._send()

    async def _execute(self, batch: "list[_Queued]") -> None:
        if len(batch) == 1:
            batch[0].resolve(await self._inner.execute(batch[0].operation))
            return
        try:
            outcomes = await self._inner.execute_many([queued.operation for queued in batch])
        except BatchError as error:
            if not self._falls_back(error):
                raise
            await asyncio.gather(*(self._execute_alone(queued) for queued in batch))
            return
        for queued, outcome in zip(batch, outcomes, strict=True):
            # DynamoDB answers HTTP 200 even when statements were throttled, so botocore never retries one.
            if isinstance(outcome, str):
                self._retry(queued, outcome)
            else:
                queued.resolve(outcome)

    async def _execute_alone(self, queued: "_Queued") -> None:
        try:
            queued.resolve(await self._inner.execute(queued.operation))
        except IdempotencyError as error:
            queued.resolve(error)

    def _retry(self, queued: "_Queued", reason: str) -> None:
        """Send an operation again after a pause, until the operation's time limit."""
        if queued.backoff is None:
            queued.backoff = Backoff(FIRST_PAUSE, LAST_PAUSE, until=queued.since + self._inner.time_limit)
        pause = queued.backoff.next(self._loop.time())
        if pause is None:
            queued.resolve(_unanswered(queued.operation, reason))
        else:
            self._loop.call_later(pause, self._requeue, queued)

    def _requeue(self, queued: "_Queued") -> None:
        """Put an operation back at the front of the queue, as the longest waiting one."""
        # The queue may have been closed during the pause, and a closed queue sends nothing.
        if self._closed:
            queued.resolve(_unanswered(queued.operation, "the store was closed"))
            return
        self.waiting.appendleft(queued)
        self._send_full_batches()


@final
class _Queued:
    """One operation from its arrival to its answer.

    Attributes:
        since: The loop's time of arrival.
        backoff: The pauses between attempts. None before the first throttling.
    """

    __slots__ = ("answer", "backoff", "operation", "since")

    def __init__(self, operation: Operation, loop: asyncio.AbstractEventLoop) -> None:
        self.operation = operation
        self.answer: asyncio.Future[Reply] = loop.create_future()
        self.since = loop.time()
        self.backoff: Backoff | None = None

    def resolve(self, outcome: Reply | IdempotencyError) -> None:
        """Set the answer, unless the caller was cancelled."""
        if self.answer.done():
            return
        if isinstance(outcome, IdempotencyError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def _fail(batch: list[_Queued], error: IdempotencyError) -> None:
    """Fail each operation of a batch with a separate copy of the error."""
    for queued in batch:
        # A shared error would collect the tracebacks and notes of all callers.
        own = copy(error)
        own.__cause__ = error.__cause__
        queued.resolve(own)


def _unanswered(operation: Operation, reason: str) -> StoreError:
    return StoreError(type(operation).__name__, operation.location.table.name, reason)
