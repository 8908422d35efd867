"""The caller's own writes to DynamoDB, committed together with a call's result.

`execution.transaction` is a `Transaction`: it collects, and sends nothing. Leaving the block sends one
`TransactWriteItems` with all that was collected and the completion of the record: all of it is applied, or
none. `AsyncIdempotencyStore.commit_once` does the same for a call that needs no claim.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from aioidempotency._core import effects
from aioidempotency._core.effects import KINDS, KeyNames
from aioidempotency._core.model import Places
from aioidempotency._core.operations import Effect, Put
from aioidempotency._core.outbox import LARGEST_SEQUENCE, Emitted, Outbox
from aioidempotency.codecs import Codec
from aioidempotency.exceptions import (
    Reason,
    SerializationError,
    TransactionClosedError,
    TransactionError,
)

__all__ = ["OutboxEvent", "Reason", "Transaction", "TransactionClosedError", "Writes"]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """An event that was emitted, on its way to whom it concerns.

    Attributes:
        id: The same at each delivery; who receives an event twice can tell by it.
        key: Events of one key come in order.
        sequence: The number by which they are ordered; events of one transaction and key share it.
        index: The event's place among those.
        event: What was emitted.
    """

    id: str
    key: str
    sequence: int
    index: int
    event: object = field(repr=False)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a transaction knows of the call that it belongs to.

    Attributes:
        key: The record's key.
        owner: The call's random bits.
        sequence: The number of its events, where they are given none.
        own: Where its record may be.
        parts: How many actions the record takes.
    """

    key: str
    owner: str
    sequence: int
    own: Places
    parts: int = 1


