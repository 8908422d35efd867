"""One call, from claim to completion.

`Call` is the block around one call, and holds all that belongs to it. Whatever ends a block decides its
record: leaving it completes, an error or a cancellation inside it releases.

1. Everything about a call is decided before its first request. A body that changes its arguments changes nothing.
2. Completion and release are idempotent. So a cancellation that arrives during them runs them once more, shielded
   and bounded in time, and then passes on. The same goes for a completion with writes of the caller's: each try of
   it is the same transaction.
3. Where those writes are refused, it is as if the block had raised the refusal.
4. From its claim to its end, a call stands in the table of calls under way, where its duplicates find it. Whatever
   ends it takes it out: a duplicate that follows it would wait for ever.
"""

import asyncio
import hashlib
import logging
import secrets
from contextvars import ContextVar
from dataclasses import replace
from types import TracebackType
from typing import Literal, Self, final

from msgspec import Struct

from aioidempotency import _keys as keys
from aioidempotency import _results
from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PerLoop, in_any_case, to_the_end
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Lease, Record, Route, SerializedResult
from aioidempotency._core.protocol import Claim
from aioidempotency._effects.pending import ENDED, REPLAYED, PendingWrites
from aioidempotency._effects.store import Effects
from aioidempotency._effects.transaction import Transaction
from aioidempotency._lease import DEADLINE, RunningLease, time_left
from aioidempotency._options import Duration, OnInProgress, Settings, check_errors, interval, one_of, patience
from aioidempotency._records import Records
from aioidempotency._waiting import InFlightCall, RunningCalls, follow, poll
from aioidempotency.events import CompletionFailed, FailedOpen, LeaseLost, RecordReleased, ReleaseFailed, decided
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MismatchError,
    MissingKeyError,
    SerializationError,
    StoreError,
    TransactionClosedError,
    TransactionError,
)

RETRY_PAUSE = 0.2
"""Seconds between two tries of a completion that the store did not answer, at the most."""


@final
class Execution:
    """One call: whether it has to run, and what it answers.

    Attributes:
        key: The record's key, `namespace#digest`.
        replayed: Whether the call was executed before; then the body has nothing to do.
        result: The first answer, when replayed; else what `complete` was given.
        lease: The right to run as it was granted; None in a replay, or when failing open.
        record: The finished record, when replayed.
    """

    __slots__ = ("_effects", "_outer", "_pending", "_unclaimed", "key", "lease", "record", "replayed", "result")
    key: str
    replayed: bool
    result: object
    lease: Lease | None
    record: Record | None

    def __init__(
        self,
        key: str,
        *,
        lease: Lease | None = None,
        record: Record | None = None,
        effects: Effects | None = None,
        unclaimed: StoreError | None = None,
    ) -> None:
        self.key = key
        self.lease = lease
        self.record = record
        self.replayed = record is not None
        self.result = None if record is None else record.result
        self._effects = effects
        self._unclaimed = unclaimed
        self._pending: PendingWrites | None = None
        self._outer: Execution | None = None

    @staticmethod
    def current() -> "Execution":
        """Find the execution around the running code, also inside a decorated function.

        Its `lease.fencing_token` is what systems behind the body can compare.

        Raises:
            LookupError: The code runs outside of any.
        """
        execution = CURRENT.get()
        if execution is None:
            raise LookupError("no execution is under way here; call this inside `execute`, or a decorated function")
        return execution

    def complete(self, value: object) -> None:
        """Give the result that is stored when the block is left.

        Raises:
            RuntimeError: The call is a replay: it has its result.
        """
        if self.replayed:
            raise RuntimeError(f"{self.key} is a replay and has its result; test `execution.replayed` first")
        self.result = value

    @property
    def transaction(self) -> Transaction:
        """The call's own writes to DynamoDB: leaving the block commits them and the result together, or neither.

        An error in the block drops them.

        Raises:
            TransactionClosedError: The call is a replay, or its block has ended.
            StoreError: The call runs unprotected, since `fail_open` is set and the store did not answer.
        """
        if self.replayed:
            raise TransactionClosedError(self.key, REPLAYED)
        if (cause := self._unclaimed) is not None:
            reason = "the claim was not answered, and without a record no transaction is applied once; try again later"
            raise StoreError(cause.operation, cause.table_name, reason) from cause
        if self._effects is None or self.lease is None:
            raise TransactionClosedError(self.key, ENDED)
        if self._pending is None:
            self._pending = self._effects.pending_for(self.lease)
        return Transaction(self._pending)

    def derive_key(self, step: str) -> str:
        """Make a key for a step of this call in another system: 64 hexadecimal digits.

        It depends on the namespace, the key and the step alone, so each attempt of this call has the same
        one. It does not show the key; as with any digest, a short key can be found by trying.

        Raises:
            MissingKeyError: The step has no name.
            SerializationError: The name is no text.
        """
        if not isinstance(step, str):
            raise SerializationError("the step", type(step).__name__, "name it by a text")
        if not step:
            raise MissingKeyError("the name of the step")
        return hashlib.sha256(keys.canonical([self.key, step])).hexdigest()

    def __repr__(self) -> str:
        state = "replayed" if self.replayed else "running unprotected" if self.lease is None else repr(self.lease)
        return f"<Execution {self.key}: {state}>"


