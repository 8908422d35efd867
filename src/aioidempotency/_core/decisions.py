"""What a claim can come to. Four outcomes, all expected: match them without a default case."""

from dataclasses import dataclass
from typing import final

from aioidempotency._core.model import Lease, Record


@final
@dataclass(frozen=True, slots=True)
class Claimed:
    """The key is the caller's to run, as long as the lease lasts."""

    lease: Lease


@final
@dataclass(frozen=True, slots=True)
class Replay:
    """The key was finished before: here is its record, with the result."""

    record: Record

    @property
    def result(self) -> object:
        """The first caller's result."""
        return self.record.result


@final
@dataclass(frozen=True, slots=True)
class InProgress:
    """Another owner runs the key. `retry_after` is the seconds until its lease is over."""

    record: Record
    retry_after: float


@final
@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key belongs to a request with another fingerprint."""

    record: Record


Decision = Claimed | Replay | InProgress | Mismatch
