"""Group commit: the operations of concurrent tasks, sent together.

Invariants:

1. With no request under way, an operation leaves at once, as a plain call: a lone caller never waits.
   While requests are under way, operations gather. A batch leaves when full, or when a request
   returns and fewer than two are under way.
2. Each operation gets a reply of its own. A statement that fails, or that cannot be sent, changes nothing for its
   neighbours. A batch is no transaction.
3. A write's item occurs once in a batch, because DynamoDB rejects a batch with two statements on one item. A
   write's item occurs once in all batches under way, too: else the release of a cancelled claim could overtake
   the claim, and the key would stay taken. Reads of one item that leave together share one read.
4. A batch belongs to no caller. Each batch runs in a task of the queue's own, out of reach of any caller's
   cancellation.
5. Owners go first: completions, renewals and releases are at the head of each batch, and have one request more than
   claims. They leave in the loop's next turn unless a request with owners' operations is under way.
6. An owner's operation always has the plain call to fall back on, whatever becomes of the batch: a finished body must
   not lose its result because batches cannot be had. A claim has the plain call where nothing speaks against
   batches, and else with `fallback`.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from math import inf
from typing import Final, NamedTuple, final

from msgspec import Struct

from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PerLoop
from aioidempotency._core.model import Table
from aioidempotency._core.operations import Applied, Get, Operation, Reply
from aioidempotency.backends import DescribesKeys
from aioidempotency.backends.dynamodb.arguments import GroupCommit
from aioidempotency.backends.dynamodb.backend import OF_OWNERS
from aioidempotency.backends.dynamodb.batches import Alone, BatchError, Batches, Outcome
from aioidempotency.backends.dynamodb.partiql import STATEMENTS
from aioidempotency.backends.dynamodb.room import LONGEST_WAIT
from aioidempotency.exceptions import ConfigurationError, IdempotencyError, StoreError

ENOUGH_IN_FLIGHT: Final = 2
"""With so many requests under way, only full batches are sent.

With two, a slow request delays nobody, and batches still fill.
"""

FIRST_PAUSE: Final = 0.05
"""Seconds before a throttled operation is sent again. Each further pause is twice as long."""

LAST_PAUSE: Final = 1.0
"""Seconds of the longest pause."""

PLAIN_FOR: Final = 60.0
"""Seconds for which operations of one kind are plain calls after a refusal. Then batches are tried again.