CURRENT: ContextVar[Execution | None] = ContextVar("aioidempotency_execution", default=None)
"""The execution around the running code."""


@final
class Parts(Struct, frozen=True, kw_only=True):
    """The parts of a store that its calls work with.

    Attributes:
        settings: The store's settings.
        records: Runs procedures on the store's backend.
        effects: Commits a call's own writes.
        running: The calls under way in each event loop.
    """

    settings: Settings
    records: Records
    effects: Effects
    running: PerLoop[RunningCalls]


@final
class CallOptions(Struct, frozen=True, kw_only=True):
    """Options shared by all calls of one function, validated once. Durations are seconds.

    Attributes:
        lease: How long a claim protects the call without a renewal.
        retention: How long the finished record answers.
        heartbeat: Seconds between renewals; None for no renewals.
        patience: How long to wait for another owner.
        read_first: Whether to read before claiming.
        on_error: Whether an error of the body gives the key back, or holds it until its lease ends.
        store_errors: Errors that are results.
    """

    parts: Parts
    lease: float
    retention: float
    heartbeat: float | None
    patience: float
    read_first: bool
    on_error: Literal["release", "hold"]
    store_errors: tuple[type[Exception], ...]

    @classmethod
    def of(
        cls,
        parts: Parts,
        *,
        lease: Duration | None = None,
        retention: Duration | None = None,
        heartbeat: bool | Duration = True,
        on_in_progress: OnInProgress = "raise",
        on_error: Literal["release", "hold"] = "release",
        store_errors: tuple[type[Exception], ...] = (),
        read_first: bool | None = None,
    ) -> Self:
        """Validate what users say of their calls; None is the store's own setting.

        Raises:
            ConfigurationError: An option makes no sense.
        """
        settings = parts.settings
        one_of(on_error, "on_error", ("release", "hold"))
        check_errors(store_errors)
        protected = settings.terms.lease if lease is None else settings.protected(lease)
        return cls(
            parts=parts,
            lease=protected,
            retention=settings.terms.retention if retention is None else settings.kept(retention),
            heartbeat=interval(heartbeat, protected),
            patience=patience(on_in_progress),
            read_first=settings.read_first if read_first is None else read_first,
            on_error=on_error,
            store_errors=store_errors,
        )

    def call(
        self, material: object, *, fingerprint: str | None = None, namespace: str = "", result_type: object
    ) -> "Call":
        """Make one call. Its key, fingerprint (a digest) and owner never change from here on.

        Raises:
            MissingKeyError: The key is None or empty.
            SerializationError: The key has no canonical form.
        """
        settings = self.parts.settings
        key = keys.record_key(material, settings.namespace, namespace)
        return Call(
            self,
            key,
            settings.route_of(key),
            owner=secrets.token_hex(16),
            fingerprint=fingerprint,
            result_type=result_type,
        )


