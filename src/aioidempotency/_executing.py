"""One call from claim to completion.

`Executing` is the block around one call, and holds all that is per call. Whatever ends a block
decides its record: leaving it completes, an error or a cancellation inside it releases. Completion
and release are idempotent, so a cancellation that arrives during them runs them once more, shielded
and bounded, and then passes on. The same goes for a completion with writes of the caller's: each try of
it is the same transaction. Where those writes are refused, it is as if the block had raised the refusal.
"""

import random
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, final

import anyio

from aioidempotency import _results
from aioidempotency._concurrency import in_any_case
from aioidempotency._core import protocol
from aioidempotency._core.commits import Commit
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Encoded, Lease, Record
from aioidempotency._core.protocol import Claim, Vacant, judge
from aioidempotency._draft import Draft
from aioidempotency._driver import Driver
from aioidempotency._execution import CURRENT, Execution, take_draft
from aioidempotency._flights import Flight
from aioidempotency._lease import Held, loop_time, time_left
from aioidempotency.events import (
    CompletionFailed,
    FailedOpen,
    LeaseLost,
    RecordReleased,
    ReleaseFailed,
    decided,
)
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MismatchError,
    StoreError,
    TransactionError,
)

RETRY_PAUSE = 0.2
"""Seconds between two tries of a completion that the store did not answer."""

FIRST_LOOK, LAST_LOOK = 0.05, 1.0
"""Seconds before a waiting duplicate looks at the record; doubled after each look, with jitter."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How calls behave around their claims. Durations are seconds."""

    patience: float
    on_error: Literal["release", "hold"]
    store_errors: tuple[type[Exception], ...]