A permission seldom returns, and each try costs a refused request.
"""

MOST_CAUSES: Final = 100
"""The most causes of a fallback that are told, each once. There are as many as DynamoDB has error codes."""

FellBack = Callable[[IdempotencyError], object]
FallsBack = Callable[[Operation, Alone | IdempotencyError], bool]


def grouped(inner: object, settings: GroupCommit, *, closes_inner: bool, fell_back: FellBack) -> "GroupCommitBackend":
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
        fell_back: Called when plain calls replace batches, once for each cause.
    """

    def __init__(self, inner: Batches, settings: GroupCommit, *, closes_inner: bool, fell_back: FellBack) -> None:
        self._inner = inner
        self._closes_inner = closes_inner
        self._settings = settings
        self._fell_back = fell_back
        self._plain_until: dict[type[Operation], float] = {}
        self._told: set[str] = set()
        self._queues: PerLoop[_Queues] = PerLoop(self._make_queues)

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, alone or in a batch.

        Raises:
            StoreError: DynamoDB did not answer within the time limit.
            ConfigurationError: The engine has no PartiQL, or the permissions are missing.
        """
        queues = self._queues[asyncio.get_running_loop()]
        kind = type(operation)
        if kind is Get:
            queue = queues.reads
        # `has_statement`, in line.
        elif kind in STATEMENTS and type(operation.condition) is STATEMENTS[kind]:  # type: ignore[union-attr]
            queue = queues.writes
        else:
            return await self._inner.execute(operation)
        # A batch is for one table with text keys. A `typed` location is in a table of the caller's own, and
        # another table in the batch would be answered by the wrong attribute names.
        if operation.location.typed is not None or (self._plain_until and self._is_plain(operation)):
            return await self._inner.execute(operation)
        if not queue.in_flight and not queue.waiting and not queue.owners:
            return await queue.alone(operation)
        return await queue.put(operation, is_owners=kind in OF_OWNERS)

    def _is_plain(self, operation: Operation) -> bool:
        """Tell whether operations of this kind are plain calls for a while."""
        return asyncio.get_running_loop().time() < self._plain_until.get(type(operation), 0.0)

    async def create_table(self, table: Table) -> bool | None:
        """Create the table, as the inner backend does."""
        return await self._inner.create_table(table)

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

    def _falls_back(self, operation: Operation, outcome: Alone | IdempotencyError) -> bool:
        """Tell whether to send an operation as a plain call, after what its batch came to (rule 6).

        Without a permission or without PartiQL, the next operations of this kind are plain calls, too. Any other cause
        may have passed when the next batch leaves.
        """
        of_owner = isinstance(operation, OF_OWNERS)
        if isinstance(outcome, Alone):
            cause = outcome.cause
        elif not isinstance(outcome, BatchError):
            return of_owner
        elif of_owner or self._settings.fallback:
            cause = outcome
            # A missing permission concerns one kind of statement, a missing PartiQL all.
            kinds = (type(operation),) if outcome.denied or isinstance(operation, Get) else tuple(STATEMENTS)
            until = asyncio.get_running_loop().time() + PLAIN_FOR
            self._plain_until |= dict.fromkeys(kinds, until)
        else:
            return False
        if cause is not None and str(cause) not in self._told and len(self._told) < MOST_CAUSES:
            self._told.add(str(cause))
            self._fell_back(cause)
        return True

    def __repr__(self) -> str:
        queues = [queue for each in self._queues.values() for queue in each]
        waiting, in_flight = sum(queue.waits for queue in queues), sum(queue.in_flight for queue in queues)
        kinds = ", ".join(kind.__name__ for kind in self._plain_until)
        plain = f", plain calls for {kinds}" if kinds else ""
        return f"<GroupCommitBackend: {waiting} operations waiting, {in_flight} requests under way{plain}, on {self._inner!r}>"


class _Queues(NamedTuple):
    """The two queues of one event loop: a request carries only reads, or only writes."""

    reads: "BatchQueue"
    writes: "BatchQueue"


@final
class BatchQueue:
    """The reads, or the writes, of one event loop: operations waiting to be sent, and batches under way.

    Args:
        falls_back: Tells whether an operation of a refused batch is sent as a plain call instead.

    Attributes:
        owners: The owners' operations waiting to be sent, oldest first.
        waiting: The claims or reads waiting to be sent, oldest first; at most `max_waiting`, and those sent again.
        late: Those that wait for room among the waiting ones. Room is given to the oldest, and wakes nobody: a caller
            is woken once, by the answer.
        in_flight: The number of requests under way.
    """

    def __init__(self, inner: Batches, settings: GroupCommit, *, falls_back: FallsBack) -> None:
        self.owners: deque[_Queued] = deque()
        self.waiting: deque[_Queued] = deque()
        self.late: deque[_Queued] = deque()
        self.in_flight = 0
        self._with_owners = 0
        self._inner = inner
        self._limit = inner.time_limit
        self._settings = settings
        self._falls_back = falls_back
        self._closed = False
        self._will_send = False
        self._answered = self._heard = -inf
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[asyncio.Task[None], list[_Queued]] = {}
        # The writes' items under way, and behind each item the writes that wait for its batch, oldest first. So a batch
        # is made without a look at operations that cannot leave.
        self._items_under_way: dict[object, deque[_Queued] | None] = {}

    @property
    def waits(self) -> int:
        """How many operations wait to be sent, apart from the late ones."""
        behind = sum(len(each) for each in self._items_under_way.values() if each)
        return len(self.owners) + len(self.waiting) + behind

    async def alone(self, operation: Operation) -> Reply:
        """Execute an operation at once, where no other operation is under way."""
        # A lone caller needs no task and no future, and a cancellation ends the request directly.
        self.in_flight += 1
        try:
            return await self._inner.execute(operation)
        finally:
            self.in_flight -= 1
            if self.waiting or self.owners:
                # Send in the loop's next turn, not here: the caller continues first, so the caller's
                # next operation joins the batch.
                self._send_soon()

    def put(self, operation: Operation, *, is_owners: bool) -> "asyncio.Future[Reply]":
        """Have an operation executed in one of the next batches. The future gets the reply, or the error."""
        if self._closed:
            raise _unanswered(operation, "the store was closed")
        loop, limit, location = self._loop, self._limit, operation.location
        answer: asyncio.Future[Reply] = loop.create_future()
        item = location.table.name, location.partition, location.sort
        queued = _Queued(operation, item, is_owners, answer, limit, loop.time() + limit)
        if is_owners:
            self.owners.append(queued)
            if not self._with_owners and not self._will_send:
                # In the next turn: the other owners of this turn, such as those of one batch of claims, join.
                self._send_soon()
        elif len(self.waiting) < self._settings.max_waiting:
            self.waiting.append(queued)
        else:
            self.late.append(queued)
        if not self.in_flight or len(self.owners) + len(self.waiting) >= self._settings.max_batch:
            self._send()
        return answer

    async def aclose(self) -> None:
        """Cancel all requests under way, and fail the waiting operations."""
        self._closed = True
        under_way = dict(self._tasks)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        behind = [each for each in self._items_under_way.values() if each]
        # The batches, too: a task that is cancelled in the turn of its making never begins, and so resolves nothing.
        for waiting in (self.owners, self.waiting, self.late, *behind, *under_way.values()):
            for queued in waiting:
                queued.resolve(_unanswered(queued.operation, "the store was closed"))
            waiting.clear()

    def _send_soon(self) -> None:
        """Send in the loop's next turn, a batch of any size where few requests are under way."""
        if not self._will_send:
            self._will_send = True
            self._loop.call_soon(self._send_any)

    def _send_any(self) -> None:
        self._will_send = False
        self._send(of_any_size=True)

    def _send(self, *, of_any_size: bool = False) -> None:
        """Send what may leave: full batches, and smaller ones where no request under way will trigger the next send."""
        while self._may_send(of_any_size=of_any_size):
            # A round may send nothing, where each operation is over, or waits behind its item. Then another round follows,
            # because a claim that is over may have passed its item on to an owner, after the owners had had their turn.
            # Each round takes operations out of the queues, so the rounds end.
            self._send_batch()

    def _may_send(self, *, of_any_size: bool) -> bool:
        """Tell whether a batch may leave: rules 1 and 5."""
        ready = len(self.owners) + (len(self.waiting) if self._has_room else 0)
        if self._closed or not ready or self.in_flight > self._settings.max_in_flight:
            return False
        if ready >= self._settings.max_batch or not self.in_flight:
            return True
        urgent = bool(self.owners) and not self._with_owners
        return of_any_size and (urgent or self.in_flight < ENOUGH_IN_FLIGHT)

    @property
    def _has_room(self) -> bool:
        """Whether claims may be sent. Owners have one request more."""
        return self.in_flight < self._settings.max_in_flight

    def _send_batch(self) -> None:
        """Send one batch, if any waiting operation can be sent now."""
        batch = self._next_batch()
        if batch:
            has_owners = batch[0].is_owners
            self.in_flight += 1
            self._with_owners += has_owners
            # A separate task, so that no caller's cancellation reaches the batch (rule 4). The dictionary holds a
            # reference, because the loop keeps only a weak one.
            task = self._loop.create_task(self._run(batch, has_owners=has_owners), name="group commit")
            self._tasks[task] = batch
            task.add_done_callback(self._tasks.pop)

    def _next_batch(self) -> "list[_Queued]":
        """Take the next batch, owners' operations first, then the oldest.

        Cancelled and timed-out operations are dropped. A write on an item under way waits behind that item (rule 3).
        """
        batch: list[_Queued] = []
        reads: dict[object, _Queued] = {}
        under_way, room = self._items_under_way, self._settings.max_batch
        now, heard = self._loop.time(), self._heard
        # Only from here on: an answer after a silence does not make good for those who waited through the silence.
        self._heard = self._answered
        # The request that is kept for owners carries nothing else: claims would fill it as well.
        for queue in (self.owners, self.waiting) if self._has_room else (self.owners,):
            while len(batch) < room and (queue or (queue is self.waiting and self._admit())):
                queued = queue.popleft()
                if (now > queued.until or queued.answer.done()) and queued.is_over(now, heard):
                    if queued.has_item:
                        self._free(queued)
                elif type(queued.operation) is Get:
                    if (first := reads.setdefault(queued.item, queued)) is queued:
                        batch.append(queued)
                    else:
                        first.followers = (*first.followers, queued)
                elif queued.has_item or queued.item not in under_way:
                    queued.has_item = True
                    under_way.setdefault(queued.item, None)
                    batch.append(queued)
                else:
                    behind = under_way[queued.item] = under_way[queued.item] or deque()
                    behind.append(queued)
        self._admit()
        return batch

    def _admit(self) -> bool:
        """Give the late operations the room that there is. Tell whether any operation waits now."""
        while self.late and len(self.waiting) < self._settings.max_waiting:
            self.waiting.append(self.late.popleft())
        return bool(self.waiting)

    def _free(self, done: "_Queued") -> None:
        """Give a write's item to the next write that waits behind it, at the head of the queue."""
        done.has_item = False
        behind = self._items_under_way.pop(done.item)
        if behind:
            queued = behind.popleft()
            queued.has_item = True
            self._items_under_way[done.item] = behind
            (self.owners if queued.is_owners else self.waiting).appendleft(queued)

    async def _run(self, batch: "list[_Queued]", *, has_owners: bool) -> None:
        """Execute a batch, and resolve every operation in all circumstances."""
        try:
            await self._execute(batch)
        except BaseException as error:
            for queued in batch:
                queued.resolve(_unanswered(queued.operation, f"the batch ended with {type(error).__name__}"))
            raise
        finally:
            # In the loop's next turn: the answered tasks run first, and their next operations fill the next
            # batch. An immediate send would find the queue nearly empty, and batches would stay small.
            self._loop.call_soon(self._ended, batch, has_owners)

    def _ended(self, batch: "list[_Queued]", has_owners: bool) -> None:  # noqa: FBT001 - `call_soon` takes no names
        """Note the end of a batch, and send the next one."""
        for queued in batch:
            if queued.has_item:
                self._free(queued)
        self.in_flight -= 1
        self._with_owners -= has_owners
        self._send(of_any_size=True)

    async def _execute(self, batch: "list[_Queued]") -> None:
        if len(batch) == 1:
            await self._execute_alone(batch[0])
            return
        outcomes = await self._outcomes([queued.operation for queued in batch])
        alone: list[_Queued] = []
        for queued, outcome in zip(tuple(batch), outcomes, strict=True):
            if type(outcome) is Applied:  # nearly every answer, and a write has no followers
                if not queued.answer.done():
                    queued.answer.set_result(outcome)
            # DynamoDB answers HTTP 200 even when statements were throttled, so botocore never retries one.
            elif isinstance(outcome, str):
                # Each by itself from here on: a follower may have more time left than the first reader.
                followers, queued.followers = queued.followers, ()
                if queued.has_item:
                    # Sent again before this batch ends, the write has its item anew. The end of this batch must not
                    # free it then.
                    self._free(queued)
                    batch.remove(queued)
                for each in (queued, *followers):
                    self._retry(each, outcome)
            elif isinstance(outcome, Alone | IdempotencyError) and self._falls_back(queued.operation, outcome):
                alone.append(queued)
            else:
                assert not isinstance(outcome, Alone)  # noqa: S101 - an operation alone always falls back
                queued.resolve(outcome)
        if alone:
            await asyncio.gather(*map(self._execute_alone, alone))

    async def _outcomes(self, operations: Sequence[Operation]) -> Sequence[Outcome]:
        """Send operations in one request. A request that fails as a whole is an outcome of each operation."""
        try:
            outcomes = await self._inner.execute_many(operations)
        except BatchError as error:
            kinds = dict.fromkeys(map(type, operations))
            if len(kinds) == 1:
                return [_own(error) for _ in operations]
            # A refused request does not say which statements were at fault: those of each kind are sent apart.
            apart = {
                kind: iter(await self._outcomes([each for each in operations if type(each) is kind])) for kind in kinds
            }
            return [next(apart[type(each)]) for each in operations]
        except IdempotencyError as error:
            return [_own(error) for _ in operations]
        self._answered = self._loop.time()
        return outcomes

    async def _execute_alone(self, queued: "_Queued") -> None:
        """Make a plain call. What it raises is the answer of this operation alone."""
        # A read whose own caller has left still has followers to answer.
        if queued.is_over(self._loop.time(), self._heard) and all(each.answer.done() for each in queued.followers):
            return
        try:
            queued.resolve(await self._inner.execute(queued.operation))
            self._answered = self._loop.time()
        except IdempotencyError as error:
            queued.resolve(error)
        except Exception as error:  # noqa: BLE001 - whatever a backend raises, nobody may wait for ever
            made = _unanswered(queued.operation, f"the backend raised {type(error).__name__}")
            made.__cause__ = error
            queued.resolve(made)

    def _retry(self, queued: "_Queued", reason: str) -> None:
        """Send an operation again after a pause, until the operation's time limit."""
        if queued.backoff is None:
            queued.backoff = Backoff(FIRST_PAUSE, LAST_PAUSE, until=queued.until)
        pause = queued.backoff.next(self._loop.time())
        if pause is None:
            queued.resolve(_unanswered(queued.operation, reason))
        else:
            self._loop.call_later(pause, self._requeue, queued)

    def _requeue(self, queued: "_Queued") -> None:
        """Put an operation back at the front of its queue, as the longest waiting one."""
        # The queue may have been closed during the pause, and a closed queue sends nothing.
        if self._closed:
            queued.resolve(_unanswered(queued.operation, "the store was closed"))
            return
        (self.owners if queued.is_owners else self.waiting).appendleft(queued)
        if queued.is_owners and not self._with_owners:
            self._send_soon()
        self._send()


