"""Runs the procedures of `protocol` on a backend: claim, renew, complete, release.

A store has one `Records`, shared by all its calls. Nothing here belongs to one call, or to one event loop.

1. `claim` and `complete` send the first operation of their procedures at once, since it is known without asking.
   Only what is refused goes to the procedures.
2. A claim that is cancelled, or whose answer came too late to be relied upon, is given back here: its caller
   has not got a lease that it could release.
3. Whatever a backend answers is held against what was asked before anything relies on it.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Lock
from typing import TypeVar, final

from aioidempotency._concurrency import Once, concurrently, to_the_end
from aioidempotency._core import freeing, protocol
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.model import Lease, Location, Record, Route, SerializedResult
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Delete,
    Operation,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Update,
    wrong_reply,
)
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim, Completed, Contended, Lost, Released, Renewed
from aioidempotency._lease import DEADLINE, RunningLease, seconds_asleep
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
from aioidempotency.exceptions import ConfigurationError, IdempotencyError, LeaseLostError, LostReason, StoreError

T = TypeVar("T")


@final
class Records:
    """The records of one store.

    Args:
        backend: Where operations go.
        clock: Epoch seconds.
        clock_skew: Seconds by which the clocks of two machines may differ.
        hook: Called with every event.
        local_cache: How many finished records to keep in this process.

    Attributes:
        cache: The finished records that are kept in this process; None where none are.
        opening: Verifies the table's layout before anything else is asked; None where there is nothing to verify.
        failed_open: How many calls ran unprotected because the store did not answer.
        has_completed: Whether a completion was ever answered as it should be.
        uncompleted: A completion that was refused for want of rights, in a process in which none has succeeded.
        held: The leases of the running bodies, by owner: of all loops.
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
        self.failed_open = 0
        self.has_completed = False
        self.uncompleted: tuple[Lease, SerializedResult, ConfigurationError] | None = None
        self.held: dict[str, RunningLease] = {}
        self.asleep: Callable[[], float] = seconds_asleep
        self._hook = hook

    async def claim(self, attempt: Claim) -> Decision:
        """Own a key, or say why not.

        When cancelled meanwhile, what may have been written is given back. An attempt that is not to be relied
        upon is made again, some times, and may have another home then.

        Raises:
            StoreError: The backend did not answer, or so late that no lease was left, again and again; or the record
                is contended.
        """
        if self.uncompleted is not None:
            await self._complete_first(*self.uncompleted)
        for _ in range(protocol.ATTEMPTS):
            sent: list[Operation] = []
            try:
                if self.opening is not None and not self.opening.done:
                    await self.opening()
                if attempt.read_first:
                    outcome: Decision | Contended = await self.run(protocol.claim(attempt), sent)
                else:
                    lease, operation = protocol.first_put(attempt)
                    reply = await self.ask(operation)
                    if isinstance(reply, Applied):
                        elapsed = self.now() - attempt.now
                        if elapsed <= attempt.lease / 2 and elapsed <= attempt.route.answer_within:
                            return Claimed(lease)
                        outcome = Claimed(lease)
                    else:
                        judged = self._by_own_clock(attempt, reply)
                        outcome = await self.run(protocol.claim_refused(judged, operation, reply), sent)
                if isinstance(outcome, Contended):
                    raise contended("claim", attempt.locations[0])
                decision = await self._relied_on(outcome, attempt)
            except asyncio.CancelledError:
                await self.give_back([(attempt.route.key, protocol.withdraw(attempt, sent))])
                raise
            if decision is not None:
                return decision
            attempt = attempt.at(self.now(), lease=attempt.lease)
        reason = "its answers came too late to be relied upon; check the load of this process, and the way to the table"
        raise StoreError("claim", attempt.locations[0].table.name, reason)

    async def _complete_first(self, lease: Lease, result: SerializedResult, refusal: ConfigurationError) -> None:
        """Send the completion again that was refused. As long as none succeeds, no body may run: each would run again.

        Raises:
            ConfigurationError: It was refused again.
        """
        try:
            await self.complete(lease, result)
        except LeaseLostError:  # the record has another owner: that was found by the right that was missing
            self.uncompleted = None
        except (ConfigurationError, StoreError) as error:
            raise ConfigurationError(
                f"no claims are made, since this process could not store the result of any call: {refusal}"
            ) from error

    def _by_own_clock(self, attempt: Claim, refusal: Reply) -> Claim:
        """Let a record that a body of this store holds be judged by the loop's clock, which no change of the wall clock moves."""
        failures = refusal.failures if isinstance(refusal, TransactionFailed) else (refusal,)
        for each in failures:
            if isinstance(each, ConditionFailed) and each.item is not None:
                owner = each.item.get(attempt.locations[0].table.names["owner"], {}).get("S")
                held = self.held.get(owner) if isinstance(owner, str) else None
                if held is not None and not held.lost and held.remaining > 0:
                    return attempt.at(held.now, lease=attempt.lease)
        return attempt

    async def _relied_on(self, decision: Decision, attempt: Claim) -> Decision | None:
        """Renew a lease that is half over when the answer comes, before anyone relies on it; None: it is lost.

        Where the locations of a key depend on the instant, an answer that came too late may have missed the
        newest one, and is taken back.
        """
        if not isinstance(decision, Claimed):
            return decision
        if self.now() - attempt.now > attempt.route.answer_within:
            await self.run(protocol.take_back(decision.lease))
            return None
        # Inside a deadline the lease is the time that is left, and is never renewed.
        if self.used(decision.lease) <= attempt.lease / 2 or DEADLINE.get() is not None:
            return decision
        outcome = await self._renewed(decision.lease)  # nobody relied on it yet: its loss is no event
        if isinstance(outcome, Renewed) and self.used(outcome.lease) < attempt.lease:
            return Claimed(outcome.lease)
        return None

    async def complete(self, lease: Lease, result: SerializedResult) -> Record:
        """Store a result.

        Raises:
            LeaseLostError: Another owner holds the record.
            StoreError: The backend did not answer.
        """
        now = self.now()
        if protocol.lapsed(lease, now=now):
            raise self.lost(lease, None, reason="unanswered")
        finished, operation = protocol.first_update(lease, result, now=now)
        reply = await self.ask(operation)
        if isinstance(reply, Applied):
            outcome: Completed | Lost | Contended = Completed(finished)
        else:
            outcome = await self.run(protocol.completion_refused(lease, result, operation, reply, now=now))
        if isinstance(outcome, Lost):
            raise self.lost(lease, outcome.record)
        if isinstance(outcome, Contended):
            raise contended("complete", lease.location)
        if protocol.lapsed(lease, now=self.now()):
            raise self.lost(lease, None, reason="unanswered")
        return self.completed(lease.route, outcome.record)

    def completed(self, route: Route, record: Record) -> Record:
        """Note that a record is finished."""
        self.has_completed, self.uncompleted = True, None
        if self.cache is not None:
            self.cache.put(route.key, record)
        if self.listens(logging.DEBUG):
            self.report(RecordCompleted(record.key))
        return record

    async def renew(self, lease: Lease) -> Lease:
        """Move the end of a lease to its duration from now.

        Raises:
            LeaseLostError: Another owner holds the record, or it is finished.
            StoreError: The backend did not answer.
        """
        outcome = await self._renewed(lease)
        if isinstance(outcome, Lost):
            raise self.lost(lease, outcome.record)
        return outcome.lease

    async def _renewed(self, lease: Lease) -> Renewed | Lost:
        outcome = await self.run(protocol.renew(lease, now=self.now(), clock_skew=self.clock_skew))
        if protocol.lapsed(lease, now=self.now()):
            return Lost(None)
        if isinstance(outcome, Contended):
            raise contended("renew", lease.location)
        return outcome

    async def release(self, lease: Lease) -> None:
        """Give a key back.

        Raises:
            LeaseLostError: Another owner holds the record.
            StoreError: The backend did not answer.
        """
        match await self.run(protocol.release(lease)):
            case Released():
                return
            case Lost(record):
                raise LeaseLostError(lease.key, record)

    async def give_back(self, releases: Iterable[tuple[str, Procedure[object]]]) -> None:
        """Run releases of keys whose caller is not there any more to hear of a failure."""
        held = dict(enumerate(releases))

        async def give_back(number: int) -> None:
            with suppress(StoreError, ConfigurationError):
                await self.run(held[number][1])
                del held[number]

        await to_the_end(lambda: concurrently(give_back, tuple(held), limit=32), otherwise=lambda: None)
        for key, _ in held.values():
            self.report(ReleaseFailed(key))

    async def read(self, route: Route) -> Record | None:
        """Read the record that counts now."""
        return await self.run(protocol.read(route, now=self.now()))

    async def forget(self, attempt: Claim, *, running: bool) -> Forgotten | InProgress:
        """Free a key; see `freeing.forget`.

        Raises:
            StoreError: The backend did not answer, and whether the key was freed is unknown; or the record is contended.
        """
        for held in tuple(self.held.values()):
            if held.lease.route.key == attempt.route.key and not held.lost and held.remaining > 0:
                attempt = attempt.at(min(attempt.now, held.now), lease=attempt.lease)  # as `_by_own_clock`
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
        """Decide by a finished record that is kept in this process, if there is one that lives."""
        record = None if self.cache is None else self.cache.get(key)
        if self.cache is None or record is None:
            return None
        verdict = protocol.judge(record, attempt())
        if isinstance(verdict, Replay | Mismatch):
            return verdict
        self.cache.forget(key)
        return None

    async def run(self, procedure: Procedure[T], sent: list[Operation] | None = None) -> T:
        """Run a procedure's operations, one after the other; the first of a store's verifies the table's layout.

        Each operation is added to `sent` before it leaves.
        """
        if self.opening is not None and not self.opening.done:
            await self.opening()
        return await self.run_unverified(procedure, sent)

    async def run_unverified(self, procedure: Procedure[T], sent: list[Operation] | None = None) -> T:
        """Run a procedure whose locations do not depend on the layout."""
        try:
            operation = next(procedure)
            while True:
                if sent is not None:
                    sent.append(operation)
                operation = procedure.send(await self.ask(operation))
        except StopIteration as outcome:
            return outcome.value  # type: ignore[no-any-return] # StopIteration is not generic

    async def ask(self, operation: Operation) -> Reply:
        """Have the backend execute one operation.

        Raises:
            StoreError: The backend did not answer: it raised this, or an exception of its own.
            ConfigurationError: It answered what is no reply to the operation. What it answered is not shown: it may be
                a result.
        """
        try:
            reply = await self.backend.execute(operation)
        except IdempotencyError:
            raise
        except Exception as error:
            reason = f"the backend {type(self.backend).__name__} raised {type(error).__name__}"
            raise StoreError(type(operation).__name__, operation.location.table.name, reason) from error
        # A write that was applied is nearly every answer; anything else is looked at more closely.
        if not isinstance(reply, Applied) or not isinstance(operation, _WRITES):
            wrong = wrong_reply(operation, reply)
            if wrong is not None:
                raise ConfigurationError(
                    f"the backend {type(self.backend).__name__} answered {type(operation).__name__} with {wrong}, which "
                    "is no reply to it; see aioidempotency.backends for the reply to each operation"
                )
        return reply

    def used(self, lease: Lease) -> float:
        """Read how many seconds ago a lease was asked for."""
        return max(0.0, self.now() - (lease.expires_at - lease.duration))

    def lost(self, lease: Lease, record: Record | None, *, reason: LostReason | None = None) -> LeaseLostError:
        """Report that a lease is lost, and make the error that says so."""
        self.report(LeaseLost(lease.key))
        return LeaseLostError(lease.key, record, reason=reason)

    def listens(self, level: int) -> bool:
        """Tell whether anybody looks at events of this level: else none need be made."""
        return self._hook is not None or LOGGER.isEnabledFor(level)

    def report(self, event: Event) -> None:
        """Log an event and hand it to the hook."""
        report(event, self._hook)


