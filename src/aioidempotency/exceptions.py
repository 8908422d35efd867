"""Errors for the caller.

IdempotencyError
├── ConfigurationError          the settings are wrong, or contradict the table
│   ├── PartitioningError       a partitioning would break idempotency
│   └── LayoutMismatchError     the table has another layout than the store
├── MissingKeyError             the call has no key
├── InProgressError             another call is running the key
├── MismatchError               the key was used with another payload
├── LeaseLostError              the caller no longer owns the record
├── ResultUnavailableError      the call was executed, and the result cannot be read
├── SerializationError          a value cannot be a key, or a result
├── TransactionError            a transaction was refused
│   └── TransactionClosedError  the execution is a replay, or has ended
└── StoreError                  the store did not answer, or others change the record

Constructors take facts and keep the facts as attributes. `str` builds the message from the attributes, so errors
survive pickling. Messages name a record by digest. No message contains a payload, a result or a raw key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, final

if TYPE_CHECKING:
    # The model raises these errors, so an import at run time would be circular.
    from aioidempotency._core.model import Record


LostReason = Literal["another_owner", "gone", "unanswered"]
"""Why a lease was lost."""


class IdempotencyError(Exception):
    """The root of all errors raised by this library.

    Attributes:
        retryable: Whether a later repetition of the same call may succeed.
        status_hint: The matching HTTP status.
        result: The body's result, if the body has run and the completion was refused, or has failed with
            `on_completion_failure="raise"`.
    """

    retryable: bool = False
    status_hint: ClassVar[int] = 500
    result: object = None


class ConfigurationError(IdempotencyError):
    """The settings contradict each other, the table, or the environment. The message names the setting to change.

    Attributes:
        temporary: Whether somebody can mend the cause while the program runs: a missing permission or table, refused
            credentials. The store then repeats a completion until the end of the lease.
    """

    temporary: bool = False


class PartitioningError(ConfigurationError):
    """With this partitioning, two calls with one key would use two records, and both would run."""


class LayoutMismatchError(ConfigurationError):
    """The table's layout differs from the store's, so the store would miss records. Nothing was read or written.

    Attributes:
        table_name: The table.
        found: The table's strategy, as a constructor call.
        wanted: The store's strategy, as a constructor call.
        advice: The next step for the caller.
    """

    def __init__(self, table_name: str, found: str, wanted: str, advice: str) -> None:
        self.table_name = table_name
        self.found = found
        self.wanted = wanted
        self.advice = advice

    def __str__(self) -> str:
        return (
            f"table {self.table_name!r} uses the layout {self.found}, and the store is set to {self.wanted}: the store "
            f"would miss the table's records and run their keys again. {self.advice}"
        )


class MissingKeyError(IdempotencyError):
    """The call has no key, or a part of the key is null. Nothing was written, and the body did not run.

    ```python
    from aioidempotency import AsyncIdempotencyStore, MissingKeyError, idempotent

    store = AsyncIdempotencyStore.in_memory()

    @idempotent(store, key="order_id")
    async def charge(order_id: str | None) -> str:
        return "paid"

    try:
        await charge(None)
    except MissingKeyError as error:
        print(f"{error.status_hint}: {error}")
    ```

    Attributes:
        source: The source of the key, in words.
        part: The null part of the key, as named by the expression. None if the whole key is missing.
    """

    status_hint = 400

    def __init__(self, source: str, *, part: str | None = None) -> None:
        self.source = source
        self.part = part

    def __str__(self) -> str:
        if self.part is not None:
            return (
                f"no idempotency key: in {self.source}, {self.part} is null, and all calls with this null would share "
                "one answer; send a value, or decorate with missing_parts='allow' if null is a valid value"
            )
        return (
            f"no idempotency key: {self.source} is None, empty, or holds only None; "
            "send a key, or decorate with missing_key='run' to run such calls unprotected"
        )


class InProgressError(IdempotencyError):
    """Another owner is running the key.

    ```python
    from aioidempotency import AsyncIdempotencyStore, InProgressError

    store = AsyncIdempotencyStore.in_memory()
    await store.claim("order-1")  # another process is running the key

    try:
        async with store.execute("order-1") as execution:
            execution.complete("paid")
    except InProgressError as error:
        print(f"try again in {error.retry_after:.0f} s")
    ```

    Attributes:
        record: The other owner's record.
        retry_after: Seconds until the end of the other owner's lease, clock skew included. A renewal moves the end.
        from_inside: Whether the body that is running the key made this call. Waiting would never end.
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
                f"the body that is running {self.record.key} made a call with the same key, and would wait for itself; "
                "give the inner call another key or namespace"
            )
        return (
            f"another call is running {self.record.key}; call again later: the lease ends in {self.retry_after:.3f} s, "
            "unless renewed"
        )


