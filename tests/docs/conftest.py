"""An environment in which examples reach a DynamoDB, without a setting of their own."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from aiobotocore.session import AioSession

from tests.conftest import store_options
from tests.support.engines import Engine


@pytest.fixture
def amazon(ministack: Engine, session: AioSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment in which an example that names nothing but its table reaches a DynamoDB."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "AWS_ENDPOINT_URL_DYNAMODB": ministack.endpoint_url,
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    # The examples' usual table, which a test of another module may have left with another key.
    before = asyncio.run(_tables(store_options(ministack, session))) - {"orders"}
    asyncio.run(_drop_tables(store_options(ministack, session), kept=before))
    yield
    # The engine serves all tests of this process; each of these tests begins without the tables of the one before.
    asyncio.run(_drop_tables(store_options(ministack, session), kept=before))


@pytest.fixture
def shop(amazon: None, ministack: Engine, session: AioSession) -> None:
    """A caller's own table, whose key is the text "pk"."""
    asyncio.run(_create_shop(store_options(ministack, session)))


async def _create_shop(options: dict[str, Any]) -> None:
    async with options.pop("session").create_client("dynamodb", **options) as client:
        await client.create_table(
            TableName="shop",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        )
        await client.get_waiter("table_exists").wait(TableName="shop")


async def _drop_tables(options: dict[str, Any], *, kept: set[str]) -> None:
    made = await _tables(dict(options)) - kept
    async with options.pop("session").create_client("dynamodb", **options) as client:
        for table in made:
            await client.delete_table(TableName=table)


async def _tables(options: dict[str, Any]) -> set[str]:
    async with options.pop("session").create_client("dynamodb", **options) as client:
        pages = client.get_paginator("list_tables").paginate()
        return {name async for page in pages for name in page["TableNames"]}
