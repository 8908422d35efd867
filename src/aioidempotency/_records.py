"""Runs the procedures of `protocol` on a backend: claim, renew, complete, release.

All calls of a store share one `Records`. The class holds nothing of a single call or a single event loop, except
`held`, the leases of the running bodies.

1. `claim` and `complete` send the first operation of their procedures at once, because the first operation is known
   beforehand. Only refused operations go to the procedures.
2. A cancelled claim is given back here, and so is a claim with a late answer. The caller has no lease to release.
3. A backend's reply is compared with the operation before anything relies on the reply.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import ceil, inf
from threading import Lock
from typing import TypeVar, cast, final

from msgspec.structs import replace

from aioidempotency._concurrency import Once, concurrently, running_loop, to_the_end
from aioidempotency._core import freeing, model, protocol
from aioidempotency._core.conditions import Unchanged
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.model import Finished, Lease, Location, Record, Route, SerializedResult
from aioidempotency._core.operations import (
    Applied,
    Delete,
    Operation,
    Put,
    Reply,
    Transact,
    wrong_reply,
)
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim, Contended, Lost, Released, Renewed
from aioidempotency._lease import DEADLINE, RunningLease, seconds_asleep, time_left
from aioidempotency.backends import Backend
from aioidempotency.events import (
    LOGGER,
    Event,
    Hook,
    LeaseLost,
    RecordCompleted,
    RecordForgotten,
    ReleaseFailed,
    report,
)
from aioidempotency.exceptions import ConfigurationError, IdempotencyError, LeaseLostError, StoreError

T = TypeVar("T")

ROUNDING = 0.001
"""Seconds that the end of a lease loses or gains in a record, which counts milliseconds."""


@final
class Records:
    """The records of one store.

    Args:
        backend: The target of operations.
        clock: Returns epoch seconds.
        clock_skew: The largest difference between the clocks of two machines, in seconds.
        hook: Called with every event.
        local_cache: The number of finished records to keep in this process.

    Attributes:
        cache: The finished records in this process. None without a cache.
        opening: Verifies the table's layout before the first operation, and again after a longer promise. None without a
            need.
        promised: The longest that a record of the store and its calls counts, in seconds: by the longest retention, or by a
            longer lease.
        failed_open: The number of calls that ran unprotected because the store did not answer.
        has_completed: Whether any completion has succeeded.
        uncompleted: A completion refused for a missing permission, in a process without any success.
        held: The leases of the running bodies in all loops, by owner.
        asleep: Reads how many seconds the machine has slept.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        clock: Callable[[], float],
        clock_skew: float,
        hook: Hook | None = None,
        local_cache: int = 0,
    ) -> None:
        self.backend = backend
        self.now = clock
        self.clock_skew = clock_skew
        self.cache = LocalCache(local_cache) if local_cache else None
        self.opening: Once | None = None
        self.promised = 0.0
        self.failed_open = 0
        self.has_completed = False
        self.uncompleted: tuple[Lease, SerializedResult, ConfigurationError] | None = None
        self.held: dict[str, RunningLease] = {}
        self.asleep: Callable[[], float] = seconds_asleep
        self._hook = hook
        self._lock = Lock()  # threads with loops of their own share a store

    def promise(self, lasts: float) -> None:
        """Have the table learn that records count for longer, before the next operation, as before the first one."""
        # Rounded up to the minute: retentions until the end of a day, or the time left of a Lambda call, would each be a
        # little longer than the last one, and a write.
        with self._lock:
            self.promised = max(self.promised, 60.0 * ceil(lasts / 60))
        if self.opening is not None:
            self.opening.again()

    async def claim(self, attempt: Claim) -> Decision:  # noqa: C901, PLR0912 - the line of a claim is read in one piece
        """Claim a key, or return the reason against it.

        A cancelled claim is given back, even if nobody knows whether the claim was written. After a late answer, the
        claim is repeated a few times, possibly at another location.

        Raises:
            StoreError: The backend did not answer, every answer came too late for a lease, or the record is
                contended.
            ConfigurationError: No completion of this process has succeeded, and one was refused again.
        """
        if self.uncompleted is not None:
            await self._complete_first(*self.uncompleted)
        for _ in range(protocol.ATTEMPTS):
            sent: list[Operation] = []
            try:
                if self.opening is not None and not self.opening.done:
                    await self.opening()
                if attempt.read_first:
                    outcome: Decision | Contended = await self.run(protocol.claim(attempt), sent, sparing=attempt)
                else:
                    # The straight line of a fresh call: one request, and no procedure. `ask`, in line.
                    lease, operation = protocol.first_put(attempt)
                    try:
                        reply = await self.backend.execute(operation)
                    except IdempotencyError:
                        raise
                    except Exception as error:
                        raise self._raised(error, operation) from error
                    if isinstance(reply, Applied):
                        elapsed = self.now() - attempt.now
                        # Less than 0: somebody has set the clock back, which then tells nothing.
                        if 0 <= elapsed <= attempt.lease / 2 and elapsed <= attempt.route.answer_within:
                            return Claimed(lease)
                        outcome = Claimed(lease)
                    else:
                        self._check(reply, operation)
                        going_on = protocol.claim_refused(attempt, operation, reply)
                        outcome = await self.run(going_on, sent, sparing=attempt)
                if isinstance(outcome, Contended):
                    raise contended("claim", attempt.locations[0])
                decision = await self._relied_on(outcome, attempt)
            # The claim may be written, or may still be on the way. `withdraw` needs no reply to give the key back.
            except asyncio.CancelledError:
                await self.give_back([(attempt.route.key, protocol.withdraw(attempt, sent))])
                raise
            if decision is not None:
                return decision
            # The answer was late, so the lease may be over by now. The next attempt has a new instant, and possibly a
            # new location.
            attempt = attempt.at(self.now(), lease=attempt.lease)
        reason = "each answer came too late to rely on; check the load of this process, and the connection to the table"
        raise StoreError("claim", attempt.locations[0].table.name, reason)

    async def _complete_first(self, lease: Lease, result: SerializedResult, refusal: ConfigurationError) -> None:
        """Repeat a refused completion. Until one succeeds, no body may run, because every body would run again.

        Raises:
            ConfigurationError: The completion was refused again.
        """
        try:
            if protocol.lapsed(lease, now=self.now()):
                # Too late to be sent. The same write with an owner who holds nothing asks for the permission alone.
                other = replace(lease, owner=f"not {lease.owner}")
                await self.ask(protocol.first_update(other, result, now=self.now())[1])
                self.uncompleted = None
            else:
                await self.complete(lease, result)
        except LeaseLostError:  # the table answered by the owner, so the missing permission is there now
            self.uncompleted = None
        except (ConfigurationError, StoreError) as error:
            halted = ConfigurationError(
                f"no claims are made, because this process could not store the result of any call: {refusal}"
            )
            halted.temporary = refusal.temporary
            raise halted from error

    def _by_own_clock(self, attempt: Claim, operation: Operation) -> InProgress | Mismatch | None:
        """Judge a record that an operation would take from a body of this store by the loop's clock.

        That clock follows no change of the wall clock. None if the operation takes nothing from such a body.
        """
        for write in operation.writes if isinstance(operation, Transact) else (operation,):
            if not isinstance(write, Put | Delete) or not isinstance(write.condition, Unchanged):
                continue
            item = write.condition.item
            owner = item.get(write.location.table.names["owner"], {}).get("S")
            held = self.held.get(owner) if isinstance(owner, str) else None
            if held is not None and not held.lost and held.remaining > 0:
                verdict = protocol.judge(model.parse(item, write.location), attempt.at(held.now, lease=attempt.lease))
                if isinstance(verdict, InProgress | Mismatch):
                    return verdict
        return None

    async def _relied_on(self, decision: Decision, attempt: Claim) -> Decision | None:
        """Renew a half-used lease before anyone relies on the claim. None if the lease is lost.

        If the locations of a key depend on the instant, a late answer may have missed the newest location. The claim is
        then taken back.
        """
        if not isinstance(decision, Claimed):
            return decision
        # Another call may already look into a newer window, and would not see this claim.
        if self.now() - attempt.now > attempt.route.answer_within:
            await self.run_unverified(protocol.take_back(decision.lease))
            return None
        # A claim from the future was made before somebody has set the clock back, nobody knows how long ago.
        asked, now = decision.lease.expires_at - decision.lease.duration, self.now()
        fresh = now >= max(attempt.now, asked - ROUNDING) and now - asked <= attempt.lease / 2
        # Inside a deadline the lease is the time that is left, and is never renewed.
        if fresh or (DEADLINE.get() is not None and time_left() is not None):
            return decision
        outcome = await self._renewed(decision.lease)  # nobody relied on it yet: its loss is no event
        if isinstance(outcome, Renewed) and self.now() >= now and self.used(outcome.lease) < attempt.lease:
            return Claimed(outcome.lease)
        return None

    async def complete(self, lease: Lease, result: SerializedResult) -> Record | Finished:
        """Store a result. The answer has the record, or makes it: see `model.Finished`.

        Raises:
            LeaseLostError: The record has another owner, or the lease has ended in a layout by time.
            StoreError: The backend did not answer.
        """
        now = self.now()
        bounded = lease.route.answer_within < inf
        if bounded and protocol.lapsed(lease, now=now):
            raise self.lost(lease, Lost(None, over=True))
        finished, operation = protocol.first_update(lease, result, now=now)
        try:  # `ask`, in line
            reply = await self.backend.execute(operation)
        except IdempotencyError:
            raise
        except Exception as error:
            raise self._raised(error, operation) from error
        record: Record | Finished = finished
        if not isinstance(reply, Applied):
            self._check(reply, operation)
            outcome = await self.run_unverified(protocol.completion_refused(lease, result, operation, reply, now=now))
            if isinstance(outcome, Lost):
                raise self.lost(lease, outcome)
            if isinstance(outcome, Contended):
                raise contended("complete", lease.location)
            record = outcome.record
        # Only in layouts by time: a record in a newer window may belong to a successor by now, so the answer came too
        # late.
        if bounded and protocol.lapsed(lease, now=self.now()):
            raise self.lost(lease, Lost(None, over=True))
        self.completed(lease.route, record)
        return record

    def completed(self, route: Route, record: Record | Finished) -> None:
        """Note that a record is finished."""
        self.has_completed, self.uncompleted = True, None
        if self.cache is not None:
            self.cache.put(route.key, model.record_of(record))
        if self._hook is not None or LOGGER.isEnabledFor(logging.DEBUG):  # `listens`, in line
            self.report(RecordCompleted(route.key))

    async def renew(self, lease: Lease) -> Lease:
        """Extend a lease to its full duration from now.

        Raises:
            LeaseLostError: The record has another owner, is finished or is gone, or the lease has ended in a layout by
                time.
            StoreError: The backend did not answer.
        """
        outcome = await self._renewed(lease)
        if isinstance(outcome, Lost):
            raise self.lost(lease, outcome)
        return outcome.lease

    async def _renewed(self, lease: Lease) -> Renewed | Lost:
        # The clock is read again after the answer: the request may have outlasted the lease.
        outcome = await self.run_unverified(protocol.renew(lease, now=self.now(), clock_skew=self.clock_skew))
        if protocol.lapsed(lease, now=self.now()):
            return Lost(None, over=True)
        if isinstance(outcome, Contended):
            raise contended("renew", lease.location)
        return outcome

    async def release(self, lease: Lease) -> None:
        """Give a key back.

        Raises:
            LeaseLostError: The record has another owner.
            StoreError: The backend did not answer.
        """
        match await self.run_unverified(protocol.release(lease)):
            case Released():
                return
            case Lost(record):
                raise LeaseLostError(lease.key, record)

    async def give_back(self, releases: Iterable[tuple[str, Procedure[object]]]) -> None:
        """Run the releases of keys whose caller has gone. A failure becomes an event."""
        # Each success leaves the dictionary. The rest becomes events.
        held = dict(enumerate(releases))

        async def give_back(number: int) -> None:
            with suppress(StoreError, ConfigurationError):
                await self.run_unverified(held[number][1])
                del held[number]

        await to_the_end(lambda: concurrently(give_back, tuple(held), limit=32), otherwise=lambda: None)
        for key, _ in held.values():
            self.report(ReleaseFailed(key))

    async def read(self, route: Route) -> Record | None:
        """Read the record that counts now."""
        return await self.run(protocol.read(route, now=self.now()))

    async def forget(self, attempt: Claim, *, running: bool) -> Forgotten | InProgress:
        """Free a key, see `freeing.forget`.

        Raises:
            StoreError: The backend did not answer. The key may be free or not. Or the record is contended.
        """
        for held in tuple(self.held.values()):
            if held.lease.route.key == attempt.route.key and not held.lost and held.remaining > 0:
                # The process knows that its own body runs. A leap of the wall clock must not show the lease as
                # lapsed, as in `_by_own_clock`.
                attempt = attempt.at(min(attempt.now, held.now), lease=attempt.lease)
        outcome = await self.run(freeing.forget(attempt, running=running))
        if isinstance(outcome, Contended):
            raise contended("forget", attempt.locations[0])
        if isinstance(outcome, Forgotten):
            if self.cache is not None:
                self.cache.forget(attempt.route.key, up_to=outcome.fencing_token)
            if outcome.found:
                self.report(RecordForgotten(attempt.route.key, outcome.fenced))
        return outcome

    def cached(self, key: str, attempt: Callable[[], Claim]) -> Replay | Mismatch | None:
        """Decide by a living finished record in this process. None without such a record."""
        record = None if self.cache is None else self.cache.get(key)
        if self.cache is None or record is None:
            return None
        verdict = protocol.judge(record, attempt())
        if isinstance(verdict, Replay | Mismatch):
            return verdict
        self.cache.forget(key)
        return None

    async def run(
        self, procedure: Procedure[T], sent: list[Operation] | None = None, *, sparing: Claim | None = None
    ) -> T:
        """Run a procedure's operations in turn. The first procedure of a store waits for the layout's check.

        Args:
            procedure: What to run.
            sent: Gets each operation before the operation leaves.
            sparing: The attempt of a procedure that may take a record over. No operation takes a record from a running
                body of this store; the procedure then ends with `InProgress` or `Mismatch`, two of its own outcomes.
        """
        if self.opening is not None and not self.opening.done:
            await self.opening()
        return await self.run_unverified(procedure, sent, sparing=sparing)

    async def run_unverified(
        self, procedure: Procedure[T], sent: list[Operation] | None = None, *, sparing: Claim | None = None
    ) -> T:
        """Run a procedure whose locations do not depend on the layout: of an owner, whose lease names the location.

        Such a procedure must not wait for the layout's check, which a longer promise repeats, nor fail with the check.
        """
        try:
            operation = next(procedure)
            while True:
                if sparing is not None and self.held:
                    verdict = self._by_own_clock(sparing, operation)
                    if verdict is not None:
                        procedure.close()
                        return cast("T", verdict)
                if sent is not None:
                    sent.append(operation)
                operation = procedure.send(await self.ask(operation))
        except StopIteration as outcome:
            return outcome.value  # type: ignore[no-any-return] # StopIteration is not generic

    async def ask(self, operation: Operation) -> Reply:
        """Execute one operation on the backend.

        Raises:
            StoreError: The backend did not answer: the backend raised this error, or an exception of its own.
            ConfigurationError: The reply does not belong to the operation. The reply is not shown, because it may be a
                result.
        """
        try:
            reply = await self.backend.execute(operation)
        except IdempotencyError:
            raise
        except Exception as error:
            raise self._raised(error, operation) from error
        self._check(reply, operation)
        return reply

    def _raised(self, error: Exception, operation: Operation) -> StoreError:
        """Make the error for an exception that is none of the library's."""
        running_loop()  # without a loop of asyncio, most backends raise: a wrong setting, and no outage
        reason = f"the backend {type(self.backend).__name__} raised {type(error).__name__}"
        return StoreError(type(operation).__name__, operation.location.table.name, reason)

    def _check(self, reply: Reply, operation: Operation) -> None:
        """Insist on a reply that belongs to the operation."""
        wrong = wrong_reply(operation, reply)
        if wrong is not None:
            raise ConfigurationError(
                f"the backend {type(self.backend).__name__} answered {type(operation).__name__} with {wrong}, "
                "which is no reply to the operation; see aioidempotency.backends for the reply to each operation"
            )

    def used(self, lease: Lease) -> float:
        """Read the age of a lease in seconds, since the request for the lease."""
        return max(0.0, self.now() - (lease.expires_at - lease.duration))

    def lost(self, lease: Lease, lost: Lost) -> LeaseLostError:
        """Report a lost lease, and make the caller's error."""
        self.report(LeaseLost(lease.key))
        return LeaseLostError(lease.key, lost.record, reason="unanswered" if lost.over else None)

    def listens(self, level: int) -> bool:
        """Tell whether anybody reads events of this level. Otherwise no event need be made."""
        return self._hook is not None or LOGGER.isEnabledFor(level)

    def report(self, event: Event) -> None:
        """Log an event and call the hook."""
        report(event, self._hook)


