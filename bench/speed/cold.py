"""A cold start: a fresh process that imports what it needs, and makes one call.

    python -m bench.speed.cold NAME URL

Its standard input has the requests for the bare calls, see `bare.recorded`, and their table is empty. It prints the
processor time of its whole life in seconds, and its peak memory. Nothing is imported before it is known for whom.
"""

import sys
import time


def command(name: str, url: str) -> list[str]:
    """Say how a process is started."""
    return [sys.executable, "-m", "bench.speed.cold", name, url]


def plain(url: str) -> None:
    """Call a decorated function."""
    import asyncio

    from aioidempotency import AsyncIdempotencyStore, idempotent

    store = AsyncIdempotencyStore("bench", endpoint_url=url)

    @idempotent(store)
    async def charge(order: str) -> dict[str, str]:  # noqa: ARG001 - it is the key
        return {"receipt": "r-1"}

    async def main() -> None:
        async with store:
            await charge("key")

    asyncio.run(main())


def bare_default(url: str) -> None:
    """Send the requests of a fresh call by a client of aiobotocore."""
    import asyncio
    import json

    from aiobotocore.session import get_session

    asked = json.load(sys.stdin)

    async def main() -> None:
        async with get_session().create_client("dynamodb", endpoint_url=url) as client:
            await client.put_item(**asked["put_item"])
            await client.update_item(**asked["update_item"])

    asyncio.run(main())


def powertools(url: str) -> None:
    """Call a function that Powertools makes idempotent."""
    import boto3
    from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, idempotent_function

    layer = DynamoDBPersistenceLayer("bench", boto3_client=boto3.client("dynamodb", endpoint_url=url))

    @idempotent_function(data_keyword_argument="order", persistence_store=layer)  # type: ignore[untyped-decorator]
    def charge(order: str) -> dict[str, str]:  # noqa: ARG001 - it is the key
        return {"receipt": "r-1"}

    charge(order="key")


if __name__ == "__main__":
    {"plain": plain, "bare-default": bare_default, "powertools": powertools}[sys.argv[1]](sys.argv[2])
    seconds = time.process_time()
    from bench.speed.jobs import peak

    print(f'{{"processor": {seconds}, "peak_bytes": {peak()}}}')  # noqa: T201 - the answer
