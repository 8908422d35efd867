"""The handlers that are compared: each answers the same, and is called as Lambda's runtime calls it.

A handler imports what it needs when it is made, so that a cold start costs what it costs in Lambda.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.speed.jobs import RESULT, TABLE

Handler = Callable[[Mapping[str, Any], Any], object]

bodies: list[str] = []
"""The ids of the events whose body ran."""


class Context:
    """As much of Lambda's context as handlers ask for."""

    aws_request_id = "request-1"

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Leave half of a minute."""
        return 30_000


def undecorated(_: str) -> Handler:
    """Make a plain function."""

    def handler(event: Mapping[str, Any], context: Any) -> object:  # noqa: ARG001 - Lambda passes both
        bodies.append(event["id"])
        return RESULT

    return handler


def adapter(_: str) -> Handler:
    """Make a coroutine handler that nothing makes idempotent."""
    from aioidempotency.aws_lambda import lambda_handler  # noqa: PLC0415

    @lambda_handler
    async def handler(event: Mapping[str, Any], context: Any) -> object:  # noqa: ARG001
        bodies.append(event["id"])
        return RESULT

    return handler


def library(url: str) -> Handler:
    """Make an idempotent coroutine handler."""
    from aioidempotency import AsyncIdempotencyStore, idempotent  # noqa: PLC0415
    from aioidempotency.aws_lambda import lambda_handler  # noqa: PLC0415

    @lambda_handler
    @idempotent(AsyncIdempotencyStore(TABLE, endpoint_url=url), key="event.id")
    async def handler(event: Mapping[str, Any], context: Any) -> dict[str, str]:  # noqa: ARG001
        bodies.append(event["id"])
        return RESULT

    return handler


def run_each_time(url: str) -> Handler:
    """Make the bridge that needs no adapter: a loop and a client for each invocation."""
    from aioidempotency import AsyncIdempotencyStore, idempotent  # noqa: PLC0415

    store = AsyncIdempotencyStore(TABLE, endpoint_url=url)

    @idempotent(store, key="event.id")
    async def charge(event: Mapping[str, Any]) -> dict[str, str]:
        bodies.append(event["id"])
        return RESULT

    async def invocation(event: Mapping[str, Any]) -> object:
        async with store:
            return await charge(event)

    return lambda event, context: asyncio.run(invocation(event))  # noqa: ARG005


def powertools(url: str) -> Handler:
    """Make an idempotent plain function of Powertools."""
    import boto3  # noqa: PLC0415
    from aws_lambda_powertools.utilities.idempotency import (  # noqa: PLC0415
        DynamoDBPersistenceLayer,
        IdempotencyConfig,
        idempotent,
    )

    layer = DynamoDBPersistenceLayer(TABLE, boto3_client=boto3.client("dynamodb", endpoint_url=url))

    @idempotent(  # type: ignore[untyped-decorator]
        persistence_store=layer, config=IdempotencyConfig(event_key_jmespath="id")
    )
    def handler(event: Mapping[str, Any], context: Any) -> object:  # noqa: ARG001
        bodies.append(event["id"])
        return RESULT

    return handler  # type: ignore[no-any-return] # Powertools says nothing of it


HANDLERS: Final[dict[str, Callable[[str], Handler]]] = {
    "undecorated": undecorated,
    "adapter alone": adapter,
    "aioidempotency": library,
    "asyncio.run each time": run_each_time,
    "Powertools": powertools,
}
