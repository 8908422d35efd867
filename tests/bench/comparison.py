"""Two engines asked the same: what each needs, and how answers are compared."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from aiobotocore.config import AioConfig

ONCE = AioConfig(retries={"total_max_attempts": 1})


async def create(client: Any, table: str) -> None:
    """Make a table with the key `id`."""
    await client.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


async def everything(client: Any, table: str) -> object:
    """Read all items of a table, in an order that both engines give."""
    items = (await client.scan(TableName=table, ConsistentRead=True))["Items"]
    return sorted((by_value(item) for item in items), key=repr)


def by_value(item: Mapping[str, Any] | None) -> object:
    """Compare numbers by value, whatever their digits."""
    if item is None:
        return None
    return sorted(
        (name, kind, Decimal(content) if kind == "N" else content)
        for name, value in item.items()
        for kind, content in value.items()
    )
