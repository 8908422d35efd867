"""One call from claim to completion.

Whatever ends a block decides its record: leaving it completes, an error or a cancellation inside it
releases. Completion and release are idempotent, so a cancellation that arrives during them runs them
once more, shielded and bounded, and then passes on.
"""

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, final

import anyio

from aioidempotency._concurrency import in_any_case
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Encoded, Lease, Record
from aioidempotency.events import CompletionFailed, Event, LeaseLost, RecordReleased, ReleaseFailed
from aioidempotency.exceptions import InProgressError, LeaseLostError, MismatchError, StoreError

RETRY_PAUSE = 0.2
"""Seconds between two tries of a completion that the store did not answer."""


class Owner(Protocol):
    """What an execution needs of its store."""

    def encoded(self, lease: Lease, result: object) -> Encoded: ...
    async def complete_encoded(self, lease: Lease, result: Encoded) -> Record: ...
    async def release(self, lease: Lease) -> None: ...
    def now(self) -> float: ...
    def decoded(self, record: Record, result_type: object) -> object: ...
    def report(self, event: Event) -> None: ...


@final
class Execution:
    """One call: whether it has to run, and what it answers.

    Attributes:
        key: The record's key, `namespace#digest`.
        replayed: Whether the call was executed before; then the body has nothing to do.
        result: The first answer, when replayed; else what `complete` was given.
        lease: The right to run, when not replayed.
    """

    __slots__ = ("key", "lease", "replayed", "result")

    def __init__(self, key: str, *, lease: Lease | None, replayed: bool, result: object = None) -> None:
        self.key = key
        self.lease = lease
        self.replayed = replayed
        self.result = result

    def complete(self, value: object) -> None:
        """Give the result that is stored when the block is left.

        Raises:
            RuntimeError: The call is a replay: it has its result.
        """
        if self.replayed:
            raise RuntimeError(f"{self.key} is a replay and has its result; test `execution.replayed` first")
        self.result = value

    def __repr__(self) -> str:
        state = "replayed" if self.replayed else f"running, {self.lease!r}"
        return f"<Execution {self.key}: {state}>"


@final
class Executing:
    """The block around one call: claims at its start, completes or releases at its end."""

    def __init__(self, store: Owner, claim: Callable[[], Awaitable[Decision]], *, result_type: object) -> None:
        self._store = store
        self._claim = claim
        self._result_type = result_type
        self._execution: Execution | None = None

    async def __aenter__(self) -> Execution:
        """Claim the key.

        Raises:
            InProgressError: Another owner runs it.
            MismatchError: It was used with another fingerprint.
            ResultUnavailableError: It was executed, and its result cannot be had.
            StoreError: The store did not answer.
        """
        match await self._claim():
            case Claimed(lease):
                self._execution = Execution(lease.key, lease=lease, replayed=False)
            case Replay(record):
                result = self._store.decoded(record, self._result_type)
                self._execution = Execution(record.key, lease=None, replayed=True, result=result)
            case InProgress(record, retry_after):
                raise InProgressError(record, retry_after)
            case Mismatch(record):
                raise MismatchError(record)
        return self._execution

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Complete the record, or release it when the block raised."""
        execution = self._execution
        if execution is None or execution.lease is None:
            return
        lease = execution.lease
        if error is None:
            result = self._store.encoded(lease, execution.result)
            await in_any_case(lambda: self._complete(lease, result))
        elif not isinstance(error, GeneratorExit):  # nothing can be awaited while a generator is closed
            await in_any_case(lambda: self._release(lease))

    async def _complete(self, lease: Lease, result: Encoded) -> None:
        """Store the result; while the store does not answer, try until the lease ends."""
        while True:
            try:
                await self._store.complete_encoded(lease, result)
            except StoreError:
                if self._store.now() + RETRY_PAUSE >= lease.expires_at:
                    self._store.report(CompletionFailed(lease.key))
                    return
                await anyio.sleep(RETRY_PAUSE)
            else:
                return

    async def _release(self, lease: Lease) -> None:
        """Give the key back. What goes wrong here must not hide the error that ended the body."""
        try:
            await self._store.release(lease)
        except LeaseLostError:
            self._store.report(LeaseLost(lease.key))
        except StoreError:
            self._store.report(ReleaseFailed(lease.key))
        else:
            self._store.report(RecordReleased(lease.key))
