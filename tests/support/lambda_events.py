"""Events and contexts of Lambda, as the service makes them."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any, final

QUEUE = "arn:aws:sqs:eu-central-1:123456789012:orders"


@final
class Context:
    """Lambda's context with a fixed remaining time, or with one that ends at an instant."""

    def __init__(self, seconds: float = 30.0, *, request_id: str = "request-1", standing: bool = True) -> None:
        self.aws_request_id = request_id
        self.function_name = "charges"
        self._seconds = seconds
        self._ends = None if standing else time.time() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Tell the remaining time."""
        return int(1000 * (self._seconds if self._ends is None else max(0.0, self._ends - time.time())))


def message(message_id: str, body: object = None, *, group: str | None = None, fifo: bool = False) -> dict[str, Any]:
    """Make a message of SQS, with what changes at each delivery."""
    attributes = {"ApproximateReceiveCount": "1", "SentTimestamp": "1800000000000"}
    return {
        "messageId": message_id,
        "receiptHandle": f"receipt-{time.monotonic_ns()}",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": attributes | ({"MessageGroupId": group} if group is not None else {}),
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": QUEUE + (".fifo" if fifo else ""),
        "awsRegion": "eu-central-1",
    }


def kinesis_record(number: int, data: object = None) -> dict[str, Any]:
    """Make a record of a Kinesis stream."""
    sequence = f"4957{number:052}"
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "shop",
            "sequenceNumber": sequence,
            "data": base64.b64encode(json.dumps(data).encode()).decode(),
            "approximateArrivalTimestamp": 1_800_000_000.0,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{sequence}",
        "eventName": "aws:kinesis:record",
        "awsRegion": "eu-central-1",
        "eventSourceARN": "arn:aws:kinesis:eu-central-1:123456789012:stream/orders",
    }


def change(number: int, order_id: str = "order") -> dict[str, Any]:
    """Make a record of a DynamoDB stream."""
    return {
        "eventID": f"c4ca4238a0b923820dcc509a6f7584{number:02}",
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-central-1",
        "dynamodb": {
            "Keys": {"id": {"S": order_id}},
            "SequenceNumber": f"{4421584500000000017450439000 + number}",
            "SizeBytes": 26,
            "StreamViewType": "NEW_IMAGE",
        },
        "eventSourceARN": "arn:aws:dynamodb:eu-central-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000",
    }


def event(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Make an event of records."""
    return {"Records": list(records)}


def failures(response: Mapping[str, Any]) -> list[str]:
    """Read the names of the records that failed, in the order of the answer."""
    assert list(response) == ["batchItemFailures"]
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]
