"""`Transaction`: what a body is given to write into, and what its writes are."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack, final

from aioidempotency._effects import writes as effects
from aioidempotency._effects.pending import PendingWrites
from aioidempotency._effects.writes import KINDS


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent:
    """An event that was emitted, on its way to whom it concerns.

    Attributes:
        id: The same at each delivery; who receives an event twice can tell by it.
        key: Events of one key come in order.
        sequence: The number by which they are ordered; events of one transaction and key share it.
        index: The event's location among those.
        event: What was emitted.
    """

    id: str
    key: str
    sequence: int
    index: int
    event: object = field(repr=False)


class Expressions(TypedDict, total=False):
    """What expressions stand for, and what a refusal is to bring.

    Attributes:
        ExpressionAttributeNames: The attribute behind each `#name`.
        ExpressionAttributeValues: The value behind each `:name`, plain or typed.
        ReturnValuesOnConditionCheckFailure: `ALL_OLD` for the item that refused the write.
    """

    ExpressionAttributeNames: Mapping[str, str]
    ExpressionAttributeValues: Mapping[str, object]
    ReturnValuesOnConditionCheckFailure: Literal["ALL_OLD", "NONE"]


class Condition(Expressions, total=False):
    """A write's condition, with what its expressions stand for.

    Attributes:
        ConditionExpression: What must hold of the item that is there, or of the lack of one.
    """

    ConditionExpression: str


@final
class Transaction:
    """Collects writes, in DynamoDB's own parameters, and events; nothing is sent before the block is left.

    Values are plain Python values, or typed as the wire has them: `{"pk": "order-1"}` and
    `{"pk": {"S": "order-1"}}` are the same item. Each method refuses at once what DynamoDB would refuse,
    as far as it can be told then: more than 100 writes or 4 MB, two writes of one item; and a write of the
    execution's own record. What is refused is not collected; the rest stays.

    Raises:
        TransactionError: A write is refused before anything is sent; the message says what to do.
        SerializationError: A value is none that DynamoDB, or for events JSON, can hold.
        TransactionClosedError: The block has ended. It is a `RuntimeError`, too.
    """

    def __init__(self, pending: PendingWrites) -> None:
        self._pending = pending

    def put(self, TableName: str, Item: Mapping[str, object], **more: Unpack[Condition]) -> None:
        """Store a whole item, if the condition holds."""
        self._pending.add("Put", TableName=TableName, Item=Item, **more)

    def update(
        self, TableName: str, Key: Mapping[str, object], UpdateExpression: str, **more: Unpack[Condition]
    ) -> None:
        """Change an item, if the condition holds; without one, it is made where it is not there."""
        self._pending.add("Update", TableName=TableName, Key=Key, UpdateExpression=UpdateExpression, **more)

    def delete(self, TableName: str, Key: Mapping[str, object], **more: Unpack[Condition]) -> None:
        """Delete an item, if the condition holds."""
        self._pending.add("Delete", TableName=TableName, Key=Key, **more)

    def check(
        self, TableName: str, Key: Mapping[str, object], ConditionExpression: str, **more: Unpack[Expressions]
    ) -> None:
        """Write nothing, and insist that a condition holds."""
        self._pending.add(
            "ConditionCheck", TableName=TableName, Key=Key, ConditionExpression=ConditionExpression, **more
        )

    def emit(self, event: object, *, key: str | None = None, sequence: int | None = None) -> None:
        """Write an event, which `store.outbox()` hands out once the transaction is applied.

        Events of one key and transaction are one write, however many.

        Args:
            event: What the store's codec can write.
            key: Events of one key come in order; the record's own key where none is given.
            sequence: The location of this transaction's events among those of the key: 0 or more. Give the
                new version of the entity where several executions write events of one; else it is the
                call's fencing token, which goes by clocks.
        """
        self._pending.emit(event, key=key, sequence=sequence)

    def __len__(self) -> int:
        return len(self._pending)

    def __repr__(self) -> str:
        return repr(self._pending)


Writes = Iterable[Mapping[str, Mapping[str, Any]]] | Callable[[Transaction], None]
"""A call's writes: actions as the wire has them, `[{"Put": {...}}, ...]`, or a function that is given a `Transaction`."""


def fill(pending: PendingWrites, writes: Writes) -> None:
    """Collect writes that are given as a whole."""
    transaction = Transaction(pending)
    if callable(writes):
        awaitable: object = writes(transaction)  # of a coroutine function, if one is given
        if awaitable is not None:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise effects.refused(
                "a function that writes is called in line, and not awaited; give a plain one, or a list"
            )
        return
    for action in writes:
        _add_action(transaction, action)


def _add_action(transaction: Transaction, action: Mapping[str, Mapping[str, object]]) -> None:
    """Add an action as the wire has it: `{"Put": {...}}`."""
    kinds = ", ".join(KINDS)
    if not isinstance(action, Mapping) or len(action) != 1 or (kind := next(iter(action))) not in KINDS:
        raise effects.refused(f'a write is a mapping with one of {kinds}, as in {{"Put": {{"TableName": ...}}}}')
    method: Callable[..., None] = getattr(transaction, KINDS[kind])
    try:
        method(**action[kind])
    except TypeError:
        raise effects.refused(f"{kind} lacks a parameter: {', '.join(effects.REQUIRED[kind])}") from None
