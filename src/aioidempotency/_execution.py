"""What a caller sees of one call: whether it has to run, what it answers, and what it writes together with that."""

import hashlib
from contextvars import ContextVar
from typing import final

from aioidempotency._core import keys
from aioidempotency._core.model import Lease, Record
from aioidempotency._core.outbox import Outbox
from aioidempotency._draft import ENDED, REPLAYED, Draft, Origin
from aioidempotency.codecs import Codec
from aioidempotency.exceptions import MissingKeyError, SerializationError, StoreError, TransactionClosedError
from aioidempotency.transactions import Transaction


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

    __slots__ = ("_desk", "_draft", "_unclaimed", "key", "lease", "record", "replayed", "result")
    key: str
    replayed: bool
    result: object
    lease: Lease | None
    record: Record | None

    def __init__(
        self,
        key: str,
        *,
        lease: Lease | None = None,
        record: Record | None = None,
        desk: tuple[Codec, Outbox | None] | None = None,
        unclaimed: StoreError | None = None,
    ) -> None:
        self.key = key
        self.lease = lease
        self.record = record
        self.replayed = record is not None
        self.result = None if record is None else record.result
        self._desk = desk
        self._unclaimed = unclaimed
        self._draft: Draft | None = None

    @staticmethod
    def current() -> "Execution":
        """Find the execution around the running code, also inside a decorated function.

        Its `lease.fencing_token` is what systems behind the body can compare.

        Raises:
            LookupError: The code runs outside of any.
        """
        execution = CURRENT.get()
        if execution is None:
            raise LookupError("no execution is under way here; call this inside `execute`, or a decorated function")
        return execution

    def complete(self, value: object) -> None:
        """Give the result that is stored when the block is left.

        Raises:
            RuntimeError: The call is a replay: it has its result.
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
        """
        if self.replayed:
            raise TransactionClosedError(self.key, REPLAYED)
        if (cause := self._unclaimed) is not None:
            reason = "the claim was not answered, and without a record no transaction is applied once; try again later"
            raise StoreError(cause.operation, cause.table_name, reason) from cause
        if self._desk is None or self.lease is None:
            raise TransactionClosedError(self.key, ENDED)
        if self._draft is None:
            self._draft = _drafting(self.lease, *self._desk)
        return Transaction(self._draft)

    def derive_key(self, step: str) -> str:
        """Make a key for a step of this call in another system: 64 hexadecimal digits.

        It depends on the namespace, the key and the step alone, so each attempt of this call has the same
        one. It does not show the key; as with any digest, a short key can be found by trying.

        Raises:
            MissingKeyError: The step has no name.
            SerializationError: The name is no text.
        """
        if not isinstance(step, str):
            raise SerializationError("the step", type(step).__name__, "name it by a text")
        if not step:
            raise MissingKeyError("the name of the step")
        return hashlib.sha256(keys.canonical([self.key, step])).hexdigest()

    def __repr__(self) -> str:
        state = "replayed" if self.replayed else "running unprotected" if self.lease is None else repr(self.lease)
        return f"<Execution {self.key}: {state}>"


CURRENT: ContextVar[Execution | None] = ContextVar("aioidempotency_execution", default=None)
"""The execution around the running code."""


def take_draft(execution: Execution) -> Draft | None:
    """End an execution's transaction, and read what it is to write; None where that is nothing."""
    draft, execution._desk = execution._draft, None  # noqa: SLF001 - what the block does, and its caller may not
    if draft is not None:
        draft.close(ENDED)
    return draft or None


def _drafting(lease: Lease, codec: Codec, outbox: Outbox | None) -> Draft:
    own = lease.route.places(lease.expires_at - lease.duration)
    places = tuple(dict.fromkeys((lease.location, *own)))
    return Draft(
        Origin(key=lease.route.key, owner=lease.owner, sequence=lease.fencing_token, own=places), codec, outbox
    )
