"""The caller's own writes to DynamoDB, committed together with a call's result.

`execution.transaction` is a `Transaction`: it collects, and sends nothing. Leaving the block sends one
`TransactWriteItems` with all that was collected and the completion of the record: all of it is applied, or
none. `AsyncIdempotencyStore.commit_once` does the same for a call that needs no claim.
"""

from aioidempotency._effects.transaction import Condition, Expressions, OutboxEvent, Transaction, Writes
from aioidempotency.exceptions import Reason, TransactionClosedError

__all__ = ["Condition", "Expressions", "OutboxEvent", "Reason", "Transaction", "TransactionClosedError", "Writes"]