@final
class _Queued(Struct, eq=False):
    """One operation from its arrival to its answer.

    Attributes:
        item: The operation's item: table, partition and sort key.
        is_owners: Whether it is a completion, a renewal or a release.
        limit: How many seconds after its arrival the operation is sent at the latest.
        until: The loop's time after those seconds.
        backoff: The pauses between attempts. None before the first throttling.
        has_item: Whether its item is under way for this operation, and for no other.
        followers: Reads of the same item that get the same answer.
    """

    operation: Operation
    item: tuple[str, str, str | None]
    is_owners: bool
    answer: asyncio.Future[Reply]
    limit: float
    until: float
    backoff: Backoff | None = None
    has_item: bool = False
    followers: tuple["_Queued", ...] = ()

    def __repr__(self) -> str:
        return f"<Queued {self.operation!r}>"

    def is_over(self, now: float, heard: float) -> bool:
        """Tell whether nobody waits for an answer any more. Whoever waited too long is answered here.

        Args:
            now: The loop's time.
            heard: The loop's time of the store's last answer.
        """
        # A cancelled caller: before the send, no write can have happened.
        if now > self.until and not self.answer.done():
            waits = LONGEST_WAIT if now <= heard + self.limit else 1
            if now > self.until + (waits - 1) * self.limit:
                self.resolve(_unanswered(self.operation, f"not sent within {waits * self.limit:g} s"))
        return self.answer.done()

    def resolve(self, outcome: Reply | IdempotencyError) -> None:
        """Set the answer, also that of the followers, unless the caller was cancelled."""
        for each in self.followers:
            each.resolve(_own(outcome) if isinstance(outcome, IdempotencyError) else outcome)
        if self.answer.done():
            return
        if isinstance(outcome, IdempotencyError):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


def _own(error: IdempotencyError) -> IdempotencyError:
    """Copy an error for one operation. A shared error would collect the tracebacks and notes of all callers."""
    own = copy(error)
    own.__cause__ = error.__cause__
    return own


def _unanswered(operation: Operation, reason: str) -> StoreError:
    return StoreError(type(operation).__name__, operation.location.table.name, reason)
