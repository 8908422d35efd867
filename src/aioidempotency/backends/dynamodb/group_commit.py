"""Group commit: the operations of concurrent tasks, sent together.

What must stay true:

1. With nothing under way, an operation leaves at once, as the plain call: a lone caller waits for
   nobody. While requests are under way, operations gather. They leave together when they fill a
   batch, or when a request returns and fewer than two are under way.
2. Each operation is answered by itself. What one statement comes to, its cancellation, its throttling,
   changes nothing for its neighbours. A batch is no transaction.
3. No two operations of one batch are about one item: the service would reject the whole. Nor of two that
   are under way together: the release of a cancelled claim would overtake it, and the key stay taken.
4. A batch belongs to no caller: it has a task of its own, which no caller's cancellation reaches.
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
"""Statements that DynamoDB takes in one request."""

ENOUGH_IN_FLIGHT: Final = 2
"""Requests under way besides which only full batches are sent: one that is slow holds nobody up, and batches are full."""

FIRST_PAUSE: Final = 0.05
"""Seconds before an operation that was throttled is sent again; each further pause is twice as long."""

LAST_PAUSE: Final = 1.0
"""Seconds of the longest such pause."""


@final
@dataclass(frozen=True, slots=True)
class GroupCommit:
    """Sends the operations of concurrent tasks together: fewer requests, and less processor time for each.

    A lone call is sent as without it. It costs the same write units, and needs the permissions
    `dynamodb:PartiQLInsert`, `PartiQLUpdate`, `PartiQLDelete` and `BatchGetItem`, besides those of the
    plain calls. A batch is no transaction: each operation succeeds or fails by itself.

    Args:
        max_batch: Operations in one request; DynamoDB takes 25.
        max_in_flight: Requests under way at a time, each for reads and for writes.
        max_waiting: Operations that wait to be sent; further callers wait until there is room.
        fallback: Whether to send plain calls where the permissions for batches are missing, with one
            event; else that is a `ConfigurationError`.

    Raises:
        ConfigurationError: A number is out of its bounds.
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
    """Send operations of concurrent tasks together.

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
    """Gathers operations around a backend that takes many at once.

    Args:
        closes_inner: Whether `aclose` closes the inner backend, too.
        fell_back: Called once, when plain calls take over.
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
        """Execute an operation, alone or together with others.

        Raises:
            StoreError: DynamoDB did not answer it within the time limit.
            ConfigurationError: There is no PartiQL here, or no permission for it.
        """
        reads = isinstance(operation, Get)
        # A batch is of one table, whose key is text: what is in a table of the caller's own is sent plainly.
        typed = operation.location.typed is not None
        if self._plain or typed or not (reads or has_statement(operation)):
            return await self._inner.execute(operation)
        queues = self._queues[asyncio.get_running_loop()]
        return await (queues.reads if reads else queues.writes).execute(operation)

    async def create_table(self, table: Table) -> None:
        """Create the table, as the inner backend does."""
        await self._inner.create_table(table)

    async def key_of(self, table_name: str) -> frozenset[str]:
        """Name the attributes of a table's key, as the inner backend does."""
        if not isinstance(self._inner, DescribesKeys):
            raise ConfigurationError(f"{self._inner!r} does not tell the key of a table")
        return await self._inner.key_of(table_name)

    async def aclose(self) -> None:
        """Let the running loop's waiting operations fail, and close what was opened."""
        for queue in self._queues.pop(asyncio.get_running_loop(), ()):
            await queue.aclose()
        if self._closes_inner:
            await self._inner.aclose()

    def _make_queues(self) -> "_Queues":
        reads, writes = (BatchQueue(self._inner, self._settings, falls_back=self._falls_back) for _ in range(2))
        return _Queues(reads, writes)

    def _falls_back(self, error: BatchError) -> bool:
        """Say whether what was refused as a batch is sent by plain calls; from now on, all is."""
        if not (self._settings.fallback and error.denied):
            return False
        if not self._plain:
            self._plain = True
            self._fell_back()
        return True

    def __repr__(self) -> str:
        queues = [queue for each in self._queues.values() for queue in each]
        waiting, in_flight = sum(len(queue.waiting) for queue in queues), sum(queue.in_flight for queue in queues)
        doing = "plain calls only" if self._plain else f"{waiting} operations waiting, {in_flight} requests under way"
        return f"<GroupCommitBackend: {doing}, on {self._inner!r}>"


class _Queues(NamedTuple):
    """The queues of one event loop: a request has reads, or writes."""

    reads: "BatchQueue"
    writes: "BatchQueue"