class MismatchError(IdempotencyError):
    """The key belongs to a request with another payload. A repetition fails again: a new request needs a new key.

    ```python
    from aioidempotency import AsyncIdempotencyStore, MismatchError

    store = AsyncIdempotencyStore.in_memory()

    async with store.execute("order-1", fingerprint={"amount": 10}) as execution:
        execution.complete("paid")
    try:
        async with store.execute("order-1", fingerprint={"amount": 99}):
            print("does not run")
    except MismatchError as error:
        print(error.status_hint)
    ```

    Attributes:
        record: The first request's record.
    """

    status_hint = 422

    def __init__(self, record: "Record") -> None:
        self.record = record

    def __str__(self) -> str:
        return f"{self.record.key} was used before, with another payload; send a new key with a new request"


class LeaseLostError(IdempotencyError):
    """The caller no longer owns the record.

    Another owner has claimed the key, the record is gone, or no renewal was answered in time.

    A result from the body was not stored. A repetition of the call replays the new owner's result, or runs.

    ```python
    from aioidempotency import AsyncIdempotencyStore, Claimed, LeaseLostError
    from aioidempotency.testing import FakeClock

    store = AsyncIdempotencyStore.in_memory(lease=60, clock=(clock := FakeClock()))
    decision = await store.claim("order-1")
    assert isinstance(decision, Claimed)
    clock.advance(120)  # the process stalls for longer than the lease
    await store.claim("order-1")  # another process takes over
    try:
        await store.complete(decision.lease, "paid")
    except LeaseLostError as error:
        print(error.reason)
    ```

    Attributes:
        key: The record's key, a digest.
        record: The present record. None if there is no record, or if the store did not look.
        reason: `"another_owner"`, `"gone"` or `"unanswered"`. `"unanswered"` means that the store answered no renewal
            in time, that the machine slept past the end of the lease, or that a lease in a `TimeBuckets` layout has
            ended before the call. `__cause__` is the last error of a renewal or a completion, if there is one.
    """

    retryable = True
    status_hint = 409

    def __init__(self, key: str, record: "Record | None", *, reason: LostReason | None = None) -> None:
        self.key = key
        self.record = record
        # `pickle` calls the constructor with the positional arguments alone, and then restores the attributes.
        if reason is not None:
            self._reason = reason

    @property
    def reason(self) -> LostReason:
        """Why the lease is lost."""
        return getattr(self, "_reason", "gone" if self.record is None else "another_owner")

    def __str__(self) -> str:
        return f"this call no longer owns {self.key}: {_LOST[self.reason]}; call again with the same key"


_LOST: dict[LostReason, str] = {
    "another_owner": "another call has claimed or finished the record",
    "gone": "the record is gone",
    "unanswered": "the lease was not renewed in time",
}


class ResultUnavailableError(IdempotencyError):
    """The key was executed, but the result was not stored or cannot be read.

    The body does not run again before the record expires. An unstorable result becomes a tombstone:

    ```python
    from aioidempotency import AsyncIdempotencyStore, ResultUnavailableError

    store = AsyncIdempotencyStore.in_memory()

    async with store.execute("export-1") as execution:
        execution.complete(object())  # JSON cannot hold the result
    try:
        async with store.execute("export-1"):
            print("does not run")
    except ResultUnavailableError as error:
        print(error.reason)
    ```

    Attributes:
        record: The finished record.
        reason: Why there is no result, in words.
    """

    status_hint = 410

    def __init__(self, record: "Record", reason: str) -> None:
        self.record = record
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.record.key} was executed, but the result is not available: {self.reason}"


class SerializationError(IdempotencyError):
    """A value cannot be key material, or cannot be stored as a result.

    Attributes:
        subject: The place of the value: "the key material", "the result".
        kind: The name of the value's type.
        advice: The next step for the caller.
    """

    status_hint = 422

    def __init__(self, subject: str, kind: str, advice: str) -> None:
        self.subject = subject
        self.kind = kind
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.subject} cannot hold {self.kind}: {self.advice}"


