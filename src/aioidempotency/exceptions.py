"""What can go wrong, for the caller.

IdempotencyError
├── ConfigurationError          the settings are wrong, or the table is not what they say
│   ├── PartitioningError       a partitioning would break idempotency
│   └── LayoutMismatchError     the table was laid out otherwise
├── MissingKeyError             the call carries no key
├── InProgressError             someone else runs this key now
├── MismatchError               the key was used with another payload
├── LeaseLostError              the caller no longer holds the record
├── ResultUnavailableError      it ran, and its result cannot be had
├── SerializationError          a value cannot be a key, or a result
├── TransactionError            a transaction was refused
│   └── TransactionClosedError  its execution is a replay, or has ended
└── StoreError                  the store did not answer, or is contended

Constructors take facts and keep them; `str` builds the message from them, so that errors survive
pickling. Messages name a record by its digest: no payload, result or raw key is in any of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, final

if TYPE_CHECKING:
    from aioidempotency._core.model import Record


LostReason = Literal["another_owner", "gone", "unanswered"]


class IdempotencyError(Exception):
    """The root of every error that this library raises.

    Attributes:
        retryable: Whether the same call, made again later, may succeed.
        status_hint: The HTTP status that tells a client the same.
        result: The body's result, where the error hides one: a completion that was refused, or that
            failed with `on_completion_failure="raise"`.
    """

    retryable: bool = False
    status_hint: ClassVar[int] = 500
    result: object = None


class ConfigurationError(IdempotencyError):
    """The settings contradict each other, the table, or the environment.

    Attributes:
        temporary: Whether others can mend the cause while the program runs: a missing permission or table, credentials
            that are refused. A completion is then sent again until its lease ends.
    """

    temporary: bool = False


class PartitioningError(ConfigurationError):
    """A partitioning would send two calls with one key to two records."""


class LayoutMismatchError(ConfigurationError):
    """The table's records lie otherwise than the store would look for them; nothing was read or written.

    Attributes:
        table_name: The table.
        found: The strategy that the table is laid out by, as the call that makes it.
        wanted: The store's strategy, likewise.
        advice: What to do.
    """

    def __init__(self, table_name: str, found: str, wanted: str, advice: str) -> None:
        self.table_name = table_name
        self.found = found
        self.wanted = wanted
        self.advice = advice

    def __str__(self) -> str:
        return (
            f"table {self.table_name!r} is laid out by {self.found}, and the store looks by {self.wanted}: it would not "
            f"find records that are there, and run their keys again. {self.advice}"
        )


class MissingKeyError(IdempotencyError):
    """The call has no key, or lacks a part of its key; nothing was written, and the body did not run.

    Attributes:
        source: Where the key was looked for, in words.
        part: The part of the key that is null, as the expression names it; None where the whole key is missing.
    """

    status_hint = 400

    def __init__(self, source: str, *, part: str | None = None) -> None:
        self.source = source
        self.part = part

    def __str__(self) -> str:
        if self.part is not None:
            return (
                f"no idempotency key: in {self.source}, {self.part} is null, and all calls that lack it would share one "
                "answer; send it, or decorate with missing_parts='allow' where null is a value like any other"
            )
        return (
            f"no idempotency key: {self.source} is None, empty, or holds nothing but None; "
            "send a key, or decorate with missing_key='run' to run such calls unprotected"
        )


class InProgressError(IdempotencyError):
    """Another owner runs this key now.

    Attributes:
        record: The other owner's record.
        retry_after: Seconds until its lease is over, at the latest.
        from_inside: Whether the call that runs the key asked for the key itself: it would wait for its own end.
    """

    retryable = True
    status_hint = 409

    def __init__(self, record: "Record", retry_after: float, *, from_inside: bool = False) -> None:
        self.record = record
        self.retry_after = retry_after
        self.from_inside = from_inside

    def __str__(self) -> str:
        if self.from_inside:
            return (
                f"{self.record.key} is asked for from inside the call that runs it, which would wait for its own end; "
                "give the inner call another key, or another namespace"
            )
        return f"{self.record.key} is running elsewhere; its lease ends in {self.retry_after:.3f} s at the latest"


class MismatchError(IdempotencyError):
    """The key belongs to a request with another payload.

    Attributes:
        record: The record of the first request.
    """

    status_hint = 422

    def __init__(self, record: "Record") -> None:
        self.record = record

    def __str__(self) -> str:
        return f"{self.record.key} was used before with another payload; send a new key with a new request"


class LeaseLostError(IdempotencyError):
    """The caller no longer holds the record: another owner claimed it, it is gone, or it was not renewed in time.

    Attributes:
        key: The record's key, a digest.
        record: The record found instead; None where none was found.
        reason: `"another_owner"`, `"gone"`, or `"unanswered"`: the store did not answer the renewals, or the machine
            slept past the end of the lease.
    """

    retryable = True
    status_hint = 409

    def __init__(self, key: str, record: "Record | None", *, reason: LostReason | None = None) -> None:
        self.key = key
        self.record = record
        if reason is not None:
            self._reason = reason

    @property
    def reason(self) -> LostReason:
        """Why the lease is lost."""
        return getattr(self, "_reason", "gone" if self.record is None else "another_owner")

    def __str__(self) -> str:
        return f"{self.key} is no longer held by this call: {_LOST[self.reason]}"


_LOST: dict[LostReason, str] = {
    "another_owner": "the record has another owner or is finished",
    "gone": "the record is gone",
    "unanswered": "the lease could not be renewed in time",
}


class ResultUnavailableError(IdempotencyError):
    """The key was executed, and its result was not stored or cannot be read.

    Attributes:
        record: The finished record.
        reason: Why there is no result, in words.
    """

    def __init__(self, record: "Record", reason: str) -> None:
        self.record = record
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.record.key} was executed, and its result is not available: {self.reason}"


class SerializationError(IdempotencyError):
    """A value cannot be key material, or cannot be stored as a result.

    Attributes:
        subject: What held the value: "the key material", "the result".
        kind: The name of the value's type.
        advice: What to do instead.
    """

    status_hint = 422

    def __init__(self, subject: str, kind: str, advice: str) -> None:
        self.subject = subject
        self.kind = kind
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.subject} cannot hold {self.kind}: {self.advice}"


PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""Codes of reasons that may be gone a moment later."""


