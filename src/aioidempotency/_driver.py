"""Executes the procedures of `protocol` on a backend. A store has one driver, shared by all its calls."""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal, TypeVar, final

import anyio

from aioidempotency import _results
from aioidempotency._cache import Cache
from aioidempotency._concurrency import Once, concurrently, to_the_end
from aioidempotency._core import commits, layout, protocol
from aioidempotency._core.commits import Commit, Rejected
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.effects import Writes, bare
from aioidempotency._core.layout import Differs, Laid
from aioidempotency._core.model import Encoded, Lease, Location, Record
from aioidempotency._core.outbox import Outbox
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim, Completed, Lost, Released, Renewed
from aioidempotency._draft import Draft
from aioidempotency._flights import Flight
from aioidempotency._lease import Heartbeats, time_left
from aioidempotency.backends import Backend, DescribesKeys
from aioidempotency.codecs import Codec
from aioidempotency.events import Event, Hook, LeaseLost, RecordCompleted, ReleaseFailed, ResultDropped, report
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    LayoutMismatchError,
    LeaseLostError,
    SerializationError,
    StoreError,
    TransactionError,
)

T = TypeVar("T")

LOOK_UP_LIMIT = 2.0
"""Seconds that the keys of tables are waited for, before DynamoDB has to judge without them."""