@final
class Transaction:
    """Collects writes, in DynamoDB's own parameters, and events; nothing is sent before the block is left.

    Values are plain Python values, or typed as the wire has them: `{"pk": "order-1"}` and
    `{"pk": {"S": "order-1"}}` are the same item. Each method refuses at once what DynamoDB would refuse:
    more than 100 writes or 4 MB, two writes of one item; and a write of the execution's own record.
    What is refused is not collected; the rest stays.

    Raises:
        TransactionError: A write is refused before anything is sent; the message says what to do.
        SerializationError: A value is none that DynamoDB, or for events JSON, can hold.
        TransactionClosedError: The block has ended. It is a `RuntimeError`, too.
    """

    def __init__(self, origin: Origin, codec: Codec, outbox: Outbox | None) -> None:
        self._origin = origin
        self._codec = codec
        self._outbox = outbox
        self._effects: list[Effect] = []
        self._events: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._state: str | None = None

    def put(
        self,
        TableName: str,
        Item: Mapping[str, object],
        *,
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Mapping[str, str] | None = None,
        ExpressionAttributeValues: Mapping[str, object] | None = None,
        ReturnValuesOnConditionCheckFailure: str | None = None,
    ) -> None:
        """Store a whole item, if the condition holds."""
        self._add(
            "Put",
            TableName=TableName,
            Item=Item,
            ConditionExpression=ConditionExpression,
            ExpressionAttributeNames=ExpressionAttributeNames,
            ExpressionAttributeValues=ExpressionAttributeValues,
            ReturnValuesOnConditionCheckFailure=ReturnValuesOnConditionCheckFailure,
        )

    def update(
        self,
        TableName: str,
        Key: Mapping[str, object],
        UpdateExpression: str,
        *,
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Mapping[str, str] | None = None,
        ExpressionAttributeValues: Mapping[str, object] | None = None,
        ReturnValuesOnConditionCheckFailure: str | None = None,
    ) -> None:
        """Change an item, if the condition holds; without one, it is made where it is not there."""
        self._add(
            "Update",
            TableName=TableName,
            Key=Key,
            UpdateExpression=UpdateExpression,
            ConditionExpression=ConditionExpression,
            ExpressionAttributeNames=ExpressionAttributeNames,
            ExpressionAttributeValues=ExpressionAttributeValues,
            ReturnValuesOnConditionCheckFailure=ReturnValuesOnConditionCheckFailure,
        )

    def delete(
        self,
        TableName: str,
        Key: Mapping[str, object],
        *,
        ConditionExpression: str | None = None,
        ExpressionAttributeNames: Mapping[str, str] | None = None,
        ExpressionAttributeValues: Mapping[str, object] | None = None,
        ReturnValuesOnConditionCheckFailure: str | None = None,
    ) -> None:
        """Delete an item, if the condition holds."""
        self._add(
            "Delete",
            TableName=TableName,
            Key=Key,
            ConditionExpression=ConditionExpression,
            ExpressionAttributeNames=ExpressionAttributeNames,
            ExpressionAttributeValues=ExpressionAttributeValues,
            ReturnValuesOnConditionCheckFailure=ReturnValuesOnConditionCheckFailure,
        )

    def check(
        self,
        TableName: str,
        Key: Mapping[str, object],
        ConditionExpression: str,
        *,
        ExpressionAttributeNames: Mapping[str, str] | None = None,
        ExpressionAttributeValues: Mapping[str, object] | None = None,
        ReturnValuesOnConditionCheckFailure: str | None = None,
    ) -> None:
        """Write nothing, and insist that a condition holds."""
        self._add(
            "ConditionCheck",
            TableName=TableName,
            Key=Key,
            ConditionExpression=ConditionExpression,
            ExpressionAttributeNames=ExpressionAttributeNames,
            ExpressionAttributeValues=ExpressionAttributeValues,
            ReturnValuesOnConditionCheckFailure=ReturnValuesOnConditionCheckFailure,
        )

    def emit(self, event: object, *, key: str | None = None, sequence: int | None = None) -> None:
        """Write an event, which `store.outbox()` hands out once the transaction is applied.

        Events of one key and transaction are one write, however many.

        Args:
            event: What the store's codec can write.
            key: Events of one key come in order; the record's own key where none is given.
            sequence: The place of this transaction's events among those of the key: 0 or more. Give the
                new version of the entity where several executions write events of one; else it is the
                call's fencing token, which goes by clocks.
        """
        self._check_open()
        if self._outbox is None:
            raise effects.no_outbox()
        under = self._origin.key if key is None else key
        number = self._sequence_of(under, sequence)
        try:
            text = self._codec.encode(event)
        except SerializationError as error:
            advice = "emit what JSON can carry, or give the store another codec="
            raise SerializationError("the event", error.kind, advice) from None
        before = dict(self._events)
        self._events[under] = (number, (*before.get(under, (number, ()))[1], text))
        try:
            self._check({})
        except TransactionError:
            self._events = before
            raise

    def __len__(self) -> int:
        return len(self._effects) + len(self._events)

    def __repr__(self) -> str:
        what = f"{len(self)} writes" if self._state is None else self._state
        return f"<Transaction of {self._origin.key}: {what}>"

    def fill(self, writes: "Writes") -> None:
        """Collect writes that are given as a whole."""
        if callable(writes):
            writes(self)
            return
        for action in writes:
            self._add_action(action)

    def close(self, state: str) -> None:
        """Take no more writes; `state` says why."""
        self._state = state

    def collected(self, keys: KeyNames, *, spare: int = 0) -> tuple[Effect | Put, ...]:
        """Read all that is to be applied, checked as a whole; `spare` are the bytes that the record takes."""
        return self._check(keys, spare=spare)

    def doubtful(self, keys: KeyNames) -> list[str]:
        """Name the tables whose key must be known, to tell whether two puts are of one item."""
        return list(effects.doubtful(self._effects, self._origin.own, keys))

    def _add(self, kind: str, **given: object) -> None:
        self._check_open()
        self._effects.append(effects.effect(kind, given))
        try:
            self._check({})
        except TransactionError:
            self._effects.pop()
            raise

    def _add_action(self, action: Mapping[str, Mapping[str, object]]) -> None:
        """Add an action as the wire has it: `{"Put": {...}}`."""
        kinds = ", ".join(KINDS)
        if not isinstance(action, Mapping) or len(action) != 1 or (kind := next(iter(action))) not in KINDS:
            raise effects.refused(f'a write is a mapping with one of {kinds}, as in {{"Put": {{"TableName": ...}}}}')
        method: Callable[..., None] = getattr(self, KINDS[kind])
        try:
            method(**action[kind])
        except TypeError:
            raise effects.refused(f"{kind} has parameters that it does not take, or not all that it needs") from None

    def _sequence_of(self, key: str, sequence: int | None) -> int:
        """Say by which number the events of a key are ordered."""
        if not isinstance(key, str) or not key:
            raise effects.refused("emit takes key= as a text that is not empty")
        known = self._events.get(key)
        number = sequence if sequence is not None else self._origin.sequence if known is None else known[0]
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_SEQUENCE:
            raise effects.refused("emit takes sequence= as a whole number, 0 or more, of at most 20 digits")
        if known is not None and known[0] != number:
            raise effects.refused("the events of one key in one transaction have one sequence=; give each the same")
        return number

    def _check(self, keys: KeyNames, *, spare: int = 0) -> tuple[Effect | Put, ...]:
        writes: tuple[Effect | Put, ...] = (*self._effects, *self._puts())
        effects.check(writes, self._origin.own, keys, parts=self._origin.parts, spare=spare)
        return writes

    def _puts(self) -> list[Put]:
        if self._outbox is None:
            return []
        owner = self._origin.owner
        return [
            self._outbox.put(Emitted(key=key, sequence=sequence, owner=owner, events=events))
            for key, (sequence, events) in self._events.items()
        ]

    def _check_open(self) -> None:
        if self._state is not None:
            raise TransactionClosedError(self._origin.key, self._state)


Writes = Iterable[Mapping[str, Mapping[str, Any]]] | Callable[[Transaction], object]
"""A call's writes: actions as the wire has them, `[{"Put": {...}}, ...]`, or a function that is given a `Transaction`."""

ENDED: Final = "has ended its block; write inside it"
REPLAYED: Final = "is a replay, and has had its effects; test `execution.replayed` first"
