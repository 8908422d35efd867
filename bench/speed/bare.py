"""Two bare calls: what an execution would cost if the library cost nothing, by aiobotocore or by the lean transport.

They send the library's own requests, which a call of the library is asked for once; of those only the key changes.
They read nothing of the answers but that a duplicate was refused.
"""

import json
from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.backends.dynamodb.client import OwnClients
from aioidempotency.backends.dynamodb.configuration import tuned as tuned_as_ours
from bench.speed.calls import Calls
from bench.speed.jobs import TABLE
from bench.speed.ours import Decorated

_DIGEST: Final = 64
"""Characters of a key's digest, at the end of the item's key."""

_TIME_LIMIT: Final = 10.0
_PATIENT: Final = AioConfig(connect_timeout=_TIME_LIMIT, read_timeout=_TIME_LIMIT)
"""Time for 256 handshakes at once on a busy machine. A request costs the same with it."""


@final
class Recording:
    """A client that answers everything with success, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, dict[str, Any]] = {}

    def __getattr__(self, method: str) -> Any:
        async def answer(**parameters: Any) -> Mapping[str, Any]:
            self.asked[method] = parameters
            return {}

        return answer


@final
class TwoCalls(Calls):
    """A put if absent, and an update if owned."""

    def __init__(self, client: Any, resources: AsyncExitStack, asked: Mapping[str, dict[str, Any]]) -> None:
        super().__init__()
        self._client = client
        self._resources = resources
        self._put, self._update = asked["put_item"], asked["update_item"]

    async def call(self, key: str) -> object:
        """Send both, or read from the first one's refusal what the second one wrote."""
        place = {"id": {"S": location(self._put["Item"]["id"]["S"], key)}}
        try:
            await self._client.put_item(**{**self._put, "Item": {**self._put["Item"], **place}})
        except ClientError as error:
            return json.loads(error.response["Item"]["data"]["S"])
        result = await self.body()
        values = self._update["ExpressionAttributeValues"]
        values = {**values, ":new_data": {"S": json.dumps(result, separators=(",", ":"))}}
        await self._client.update_item(**{**self._update, "Key": place, "ExpressionAttributeValues": values})
        return result

    async def aclose(self) -> None:
        """Close the client."""
        await self._resources.aclose()


def location(one: str, key: str) -> str:
    """Put a key where the location of another one has its digest."""
    return one[:-_DIGEST] + key.rjust(_DIGEST, "0")


async def tuned(url: str, config: AioConfig = _PATIENT) -> TwoCalls:
    """Open a client with the configuration that the library gives its own, and another one over it."""
    return await _opened(url, tuned_as_ours(_TIME_LIMIT).merge(config))


async def default(url: str) -> TwoCalls:
    """Open a client as aiobotocore makes it."""
    return await _opened(url, None)


@final
class LeanClient:
    """The lean transport, asked as a client is."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def put_item(self, **parameters: Any) -> Awaitable[Any]:
        """Send PutItem."""
        sending: Awaitable[Any] = self._transport.send("PutItem", parameters)
        return sending

    def update_item(self, **parameters: Any) -> Awaitable[Any]:
        """Send UpdateItem."""
        sending: Awaitable[Any] = self._transport.send("UpdateItem", parameters)
        return sending


async def lean(url: str, config: AioConfig | None = None) -> TwoCalls:
    """Open the transport that the library sends by, without the library."""
    options: dict[str, Any] = {"endpoint_url": url, "region_name": None, "time_limit": _TIME_LIMIT}
    clients = OwnClients(get_session(), config, **options, transport="lean", fell_back=lambda _: None)
    resources = AsyncExitStack()
    resources.push_async_callback(clients.aclose)
    return TwoCalls(LeanClient(await clients.open()), resources, await recorded())


async def _opened(url: str, config: AioConfig | None) -> TwoCalls:
    resources = AsyncExitStack()
    creating = get_session().create_client("dynamodb", endpoint_url=url, config=config)
    return TwoCalls(await resources.enter_async_context(creating), resources, await recorded())


async def recorded() -> dict[str, dict[str, Any]]:
    """Ask the library for the two requests of a fresh call."""
    recording = Recording()
    await Decorated(AsyncIdempotencyStore(TABLE, client=recording)).call("key")
    return recording.asked
