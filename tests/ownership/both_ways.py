"""The same calls two ways: through `Records`, and by the procedures of the protocol alone.

`Records` sends the first put of a claim and the first update of a completion at once, and asks a procedure only after a
refusal. `Procedures` knows no such short way: it runs `protocol.claim` and `protocol.complete` from their beginning.
Each has a `Table` of its own, and both tables meet the same incidents at the same operations.

What `Records` adds to the procedures stands here a second time, by its rules and without a short way: late answers,
cancelled claims, leases that are over. Three additions are left out of the comparison: the judgement by a running
body's own clock, the check of a layout, and the repetition of a completion that was refused for a missing permission.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, final

from aioidempotency import ConfigurationError, IdempotencyError, LeaseLostError, StoreError
from aioidempotency._core import freeing, protocol
from aioidempotency._core.decisions import Claimed, Decision
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.model import Item, Lease, Location, Record, Route, SerializedResult, record_of
from aioidempotency._core.operations import (
    ConditionFailed,
    Operation,
    Reply,
    TransactionFailed,
)
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim, Contended, Lost, Renewed
from aioidempotency._records import Records
from aioidempotency.backends.dynamodb.requests import request
from aioidempotency.events import Event, LeaseLost, RecordCompleted, RecordForgotten, ReleaseFailed
from tests.core.playing import NOW, Shelf

T = TypeVar("T")

SKEW = 1.0
"""Seconds by which clocks may differ."""

TOO_LATE = "each answer came too late"


@final
@dataclass(frozen=True, kw_only=True)
class Incident:
    """What happens to one operation.

    Attributes:
        kind: `late`: the clock shows another instant when the answer comes. `lost`: the operation is applied, and no
            answer comes. `down`: it is not applied, and no answer comes. `repeated`: the first answer is lost, and the
            client repeats the operation. `bare`: a refusal brings no item. `before`: another's write comes first.
            `cancelled` and `applied`: the caller is cancelled, and the operation is not applied, or is.
        seconds: By how much the clock goes on until the answer; less than 0 where somebody sets it back.
        write: What another writes before.
    """

    kind: Literal["fine", "late", "lost", "down", "repeated", "bare", "before", "cancelled", "applied"] = "fine"
    seconds: float = 0.0
    write: Callable[["Table"], None] | None = None


FINE = Incident()


class CancelledCall(BaseException):
    """A caller was cancelled, where no task can be."""


@final
@dataclass
class Table:
    """Items, a clock, and the incidents to come, one for each operation of a call.

    Attributes:
        sent: The requests, as DynamoDB would get them, in order.
        is_cancelled: Whether the caller of the present call was cancelled. Its clean-up is not cancelled again.
    """

    shelf: Shelf = field(default_factory=Shelf)
    now: float = NOW
    incidents: list[Incident] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    is_cancelled: bool = False

    def prepare(self, incidents: tuple[Incident, ...]) -> None:
        """Begin a call."""
        self.incidents = list(incidents)
        self.is_cancelled = False

    def answer(self, operation: Operation) -> Reply:
        """Execute an operation, as far as its incident allows."""
        made = request(operation)
        self.sent.append(json.dumps([made.operation, made.parameters]))
        incident = self.incidents.pop(0) if self.incidents else FINE
        if incident.write is not None:
            incident.write(self)
        if incident.kind in {"cancelled", "applied"} and not self.is_cancelled:
            if incident.kind == "applied":
                self.shelf.answer(operation)
            self.is_cancelled = True
            raise CancelledCall
        if incident.kind == "down":
            raise _unanswered(operation)
        reply = self.shelf.answer(operation)
        self.now += incident.seconds
        if incident.kind == "lost":
            raise _unanswered(operation)
        if incident.kind == "repeated":
            reply = self.shelf.answer(operation)
        return _bare(reply) if incident.kind == "bare" else reply

    def items(self) -> list[tuple[tuple[str, str | None], str]]:
        """List all items, with their attributes in order."""
        return sorted((key, json.dumps(item)) for key, item in self.shelf.items.items())

    def put(self, location: Location, item: Item | None) -> None:
        """Write an item past the protocol, or delete one."""
        key = location.partition, location.sort
        if item is None:
            self.shelf.items.pop(key, None)
        else:
            self.shelf.items[key] = item

    async def execute(self, operation: Operation) -> Reply:
        """Answer as a backend does: a cancellation is one of the task."""
        await asyncio.sleep(0)
        try:
            return self.answer(operation)
        except CancelledCall:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
            raise


def _unanswered(operation: Operation) -> StoreError:
    return StoreError(type(operation).__name__, operation.location.table.name, "no answer")


def _bare(reply: Reply) -> Reply:
    """Take the items out of a refusal, as a batch answers a duplicate."""
    match reply:
        case ConditionFailed():
            return ConditionFailed(None)
        case TransactionFailed(failures):
            return TransactionFailed(tuple(None if each is None else ConditionFailed(None) for each in failures))
        case _:
            return reply


Answer = object
"""What a call comes to: its value, or its error with all that a caller can read of it."""


@final
class Line:
    """The calls, through `Records`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.events: list[Event] = []
        self.records = Records(table, clock=lambda: table.now, clock_skew=SKEW, hook=self.events.append)

    async def claim(self, attempt: Claim) -> Answer:
        """Claim a key."""
        return await _told(self.records.claim(attempt))

    async def complete(self, lease: Lease, result: SerializedResult) -> Answer:
        """Store a result."""

        async def completing() -> Record:
            return record_of(await self.records.complete(lease, result))

        return await _told(completing())

    async def renew(self, lease: Lease) -> Answer:
        """Extend a lease."""
        return await _told(self.records.renew(lease))

    async def release(self, lease: Lease) -> Answer:
        """Give a key back."""
        return await _told(self.records.release(lease))

    async def forget(self, attempt: Claim, *, running: bool) -> Answer:
        """Free a key."""
        return await _told(self.records.forget(attempt, running=running))

    async def read(self, route: Route) -> Answer:
        """Read a record."""
        return await _told(self.records.read(route))


