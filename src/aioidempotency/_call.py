"""One call, from claim to completion.

`Call` is the block around one call. The end of the block decides the record: a normal end completes the record, and an
error or a cancellation releases the key.

Invariants:

1. Key, fingerprint and owner are decided before the first request. A body that changes its arguments changes nothing.
2. Completion and release are idempotent. A cancellation during either one repeats the request, shielded and bounded in
   time, and then passes on. A completion with writes of the caller's sends the same transaction each time.
3. A refusal of the caller's writes counts as an error of the block.
4. From claim to end, a call is in the table of calls in flight, where duplicates in the same loop find the call. Every
   way out of a call removes the entry: a duplicate that follows a call without an end would wait for ever.
5. Nothing is sent for a block in a forked process: the parent owns the record.
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Literal, Self, final

from msgspec import Struct
from msgspec.structs import replace

from aioidempotency import _keys as keys
from aioidempotency import _label, _results
from aioidempotency._backoff import Backoff
from aioidempotency._concurrency import PROCESS, Nested, in_any_case, innermost, running_loop, to_the_end
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Lease, Record, Route, SerializedResult
from aioidempotency._core.protocol import Claim
from aioidempotency._effects.commits import Commit
from aioidempotency._effects.pending import ENDED, REPLAYED, PendingWrites
from aioidempotency._effects.store import Effects
from aioidempotency._effects.transaction import Transaction
from aioidempotency._lease import DEADLINE, RunningLease, time_left
from aioidempotency._options import (
    AUTO,
    Duration,
    OnInProgress,
    check_errors,
    check_function,
    flag,
    interval,
    not_disabled,
    one_of,
    patience,
)
from aioidempotency._parts import Parts, PartsInUse
from aioidempotency._records import Records
from aioidempotency._result_types import ResultType
from aioidempotency._waiting import InFlightCall, Left, RunningCalls, follow, poll
from aioidempotency.events import (
    CompletionFailed,
    FailedOpen,
    LeaseLost,
    RecordReleased,
    ReleaseFailed,
    StoreIfFailed,
    decided,
)
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

StoreIf = Callable[[Any], object]
"""Tells whether to store a result."""

FIRST_PAUSE, LAST_PAUSE = 0.2, 5.0
"""Seconds of the first and of the longest pause before a completion is sent again, doubled each time, with jitter."""

REFUSALS = 3
"""How often a completion may be refused for want of rights in a process without any successful completion."""


@final
class Execution(Nested, eq=False):
    """One call inside its block: whether the body has to run, and the result.

    ```python
    from aioidempotency import AsyncIdempotencyStore

    store = AsyncIdempotencyStore.in_memory()

    for _ in range(2):
        async with store.execute("invoice-42") as execution:
            if not execution.replayed:
                execution.complete({"sent": True})
        assert execution.result == {"sent": True}
    ```

    Attributes:
        key: The record's key, `namespace#digest`.
        replayed: Whether an earlier call was executed. The body then has nothing to do.
        result: The first call's result in a replay, else the value given to `complete`.
        lease: The lease as granted. None in a replay, and in a call that runs unprotected: with `fail_open`, or in a
            disabled store.
        record: The finished record in a replay, else None.
    """

    key: str
    lease: Lease | None = None
    record: Record | None = None
    replayed: bool = False
    result: object = None
    _effects: Effects | None = None
    _unclaimed: StoreError | ConfigurationError | None = None
    _pending: PendingWrites | None = None
    _running: RunningLease | None = None

    @property
    def lost(self) -> bool:
        """Whether the lease was lost while the block ran: leaving the block raises `LeaseLostError`."""
        return self._running is not None and self._running.lost

    @staticmethod
    def current() -> "Execution":
        """Find the execution around the running code, also inside a decorated function.

        Downstream systems can compare `Execution.current().lease.fencing_token`.

        An execution that has ended is never the current one. A task that outlives the block around its start finds the
        next block outside that has not ended.

        Raises:
            LookupError: No execution is around the running code.
        """
        execution = innermost(CURRENT.get())
        if execution is None:
            raise LookupError("no execution is under way here; call this inside `execute`, or a decorated function")
        return execution

    def complete(self, value: object) -> None:
        """Set the result. The end of the block stores the result.

        Raises:
            RuntimeError: The call is a replay, and has a result.
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
            ConfigurationError: The call runs unprotected, since the store is disabled.
        """
        if self.replayed:
            raise TransactionClosedError(self.key, REPLAYED)
        cause = self._unclaimed
        if isinstance(cause, ConfigurationError):
            raise cause
        if cause is not None:
            reason = "the claim was not answered, and without a record no transaction is applied once; try again later"
            raise StoreError(cause.operation, cause.table_name, reason) from cause
        if self._effects is None or self.lease is None:
            raise TransactionClosedError(self.key, ENDED)
        if self._pending is None:
            self._pending = self._effects.pending_for(self.lease)
        return Transaction(self._pending)

    def derive_key(self, step: str) -> str:
        """Derive the idempotency key of a step of this call in another system: 64 hexadecimal digits.

        The derived key depends on the namespace, the key and the step alone, so every attempt of this call derives the
        same key. The derived key does not show the key; but a short key can be found by trial, as with any digest.

        Raises:
            MissingKeyError: The name of the step is empty.
            SerializationError: The name of the step is not a text.
        """
        if not isinstance(step, str):
            raise SerializationError("the step", type(step).__name__, "name it by a text")
        if not step:
            raise MissingKeyError("the name of the step")
        return hashlib.sha256(keys.canonical([self.key, step])).hexdigest()

    def __repr__(self) -> str:
        state = "replayed" if self.replayed else "running unprotected" if self.lease is None else repr(self.lease)
        return f"<Execution {self.key}: {state}>"

    # Results must not reach logs: rich would show all fields of a Struct in its tracebacks.
    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            ("key", self.key),
            ("replayed", self.replayed),
            ("lease", self.lease),
        ]


CURRENT: ContextVar[Execution | None] = ContextVar("aioidempotency_execution", default=None)
"""The execution around the running code."""


@final
class CallOptions(Struct, frozen=True, kw_only=True):
    """Options shared by all calls of one function, validated once. Durations are seconds.

    Attributes:
        in_use: The parts of the store, which an override changes.
        lease: How long a claim protects the call without a renewal.
        retention: How long the finished record answers.
        heartbeat: Seconds between renewals; None for no renewals.
        patience: How long to wait for another owner.
        read_first: Whether to read before claiming.
        on_error: Whether an error of the body releases the key, or holds the key until the lease ends.
        store_errors: The classes of errors to store as results.
        store_if: Tells whether to store a result. None stores each.
        upgrade: Turns the JSON of a result that does not fit the type into one that does.
    """

    in_use: PartsInUse
    lease: float
    retention: float
    heartbeat: float | None
    patience: float
    read_first: bool
    on_error: Literal["release", "hold"]
    store_errors: tuple[type[Exception], ...]
    store_if: StoreIf | None = None
    upgrade: _results.Upgrade | None = None

    @classmethod
    def of(
        cls,
        in_use: PartsInUse,
        *,
        lease: Duration | None = None,
        retention: Duration | None = None,
        heartbeat: bool | Duration = True,
        on_in_progress: OnInProgress = "raise",
        on_error: Literal["release", "hold"] = "release",
        store_errors: tuple[type[Exception], ...] = (),
        read_first: bool | None = None,
        store_if: StoreIf | None = None,
        upgrade: _results.Upgrade | None = None,
    ) -> Self:
        """Validate the options of calls. None stands for the store's setting.

        Raises:
            ConfigurationError: An option makes no sense.
        """
        parts = in_use.parts
        settings = parts.settings
        one_of(on_error, "on_error", ("release", "hold"))
        check_errors(store_errors)
        if store_if is not None:
            check_function(store_if, "store_if")
        if upgrade is not None:
            check_function(upgrade, "upgrade")
        protected = settings.terms.lease if lease is None else settings.protected(lease)
        made = cls(
            in_use=in_use,
            lease=protected,
            retention=settings.terms.retention if retention is None else settings.kept(retention),
            heartbeat=interval(heartbeat, protected),
            patience=patience(on_in_progress),
            read_first=settings.read_first if read_first is None else flag(read_first, "read_first"),
            on_error=on_error,
            store_errors=store_errors,
            store_if=store_if,
            upgrade=upgrade,
        )
        # Here, and not at each claim: a retention belongs to a function, and nearly always is the store's.
        lasts = max(made.retention, protected + settings.terms.clock_skew)
        if lasts > parts.records.promised:
            parts.records.promise(lasts)
        return made

    def call(
        self, material: object, *, fingerprint: str | None = None, namespace: str = "", result_type: ResultType
    ) -> "Call":
        """Make one call. Key, fingerprint (a digest) and owner never change afterwards.

        Raises:
            MissingKeyError: The key is None or empty.
            SerializationError: The key has no canonical form.
        """
        parts = self.in_use.parts
        settings = parts.settings
        key = keys.record_key(material, settings.namespace, namespace)
        return Call(
            self, key, settings.route_of(key), os.urandom(16).hex(), fingerprint, result_type, parts, parts.records
        )


NOT_ENTERED: Any = None
"""Stands for the calls of the running loop, which the entry of a block finds."""


@final
class Call(Struct, eq=False):
    """The block around one call. Entry claims the key; exit completes the record, or releases the key.

    Attributes:
        parts: The parts of the store that the call uses.
        _key: The record's key, `namespace#digest`.
        _route: Where the record may be.
        _owner: 128 random bits, which mark the record as owned by this call.
        _fingerprint: The digest of the payload, or None.
        _result_type: The type of the result.
    """

    _options: CallOptions
    _key: str
    _route: Route
    _owner: str
    _fingerprint: str | None
    _result_type: ResultType
    parts: Parts
    _records: Records
    _used: bool = False
    _execution: Execution | None = None
    _running: RunningLease | None = None
    _mine: InFlightCall | None = None
    _here: RunningCalls = NOT_ENTERED
    _began: float = 0.0

    # The arguments of a call are the caller's.
    def __repr__(self) -> str:
        return f"<Call {self._key}>"

    async def __aenter__(self) -> Execution:  # noqa: C901, PLR0912 - the way into a block is read in one piece
        """Claim the key. Raises the errors of `AsyncIdempotencyStore.execute`."""
        if self._used:
            # A second entry would find the claim of the first one, take it for its own, and run beside the first.
            raise RuntimeError("a block is entered once; call `execute` again for another block")
        self._used = True
        # Read here, once: a call under way keeps its backend when an override begins or ends.
        parts = self.parts = self._options.in_use.parts
        self._records = parts.records
        try:  # in line: a function would be one more frame for each call
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = running_loop()  # says what is wrong
        self._began = loop.time()
        here = self._here = parts.running[loop]
        here.closed = False
        if parts.settings.disabled:
            return self._unprotected(not_disabled("a transaction"))
        try:
            decision: Decision | None = None
            if self._records.cache is not None:
                decision = self._records.cached(self._key, self.attempt)
            if decision is None and self._key not in here.in_flight:
                # As `_claim`, in line.
                self._mine = here.in_flight[self._key] = InFlightCall()
                try:
                    decision = await self._records.claim(self.attempt())
                except BaseException as error:
                    self._end(None, error if isinstance(error, StoreError) else None)
                    raise
                if type(decision) is not Claimed:
                    self._end(decision.record)
            if decision is None or type(decision) is InProgress:
                decision = await self._wait(decision)
        except StoreError as error:
            if error.contended or error.refused or not parts.settings.fail_open:
                raise
            self._records.failed_open += 1
            self._records.report(FailedOpen(self._key, error))
            return self._unprotected(error)
        else:
            try:
                execution = self._execution = self._decided(decision, loop)
            except BaseException:
                # The block was not entered, so no exit follows. The key is released here.
                if self._running is not None:
                    self._drop(self._running)
                self._end(None)
                raise
        if (outer := CURRENT.get()) is not None:
            execution._outer = innermost(outer)  # noqa: SLF001 - a block makes its execution
        CURRENT.set(execution)
        return execution

    async def __aexit__(  # noqa: C901 - the way out of a block is read in one piece
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the record; or release the key, if the block raised or lost its lease."""
        execution, running = self._execution, self._running
        assert execution is not None  # noqa: S101 - the block was entered
        execution._left = True  # noqa: SLF001 - a block makes its execution
        # Blocks may be left in any order: a block that was entered later, and is not left yet, stays the current one.
        if CURRENT.get() is execution:
            outer = execution._outer  # noqa: SLF001
            CURRENT.set(outer if outer is None else innermost(outer))
        execution._effects = None  # noqa: SLF001 - the transaction is closed: a write added later would be lost
        if running is None or self._here.leases.forks != PROCESS.forks:
            return
        self._here.leases.end(running)
        left: Left = None
        try:
            pending = execution._pending  # noqa: SLF001 - what the block has collected, which only its end reads
            if pending is not None:
                pending.close(ENDED)
            if error is not None:
                left = await self._fail(running, error)
            elif running.lost:  # the body swallowed the cancellation, so the result may be half of one
                if self._options.on_error == "release":
                    await self._give_back(running)
            elif pending:
                left = await self._commit(running, pending)
            # Not asked about a transaction: once committed, the caller's own writes cannot be taken back.
            elif self._options.store_if is not None and not self._wanted(self._options.store_if):
                await self._give_back(running)
            else:
                left = await self._complete(running, self._encoded(running))
        finally:
            self._end(left)
            cancelled = running.lost and running.take_back(error)
            if self._here.closed and not self._here.in_flight and not isinstance(error, GeneratorExit):
                await self.parts.close()
        if running.lost:
            self._lose(running, error, cancelled=cancelled)

    def _lose(self, running: RunningLease, error: BaseException | None, *, cancelled: bool) -> None:
        """Raise `LeaseLostError`. An error of the body, or a cancellation by the caller, passes instead."""
        refusal = running.cause if isinstance(running.cause, LeaseLostError) else None
        if refusal is None:  # a refused renewal has reported the loss already
            self._records.report(LeaseLost(self._key))
        if error is not None and not isinstance(error, asyncio.CancelledError):
            return
        if cancelled:
            if error is not None:
                return  # the cancellation itself goes on, with its message and its traceback
            raise asyncio.CancelledError
        reason = "unanswered" if refusal is None else refusal.reason
        raise LeaseLostError(self._key, running.record, reason=reason) from running.cause

    def attempt(self) -> Claim:
        """Make an attempt to claim the key as of now. Inside a `deadline`, the lease is the remaining time."""
        options = self._options
        settings = self.parts.settings
        left = None if DEADLINE.get() is None else time_left()
        if left is not None and left + settings.terms.clock_skew > self._records.promised:
            self._records.promise(left + settings.terms.clock_skew)
        label = settings.label
        if label is AUTO:  # read in line: a call for each attempt would buy nothing, since a process has one name
            known = _label.process if _label.REQUEST_ID.get() is None else None
            label = known or _label.automatic()
        return Claim(
            route=self._route,
            owner=self._owner,
            now=settings.clock(),
            lease=options.lease if left is None else left,
            retention=options.retention,
            clock_skew=settings.terms.clock_skew,
            fingerprint=self._fingerprint,
            read_first=options.read_first,
            label=label,
        )

    async def _claim(self) -> Decision:
        """Claim the key in the table, in flight: duplicates in this loop follow this call instead of the table."""
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
        """Wait for another owner, as long as the caller's patience; claim the key once the key is free.

        `refusal` is None if a call in this loop owns the key, and was not followed yet.
        """
        outer = CURRENT.get()
        left = time_left()
        gives_up = self._began + (self._options.patience if left is None else min(self._options.patience, left))
        decision: Decision | None = refusal
        while True:
            if isinstance(decision, InProgress):
                owner = decision.record.owner
                if owner in self._records.held and _runs_inside(outer, owner):
                    raise InProgressError(decision.record, decision.retry_after, from_inside=True)
                decision = await poll(decision, self._here, self._records, self.attempt, gives_up=gives_up)
            if decision is not None:
                return decision
            other = self._here.in_flight.get(self._key)
            if outer is not None and other is not None and other.running is not None and other.record is not None:
                lease = other.running.lease
                if _runs_inside(outer, lease.owner):
                    remaining = lease.expires_at - self._records.now()
                    raise InProgressError(other.record, max(0.0, remaining), from_inside=True)
            if other is None or other.lapsed:
                decision = await self._claim()
            else:
                decision = await follow(other, self.attempt, gives_up=gives_up)
                # The lease of that call is over. Its first follower claims the key, and the others follow the claim:
                # without this, a thousand followers would send a thousand claims.
                if decision is None and self._here.in_flight.get(self._key, other) is other:
                    decision = await self._claim()

    def _unprotected(self, cause: StoreError | ConfigurationError) -> Execution:
        """Enter the block without a record."""
        execution = self._execution = Execution(self._key, _unclaimed=cause)
        execution._outer = innermost(CURRENT.get())  # noqa: SLF001 - a block makes its execution
        CURRENT.set(execution)
        return execution

    def _decided(self, decision: Decision, loop: asyncio.AbstractEventLoop) -> Execution:  # noqa: C901 - one branch for each decision
        """Act on a decision: hold the lease, replay the result, or refuse the call."""
        options = self._options
        records = self._records
        # Before anything that can raise: `__aenter__` then finds the lease to release.
        if type(decision) is Claimed:
            lease = decision.lease
            # As `Records.used`, in line: each call passes here.
            used = records.now() - (lease.expires_at - lease.duration)
            heartbeat = options.heartbeat if DEADLINE.get() is None or time_left() is None else None
            since = loop.time() - used if used > 0 else loop.time()
            running = self._running = RunningLease.of(lease, since, heartbeat or 0.0, loop)
            records.held[lease.owner] = running
            mine = self._mine
            if mine is not None:
                mine.running = running
                if mine.changed is not None:
                    mine.wake()
            if heartbeat is not None:
                self._here.leases.keep(running)
            if records.listens(logging.DEBUG):
                records.report(decided(decision))
            return Execution(self._key, lease, _effects=self.parts.effects, _running=running)
        if records.listens(logging.DEBUG):
            records.report(decided(decision))
        match decision:
            case Replay(record):
                if records.cache is not None:
                    records.cache.put(self._key, record)
                decoded = _results.decode(record, self._result_type, options.store_errors, options.upgrade)
                return Execution(self._key, record=replace(record, result=decoded), replayed=True, result=decoded)
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)

    def _end(self, left: Left, failure: StoreError | None = None) -> None:
        """End the call for the duplicates in this loop: with the record left in the table, or with the store's failure."""
        mine, self._mine = self._mine, None
        if mine is None:
            return
        here = self._here
        if here.in_flight.get(self._key) is mine:
            del here.in_flight[self._key]
            if here.drained is not None and not here.in_flight:
                here.drained.set()
        mine.over, mine.left, mine.failure = True, left, failure
        if mine.changed is not None:
            mine.wake()

    def _wanted(self, store_if: StoreIf) -> bool:
        """Ask whether to store the result. A failing answer counts as yes: the body must not run a second time."""
        assert self._execution is not None  # noqa: S101 - the block was entered
        try:
            return bool(store_if(self._execution.result))
        except Exception as error:  # noqa: BLE001 - the predicate is the user's
            self._records.report(StoreIfFailed(self._key, type(error).__qualname__))
            return True

    def _encoded(self, running: RunningLease) -> SerializedResult:
        """Serialize the block's result."""
        assert self._execution is not None  # noqa: S101 - the block was entered
        result, settings, report = self._execution.result, self.parts.settings, self._records.report
        try:
            return _results.serialize(result, running.lease, settings, self._result_type, report)
        except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything, and the body has run already
            try:
                return _results.tombstone(error, running.lease, settings, report)
            except SerializationError:
                self._drop(running)
                raise

    async def _complete(self, running: RunningLease, result: SerializedResult, *, shielded: bool = False) -> Left:
        """Store a result, with retries until the lease ends.

        `shielded` marks the repetition after a cancellation, which only its time bound can cancel.
        """
        backoff: Backoff | None = None
        failure: IdempotencyError | None = None
        records, refusals = self._records, 0
        try:
            while True:
                try:
                    return await records.complete(running.lease, result)
                except LeaseLostError as error:
                    error.result = self._result
                    raise error from failure  # the lease was lost while the store answered no completion
                except (StoreError, ConfigurationError) as error:
                    refusals += isinstance(error, ConfigurationError)
                    # Without the right to complete, every body would run again after each lease. So this process
                    # makes no further claims until a completion succeeds.
                    hopeless = refusals >= REFUSALS and not records.has_completed
                    if hopeless and isinstance(error, ConfigurationError):
                        records.uncompleted = (running.lease, result, error)
                    elif isinstance(error, StoreError) or error.temporary:
                        backoff = backoff or Backoff(FIRST_PAUSE, LAST_PAUSE, until=running.ends_at)
                        if await backoff.pause():
                            failure = error
                            continue
                    self._completion_failed(error)
                    if self.parts.settings.on_completion_failure == "report":
                        return None
                    error.result = self._result
                    raise
        except asyncio.CancelledError:
            if not shielded:
                again = lambda: self._complete(running, result, shielded=True)  # noqa: E731 - called at most once
                await to_the_end(again, otherwise=self._completion_failed)
            raise

    async def _commit(self, running: RunningLease, pending: PendingWrites) -> Record:
        """Apply the block's writes and store the result. A refusal of the writes counts as an error of the block."""
        effects = self.parts.effects
        encoded = self._encoded(running)
        failures: list[IdempotencyError] = []
        try:
            writes = await effects.collected(pending, record_bytes=len(encoded.data.encode()))
        except BaseException as error:
            await self._fail(running, error, lasts=False)
            raise
        wanted = effects.commit_of(running.lease, encoded, writes)
        try:
            return await in_any_case(
                lambda: self._send(running, wanted, failures),
                otherwise=lambda: None if failures else self._completion_failed(),
            )
        except StoreError as error:
            self._completion_failed(error)
            error.result = self._result
            raise
        finally:
            if failures:
                await self._fail(running, failures[0], lasts=_lasts(failures[0]))

    async def _send(self, running: RunningLease, wanted: Commit, failures: list[IdempotencyError]) -> Record:
        """Send a transaction, with retries until the lease ends. Append a refusal to `failures`."""
        backoff = Backoff(FIRST_PAUSE, LAST_PAUSE, until=running.ends_at)
        failure: StoreError | None = None
        while True:
            try:
                return await self.parts.effects.commit(wanted)
            except LeaseLostError as error:
                error.result = self._result
                raise error from failure
            except (TransactionError, ConfigurationError) as error:
                failures.append(error)
                raise
            except StoreError as error:
                if not await backoff.pause():
                    raise
                failure = error

    async def _fail(self, running: RunningLease, error: BaseException, *, lasts: bool = True) -> Left:
        """Store the error of the block, hold the key, or release the key. A temporary error is no result."""
        if isinstance(error, self._options.store_errors) and lasts:
            try:
                return await self._complete(running, _results.serialize_error(error))
            except IdempotencyError:  # already reported; raised here, it would hide the body's own error
                return None
        if self._options.on_error == "hold":
            return None
        if isinstance(error, GeneratorExit):  # nothing can be awaited while a generator is closed
            self._here.leases.release(self._release(running), f"release {self._key}")
        else:
            await self._give_back(running)
        return None

    async def _give_back(self, running: RunningLease) -> None:
        """Release the key, even if the caller is cancelled meanwhile."""
        await in_any_case(lambda: self._release(running), otherwise=self._release_failed)

    def _drop(self, running: RunningLease) -> None:
        """Release the lease of a block that was not entered."""
        self._here.leases.end(running)
        self._here.leases.release(self._release(running), f"release {self._key}")

    async def _release(self, running: RunningLease) -> None:
        """Release the key. Raises nothing: a failure must not hide the error of the body."""
        try:
            await self._records.release(running.lease)
        except LeaseLostError:
            if not running.lost:  # a loss that cancelled the body is reported by `_lose`
                self._records.report(LeaseLost(self._key))
        except IdempotencyError as error:
            self._release_failed(error)
        else:
            self._records.report(RecordReleased(self._key))

    @property
    def _result(self) -> object:
        """The body's result, for an error that would hide the result."""
        return None if self._execution is None else self._execution.result

    def _completion_failed(self, cause: IdempotencyError | None = None) -> None:
        self._records.report(CompletionFailed(self._key, cause))

    def _release_failed(self, cause: IdempotencyError | None = None) -> None:
        self._records.report(ReleaseFailed(self._key, cause))


def _runs_inside(execution: Execution | None, owner: str | None) -> bool:
    """Tell whether an execution, or one around that execution, belongs to an owner."""
    while execution is not None and owner is not None:
        if execution.lease is not None and execution.lease.owner == owner:
            return True
        execution = execution._outer  # noqa: SLF001 - a block makes its execution
    return False


def _lasts(refusal: IdempotencyError) -> bool:
    """Tell whether a refused transaction is a result to store: a failed condition, and no temporary refusal."""
    return isinstance(refusal, TransactionError) and not refusal.retryable
