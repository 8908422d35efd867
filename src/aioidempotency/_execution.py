"""One call from claim to completion.

A store's `Driver` executes the procedures of `protocol` on its backend. `Executing` is the block
around one call, and holds all that is per call. Whatever ends a block decides its record: leaving it completes, an error or a cancellation inside it
releases. Completion and release are idempotent, so a cancellation that arrives during them runs them
once more, shielded and bounded, and then passes on.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, TypeVar, final

import anyio

from aioidempotency import _results
from aioidempotency._concurrency import CLEANUP_LIMIT, in_any_case
from aioidempotency._core import protocol
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Encoded, Lease, Location, Record
from aioidempotency._core.protocol import Claim, Completed, Lost, Procedure, Released, Renewed, Vacant, judge
from aioidempotency._flights import Flight
from aioidempotency._lease import Heartbeats, Held, time_left
from aioidempotency.backends import Backend
from aioidempotency.codecs import Codec
from aioidempotency.events import (
    CompletionFailed,
    Event,
    FailedOpen,
    Hook,
    LeaseLost,
    RecordCompleted,
    RecordReleased,
    ReleaseFailed,
    ResultDropped,
    decided,
    report,
)
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MismatchError,
    SerializationError,
    StoreError,
)

T = TypeVar("T")

RETRY_PAUSE = 0.2
"""Seconds between two tries of a completion that the store did not answer."""

FIRST_LOOK, LAST_LOOK = 0.05, 1.0
"""Seconds before a waiting duplicate looks at the record; doubled after each look, with jitter."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one call behaves around its claim. Durations are seconds."""

    result_type: object
    heartbeat: float | None
    patience: float
    on_error: Literal["release", "hold"]
    store_errors: tuple[type[Exception], ...]
    fail_open: bool
    on_completion_failure: Literal["report", "raise"]


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

    __slots__ = ("key", "lease", "record", "replayed", "result")

    def __init__(self, key: str, *, lease: Lease | None = None, record: Record | None = None) -> None:
        self.key = key
        self.lease = lease
        self.record = record
        self.replayed = record is not None
        self.result = None if record is None else record.result

    def complete(self, value: object) -> None:
        """Give the result that is stored when the block is left.

        Raises:
            RuntimeError: The call is a replay: it has its result.
        """
        if self.replayed:
            raise RuntimeError(f"{self.key} is a replay and has its result; test `execution.replayed` first")
        self.result = value

    def __repr__(self) -> str:
        state = "replayed" if self.replayed else "running unprotected" if self.lease is None else repr(self.lease)
        return f"<Execution {self.key}: {state}>"


