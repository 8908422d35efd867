"""`Transaction`, which collects a body's writes, and the types of the writes."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, Unpack, final

from aioidempotency._effects import writes as effects
from aioidempotency._effects.pending import PendingWrites
from aioidempotency._effects.writes import KINDS


class _Delivery:
    """The outcome of a delivery, beside the fields of the event: not compared, not shown, not copied."""

    __slots__ = ("_error",)
    _error: Exception | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEvent(_Delivery):
    """An emitted event, as `store.outbox()` yields it.

    Attributes:
        id: The same at each delivery, so a receiver recognises a duplicate.
        key: The events of one key come in order.
        sequence: The order of the key's events. All events of one transaction and key share the number.
        index: The event's index within the transaction and key.
        event: The emitted value.
    """

    id: str
    key: str = field(repr=False)
    sequence: int
    index: int
    event: object = field(repr=False)

    def failed(self, error: Exception) -> None:
        """Tell the relay that this event could not be published.

        The event stays, and holds up the later events of its key; the loop goes on with the other keys.
        """
        object.__setattr__(self, "_error", error)

    @property
    def error(self) -> Exception | None:
        """The error given to `failed`. None as long as the delivery has not failed."""
        return getattr(self, "_error", None)


class Expressions(TypedDict, total=False):
    """The placeholders of expressions, and the item in a refusal.

    Attributes:
        ExpressionAttributeNames: The attribute for each `#name`.
        ExpressionAttributeValues: The value for each `:name`, plain or typed.
        ReturnValuesOnConditionCheckFailure: `ALL_OLD` returns the existing item with a refusal.
    """

    ExpressionAttributeNames: Mapping[str, str]
    ExpressionAttributeValues: Mapping[str, object]
    ReturnValuesOnConditionCheckFailure: Literal["ALL_OLD", "NONE"]


class Condition(Expressions, total=False):
    """A write's condition and placeholders.

    Attributes:
        ConditionExpression: A condition on the existing item, or on the absence of one.
    """

    ConditionExpression: str


@final
class Transaction:
    """Collects writes, with DynamoDB's own parameters, and events. The end of the block sends all of them.

    ```python
    from aioidempotency import AsyncIdempotencyStore

    async with AsyncIdempotencyStore("idempotency") as store:
        await store.create_table()
        async with store.execute("order-1") as execution:  # "shop" is a table with the key "pk"
            order = {"pk": "order-1", "cents": 4200}
            execution.transaction.put("shop", order, ConditionExpression="attribute_not_exists(pk)")
            execution.complete("ordered")
    ```

    Values are plain Python values, or typed as in DynamoDB's wire format: `{"pk": "order-1"}` and
    `{"pk": {"S": "order-1"}}` are the same item. Each method refuses at once a write that DynamoDB would refuse, as far
    as known at that moment: more than 100 writes or 4 MB, two writes of one item, a write of the execution's own
    record. A refused write is not collected; the earlier ones stay.

    Raises:
        TransactionError: A write is refused before anything is sent. The message has advice.
        SerializationError: A value does not fit DynamoDB; an event does not fit JSON.
        TransactionClosedError: The block has ended. Also a `RuntimeError`.
    """

    def __init__(self, pending: PendingWrites) -> None:
        self._pending = pending

    # The parameters have DynamoDB's names, so that an existing call of `put_item` moves here unchanged.
    def put(self, TableName: str, Item: Mapping[str, object], **more: Unpack[Condition]) -> None:
        """Store a whole item, if the condition holds."""
        self._pending.add("Put", TableName=TableName, Item=Item, **more)

    def update(
        self, TableName: str, Key: Mapping[str, object], UpdateExpression: str, **more: Unpack[Condition]
    ) -> None:
        """Change an item, if the condition holds. An absent item is created, unless the condition forbids."""
        self._pending.add("Update", TableName=TableName, Key=Key, UpdateExpression=UpdateExpression, **more)

    def delete(self, TableName: str, Key: Mapping[str, object], **more: Unpack[Condition]) -> None:
        """Delete an item, if the condition holds."""
        self._pending.add("Delete", TableName=TableName, Key=Key, **more)

    def check(
        self, TableName: str, Key: Mapping[str, object], ConditionExpression: str, **more: Unpack[Expressions]
    ) -> None:
        """Write nothing, and insist on a condition."""
        self._pending.add(
            "ConditionCheck", TableName=TableName, Key=Key, ConditionExpression=ConditionExpression, **more
        )

    def emit(self, event: object, *, key: str | None = None, sequence: int | None = None) -> None:
        """Write an event. `store.outbox()` yields the event after the commit.

        All events of one key and transaction are one write.

        Args:
            event: A value that the store's codec can write.
            key: The events of one key come in order. The default is the record's own key.
            sequence: The order of this transaction among the transactions of the key, 0 or more. If several
                executions emit events of one entity, give the entity's new version. The default is the call's
                fencing token, which depends on clocks.
        """
        self._pending.emit(event, key=key, sequence=sequence)

    def __len__(self) -> int:
        return len(self._pending)

    def __repr__(self) -> str:
        return repr(self._pending)


Writes = Iterable[Mapping[str, Mapping[str, Any]]] | Callable[[Transaction], None]
"""A call's writes: actions in DynamoDB's wire format, `[{"Put": {...}}, ...]`, or a function of a `Transaction`."""


def fill(pending: PendingWrites, writes: Writes) -> None:
    """Collect writes given as a whole."""
    transaction = Transaction(pending)
    if callable(writes):
        # A coroutine function returns a coroutine, without a single write. Silence would lose all writes.
        awaitable: object = writes(transaction)
        if awaitable is not None:
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise effects.refused("the function of writes is called, and not awaited; give a plain function, or a list")
        return
    for action in writes:
        _add_action(transaction, action)


def _add_action(transaction: Transaction, action: Mapping[str, Mapping[str, object]]) -> None:
    """Add an action in DynamoDB's wire format: `{"Put": {...}}`."""
    kinds = ", ".join(KINDS)
    if not isinstance(action, Mapping) or len(action) != 1 or (kind := next(iter(action))) not in KINDS:
        raise effects.refused(f'a write is a mapping with one of {kinds}, such as {{"Put": {{"TableName": ...}}}}')
    method: Callable[..., None] = getattr(transaction, KINDS[kind])
    try:
        method(**action[kind])
    # Only the call's own arguments can raise a `TypeError` here: values are checked with errors of their own.
    except TypeError:
        raise effects.refused(f"{kind} lacks a parameter: {', '.join(effects.REQUIRED[kind])}") from None
