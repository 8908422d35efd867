"""What a claim can come to. Four outcomes, all expected: match them without a default case."""

from typing import final

from msgspec import Struct

from aioidempotency._core.model import Lease, Record


@final
class Claimed(Struct, frozen=True):
    """The key is the caller's to run, as long as the lease lasts."""

    lease: Lease


@final
class Replay(Struct, frozen=True):
    """The key was finished before: here is its record, with the result."""

    record: Record

    @property
    def result(self) -> object:
        """The first caller's result."""
        return self.record.result


@final
class InProgress(Struct, frozen=True):
    """Another owner runs the key. `retry_after` is the seconds until its lease is over."""

    record: Record
    retry_after: float


@final
class Mismatch(Struct, frozen=True):
    """The key belongs to a request with another fingerprint."""

    record: Record


Decision = Claimed | Replay | InProgress | Mismatch