@final
class Procedures:
    """The calls, by procedures from their beginning to their end."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.events: list[Event] = []

    async def claim(self, attempt: Claim, *, in_deadline: bool) -> Answer:
        """Claim a key."""
        return await _told(self._claimed(attempt, in_deadline=in_deadline))

    async def _claimed(self, attempt: Claim, *, in_deadline: bool) -> Decision:
        for _ in range(protocol.ATTEMPTS):
            sent: list[Operation] = []
            try:
                outcome = self._run(protocol.claim(attempt), sent)
                if isinstance(outcome, Contended):
                    raise _contended("claim", attempt.locations[0])
                if not isinstance(outcome, Claimed):
                    return outcome
                lease = self._relied_on(outcome.lease, attempt, in_deadline=in_deadline)
            except CancelledCall:
                try:
                    self._run(protocol.withdraw(attempt, sent))
                except (StoreError, ConfigurationError):
                    self.events.append(ReleaseFailed(attempt.route.key))
                raise
            if lease is not None:
                return Claimed(lease)
            attempt = attempt.at(self.table.now, lease=attempt.lease)
        raise StoreError("claim", attempt.locations[0].table.name, TOO_LATE)

    def _relied_on(self, lease: Lease, attempt: Claim, *, in_deadline: bool) -> Lease | None:
        """Decide whether a body may rely on a lease whose answer has just come. None: the claim is made again.

        1. An answer after the locations have changed is void, and its record is removed.
        2. A lease of which half is used is renewed first, and so is one of which nobody knows how much is used, because
           the clock was set back. In a deadline no lease is renewed.
        3. A renewal that fails, or that uses up the lease, leaves nothing to rely on.
        """
        asked, now = lease.expires_at - lease.duration, self.table.now
        if now - attempt.now > attempt.route.answer_within:
            self._run(protocol.take_back(lease))
            return None
        was_set_back = now < attempt.now or now < asked - 0.001
        if in_deadline or not (was_set_back or now - asked > attempt.lease / 2):
            return lease
        outcome = self._renewed(lease)
        if not isinstance(outcome, Renewed) or self.table.now < now:
            return None
        used = self.table.now - (outcome.lease.expires_at - outcome.lease.duration)
        return outcome.lease if used < attempt.lease else None

    async def complete(self, lease: Lease, result: SerializedResult) -> Answer:
        """Store a result."""
        return await _told(self._completed(lease, result))

    async def _completed(self, lease: Lease, result: SerializedResult) -> Record:
        outcome = self._run(protocol.complete(lease, result, now=self.table.now))
        if isinstance(outcome, Lost):
            raise self._lost(lease, outcome)
        if isinstance(outcome, Contended):
            raise _contended("complete", lease.location)
        # An answer after the end of a lease in a layout by time says nothing about a successor in a newer window.
        if protocol.lapsed(lease, now=self.table.now):
            raise self._lost(lease, Lost(None, over=True))
        self.events.append(RecordCompleted(lease.route.key))
        return outcome.record

    async def renew(self, lease: Lease) -> Answer:
        """Extend a lease."""

        async def renewing() -> Lease:
            outcome = self._renewed(lease)
            if isinstance(outcome, Lost):
                raise self._lost(lease, outcome)
            return outcome.lease

        return await _told(renewing())

    def _renewed(self, lease: Lease) -> Renewed | Lost:
        outcome = self._run(protocol.renew(lease, now=self.table.now, clock_skew=SKEW))
        if protocol.lapsed(lease, now=self.table.now):
            return Lost(None, over=True)
        if isinstance(outcome, Contended):
            raise _contended("renew", lease.location)
        return outcome

    async def release(self, lease: Lease) -> Answer:
        """Give a key back."""

        async def releasing() -> None:
            outcome = self._run(protocol.release(lease))
            if isinstance(outcome, Lost):
                raise LeaseLostError(lease.key, outcome.record)

        return await _told(releasing())

    async def forget(self, attempt: Claim, *, running: bool) -> Answer:
        """Free a key."""

        async def forgetting() -> object:
            outcome = self._run(freeing.forget(attempt, running=running))
            if isinstance(outcome, Contended):
                raise _contended("forget", attempt.locations[0])
            if isinstance(outcome, Forgotten) and outcome.found:
                self.events.append(RecordForgotten(attempt.route.key, outcome.fenced))
            return outcome

        return await _told(forgetting())

    async def read(self, route: Route) -> Answer:
        """Read a record."""

        async def reading() -> Record | None:
            return self._run(protocol.read(route, now=self.table.now))

        return await _told(reading())

    def _run(self, procedure: Procedure[T], sent: list[Operation] | None = None) -> T:
        """Answer each operation of a procedure, from the first to the last."""
        try:
            operation = next(procedure)
            while True:
                if sent is not None:
                    sent.append(operation)
                operation = procedure.send(self.table.answer(operation))
        except StopIteration as end:
            outcome: T = end.value
            return outcome

    def _lost(self, lease: Lease, lost: Lost) -> LeaseLostError:
        self.events.append(LeaseLost(lease.key))
        return LeaseLostError(lease.key, lost.record, reason="unanswered" if lost.over else None)


def _contended(action: str, location: Location) -> StoreError:
    return StoreError(action, location.table.name, "contended", contended=True)


async def _told(call: Any) -> Answer:
    """Read what a call comes to."""
    try:
        return await call
    except (asyncio.CancelledError, CancelledCall):
        return "cancelled"
    except StoreError as error:
        reason = "contended" if error.contended else TOO_LATE if TOO_LATE in error.reason else error.reason
        return StoreError, error.operation, error.table_name, reason
    except IdempotencyError as error:
        return type(error), str(error), getattr(error, "record", None), getattr(error, "reason", None)