@final
class Driver:
    """Executes procedures on a store's backend, and keeps what the store's calls share.

    Attributes:
        flights: The calls that are under way in this process, by key.
        heartbeats: The renewals of the running ones.
        failed_open: How many calls ran unprotected because the store did not answer.
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
    ) -> None:
        self.backend = backend
        self.codec = codec
        self.now = clock
        self.flights: dict[str, Flight] = {}
        self.heartbeats = Heartbeats(self.renew)
        self.failed_open = 0
        self._clock_skew = clock_skew
        self._compress_over = compress_over
        self._hook = hook

    async def drive(self, procedure: Procedure[T]) -> T:
        """Execute a procedure's operations, one after the other."""
        try:
            operation = next(procedure)
            while True:
                operation = procedure.send(await self.backend.execute(operation))
        except StopIteration as outcome:
            return outcome.value  # type: ignore[no-any-return] # StopIteration is not generic

    async def claim(self, attempt: Claim) -> Decision:
        """Claim; when cancelled meanwhile, give back what may have been written."""
        try:
            return await self.drive(protocol.claim(attempt))
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(CLEANUP_LIMIT, shield=True):
                await self.abandon(attempt.location, attempt.owner)
            raise

    async def complete(self, lease: Lease, result: Encoded) -> Record:
        """Store a result."""
        match await self.drive(protocol.complete(lease, result, now=self.now())):
            case Completed(record):
                self.report(RecordCompleted(lease.key))
                return record
            case Lost(record):
                raise self._lost(lease, record)

    async def renew(self, lease: Lease) -> Lease:
        """Move the end of a lease to its duration from now."""
        match await self.drive(protocol.renew(lease, now=self.now(), clock_skew=self._clock_skew)):
            case Renewed(renewed):
                return renewed
            case Lost(record):
                raise self._lost(lease, record)

    async def release(self, lease: Lease) -> None:
        """Give a key back."""
        match await self.drive(protocol.release(lease.location, lease.owner)):
            case Released():
                return
            case Lost(record):
                raise self._lost(lease, record)

    async def abandon(self, location: Location, owner: str) -> None:
        """Give a key back whose caller is not there any more to hear of a failure."""
        try:
            await self.drive(protocol.release(location, owner))
        except IdempotencyError:
            self.report(ReleaseFailed(location.key))

    def encoded(self, lease: Lease, result: object) -> Encoded:
        """Write a result as it is stored; a tombstone where it cannot be."""
        try:
            return _results.encode(result, lease, self.codec, compress_over=self._compress_over)
        except SerializationError as error:
            self.report(ResultDropped(lease.key, str(error)))
            return _results.TOMBSTONE

    def report(self, event: Event) -> None:
        """Log an event and hand it to the hook."""
        report(event, self._hook)

    def _lost(self, lease: Lease, record: Record | None) -> LeaseLostError:
        self.report(LeaseLost(lease.key))
        return LeaseLostError(lease.key, record)