@final
class Driver:
    """Executes procedures on a store's backend, and keeps what the store's calls share.

    Attributes:
        flights: The calls that are under way in this process, by key.
        heartbeats: The renewals of the running ones.
        cache: The finished records that are kept in this process.
        fail_open: Whether calls run unprotected while the store does not answer.
        on_completion_failure: What to do when a result could not be stored before the lease ended.
        outbox: Where events are written to; None where there is no table for them.
        desk: What a call needs to write events: how, and where to.
        failed_open: How many calls ran unprotected because the store did not answer.
        opening: Verifies the table's layout, before anything else is asked; None where there is nothing to verify.
    """

    def __init__(
        self,
        backend: Backend,
        codec: Codec,
        *,
        clock: Callable[[], float],
        clock_skew: float,
        compress_over: int | None,
        hook: Hook | None,
        fail_open: bool = False,
        on_completion_failure: Literal["report", "raise"] = "report",
        local_cache: int = 0,
        outbox: Outbox | None = None,
    ) -> None:
        self.backend = backend
        self.codec = codec
        self.now = clock
        self.flights: dict[str, Flight] = {}
        self.heartbeats = Heartbeats(self.renew)
        self.failed_open = 0
        self.opening: Once | None = None
        self.cache = Cache(local_cache)
        self.outbox = outbox
        self.desk = codec, outbox
        self._keys: dict[str, frozenset[str]] = {}
        self._untold: set[str] = set()
        self.fail_open = fail_open
        self.on_completion_failure = on_completion_failure
        self._clock_skew = clock_skew
        self._compress_over = compress_over
        self._hook = hook

    async def drive(self, procedure: Procedure[T]) -> T:
        """Execute a procedure's operations, one after the other."""
        if self.opening is not None and not self.opening.done:
            await self.opening()
        return await self._run(procedure)

    async def drive_apart(self, procedure: Procedure[T]) -> T:
        """Execute a procedure whose places do not depend on the layout: nothing is verified."""
        return await self._run(procedure)

    async def verify_layout(self, laid: Laid) -> None:
        """Hold a strategy against the table's."""
        self._fitting(laid, await self._run(layout.verify(laid, now=self.now())))

    @staticmethod
    def _fitting(laid: Laid, verdict: layout.Verdict) -> None:
        if isinstance(verdict, Differs):
            found, wanted = (layout.spelled(each) for each in (verdict.layout.description, laid.description))
            raise LayoutMismatchError(laid.place.table.name, found, wanted, layout.advice(verdict))

    async def _run(self, procedure: Procedure[T]) -> T:
        """Execute a procedure's operations. What a backend raises that it should not is a store that did not answer."""
        try:
            operation = next(procedure)
            while True:
                try:
                    reply = await self.backend.execute(operation)
                except IdempotencyError:
                    raise
                except Exception as error:
                    reason = f"the backend raised {type(error).__name__}"
                    raise StoreError(type(operation).__name__, operation.location.table.name, reason) from error
                operation = procedure.send(reply)
        except StopIteration as outcome:
            return outcome.value  # type: ignore[no-any-return] # StopIteration is not generic

    def cached(self, attempt: Claim) -> Replay | Mismatch | None:
        """Decide by a finished record that is kept in this process, if there is one that lives."""
        record = self.cache.get(attempt.route.key)
        if record is None:
            return None
        verdict = protocol.judge(record, attempt)
        if isinstance(verdict, Replay | Mismatch):
            return verdict
        self.cache.forget(attempt.route.key)
        return None

    async def claim(self, attempt: Claim) -> Decision:
        """Claim; when cancelled meanwhile, give back what may have been written.

        An attempt that is not to be relied upon is made again, some times, and may have another home then.
        """
        for _ in range(protocol.ATTEMPTS):
            try:
                decision = await self._claim(attempt)
            except anyio.get_cancelled_exc_class():
                await self.abandon([(attempt.places[0], attempt.owner)])
                raise
            if decision is not None:
                return decision
            attempt = attempt.at(self.now(), lease=attempt.lease)
        reason = "its answers came too late to be relied upon; check the load of this process, and the way to the table"
        raise StoreError("claim", attempt.places[0].table.name, reason)

    async def _claim(self, attempt: Claim) -> Decision | None:
        """Claim; a lease that is half over when the answer comes is renewed, or lost, before anyone relies on it.

        Where the places of a key depend on the instant, an answer that came too late may have missed the
        newest one, and is taken back. None: nothing is to be relied upon.
        """
        decision = await self.drive(protocol.claim(attempt))
        if not isinstance(decision, Claimed):
            return decision
        if self.now() - attempt.now > attempt.route.answer_within:
            await self.drive(protocol.take_back(decision.lease))
            return None
        # Inside a deadline the lease is the time that is left, and is never renewed.
        if self.used(decision.lease) <= attempt.lease / 2 or time_left() is not None:
            return decision
        outcome = await self._renewed(decision.lease)  # nobody relied on it yet: its loss is no event
        if isinstance(outcome, Renewed) and self.used(outcome.lease) < attempt.lease:
            return Claimed(outcome.lease)
        return None

    def used(self, lease: Lease) -> float:
        """Read how many seconds ago a lease was asked for."""
        return max(0.0, self.now() - (lease.expires_at - lease.duration))

    async def complete(self, lease: Lease, result: Encoded) -> Record:
        """Store a result."""
        match await self.drive(protocol.complete(lease, result, now=self.now())):
            case Completed() if protocol.lapsed(lease, now=self.now()):
                raise self._lost(lease, None)
            case Completed(record):
                return self._completed(lease.route.key, record)
            case Lost(record):
                raise self._lost(lease, record)

    async def commit(self, wanted: Commit) -> Record:
        """Apply the caller's writes and store a result, or neither.

        Raises:
            TransactionError: The writes were refused; nothing was applied.
            StoreError: Whether they were applied is not known.
        """
        match await self.drive(commits.commit(wanted)):
            case Completed(record):
                return self._completed(wanted.lease.route.key, record)
            case Lost() if self.now() > commits.expiration_of(wanted):
                reason = "its answer came so late that the record has expired: whether it was applied is not known"
                raise StoreError("the transaction", wanted.lease.location.table.name, reason)
            case Lost(record):
                raise self._lost(wanted.lease, record)
            case Rejected(reasons):
                raise TransactionError(reasons)

    def commit_of(self, lease: Lease, result: Encoded, effects: Writes) -> Commit:
        """Make the transaction of a result and the caller's writes, as of now."""
        return Commit(lease=lease, result=result, effects=effects, now=self.now(), clock_skew=self._clock_skew)

    async def commit_once(
        self, attempt: Claim, result: Encoded, draft: Draft
    ) -> Completed | Replay | InProgress | Mismatch | Rejected:
        """Apply the caller's writes and store a result, unless the key was executed before."""
        effects = await self.collected(draft, spare=len(result.data.encode()))
        outcome = await self.drive(commits.commit_once(attempt, result, effects))
        if isinstance(outcome, Completed):
            self._completed(attempt.route.key, outcome.record)
        return outcome

    async def collected(self, draft: Draft, *, spare: int) -> Writes:
        """Check a draft as a whole; a table's key is asked for where it decides."""
        asked = [name for name in draft.doubtful(self._keys) if name not in self._untold]
        with anyio.move_on_after(LOOK_UP_LIMIT):
            await concurrently(self._look_up, asked, limit=8)
        return draft.collected(self._keys, spare=spare)

    async def _look_up(self, table_name: str) -> None:
        """Ask for a table's key; not again where there is no permission for that. Then DynamoDB itself judges."""
        if not isinstance(self.backend, DescribesKeys):
            return
        with suppress(StoreError):
            try:
                self._keys[bare(table_name)] = await self.backend.key_of(table_name)
            except ConfigurationError:
                self._untold.add(table_name)

    def _completed(self, key: str, record: Record) -> Record:
        self.cache.put(key, record)
        self.report(RecordCompleted(record.key))
        return record

    async def renew(self, lease: Lease) -> Lease:
        """Move the end of a lease to its duration from now."""
        match await self._renewed(lease):
            case Renewed(renewed):
                return renewed
            case Lost(record):
                raise self._lost(lease, record)

    async def _renewed(self, lease: Lease) -> Renewed | Lost:
        outcome = await self.drive(protocol.renew(lease, now=self.now(), clock_skew=self._clock_skew))
        return Lost(None) if protocol.lapsed(lease, now=self.now()) else outcome

    async def release(self, lease: Lease) -> None:
        """Give a key back."""
        match await self.drive(protocol.release(lease.location, lease.owner)):
            case Released():
                return
            case Lost(record):
                raise LeaseLostError(lease.key, record)

    async def abandon(self, claims: list[tuple[Location, str]]) -> None:
        """Give keys back whose caller is not there any more to hear of a failure, each by its owner."""
        held = set(claims)

        async def give_back(claim: tuple[Location, str]) -> None:
            with suppress(StoreError, ConfigurationError):
                await self.drive(protocol.release(*claim))
                held.discard(claim)

        await to_the_end(lambda: concurrently(give_back, claims, limit=32), otherwise=lambda: None)
        for location, _ in held:
            self.report(ReleaseFailed(location.key))

    def encoded(self, lease: Lease, result: object) -> Encoded:
        """Write a result as it is stored; a tombstone where it cannot be."""
        try:
            return _results.encode(result, lease, self.codec, compress_over=self._compress_over)
        except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything, and the body has run
            said = str(error) if isinstance(error, SerializationError) else f"encoding it raised {type(error).__name__}"
            self.report(ResultDropped(lease.key, said))
            return _results.TOMBSTONE

    def encoded_for(self, attempt: Claim, result: object) -> Encoded:
        """Write a result before anything has happened.

        Raises:
            SerializationError: It cannot be stored.
        """
        lease = protocol.grant(attempt, attempt.places[0], 0)
        return _results.encode(result, lease, self.codec, compress_over=self._compress_over)

    def report(self, event: Event) -> None:
        """Log an event and hand it to the hook."""
        report(event, self._hook)

    def _lost(self, lease: Lease, record: Record | None) -> LeaseLostError:
        self.report(LeaseLost(lease.key))
        return LeaseLostError(lease.key, record)
