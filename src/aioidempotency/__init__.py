"""Idempotent coroutine handlers on DynamoDB.

```python
from aioidempotency import AsyncIdempotencyStore, idempotent

store = AsyncIdempotencyStore.in_memory()  # in production: AsyncIdempotencyStore("table")

@idempotent(store, key="order_id")
async def charge(order_id: str) -> str:
    return f"receipt for {order_id}"

print(await charge("1"))
```
"""

from typing import TYPE_CHECKING

from aioidempotency._call import Execution
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import AttributeNames, Lease, Record, Status
from aioidempotency._decorator import idempotent
from aioidempotency._lease import deadline
from aioidempotency._namespaces import namespace_of
from aioidempotency._options import Wait
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency._version import __version__ as __version__
from aioidempotency.backends import Backend
from aioidempotency.backends.dynamodb.arguments import GroupCommit
from aioidempotency.backends.memory import MemoryBackend
from aioidempotency.codecs import Codec, JsonCodec
from aioidempotency.exceptions import (
    ConfigurationError,
    IdempotencyError,
    InProgressError,
    LayoutMismatchError,
    LeaseLostError,
    MismatchError,
    MissingKeyError,
    PartitioningError,
    ResultUnavailableError,
    SerializationError,
    StoreError,
    TransactionError,
)
from aioidempotency.partitioning import (
    CompositeKey,
    CustomPartition,
    HashBuckets,
    RandomBuckets,
    Reshard,
    SimpleKey,
    Static,
    TimeBuckets,
)

if TYPE_CHECKING:
    from aioidempotency.backends.dynamodb import DynamoDBBackend
else:  # unseen by type checkers, which would take any name for one of this module

    def __getattr__(name: str) -> object:
        """Load what needs botocore at its first use."""
        if name != "DynamoDBBackend":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from aioidempotency.backends import dynamodb  # noqa: PLC0415 - see above

        found = globals()[name] = dynamodb.DynamoDBBackend  # only once
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = [
    "AsyncIdempotencyStore",
    "AttributeNames",
    "Backend",
    "Claimed",
    "Codec",
    "CompositeKey",
    "ConfigurationError",
    "CustomPartition",
    "Decision",
    "DynamoDBBackend",
    "Execution",
    "GroupCommit",
    "HashBuckets",
    "IdempotencyError",
    "InProgress",
    "InProgressError",
    "JsonCodec",
    "LayoutMismatchError",
    "Lease",
    "LeaseLostError",
    "MemoryBackend",
    "Mismatch",
    "MismatchError",
    "MissingKeyError",
    "PartitioningError",
    "RandomBuckets",
    "Record",
    "Replay",
    "Reshard",
    "ResultUnavailableError",
    "SerializationError",
    "SimpleKey",
    "Static",
    "Status",
    "StoreError",
    "TimeBuckets",
    "TransactionError",
    "Wait",
    "deadline",
    "idempotent",
    "namespace_of",
]