@final
class Executing:
    """The block around one call: claims at its start, completes or releases at its end."""

    def __init__(self, driver: Driver, attempt: Claim, manner: Manner) -> None:
        self._driver = driver
        self._attempt = attempt
        self._manner = manner
        self._key = attempt.location.key
        self._flight: Flight | None = None
        self._held: Held | None = None
        self._asked_at = 0.0
        self._execution = Execution(self._key)

    async def __aenter__(self) -> Execution:
        """Claim the key; the errors are those of `AsyncIdempotencyStore.execute`."""
        try:
            decision = await self._decide()
        except StoreError:
            if not self._manner.fail_open:
                raise
            self._driver.failed_open += 1
            self._driver.report(FailedOpen(self._key))
            return self._execution
        self._driver.report(decided(decision))
        match decision:
            case Claimed(lease):
                self._execution = Execution(self._key, lease=lease)
                self._hold(lease)
            case Replay(record):
                decoded = _results.decode(
                    record, self._driver.codec, self._manner.result_type, self._manner.store_errors
                )
                self._execution = Execution(self._key, record=replace(record, result=decoded))
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)
        return self._execution

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the record, or release it when the block raised."""
        held = self._held
        if held is None:
            return
        self._driver.heartbeats.end(held)
        cancelled_by_us = held.scope.__exit__(kind, error, trace)
        left: Record | None = None
        try:
            if error is None:
                left = await self._complete(held)
            elif isinstance(error, self._manner.store_errors):
                left = await self._complete_with(held, error)
            elif self._manner.on_error == "release" and not isinstance(error, GeneratorExit):
                await in_any_case(lambda: self._release(held.lease))
        finally:
            self._land(left)
        if cancelled_by_us:
            raise LeaseLostError(self._key, held.record) from None

    def _hold(self, lease: Lease) -> None:
        """Keep the lease while the body runs."""
        interval = self._manner.heartbeat
        self._held = Held(lease, since=self._asked_at, interval=interval or 0.0)
        if self._flight is not None:
            self._flight.show(self._held)
        self._held.scope.__enter__()
        if interval is not None:
            self._driver.heartbeats.begin(self._held)

    async def _decide(self) -> Decision:
        """Claim the key; wait for another owner as long as the caller is patient."""
        left = time_left()
        patience = self._manner.patience if left is None else min(self._manner.patience, left)
        gives_up = anyio.current_time() + patience
        while True:
            flight = self._driver.flights.get(self._key)
            if flight is None or not flight.is_of_this_loop():
                decision: Decision | None = await self._lead()
            else:
                decision = await self._follow(flight, gives_up)
            if isinstance(decision, InProgress):
                decision = await self._poll(decision, gives_up)
            if decision is not None:
                return decision

    async def _lead(self) -> Decision:
        """Claim in the table, and let duplicates in this process look at what comes of it."""
        self._driver.flights[self._key] = self._flight = Flight()
        try:
            decision = await self._driver.claim(self._fresh())
        except BaseException:
            self._land(None)
            raise
        if not isinstance(decision, Claimed):
            self._land(decision.record)
        return decision

    async def _follow(self, flight: Flight, gives_up: float) -> Decision | None:
        """Look at the call that is under way in this process; None when the key may be free by now."""
        while True:
            record = flight.record
            if record is None and flight.over:
                return None
            if record is None:
                await flight.change()
                continue
            verdict = judge(record, self._fresh())
            if isinstance(verdict, Vacant):
                return await self._driver.claim(self._fresh())
            remaining = gives_up - anyio.current_time()
            if not isinstance(verdict, InProgress) or remaining <= 0 or flight.over:
                return verdict
            with anyio.move_on_after(min(remaining, max(verdict.retry_after, FIRST_LOOK))):
                await flight.change()

    async def _poll(self, refusal: InProgress, gives_up: float) -> Decision | None:
        """Look at another process's record until it is finished or free (None), or patience ends."""
        pause = FIRST_LOOK
        while (remaining := gives_up - anyio.current_time()) > 0:
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - it keeps waiters apart, no secret
            await anyio.sleep(min(pause * jitter, remaining))
            verdict = await self._driver.drive(protocol.inspect(self._fresh()))
            if not isinstance(verdict, InProgress):
                return None if isinstance(verdict, Vacant) else verdict
            refusal = verdict
            pause = min(LAST_LOOK, 2 * pause, max(refusal.retry_after, FIRST_LOOK))
        return refusal

    def _fresh(self) -> Claim:
        """Take the attempt as of now."""
        self._asked_at = anyio.current_time()
        left = time_left()
        return replace(self._attempt, now=self._driver.now(), lease=self._attempt.lease if left is None else left)

    def _land(self, left: Record | None) -> None:
        """Tell the duplicates in this process what this call has left."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        if self._driver.flights.get(self._key) is flight:
            del self._driver.flights[self._key]
        flight.show(left, over=True)

    async def _complete(self, held: Held) -> Record | None:
        encoded = self._driver.encoded(held.lease, self._execution.result)
        return await in_any_case(lambda: self._store(held, encoded))

    async def _complete_with(self, held: Held, error: Exception) -> Record | None:
        """Store the error that the body raised. What goes wrong here must not hide it."""
        encoded = _results.encode_error(error)
        try:
            return await in_any_case(lambda: self._store(held, encoded))
        except IdempotencyError:  # reported where it was raised
            return None

    async def _store(self, held: Held, result: Encoded) -> Record | None:
        """Store the result; while the store does not answer, try until the lease ends."""
        while True:
            try:
                return await self._driver.complete(held.lease, result)
            except (StoreError, ConfigurationError) as error:
                if isinstance(error, StoreError) and anyio.current_time() + RETRY_PAUSE < held.ends_at:
                    await anyio.sleep(RETRY_PAUSE)
                    continue
                self._driver.report(CompletionFailed(self._key))
                if self._manner.on_completion_failure == "report":
                    return None
                error.result = self._execution.result
                raise

    async def _release(self, lease: Lease) -> None:
        """Give the key back. What goes wrong here must not hide the error that ended the body."""
        try:
            await self._driver.release(lease)
        except IdempotencyError as failure:
            if not isinstance(failure, LeaseLostError):
                self._driver.report(ReleaseFailed(self._key))
        else:
            self._driver.report(RecordReleased(self._key))