# No retry mode of botocore repeats a transaction conflict, so the caller has to repeat the transaction.
PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""DynamoDB's codes for refusals that pass: the same write may succeed later."""


@final
@dataclass(frozen=True, slots=True)
class Reason:
    """The refusal of one write in a transaction.

    Attributes:
        code: DynamoDB's code: `ConditionalCheckFailed`, `TransactionConflict`, `ThrottlingError`,
            `ProvisionedThroughputExceeded`, `ItemCollectionSizeLimitExceeded` or `ValidationError`.
        item: The item that failed the write's condition, as plain Python values. None without an item, and for a
            write without `ReturnValuesOnConditionCheckFailure="ALL_OLD"`.
        message: DynamoDB's own words, possibly with names of attributes.
    """

    code: str
    # A refusal appears in logs, and both fields may hold the caller's data.
    item: Mapping[str, object] | None = field(default=None, repr=False)
    message: str = field(default="", repr=False)

    @property
    def passing(self) -> bool:
        """Whether the same write may succeed a moment later."""
        return self.code in PASSING


class TransactionError(IdempotencyError):
    """A transaction was refused, by DynamoDB or before the request. No part of the transaction was applied.

    The error is `retryable` if all reasons are conflicts with other transactions, or throttling.

    Attributes:
        reasons: One entry for each write, in order. None for a write without fault.
        trouble: Why the library sent nothing, and the next step, in words. None after DynamoDB's own refusal.
    """

    status_hint = 409

    def __init__(self, reasons: tuple[Reason | None, ...], trouble: str | None = None) -> None:
        self.reasons = reasons
        self.trouble = trouble
        # A refusal before the request has no reasons, and every repetition is refused again.
        given = [reason for reason in reasons if reason is not None]
        self.retryable = bool(given) and all(reason.passing for reason in given)

    def __str__(self) -> str:
        if self.trouble is not None:
            return f"nothing was sent: {self.trouble}"
        refused = [f"{reason.code} at index {index}" for index, reason in enumerate(self.reasons) if reason is not None]
        return (
            f"the transaction was refused, and nothing was applied: {', '.join(refused)} of its "
            f"{len(self.reasons)} writes{self._advice}"
        )

    @property
    def _advice(self) -> str:
        if self.retryable:
            return "; call again"
        invalid = any(reason is not None and reason.code == "ValidationError" for reason in self.reasons)
        return "; see the message of the reason" if invalid else ""


# Also a `RuntimeError`, because the caller made a mistake, as with a closed file.
class TransactionClosedError(TransactionError, RuntimeError):
    """The execution has no open transaction: the execution is a replay, or has ended.

    Attributes:
        key: The execution's key, a digest.
        state: The execution's state, in words.
    """

    def __init__(self, key: str, state: str) -> None:
        super().__init__((), f"{key} {state}")
        self.key = key
        self.state = state


class StoreError(IdempotencyError):
    """The store did not answer, refused to, or the record is contended. `__cause__` is the client's own error.

    A claim may have been written all the same. The key is then free again after the lease.

    ```python
    from aioidempotency import AsyncIdempotencyStore, StoreError

    class Unreachable:
        async def execute(self, operation):
            raise OSError("connection refused")

    store = AsyncIdempotencyStore("orders", backend=Unreachable())
    try:
        await store.claim("order-1")
    except StoreError as error:
        print(f"{error.status_hint}: {error}")
    ```

    Attributes:
        operation: The name of the DynamoDB operation.
        table_name: The table of the operation.
        reason: The failure and the next step, in words.
        contended: Whether the store did answer, and other callers changed the record at every attempt. `fail_open` does
            not count such a failure as an outage.
        refused: Whether the process has no valid credentials at the moment, although it can renew them. `fail_open`
            does not count such a failure as an outage.
    """

    retryable = True
    status_hint = 503
    contended: bool = False
    refused: bool = False

    def __init__(
        self, operation: str, table_name: str, reason: str, *, contended: bool = False, refused: bool = False
    ) -> None:
        self.operation = operation
        self.table_name = table_name
        self.reason = reason
        # `pickle` calls the constructor with the positional arguments alone, and then restores the attributes.
        if contended:
            self.contended = True
        if refused:
            self.refused = True

    def __str__(self) -> str:
        return f"{self.operation} on table {self.table_name!r} failed: {self.reason}"