@final
class BatchQueue:
    """The reads, or the writes, of one event loop: those that wait, and the requests that are under way.

    Args:
        falls_back: Says whether a batch that was refused is sent as plain calls instead.

    Attributes:
        waiting: The operations that wait to be sent, the oldest first.
        in_flight: How many requests are under way.
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
        """Execute an operation: at once where nothing is under way, else with the next batch."""
        if not self.in_flight and not self.waiting:
            # The lone caller's way: no task, no future, and a cancellation ends the request itself.
            self.in_flight += 1
            try:
                return await self._inner.execute(operation)
            finally:
                self.in_flight -= 1
                if self.waiting:
                    # Soon, not now: this caller goes on first, and its next operation joins the batch.
                    self._loop.call_soon(self._send)
        # Made before the wait for room, because that wait is part of the time that the operation has.
        queued = _Queued(operation, self._loop)
        while len(self.waiting) >= self._settings.max_waiting and not self._closed:
            self._room.clear()
            await self._room.wait()
        if self._closed:
            raise _unanswered(operation, "the store was closed")
        self.waiting.append(queued)
        self._send_full_batches()
        return await queued.answer

    async def aclose(self) -> None:
        """End all requests, and let what waits fail."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queued in self.waiting:
            queued.resolve(_unanswered(queued.operation, "the store was closed"))
        self.waiting.clear()
        self._room.set()

    def _send(self) -> None:
        """Send what has gathered, unless enough requests are under way: then they will; and what fills a batch."""
        if self.waiting and self._may_send and self.in_flight < ENOUGH_IN_FLIGHT:
            self._send_batch()
        self._send_full_batches()

    def _send_full_batches(self) -> None:
        """Send what fills a batch; and whatever there is, where nothing is under way that would wake it."""
        while self._may_send and (
            len(self.waiting) >= self._settings.max_batch or (self.waiting and not self.in_flight)
        ):
            if not self._send_batch():
                # All that waits is about items that are under way. What ends those sends again.
                return

    @property
    def _may_send(self) -> bool:
        return self.in_flight < self._settings.max_in_flight and not self._closed

    def _send_batch(self) -> bool:
        """Send one batch; False where nothing that waits can be sent now."""
        batch = self._next_batch()
        self._room.set()
        if batch:
            self.in_flight += 1
            # A task of its own, so that no caller's cancellation reaches the batch (rule 4).
            task = self._loop.create_task(self._run(batch), name="group commit")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return bool(batch)

    def _next_batch(self) -> "list[_Queued]":
        """Take the next batch, the oldest operations first; who left or waited too long is passed over.

        An operation waits whose item is in this batch, or in one that is under way (rule 3).
        """
        batch: list[_Queued] = []
        later: deque[_Queued] = deque()
        latest = self._loop.time() - self._inner.time_limit
        while self.waiting and len(batch) < self._settings.max_batch:
            queued = self.waiting.popleft()
            item = item_key(queued.operation.location)
            if queued.answer.done():
                # Its caller was cancelled before anything was sent, and nothing was promised to it.
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
        """Execute a batch, and answer each of its operations, whatever happens."""
        try:
            await self._execute(batch)
        except IdempotencyError as error:
            _fail(batch, error)
        except BaseException as error:
            _fail(batch, _unanswered(batch[0].operation, f"its batch ended with {type(error).__name__}"))
            raise
        finally:
            # Not at once: the tasks that were answered add their next operations to the next batch first.
            self._loop.call_soon(self._ended, batch)

    def _ended(self, batch: "list[_Queued]") -> None:
        """Note that a batch is no longer under way, and send the next one."""
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
        """Send an operation again after a pause, as long as its time lasts."""
        if queued.backoff is None:
            queued.backoff = Backoff(FIRST_PAUSE, LAST_PAUSE, until=queued.since + self._inner.time_limit)
        pause = queued.backoff.next(self._loop.time())
        if pause is None:
            queued.resolve(_unanswered(queued.operation, reason))
        else:
            self._loop.call_later(pause, self._requeue, queued)

    def _requeue(self, queued: "_Queued") -> None:
        """Let an operation wait again, before all others: it has waited longest."""
        # The pause may have outlasted the queue. Nobody sends what is added to a closed one.
        if self._closed:
            queued.resolve(_unanswered(queued.operation, "the store was closed"))
            return
        self.waiting.appendleft(queued)
        self._send_full_batches()


@final
class _Queued:
    """One operation that waits to be sent or answered, and whoever waits for its answer.

    Attributes:
        since: The loop's time at which the operation came.
        backoff: The pauses between its tries; None before it is throttled.
    """

    __slots__ = ("answer", "backoff", "operation", "since")

    def __init__(self, operation: Operation, loop: asyncio.AbstractEventLoop) -> None:
        self.operation = operation
        self.answer: asyncio.Future[Reply] = loop.create_future()
        self.since = loop.time()
        self.backoff: Backoff | None = None

    def resolve(self, outcome: Reply | IdempotencyError) -> None:
        """Answer, if anybody still waits."""
        if self.answer.done():
            return
        if isinstance(outcome, IdempotencyError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def _fail(batch: list[_Queued], error: IdempotencyError) -> None:
    """Fail each operation with an error of its own: callers may add to theirs."""
    for queued in batch:
        own = copy(error)
        own.__cause__ = error.__cause__
        queued.resolve(own)


def _unanswered(operation: Operation, reason: str) -> StoreError:
    return StoreError(type(operation).__name__, operation.location.table.name, reason)
