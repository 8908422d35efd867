"""Errors say what happened, keep the facts, survive pickling, and show no payload."""

import copy
import pickle

import pytest

from aioidempotency import exceptions
from aioidempotency._core.model import Record, Status
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    LayoutMismatchError,
    LeaseLostError,
    MismatchError,
    MissingKeyError,
    PartitioningError,
    Reason,
    ResultUnavailableError,
    SerializationError,
    StoreError,
    TransactionClosedError,
    TransactionError,
)

RECORD = Record(key="shop#1234", status=Status.COMPLETED, expiration=1.0, data="canary", result="canary")

ERRORS: list[tuple[IdempotencyError, str, bool, int]] = [
    (IdempotencyError("anything"), "anything", False, 500),
    (ConfigurationError("this is wrong"), "this is wrong", False, 500),
    (PartitioningError("this is wrong"), "this is wrong", False, 500),
    (
        LayoutMismatchError("orders", "HashBuckets(n=32)", "HashBuckets(n=64)", "Wait."),
        (
            "table 'orders' uses the layout HashBuckets(n=32), and the store is set to HashBuckets(n=64): the store "
            "would miss the table's records and run their keys again. Wait."
        ),
        False,
        500,
    ),
    (
        MissingKeyError("the key"),
        (
            "no idempotency key: the key is None, empty, or holds only None; "
            "send a key, or decorate with missing_key='run' to run such calls unprotected"
        ),
        False,
        400,
    ),
    (
        InProgressError(RECORD, 1.23456),
        "another call is running shop#1234; call again later: the lease ends in 1.235 s, unless renewed",
        True,
        409,
    ),
    (
        MismatchError(RECORD),
        "shop#1234 was used before, with another payload; send a new key with a new request",
        False,
        422,
    ),
    (
        LeaseLostError("shop#1234", RECORD),
        "this call no longer owns shop#1234: another call has claimed or finished the record; call again with the same key",
        True,
        409,
    ),
    (
        LeaseLostError("shop#1234", None),
        "this call no longer owns shop#1234: the record is gone; call again with the same key",
        True,
        409,
    ),
    (
        LeaseLostError("shop#1234", None, reason="unanswered"),
        "this call no longer owns shop#1234: the lease was not renewed in time; call again with the same key",
        True,
        409,
    ),
    (
        ResultUnavailableError(RECORD, "it was too large"),
        "shop#1234 was executed, but the result is not available: it was too large",
        False,
        410,
    ),
    (SerializationError("the result", "set", "sort it"), "the result cannot hold set: sort it", False, 422),
    (
        TransactionError((None, Reason("ConditionalCheckFailed", {"secret": 1}), None)),
        "the transaction was refused, and nothing was applied: ConditionalCheckFailed at index 1 of its 3 writes",
        False,
        409,
    ),
    (
        TransactionError((Reason("TransactionConflict"), Reason("ThrottlingError"))),
        (
            "the transaction was refused, and nothing was applied: TransactionConflict at index 0, "
            "ThrottlingError at index 1 of its 2 writes; call again"
        ),
        True,
        409,
    ),
    (
        TransactionError((Reason("ValidationError"),)),
        (
            "the transaction was refused, and nothing was applied: ValidationError at index 0 of its 1 writes; "
            "see the message of the reason"
        ),
        False,
        409,
    ),
    (TransactionError((), "make one of them"), "nothing was sent: make one of them", False, 409),
    (TransactionClosedError("shop#1234", "has ended"), "nothing was sent: shop#1234 has ended", False, 409),
    (StoreError("PutItem", "records", "time is up"), "PutItem on table 'records' failed: time is up", True, 503),
]


@pytest.mark.parametrize(("error", "message", "retryable", "status"), ERRORS)
def test_an_error_says_what_happened_and_what_to_do(
    error: IdempotencyError, message: str, retryable: bool, status: int
) -> None:
    """To people by its text, to programs by `retryable` and an HTTP status."""
    assert str(error) == message
    assert (error.retryable, error.status_hint) == (retryable, status)
    assert isinstance(error, IdempotencyError)


@pytest.mark.parametrize("error", [error for error, *_ in ERRORS])
def test_an_error_survives_its_copies(error: IdempotencyError) -> None:
    """A worker process hands its errors over by pickling."""
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


@pytest.mark.parametrize("error", [error for error, *_ in ERRORS])
def test_an_error_shows_no_result(error: IdempotencyError) -> None:
    """U3: not in its text and not in its `repr`, which loggers print as well."""
    assert "canary" not in str(error)
    assert "canary" not in repr(error)


def test_facts_are_attributes() -> None:
    """Nobody has to parse a message."""
    running = InProgressError(RECORD, 1.5)
    assert (running.record, running.retry_after) == (RECORD, 1.5)
    assert MismatchError(RECORD).record is RECORD
    assert vars(LeaseLostError("k", RECORD)) == {"key": "k", "record": RECORD}
    assert vars(ResultUnavailableError(RECORD, "why")) == {"record": RECORD, "reason": "why"}
    assert vars(SerializationError("a", "b", "c")) == {"subject": "a", "kind": "b", "advice": "c"}
    reasons = (None, Reason("ValidationError", message="a number"))
    assert vars(TransactionError(reasons)) == {"reasons": reasons, "trouble": None, "retryable": False}
    assert TransactionClosedError("k", "has ended").key == "k"
    assert vars(StoreError("a", "b", "c")) == {"operation": "a", "table_name": "b", "reason": "c"}
    assert MissingKeyError("the header").source == "the header"


def test_the_tree_is_the_one_that_is_drawn() -> None:
    """Every error has one root; partitioning and layout errors are configuration errors."""
    classes = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    drawn = exceptions.__doc__ or ""
    parents = {kind.__name__: kind.__bases__[0].__name__ for kind in classes}
    assert all(f"{name} " in drawn or f"{name}\n" in drawn for name in parents)
    assert parents.pop("IdempotencyError") == "Exception"
    assert parents.pop("TransactionClosedError") == "TransactionError"
    assert parents.pop("PartitioningError") == parents.pop("LayoutMismatchError") == "ConfigurationError"
    assert set(parents.values()) == {"IdempotencyError"}
