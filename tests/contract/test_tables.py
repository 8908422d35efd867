"""`create_table`: on demand, with TTL, waited for, and harmless where a table is there already."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.session import AioSession
from aiohttp import web
from aiohttp.test_utils import TestServer

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    CompositeKey,
    ConfigurationError,
    SimpleKey,
    Static,
)
from aioidempotency._core.operations import Found, Operation, Reply
from tests.conftest import store_options
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy

RENAMED = AttributeNames(expiration="ttl")
STATIC = CompositeKey("hash", "order", partitioning=Static("orders"))
TABLES: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({}, ("id HASH", "expiration")),
    ({"layout": SimpleKey("key"), "attributes": RENAMED}, ("key HASH", "ttl")),
    ({"layout": CompositeKey()}, ("pk HASH", "sk RANGE", "expiration")),
    ({"layout": STATIC, "attributes": RENAMED}, ("hash HASH", "order RANGE", "ttl")),
]


@pytest.fixture
async def client(engine: Engine, session: AioSession) -> AsyncIterator[Any]:
    """A plain client, to look at tables with."""
    options = store_options(engine, session)
    async with options.pop("session").create_client("dynamodb", **options) as made:
        yield made


@pytest.fixture
def name() -> str:
    """The name of a table that is not there."""
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
async def store(engine: Engine, session: AioSession, name: str) -> AsyncIterator[AsyncIdempotencyStore]:
    """A store of the usual layout on it."""
    async with make(engine, session, name) as made:
        yield made


def make(engine: Engine, session: AioSession, name: str, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore(name, **{**store_options(engine, session), **options})


async def ttl(client: Any, table_name: str) -> tuple[str, str | None]:
    description = (await client.describe_time_to_live(TableName=table_name))["TimeToLiveDescription"]
    return description["TimeToLiveStatus"], description.get("AttributeName")


async def create(client: Any, table_name: str, *keys: tuple[str, str], kind: str = "S") -> None:
    """Make a table by other means, without TTL."""
    await client.create_table(
        TableName=table_name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, _ in keys],
        KeySchema=[{"AttributeName": name, "KeyType": role} for name, role in keys],
    )


@pytest.mark.parametrize(("options", "described"), TABLES)
async def test_a_new_table_is_on_demand_with_ttl_on_its_expiration(
    engine: Engine, session: AioSession, client: Any, options: dict[str, Any], described: tuple[str, ...]
) -> None:
    """Nobody guesses a capacity, the table deletes what expired, whatever the attributes are called."""
    *key, expiration = described
    name = f"test-{secrets.token_hex(6)}"
    async with make(engine, session, name, **options) as store:
        await store.create_table()
        assert isinstance(await store.claim("invoice-42"), Claimed)
        table = (await client.describe_table(TableName=name))["Table"]
        assert await ttl(client, name) == ("ENABLED", expiration)
    assert [f"{each['AttributeName']} {each['KeyType']}" for each in table["KeySchema"]] == key
    assert {each["AttributeType"] for each in table["AttributeDefinitions"]} == {"S"}
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"


async def test_a_second_creation_is_harmless(engine: Engine, session: AioSession, client: Any, name: str) -> None:
    """Every deployment may create the table: records and TTL stay, and no setting is sent again."""
    async with FaultProxy(engine.endpoint_url) as proxy, make(engine, session, name, endpoint_url=proxy.url) as store:
        await store.create_table()
        claimed = await store.claim("invoice-42")
        await store.create_table()
        record = await store.get("invoice-42")
        assert [seen.operation for seen in proxy.requests].count("UpdateTimeToLive") == 1
        assert await ttl(client, name) == ("ENABLED", "expiration")
    assert isinstance(claimed, Claimed)
    assert record is not None
    assert record.owner == claimed.lease.owner


async def test_two_creations_at_once_are_harmless(engine: Engine, session: AioSession, name: str) -> None:
    """Two nodes start together: one of them makes the table, both can use it."""
    async with make(engine, session, name) as one, make(engine, session, name) as other:
        await asyncio.gather(one.create_table(), other.create_table())
        assert isinstance(await other.claim("invoice-42"), Claimed)


@pytest.mark.parametrize("keys", [[("id", "HASH"), ("sk", "RANGE")], [("key", "HASH")]], ids=["longer", "renamed"])
async def test_a_table_with_another_key_is_refused_and_untouched(
    store: AsyncIdempotencyStore, client: Any, name: str, keys: list[tuple[str, str]]
) -> None:
    """The message says what key the table has; its TTL stays off, for it may hold other things than records."""
    await create(client, name, *keys)
    before = await client.describe_table(TableName=name)
    with pytest.raises(ConfigurationError) as raised:
        await store.create_table()
    assert name in str(raised.value)
    assert ", ".join(f"{attribute} ({role}, S)" for attribute, role in keys) in str(raised.value)
    after = await client.describe_table(TableName=name)
    assert after["Table"] == before["Table"]
    assert (await ttl(client, name))[0] == "DISABLED"


async def test_a_table_whose_key_is_a_number_is_refused(store: AsyncIdempotencyStore, client: Any, name: str) -> None:
    """A key has the name of ours, and every claim would be refused."""
    await create(client, name, ("id", "HASH"), kind="N")
    with pytest.raises(ConfigurationError, match="another key"):
        await store.create_table()


async def test_ttl_is_turned_on_for_a_table_made_by_other_means(
    store: AsyncIdempotencyStore, client: Any, name: str
) -> None:
    """A table that fits is adopted."""
    await create(client, name, ("id", "HASH"))
    await store.create_table()
    assert await ttl(client, name) == ("ENABLED", "expiration")


async def test_ttl_on_another_attribute_is_refused(store: AsyncIdempotencyStore, client: Any, name: str) -> None:
    """Records would stay for ever, or be deleted by a time that is not theirs."""
    await create(client, name, ("id", "HASH"))
    elsewhere = {"Enabled": True, "AttributeName": "created"}
    await client.update_time_to_live(TableName=name, TimeToLiveSpecification=elsewhere)
    with pytest.raises(ConfigurationError, match="created"):
        await store.create_table()


async def test_a_missing_permission_to_create_is_named(engine: Engine, session: AioSession, name: str) -> None:
    """The message names what has to be allowed."""
    async with FaultProxy(engine.endpoint_url) as proxy, make(engine, session, name, endpoint_url=proxy.url) as store:
        proxy.inject(Fault.DENY, operation="CreateTable", times=10)
        with pytest.raises(ConfigurationError, match="dynamodb:CreateTable"):
            await store.create_table()


async def test_a_creation_waits_until_the_table_is_active(session: AioSession) -> None:
    """DynamoDB makes a table in seconds; until then it is CREATING and takes no TTL and no records."""
    async with (
        _slow_table() as (url, operations),
        AsyncIdempotencyStore("orders", session=session, endpoint_url=url, region_name="eu-central-1") as store,
    ):
        await store.create_table()
    creating, active = ("DescribeTable", "CREATING"), ("DescribeTable", "ACTIVE")
    assert operations[:3] == [("CreateTable", "CREATING"), creating, active]
    assert operations[-1] == ("UpdateTimeToLive", "ACTIVE")


@asynccontextmanager
async def _slow_table() -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """An endpoint whose table is CREATING when it is first asked about."""
    operations: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        operation = request.headers["X-Amz-Target"].rpartition(".")[2]
        status = "ACTIVE" if ("DescribeTable", "CREATING") in operations else "CREATING"
        operations.append((operation, status))
        key = [{"AttributeName": "id", "KeyType": "HASH"}]
        attributes = [{"AttributeName": "id", "AttributeType": "S"}]
        table = {"TableStatus": status, "KeySchema": key, "AttributeDefinitions": attributes}
        return web.json_response({"Table": table, "TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}})

    application = web.Application()
    application.router.add_post("/", answer)
    async with TestServer(application) as server:
        yield str(server.make_url("/")), operations


async def test_the_memory_has_room_for_every_table() -> None:
    """A program that creates its table runs unchanged in tests."""
    store = AsyncIdempotencyStore.in_memory()
    await store.create_table()
    assert isinstance(await store.claim("invoice-42"), Claimed)


async def test_a_backend_that_makes_no_tables_says_so() -> None:
    """The message names the backend and the table that somebody else has to make."""

    class Elsewhere:
        async def execute(self, operation: Operation) -> Reply:
            return Found(None)

        def __repr__(self) -> str:
            return "<Elsewhere>"

    with pytest.raises(ConfigurationError, match="<Elsewhere> makes no tables; create 'orders' by other means"):
        await AsyncIdempotencyStore("orders", backend=Elsewhere()).create_table()
