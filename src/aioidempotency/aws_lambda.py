"""Coroutine handlers on AWS Lambda, and batches of events whose records run once each.

```python
from aioidempotency import AsyncIdempotencyStore, idempotent
from aioidempotency.aws_lambda import lambda_handler

store = AsyncIdempotencyStore.in_memory()  # in production: AsyncIdempotencyStore("table")

@lambda_handler
@idempotent(store, key="event.id")
async def handler(event: dict, context: object) -> dict:
    return {"handled": event["id"]}
```

`lambda_handler` comes first, above every decorator of this library: Lambda calls plain functions.
"""

from aioidempotency._aws_lambda.adapter import lambda_handler
from aioidempotency._aws_lambda.batches import BatchHandler, BatchOptions, sqs_batch, stream_batch
from aioidempotency._aws_lambda.facts import BatchItemFailure, BatchResponse

__all__ = [
    "BatchHandler",
    "BatchItemFailure",
    "BatchOptions",
    "BatchResponse",
    "lambda_handler",
    "sqs_batch",
    "stream_batch",
]