@final
class Executing:
    """The block around one call: claims at its start, completes or releases at its end.

    Args:
        heartbeat: Seconds between renewals; None for no renewals.
        result_type: What a replayed result is read back as.
    """

    def __init__(
        self, driver: Driver, attempt: Claim, manner: Manner, *, heartbeat: float | None, result_type: object
    ) -> None:
        self._driver = driver
        self._attempt = attempt
        self._manner = manner
        self._heartbeat = heartbeat
        self._result_type = result_type
        self._key = attempt.route.key
        self._flight: Flight | None = None
        self._held: Held | None = None
        self._execution = Execution(self._key)
        self._outer: Execution | None = None
        self._used = False

    async def __aenter__(self) -> Execution:
        """Claim the key; the errors are those of `AsyncIdempotencyStore.execute`."""
        if self._used:
            raise RuntimeError("a block is entered once; call `execute` again for another one")
        self._used = True
        self._execution = await self._entered()
        self._outer = CURRENT.get()
        CURRENT.set(self._execution)
        return self._execution

    async def _entered(self) -> Execution:
        try:
            decision = await self._decide()
        except StoreError as error:
            if not self._driver.fail_open:
                raise
            self._driver.failed_open += 1
            self._driver.report(FailedOpen(self._key))
            return Execution(self._key, unclaimed=error)
        self._driver.report(decided(decision))
        match decision:
            case Claimed(lease):
                self._hold(lease)
                return Execution(self._key, lease=lease, desk=self._driver.desk)
            case Replay(record):
                self._driver.cache.put(self._key, record)
                decoded = _results.decode(record, self._driver.codec, self._result_type, self._manner.store_errors)
                return Execution(self._key, record=replace(record, result=decoded))
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the record, or release it when the block raised."""
        CURRENT.set(self._outer)
        draft = take_draft(self._execution)
        held = self._held
        if held is None:
            return
        self._driver.heartbeats.end(held)
        left: Record | None = None
        try:
            cancelled_by_us = held.leave(kind, error, trace)
            if error is not None:
                left = await self._fail(held, error)
            elif draft is None:
                left = await self._complete(held)
            else:
                left = await self._commit(held, draft)
        finally:
            self._land(left)
        if cancelled_by_us:
            if held.record is None:  # else the renewal that found it has reported the loss
                self._driver.report(LeaseLost(self._key))
            raise LeaseLostError(self._key, held.record) from None

    def _hold(self, lease: Lease) -> None:
        """Keep the lease while the body runs."""
        interval = self._heartbeat
        since = loop_time() - self._driver.used(lease)
        self._held = Held(lease, since=since, interval=interval or 0.0)
        if self._flight is not None:
            self._flight.show(self._held)
        self._held.enter()
        if interval is not None:
            self._driver.heartbeats.begin(self._held)

    async def _decide(self) -> Decision:
        """Claim the key, unless its result is at hand; wait for another owner as long as the caller is patient."""
        cached = self._driver.cached(self._attempt)
        if cached is not None:
            return cached
        left = time_left()
        patience = self._manner.patience if left is None else min(self._manner.patience, left)
        gives_up = loop_time() + patience
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
        except BaseException as error:
            self._land(None, error if isinstance(error, StoreError) else None)
            raise
        if not isinstance(decision, Claimed):
            self._land(decision.record)
        return decision

    async def _follow(self, flight: Flight, gives_up: float) -> Decision | None:
        """Look at the call that is under way in this process; None when the key may be free by now."""
        while True:
            record = flight.record
            if flight.failure is not None:
                failure = flight.failure
                raise StoreError(failure.operation, failure.table_name, failure.reason) from failure
            if record is None and flight.over:
                return None
            if record is None:
                await flight.change()
                continue
            verdict = judge(record, self._fresh())
            if isinstance(verdict, Vacant | Claimed):  # a late copy of our own claim is claimed again, and renewed
                return await self._driver.claim(self._fresh())
            remaining = gives_up - loop_time()
            if not isinstance(verdict, InProgress) or remaining <= 0 or flight.over:
                return verdict
            with anyio.move_on_after(min(remaining, max(verdict.retry_after, FIRST_LOOK))):
                await flight.change()

    async def _poll(self, refusal: InProgress, gives_up: float) -> Decision | None:
        """Look at another process's record until it is finished or free (None), or patience ends."""
        pause = FIRST_LOOK
        while (remaining := gives_up - loop_time()) > 0:
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - it keeps waiters apart, no secret
            await anyio.sleep(min(pause * jitter, remaining))
            try:
                verdict = await self._driver.drive(protocol.inspect(self._fresh()))
            except StoreError:  # the last answer still counts; the next look may get another
                continue
            match verdict:
                case InProgress():
                    refusal = verdict
                case Replay() | Mismatch():
                    return verdict
                case Vacant() | Claimed():  # a late copy of our own claim is claimed again, as long as it lasts
                    return None
            pause = min(LAST_LOOK, 2 * pause, max(refusal.retry_after, FIRST_LOOK))
        return refusal

    def _fresh(self) -> Claim:
        """Take the attempt as of now."""
        left = time_left()
        return self._attempt.at(self._driver.now(), lease=self._attempt.lease if left is None else left)

    def _land(self, left: Record | None, failure: StoreError | None = None) -> None:
        """Tell the duplicates in this process what this call has left, or that the store did not answer it."""
        flight, self._flight = self._flight, None
        if flight is None:
            return
        if self._driver.flights.get(self._key) is flight:
            del self._driver.flights[self._key]
        flight.land(left, failure)

    async def _complete(self, held: Held) -> Record | None:
        encoded = self._driver.encoded(held.lease, self._execution.result)
        return await in_any_case(lambda: self._store(held, encoded), otherwise=self._completion_failed)

    async def _commit(self, held: Held, draft: Draft) -> Record:
        """Apply the block's writes and store its result. What refuses the writes counts as the block's own error."""
        encoded = self._driver.encoded(held.lease, self._execution.result)
        refusals: list[IdempotencyError] = []

        async def send() -> Record:
            try:
                return await self._send(held, wanted)
            except (TransactionError, ConfigurationError) as error:
                refusals.append(error)
                raise

        try:
            effects = await self._driver.collected(draft, spare=len(encoded.data.encode()))
        except BaseException as error:
            await self._fail(held, error, lasts=False)
            raise
        wanted = self._driver.commit_of(held.lease, encoded, effects)
        try:
            return await in_any_case(send, otherwise=lambda: None if refusals else self._completion_failed())
        except StoreError as error:
            self._completion_failed()
            error.result = self._execution.result
            raise
        finally:
            if refusals:
                await self._fail(held, refusals[0], lasts=_lasts(refusals[0]))

    async def _send(self, held: Held, wanted: Commit) -> Record:
        """Send the transaction; while the store does not answer, try until the lease ends."""
        while True:
            try:
                return await self._driver.commit(wanted)
            except LeaseLostError as error:
                error.result = self._execution.result
                raise
            except StoreError:
                if loop_time() + RETRY_PAUSE >= held.ends_at:
                    raise
            await anyio.sleep(RETRY_PAUSE)

    async def _fail(self, held: Held, error: BaseException, *, lasts: bool = True) -> Record | None:
        """Store the error that ended the block, hold the key, or give it back; what may pass is no result."""
        if isinstance(error, self._manner.store_errors) and lasts:
            return await self._complete_with(held, error)
        if self._manner.on_error == "hold":
            return None
        if isinstance(error, GeneratorExit):  # nothing can be awaited while a generator is closed
            self._driver.heartbeats.spawn(self._release(held), f"release {self._key}")
        else:
            await in_any_case(lambda: self._release(held), otherwise=self._release_failed)
        return None

    async def _complete_with(self, held: Held, error: Exception) -> Record | None:
        """Store the error that the body raised. What goes wrong here must not hide it."""
        encoded = _results.encode_error(error)
        try:
            return await in_any_case(lambda: self._store(held, encoded), otherwise=self._completion_failed)
        except IdempotencyError:  # reported where it was raised
            return None

    async def _store(self, held: Held, result: Encoded) -> Record | None:
        """Store the result; while the store does not answer, try until the lease ends."""
        while True:
            try:
                return await self._driver.complete(held.lease, result)
            except LeaseLostError as error:
                error.result = self._execution.result
                raise
            except (StoreError, ConfigurationError) as error:
                if isinstance(error, StoreError) and loop_time() + RETRY_PAUSE < held.ends_at:
                    await anyio.sleep(RETRY_PAUSE)
                    continue
                self._completion_failed()
                if self._driver.on_completion_failure == "report":
                    return None
                error.result = self._execution.result
                raise

    async def _release(self, held: Held) -> None:
        """Give the key back. What goes wrong here must not hide the error that ended the body."""
        try:
            await self._driver.release(held.lease)
        except LeaseLostError:
            if not held.lost:  # else the loss is what cancelled the body, and is reported as that
                self._driver.report(LeaseLost(self._key))
        except IdempotencyError:
            self._release_failed()
        else:
            self._driver.report(RecordReleased(self._key))

    def _completion_failed(self) -> None:
        self._driver.report(CompletionFailed(self._key))

    def _release_failed(self) -> None:
        self._driver.report(ReleaseFailed(self._key))


def _lasts(refusal: IdempotencyError) -> bool:
    """Tell whether what refused a transaction is a result that can be stored: a condition, and nothing that may pass."""
    return isinstance(refusal, TransactionError) and not refusal.retryable
