"""A cold start: a fresh process that imports what it needs, and makes one call.

    python -m bench.speed.cold NAME URL

It prints the processor time of its whole life in seconds. Nothing is imported before it is known for whom.
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
            await charge(_key())

    asyncio.run(main())


def bare_default(url: str) -> None:
    """Send the same two requests by a client of aiobotocore."""
    import asyncio

    from aiobotocore.session import get_session

    async def main() -> None:
        async with get_session().create_client("dynamodb", endpoint_url=url) as client:
            location = {"id": {"S": f"bench.speed.cold.plain.<locals>.charge#{_key():0>64}"}}
            await client.put_item(
                TableName="bench",
                Item={
                    **location,
                    "status": {"S": "INPROGRESS"},
                    "in_progress_expiration": {"N": "4102444800000"},
                    "expiration": {"N": "4102444800"},
                    "owner": {"S": "23a2c3d9382164cfed661ee695bc9990"},
                    "fencing_token": {"N": "1795985522666"},
                },
                ConditionExpression="attribute_not_exists(#key)",
                ExpressionAttributeNames={"#key": "id"},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
            await client.update_item(
                TableName="bench",
                Key=location,
                UpdateExpression="SET #status = :new_status, #expiration = :new_expiration, #data = :new_data",
                ConditionExpression="#owner = :owner AND #status = :status",
                ExpressionAttributeNames={
                    "#owner": "owner",
                    "#status": "status",
                    "#expiration": "expiration",
                    "#data": "data",
                },
                ExpressionAttributeValues={
                    ":owner": {"S": "23a2c3d9382164cfed661ee695bc9990"},
                    ":status": {"S": "INPROGRESS"},
                    ":new_status": {"S": "COMPLETED"},
                    ":new_expiration": {"N": "4102444800"},
                    ":new_data": {"S": '{"receipt":"r-1"}'},
                },
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )

    asyncio.run(main())


def powertools(url: str) -> None:
    """Call a function that Powertools makes idempotent."""
    import boto3
    from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, idempotent_function

    layer = DynamoDBPersistenceLayer("bench", boto3_client=boto3.client("dynamodb", endpoint_url=url))

    @idempotent_function(data_keyword_argument="order", persistence_store=layer)  # type: ignore[untyped-decorator]
    def charge(order: str) -> dict[str, str]:  # noqa: ARG001 - it is the key
        return {"receipt": "r-1"}

    charge(order=_key())


def _key() -> str:
    return f"{time.time_ns()}"


if __name__ == "__main__":
    {"plain": plain, "bare-default": bare_default, "powertools": powertools}[sys.argv[1]](sys.argv[2])
    seconds = time.process_time()
    from bench.speed.jobs import peak

    print(f'{{"processor": {seconds}, "peak_bytes": {peak()}}}')  # noqa: T201 - the answer
