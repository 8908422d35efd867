"""The caller's own writes to DynamoDB, committed together with a call's result.

`execution.transaction` is a `Transaction`. A `Transaction` collects writes, and sends none. The end of the block sends
one `TransactWriteItems` with all collected writes and the completion of the record: DynamoDB applies all of them,
or none. `AsyncIdempotencyStore.commit_once` does the same for a call without a claim.
"""

from aioidempotency._effects.transaction import Condition, Expressions, OutboxEvent, Transaction, Writes
from aioidempotency.exceptions import Reason, TransactionClosedError

__all__ = ["Condition", "Expressions", "OutboxEvent", "Reason", "Transaction", "TransactionClosedError", "Writes"]