@final
class Call:
    """The block around one call: claims when it is entered, completes or releases when it is left.

    Args:
        key: The record's key, `namespace#digest`.
        route: Where the record may be.
        owner: The 128 random bits that mark the record as this call's.
        fingerprint: The digest of the payload, when there is one.
        result_type: What a replayed result is read back as.
    """

    __slots__ = (
        "_began",
        "_execution",
        "_fingerprint",
        "_here",
        "_key",
        "_mine",
        "_options",
        "_outer",
        "_owner",
        "_records",
        "_result_type",
        "_route",
        "_running",
        "_used",
    )

    def __init__(
        self, options: CallOptions, key: str, route: Route, *, owner: str, fingerprint: str | None, result_type: object
    ) -> None:
        self._options = options
        self._records = options.parts.records
        self._route = route
        self._key = key
        self._owner = owner
        self._fingerprint = fingerprint
        self._result_type = result_type
        self._execution: Execution | None = None
        self._outer: Execution | None = None
        self._running: RunningLease | None = None
        self._mine: InFlightCall | None = None
        self._used = False

    async def __aenter__(self) -> Execution:
        """Claim the key; the errors are those of `AsyncIdempotencyStore.execute`."""
        if self._used:
            raise RuntimeError("a block is entered once; call `execute` again for another one")
        self._used = True
        parts = self._options.parts
        loop = asyncio.get_running_loop()
        self._began = loop.time()
        self._here = parts.running[loop]
        try:
            decision: Decision | None = None
            if self._records.cache is not None:
                decision = self._records.cached(self._key, self.attempt)
            if decision is None and self._key not in self._here.in_flight:
                decision = await self._claim()
            if decision is None or isinstance(decision, InProgress):
                decision = await self._wait(decision)
        except StoreError as error:
            if error.contended or not parts.settings.fail_open:
                raise
            self._records.failed_open += 1
            self._records.report(FailedOpen(self._key))
            self._execution = Execution(self._key, unclaimed=error)
        else:
            try:
                self._execution = self._decided(decision)
            except BaseException:
                self._end(None)
                raise
        self._outer = self._execution._outer = CURRENT.get()  # noqa: SLF001 - a block makes its execution
        CURRENT.set(self._execution)
        return self._execution

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the record, or release it when the block raised."""
        CURRENT.set(self._outer)
        execution, running = self._execution, self._running
        assert execution is not None  # noqa: S101 - the block was entered
        execution._effects = None  # noqa: SLF001 - ends the transaction: nothing is added from here on
        if running is None:
            return
        self._here.leases.forget(running)
        left: Record | None = None
        try:
            cancelled_by_us = running.leave(kind, error, trace)
            pending = execution._pending  # noqa: SLF001 - what the block has collected, which only its end reads
            if pending is not None:
                pending.close(ENDED)
            if error is not None:
                left = await self._fail(running, error)
            elif pending:
                left = await self._commit(running, pending)
            else:
                left = await self._complete(running, self._encoded(running))
        finally:
            self._end(left)
        if cancelled_by_us:
            if running.record is None:  # else the renewal that found it has reported the loss
                self._records.report(LeaseLost(self._key))
            raise LeaseLostError(self._key, running.record) from None

    def attempt(self) -> Claim:
        """Make an attempt to own the key as of now. Inside a `deadline`, the lease is the time that is left."""
        options = self._options
        settings = options.parts.settings
        left = None if DEADLINE.get() is None else time_left()
        return Claim(
            route=self._route,
            owner=self._owner,
            now=settings.clock(),
            lease=options.lease if left is None else left,
            retention=options.retention,
            clock_skew=settings.terms.clock_skew,
            fingerprint=self._fingerprint,
            read_first=options.read_first,
        )

    async def _claim(self) -> Decision:
        """Claim in the table, and let duplicates in this loop look at what comes of it."""
        self._mine = self._here.in_flight[self._key] = InFlightCall()
        try:
            decision = await self._records.claim(self.attempt())
        except BaseException as error:
            self._end(None, error if isinstance(error, StoreError) else None)
            raise
        if not isinstance(decision, Claimed):
            self._end(decision.record)
        return decision

    async def _wait(self, refusal: InProgress | None) -> Decision:
        """Wait for another owner as long as the caller is patient; claim the key when it is free.

        None as the refusal: a call in this loop is the owner, and was not looked at yet.
        """
        outer = CURRENT.get()
        left = time_left()
        gives_up = self._began + (self._options.patience if left is None else min(self._options.patience, left))
        decision: Decision | None = refusal
        while True:
            if isinstance(decision, InProgress):
                if _runs_inside(outer, decision.record.owner):
                    raise InProgressError(decision.record, decision.retry_after, from_inside=True)
                decision = await poll(decision, self._records, self.attempt, gives_up=gives_up)
            if decision is not None:
                return decision
            other = self._here.in_flight.get(self._key)
            if outer is not None and other is not None and other.running is not None and other.record is not None:
                lease = other.running.lease
                if _runs_inside(outer, lease.owner):
                    remaining = lease.expires_at - self._records.now()
                    raise InProgressError(other.record, max(0.0, remaining), from_inside=True)
            if other is None:
                decision = await self._claim()
            else:
                decision = await follow(other, self._records, self.attempt, gives_up=gives_up)

    def _decided(self, decision: Decision) -> Execution:
        """Act on a decision: hold the lease, replay, or refuse."""
        options = self._options
        records = self._records
        if records.listens(logging.DEBUG):
            records.report(decided(decision))
        match decision:
            case Claimed(lease):
                since = asyncio.get_running_loop().time() - records.used(lease)
                heartbeat = options.heartbeat if DEADLINE.get() is None else None
                self._running = RunningLease(lease, since=since, interval=heartbeat or 0.0)
                if self._mine is not None:
                    self._mine.running = self._running
                    if self._mine.changed is not None:
                        self._mine.wake()
                if heartbeat is not None:
                    self._here.leases.keep(self._running)
                return Execution(self._key, lease=lease, effects=options.parts.effects)
            case Replay(record):
                if records.cache is not None:
                    records.cache.put(self._key, record)
                codec = options.parts.settings.codec
                decoded = _results.decode(record, codec, self._result_type, options.store_errors)
                return Execution(self._key, record=replace(record, result=decoded))
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)

    def _end(self, left: Record | None, failure: StoreError | None = None) -> None:
        """Tell the duplicates in this loop what this call has left, or that the store did not answer it."""
        mine, self._mine = self._mine, None
        if mine is None:
            return
        if self._here.in_flight.get(self._key) is mine:
            del self._here.in_flight[self._key]
        mine.over, mine.left, mine.failure = True, left, failure
        if mine.changed is not None:
            mine.wake()

    def _encoded(self, running: RunningLease) -> SerializedResult:
        """Write the block's result as it is stored."""
        assert self._execution is not None  # noqa: S101 - the block was entered
        return _results.serialize_or_tombstone(
            self._execution.result, running.lease, self._options.parts.settings, self._records.report
        )

    async def _complete(
        self, running: RunningLease, result: SerializedResult, *, shielded: bool = False
    ) -> Record | None:
        """Store a result; while the store does not answer, try until the lease ends.

        `shielded`: the caller was cancelled, and this is the try in any case, which nothing cancels but its time bound.
        """
        backoff: Backoff | None = None
        try:
            while True:
                try:
                    return await self._records.complete(running.lease, result)
                except LeaseLostError as error:
                    error.result = self._result
                    raise
                except (StoreError, ConfigurationError) as error:
                    if isinstance(error, StoreError):
                        backoff = backoff or Backoff(RETRY_PAUSE, RETRY_PAUSE, until=running.ends_at)
                        if await backoff.pause():
                            continue
                    self._completion_failed()
                    if self._options.parts.settings.on_completion_failure == "report":
                        return None
                    error.result = self._result
                    raise
        except asyncio.CancelledError:
            if not shielded:
                again = lambda: self._complete(running, result, shielded=True)  # noqa: E731 - called at most once
                await to_the_end(again, otherwise=self._completion_failed)
            raise

    async def _commit(self, running: RunningLease, pending: PendingWrites) -> Record:
        """Apply the block's writes and store its result. What refuses the writes counts as the block's own error."""
        effects = self._options.parts.effects
        encoded = self._encoded(running)
        failures: list[IdempotencyError] = []

        async def send() -> Record:
            backoff = Backoff(RETRY_PAUSE, RETRY_PAUSE, until=running.ends_at)
            while True:
                try:
                    return await effects.commit(wanted)
                except LeaseLostError as error:
                    error.result = self._result
                    raise
                except (TransactionError, ConfigurationError) as error:
                    failures.append(error)
                    raise
                except StoreError:
                    if not await backoff.pause():
                        raise

        try:
            writes = await effects.collected(pending, record_bytes=len(encoded.data.encode()))
        except BaseException as error:
            await self._fail(running, error, lasts=False)
            raise
        wanted = effects.commit_of(running.lease, encoded, writes)
        try:
            return await in_any_case(send, otherwise=lambda: None if failures else self._completion_failed())
        except StoreError as error:
            self._completion_failed()
            error.result = self._result
            raise
        finally:
            if failures:
                await self._fail(running, failures[0], lasts=_lasts(failures[0]))

    async def _fail(self, running: RunningLease, error: BaseException, *, lasts: bool = True) -> Record | None:
        """Store the error that ended the block, hold the key, or give it back; what may pass is no result."""
        if isinstance(error, self._options.store_errors) and lasts:
            try:
                return await self._complete(running, _results.serialize_error(error))
            except IdempotencyError:  # reported where it was raised; it must not hide the body's own error
                return None
        if self._options.on_error == "hold":
            return None
        if isinstance(error, GeneratorExit):  # nothing can be awaited while a generator is closed
            self._here.leases.spawn(self._release(running), f"release {self._key}")
        else:
            await in_any_case(lambda: self._release(running), otherwise=self._release_failed)
        return None

    async def _release(self, running: RunningLease) -> None:
        """Give the key back. What goes wrong here must not hide the error that ended the body."""
        try:
            await self._records.release(running.lease)
        except LeaseLostError:
            if not running.lost:  # else the loss is what cancelled the body, and is reported as that
                self._records.report(LeaseLost(self._key))
        except IdempotencyError:
            self._release_failed()
        else:
            self._records.report(RecordReleased(self._key))

    @property
    def _result(self) -> object:
        """What the body gave, for an error that would hide it."""
        return None if self._execution is None else self._execution.result

    def _completion_failed(self) -> None:
        self._records.report(CompletionFailed(self._key))

    def _release_failed(self) -> None:
        self._records.report(ReleaseFailed(self._key))


def _runs_inside(execution: Execution | None, owner: str | None) -> bool:
    """Tell whether an execution is that of an owner, or runs inside of it."""
    while execution is not None and owner is not None:
        if execution.lease is not None and execution.lease.owner == owner:
            return True
        execution = execution._outer  # noqa: SLF001 - which execution is around which, only this file knows
    return False


def _lasts(refusal: IdempotencyError) -> bool:
    """Tell whether what refused a transaction is a result that can be stored: a condition, and nothing that may pass."""
    return isinstance(refusal, TransactionError) and not refusal.retryable