def contended(action: str, location: Location) -> StoreError:
    """Make the error for a record that others changed at every attempt."""
    reason = f"{location.key} is contended: others changed it {protocol.ATTEMPTS} times in a row; call again later"
    return StoreError(action, location.table.name, reason, contended=True)


@final
class LocalCache:
    """The last `size` used finished records. Their duplicates send no request.

    A finished record never changes while alive, so the record may be kept. The reader judges whether the record is
    still alive. Results are kept as text, and decoded for each caller anew.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: dict[str, Record] = {}
        self._forgotten: dict[str, int] = {}
        self._lock = Lock()  # threads with loops of their own share a store

    def get(self, key: str) -> Record | None:
        """Read the record of a key, and note the use."""
        with self._lock:
            record = self._records.pop(key, None)
            if record is not None:
                self._records[key] = record
            return record

    def put(self, key: str, record: Record) -> None:
        """Keep a finished record. The longest unused record makes room."""
        with self._lock:
            self._records.pop(key, None)
            # A read that began before `forget` may end after it.
            if self._forgotten and record.fencing_token <= self._forgotten.get(key, -1):
                return
            self._records[key] = record
            if len(self._records) > self._size:
                del self._records[next(iter(self._records))]

    def forget(self, key: str, *, up_to: int | None = None) -> None:
        """Drop a dead record.

        With `up_to`, records with fencing tokens up to that number are gone from the table. A late answer may still
        bring such a record, and the cache then refuses to keep it.
        """
        with self._lock:
            self._records.pop(key, None)
            if up_to is not None:
                self._forgotten[key] = up_to
                if len(self._forgotten) > self._size:
                    del self._forgotten[next(iter(self._forgotten))]
