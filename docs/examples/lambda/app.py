"""Charges each order of a queue once."""

import json
import os

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.aws_lambda import lambda_handler, sqs_batch

store = AsyncIdempotencyStore(os.environ["TABLE"])


@lambda_handler
@sqs_batch(store, key="powertools_json(record.body).order_id")
async def handler(record: dict[str, str]) -> None:
    """Charge one order. A message that comes again is not charged again."""
    order = json.loads(record["body"])
    print("charging", order["order_id"])
