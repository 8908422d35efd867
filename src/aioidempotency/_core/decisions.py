"""The four outcomes of a claim. All are expected: match them without a default case."""

from typing import final

from msgspec import Struct

from aioidempotency._core.model import Lease, Record


@final
class Claimed(Struct, frozen=True, gc=False):
    """The caller owns the key, as long as the lease lasts."""

    lease: Lease


@final
class Replay(Struct, frozen=True):
    """The key was finished before. The record holds the result."""

    record: Record

    @property
    def result(self) -> object:
        """The first caller's result."""
        return self.record.result


@final
class InProgress(Struct, frozen=True):
    """Another owner is running the key. The lease of that owner ends in `retry_after` seconds."""

    record: Record
    retry_after: float


@final
class Mismatch(Struct, frozen=True):
    """The key belongs to a request with another fingerprint."""

    record: Record


Decision = Claimed | Replay | InProgress | Mismatch
