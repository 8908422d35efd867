"""Two bare calls of aiobotocore: what an execution would cost if the library cost nothing.

They send what the library sends, to the byte but for the values, and read nothing of the answers but
that a duplicate was refused.
"""

import json
import os
import socket
import time
from contextlib import AsyncExitStack
from typing import Any, Final, final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from aioidempotency.backends.dynamodb.client import tuned as tuned_as_ours
from bench.speed.calls import Gate
from bench.speed.jobs import RESULT, TABLE

_PREFIX: Final = "bench.speed.ours.Decorated.__init__.<locals>.charge#"
_DIGEST: Final = 64
_OWNER: Final = "0123456789abcdef" * 2
_CLAIMED_BY: Final = f"{socket.gethostname()} {os.getpid()}"
_TIME_LIMIT: Final = 10.0


@final
class TwoCalls:
    """A put if absent, and an update if owned."""

    def __init__(self, client: Any, resources: AsyncExitStack) -> None:
        self.bodies = 0
        self.gate: Gate | None = None
        self._client = client
        self._resources = resources

    async def call(self, key: str) -> object:
        """Send both, or read from the first one's refusal what the second one wrote."""
        location = {"S": (_PREFIX + key.rjust(_DIGEST, "0"))}
        now = time.time()
        try:
            await self._client.put_item(**put(location, now))
        except ClientError as error:
            return json.loads(error.response["Item"]["data"]["S"])
        result = await self.body()
        await self._client.update_item(**update(location, now, json.dumps(result, separators=(",", ":"))))
        return result

    async def body(self) -> object:
        """Answer, at the gate if there is one."""
        self.bodies += 1
        if self.gate is not None:
            await self.gate.wait()
        return RESULT

    async def aclose(self) -> None:
        """Close the client."""
        await self._resources.aclose()


def put(location: dict[str, str], now: float) -> dict[str, Any]:
    """Write the parameters of a claim."""
    return {
        "TableName": TABLE,
        "Item": {
            "id": location,
            "status": {"S": "INPROGRESS"},
            "in_progress_expiration": {"N": str(round((now + 60) * 1000))},
            "expiration": {"N": str(int(now + 3600))},
            "owner": {"S": _OWNER},
            "fencing_token": {"N": str(round(now * 1000))},
            "claimed_by": {"S": _CLAIMED_BY},
        },
        "ConditionExpression": "attribute_not_exists(#key)",
        "ExpressionAttributeNames": {"#key": "id"},
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


def update(location: dict[str, str], now: float, data: str) -> dict[str, Any]:
    """Write the parameters of a completion."""
    return {
        "TableName": TABLE,
        "Key": {"id": location},
        "UpdateExpression": "SET #status = :new_status, #expiration = :new_expiration, #data = :new_data",
        "ConditionExpression": "#owner = :owner AND #status = :status",
        "ExpressionAttributeNames": {
            "#owner": "owner",
            "#status": "status",
            "#expiration": "expiration",
            "#data": "data",
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        "ExpressionAttributeValues": {
            ":owner": {"S": _OWNER},
            ":status": {"S": "INPROGRESS"},
            ":new_status": {"S": "COMPLETED"},
            ":new_expiration": {"N": str(int(now + 3600))},
            ":new_data": {"S": data},
        },
    }


async def tuned(url: str) -> TwoCalls:
    """Open a client with the configuration that the library gives its own."""
    return await _opened(url, tuned_as_ours(_TIME_LIMIT))


async def default(url: str) -> TwoCalls:
    """Open a client as aiobotocore makes it."""
    return await _opened(url, None)


async def _opened(url: str, config: AioConfig | None) -> TwoCalls:
    resources = AsyncExitStack()
    creating = get_session().create_client("dynamodb", endpoint_url=url, config=config)
    return TwoCalls(await resources.enter_async_context(creating), resources)
