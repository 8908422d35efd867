"""A shop: stores with idempotent handlers, and tables of the shop's own that the handlers write."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, final

import pytest
from aiobotocore.session import AioSession

from aioidempotency import CompositeKey
from aioidempotency import _attributes as attributes
from tests.behaviours.conftest import Proxied, backend, behind_proxy, counted
from tests.conftest import MakeStore
from tests.support.engines import Engine, client_options
from tests.support.proxy import FaultProxy, Seen

__all__ = ["backend", "counted"]


@final
@dataclass(frozen=True, slots=True)
class Shop:
    """Stores behind a proxy, and a table with the key `pk`, which is looked at past the proxy."""

    proxied: Proxied
    client: Any
    table: str

    @property
    def make_store(self) -> MakeStore:
        return self.proxied.make_store

    @property
    def proxy(self) -> FaultProxy:
        return self.proxied.proxy

    async def items(self) -> dict[str, dict[str, object]]:
        """Read the shop's own table, by `pk`."""
        return await items_of(self.client, self.table)

    async def put(self, pk: str, **item: object) -> None:
        """Write the shop's own table, past the library."""
        await self.client.put_item(TableName=self.table, Item=attributes.item({"pk": pk, **item}, "x"))

    def sent(self, operation: str = "TransactWriteItems") -> list[Seen]:
        """Tell what was sent through the proxy."""
        return self.proxied.since(0, operation)


async def items_of(client: Any, table: str) -> dict[str, dict[str, object]]:
    """Read a whole table with the key `pk`, by that."""
    found = await client.scan(TableName=table, ConsistentRead=True)
    assert "LastEvaluatedKey" not in found
    read = [attributes.read_item(item) for item in found["Items"]]
    return {str(item.pop("pk")): item for item in read}


async def make_table(client: Any, **keys: str) -> str:
    """Make a table whose key attributes are of these types, the partition key first."""
    name = f"shop-{secrets.token_hex(6)}"
    await client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": kind} for key, kind in keys.items()],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)],
    )
    return name


@asynccontextmanager
async def shop_on(engine: Engine, session: AioSession, options: Mapping[str, Any]) -> AsyncIterator[Shop]:
    given = {name: value for name, value in client_options(engine).items() if not name.startswith("aws_")}
    async with (
        session.create_client("dynamodb", **given) as client,
        behind_proxy(engine, session, **options) as reached,
    ):
        table = await make_table(client, pk="S")
        yield Shop(reached, client, table)


@pytest.fixture
async def shop(engine: Engine, session: AioSession) -> AsyncIterator[Shop]:
    """On each engine: with tokens, and without."""
    async with shop_on(engine, session, {"layout": CompositeKey()}) as made:
        yield made


@pytest.fixture
async def simple_shop(ministack: Engine, session: AioSession) -> AsyncIterator[Shop]:
    """One whose table of records has no sort key."""
    async with shop_on(ministack, session, {}) as made:
        yield made
