"""Tables: made with the right key and TTL, their keys read, and their items counted."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from aioidempotency._core.model import Item, Table
from aioidempotency.exceptions import ConfigurationError


async def create(client: Any, table: Table) -> None:
    """Create the table unless it is there, wait until it can be used, and check its key and TTL."""
    with suppress(client.exceptions.ResourceInUseException):
        await client.create_table(**_table_definition(table))
    await client.get_waiter("table_exists").wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 100})
    _check_key((await client.describe_table(TableName=table.name))["Table"], table)
    await _turn_on_ttl(client, table)


async def key_of(client: Any, table_name: str) -> frozenset[str]:
    """Read the names of a table's key attributes."""
    described = await client.describe_table(TableName=table_name)
    return frozenset(key["AttributeName"] for key in described["Table"]["KeySchema"])


async def count(
    client: Any, table: Table, partition: str, *, now: float, after: Item | None
) -> tuple[int, Item | None]:
    """Count the records of one partition that have not expired, on one page; and say after which item to go on.

    A page is what DynamoDB reads at once, 1 MB, and costs its read units. The layout item does not expire, and
    does not count.
    """
    parameters: dict[str, Any] = {
        "TableName": table.name,
        "Select": "COUNT",
        "KeyConditionExpression": "#key = :key",
        "FilterExpression": "#expiration >= :now",
        "ExpressionAttributeNames": {"#key": table.names["key"], "#expiration": table.names["expiration"]},
        "ExpressionAttributeValues": {":key": {"S": partition}, ":now": {"N": str(int(now))}},
    }
    page = await client.query(**parameters, **({} if after is None else {"ExclusiveStartKey": after}))
    return int(page["Count"]), page.get("LastEvaluatedKey") or None


def _table_definition(table: Table) -> dict[str, Any]:
    keys = [(table.partition_attribute, "HASH")]
    if table.sort_attribute is not None:
        keys.append((table.sort_attribute, "RANGE"))
    return {
        "TableName": table.name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
        "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys],
    }


def _check_key(description: Mapping[str, Any], table: Table) -> None:
    kinds = {each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]}
    wanted = _table_definition(table)["KeySchema"]
    if description["KeySchema"] == wanted and all(kinds[key["AttributeName"]] == "S" for key in wanted):
        return
    keys = [(key["AttributeName"], key["KeyType"], kinds[key["AttributeName"]]) for key in description["KeySchema"]]
    found = ", ".join(f"{name} ({kind}, {letter})" for name, kind, letter in keys)
    raise ConfigurationError(
        f"table {table.name!r} exists with another key: {found}; give layout= that key, or take another table_name"
    )


async def _has_ttl(client: Any, table: Table) -> bool:
    """Tell whether the table's TTL is on, by the right attribute."""
    found = (await client.describe_time_to_live(TableName=table.name)).get("TimeToLiveDescription", {})
    on = found.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}
    if on and (attribute := found.get("AttributeName")) != table.attributes.expiration:
        raise ConfigurationError(
            f"table {table.name!r} deletes items by {attribute!r}; its TTL must be on {table.attributes.expiration!r}"
        )
    return on


async def _turn_on_ttl(client: Any, table: Table) -> None:
    if await _has_ttl(client, table):
        return
    try:
        await client.update_time_to_live(
            TableName=table.name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": table.attributes.expiration},
        )
    except ClientError:
        # Another process may have turned it on meanwhile, which DynamoDB refuses as invalid.
        if not await _has_ttl(client, table):
            raise
