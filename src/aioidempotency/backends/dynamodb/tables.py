"""Tables: their creation, keys and TTL, and counts of their items."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from botocore.exceptions import ClientError

from aioidempotency._core.model import Item, Table
from aioidempotency.backends.dynamodb import errors
from aioidempotency.backends.dynamodb.answers import checked
from aioidempotency.backends.dynamodb.early import sending
from aioidempotency.exceptions import ConfigurationError


async def create(client: Any, table: Table) -> bool:
    """Create the table unless it exists, wait until the table is usable, and check key and TTL.

    Returns:
        Whether the table has a TTL. Some engines have none, and are of use all the same: every reader compares the
        time itself.
    """
    client = await sending(client)
    with suppress(client.exceptions.ResourceInUseException):
        checked(await client.create_table(**_table_definition(table)))
    # A second process may have begun the creation, so the wait comes also after `ResourceInUseException`.
    await client.get_waiter("table_exists").wait(TableName=table.name, WaiterConfig={"Delay": 1, "MaxAttempts": 100})
    _check_key(checked(await client.describe_table(TableName=table.name))["Table"], table)
    try:
        await _turn_on_ttl(client, table)
    except ClientError as error:
        if not errors.is_unknown(error):
            raise
        return False
    return True


async def key_of(client: Any, table_name: str) -> frozenset[str]:
    """Read the names of a table's key attributes."""
    client = await sending(client)
    described = checked(await client.describe_table(TableName=table_name))
    return frozenset(key["AttributeName"] for key in described["Table"]["KeySchema"])


async def count(
    client: Any, table: Table, partition: str, *, now: float, after: Item | None
) -> tuple[int, Item | None]:
    """Count the unexpired records on one page of a partition. Return the last item's key, None after the last page.

    A page is one read of DynamoDB, up to 1 MB, and costs the read units of all items on the page. The layout item
    has no expiration, and is not counted.
    """
    client = await sending(client)
    page = checked(await client.query(**_unexpired(table, partition, now, after), Select="COUNT"))
    return int(page["Count"]), page.get("LastEvaluatedKey") or None


async def keys(
    client: Any, table: Table, partition: str, *, now: float, after: Item | None
) -> tuple[list[str], Item | None]:
    """List the sort keys of the unexpired records on one page of a partition, as `count` counts the records."""
    parameters = _unexpired(table, partition, now, after)
    parameters["ExpressionAttributeNames"]["#sort"] = table.sort_attribute
    client = await sending(client)
    page = checked(await client.query(**parameters, ProjectionExpression="#sort"))
    return [str(item[table.sort_attribute]["S"]) for item in page["Items"]], page.get("LastEvaluatedKey") or None


def _unexpired(table: Table, partition: str, now: float, after: Item | None) -> dict[str, Any]:
    return {
        "TableName": table.name,
        "KeyConditionExpression": "#key = :key",
        "FilterExpression": "#expiration >= :now",
        "ExpressionAttributeNames": {"#key": table.names["key"], "#expiration": table.names["expiration"]},
        "ExpressionAttributeValues": {":key": {"S": partition}, ":now": {"N": str(int(now))}},
        **({} if after is None else {"ExclusiveStartKey": after}),
    }


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
    """Tell whether the table has a TTL on the right attribute."""
    # A TTL on another attribute would delete live records, or none ever.
    found = checked(await client.describe_time_to_live(TableName=table.name)).get("TimeToLiveDescription", {})
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
        turned_on = await client.update_time_to_live(
            TableName=table.name,
            TimeToLiveSpecification={"Enabled": True, "AttributeName": table.attributes.expiration},
        )
    except ClientError:
        # DynamoDB refuses a second activation as invalid, and another process may have been faster.
        if not await _has_ttl(client, table):
            raise
    else:
        checked(turned_on)