@final
@dataclass(frozen=True, slots=True)
class Reason:
    """Why one write of a transaction could not be applied.

    Attributes:
        code: DynamoDB's: `ConditionalCheckFailed`, `TransactionConflict`, `ThrottlingError`,
            `ProvisionedThroughputExceeded`, `ItemCollectionSizeLimitExceeded` or `ValidationError`.
        item: What refused the write, as plain Python values; None where it was not asked for with
            `ReturnValuesOnConditionCheckFailure="ALL_OLD"`, or nothing was there.
        message: DynamoDB's own words, which may name attributes.
    """

    code: str
    item: Mapping[str, object] | None = field(default=None, repr=False)
    message: str = field(default="", repr=False)

    @property
    def passing(self) -> bool:
        """Whether the same write may be applied a moment later."""
        return self.code in PASSING


class TransactionError(IdempotencyError):
    """A transaction was refused, by DynamoDB or before it was sent; nothing in it was applied.

    It is `retryable` where all that stood in the way was another transaction, or throttling.

    Attributes:
        reasons: One entry for each write, in order; None where the write itself was fine.
        trouble: Why it was not sent, and what to do, in words; None where DynamoDB refused it.
    """

    status_hint = 409

    def __init__(self, reasons: tuple[Reason | None, ...], trouble: str | None = None) -> None:
        self.reasons = reasons
        self.trouble = trouble
        given = [reason for reason in reasons if reason is not None]
        self.retryable = bool(given) and all(reason.passing for reason in given)

    def __str__(self) -> str:
        if self.trouble is not None:
            return f"nothing was sent: {self.trouble}"
        refused = [f"{reason.code} at index {index}" for index, reason in enumerate(self.reasons) if reason is not None]
        return (
            f"the transaction was refused, and nothing in it was applied: {', '.join(refused)} of its "
            f"{len(self.reasons)} writes{self._advice}"
        )

    @property
    def _advice(self) -> str:
        if self.retryable:
            return "; call again"
        invalid = any(reason is not None and reason.code == "ValidationError" for reason in self.reasons)
        return "; the message of its reason says why" if invalid else ""


class TransactionClosedError(TransactionError, RuntimeError):
    """A transaction cannot be had, or not any more: its execution is a replay, or has ended.

    Attributes:
        key: The execution's key, a digest.
        state: What it is, in words.
    """

    def __init__(self, key: str, state: str) -> None:
        super().__init__((), f"{key} {state}")
        self.key = key
        self.state = state


class StoreError(IdempotencyError):
    """The store did not answer, refused to, or is contended; `__cause__` is the client's own error.

    Attributes:
        operation: The name of the DynamoDB operation.
        table_name: The table it went to.
        reason: What happened and what to do, in words.
        contended: Whether the store did answer, and others changed the record at every attempt. `fail_open` does not
            count such a failure as an outage.
    """

    retryable = True
    status_hint = 503
    contended: bool = False

    def __init__(self, operation: str, table_name: str, reason: str, *, contended: bool = False) -> None:
        self.operation = operation
        self.table_name = table_name
        self.reason = reason
        if contended:
            self.contended = True

    def __str__(self) -> str:
        return f"{self.operation} on table {self.table_name!r} failed: {self.reason}"