def contended(action: str, location: Location) -> StoreError:
    """Make the error for a record that others changed at every attempt."""
    reason = f"{location.key} is contended: others changed it {protocol.ATTEMPTS} times in a row; call again later"
    return StoreError(action, location.table.name, reason, contended=True)


_WRITES = (Put, Update, Delete, Transact)


@final
class LocalCache:
    """The finished records of the last `size` keys that were used, so that their duplicates ask nobody.

    A finished record never changes while it lives, so it may be kept; whether it still lives is for
    whoever takes it out to judge. Results are kept as text, and decoded for each caller anew.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._records: dict[str, Record] = {}
        self._forgotten: dict[str, int] = {}
        self._lock = Lock()  # threads with loops of their own share a store

    def get(self, key: str) -> Record | None:
        """Take the record of a key out, and note that it was used."""
        with self._lock:
            record = self._records.pop(key, None)
            if record is not None:
                self._records[key] = record
            return record

    def put(self, key: str, record: Record) -> None:
        """Keep a finished record; the one that was not used for the longest time makes room."""
        with self._lock:
            self._records.pop(key, None)
            if self._forgotten and record.fencing_token <= self._forgotten.get(key, -1):
                return
            self._records[key] = record
            if len(self._records) > self._size:
                del self._records[next(iter(self._records))]

    def forget(self, key: str, *, up_to: int | None = None) -> None:
        """Drop a record that does not live any more.

        With `up_to`, records of such fencing tokens are gone from the table. An answer that is still on its way may
        bring one of them, which must not be kept.
        """
        with self._lock:
            self._records.pop(key, None)
            if up_to is not None:
                self._forgotten[key] = up_to
                if len(self._forgotten) > self._size:
                    del self._forgotten[next(iter(self._forgotten))]
