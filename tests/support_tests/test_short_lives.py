"""No test depends on when MiniStack's TTL runs: what it would delete during a test is refused when it is written."""

import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore, AttributeNames, Claimed, ConfigurationError, SimpleKey
from aioidempotency._core.model import Table
from aioidempotency.testing import FakeClock
from tests.conftest import store_options
from tests.support.engines import Engine, client_options
from tests.support.real_time import ShortLifeError
from tests.support.records import EXPIRES, record

Write = tuple[str, Mapping[str, Any]]
REFUSED = "MiniStack's TTL deletes a record that expires at .* during the test"
PAST = "2000"
STATEMENT = {"Statement": "INSERT INTO \"records\" VALUE {'id': 'key', 'expiration': ?}", "Parameters": [{"N": PAST}]}
ITEM = {"id": {"S": "key"}, "expiration": {"N": PAST}}
UPDATE = {
    "TableName": "records",
    "Key": {"id": {"S": "key"}},
    "UpdateExpression": "SET expiration = :past",
    "ExpressionAttributeValues": {":past": {"N": PAST}},
}
PUT = {"TableName": "records", "Item": ITEM}
WRITES: dict[str, Write] = {
    "put": ("put_item", PUT),
    "put of a text": ("put_item", {**PUT, "Item": {**ITEM, "expiration": {"S": PAST}}}),
    "update": ("update_item", UPDATE),
    "batch": ("batch_write_item", {"RequestItems": {"records": [{"PutRequest": {"Item": ITEM}}]}}),
    "put in a transaction": ("transact_write_items", {"TransactItems": [{"Put": PUT}]}),
    "update in a transaction": ("transact_write_items", {"TransactItems": [{"Update": UPDATE}]}),
    "statement": ("execute_statement", STATEMENT),
    "batch of statements": ("batch_execute_statement", {"Statements": [STATEMENT]}),
    "transaction of statements": ("execute_transaction", {"TransactStatements": [STATEMENT]}),
}


@pytest.fixture
async def client(ministack: Engine, session: AioSession) -> AsyncIterator[Any]:
    """A client, and a table of its own whose TTL is on."""
    async with session.create_client("dynamodb", **client_options(ministack)) as made:
        yield made


def on(table: str, value: Any) -> Any:
    """Put a table's name for `records`, wherever it stands."""
    if isinstance(value, str):
        return value.replace("records", table)
    if isinstance(value, Mapping):
        return {on(table, name): on(table, each) for name, each in value.items()}
    return [on(table, each) for each in value] if isinstance(value, list) else value


async def create(client: Any, *, ttl: bool) -> str:
    name = f"test-{secrets.token_hex(6)}"
    await client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    await turn(client, name, on=ttl)
    return name


async def turn(client: Any, name: str, *, on: bool) -> None:
    wanted = {"Enabled": on, "AttributeName": "expiration"}
    await client.update_time_to_live(TableName=name, TimeToLiveSpecification=wanted)


@pytest.mark.parametrize("kind", WRITES)
async def test_a_write_of_what_ttl_would_delete_is_refused(client: Any, kind: str) -> None:
    """Whatever the request, the message says what is wrong with the test."""
    name = await create(client, ttl=True)
    operation, request = WRITES[kind]
    with pytest.raises(ClientError, match=REFUSED):
        await getattr(client, operation)(**on(name, request))
    assert (await client.scan(TableName=name))["Items"] == []


async def test_what_expires_within_a_test_is_refused(client: Any) -> None:
    """A record of a minute is there when it is written, and may be gone when it is looked for."""
    name = await create(client, ttl=True)
    for seconds, stays in ((60, False), (3600, True)):
        item = {**ITEM, "expiration": {"N": str(int(time.time()) + seconds)}}
        if stays:
            await client.put_item(TableName=name, Item=item)
            continue
        with pytest.raises(ClientError, match=REFUSED):
            await client.put_item(TableName=name, Item=item)


@pytest.mark.parametrize("item", [{"id": {"S": "key"}}, {**ITEM, "expiration": {"S": "tomorrow"}}], ids=["none", "odd"])
async def test_what_ttl_does_not_delete_is_stored(client: Any, item: Mapping[str, Any]) -> None:
    """An item without the attribute, or with something else than a number in it, stays for ever."""
    name = await create(client, ttl=True)
    await client.put_item(TableName=name, Item=item)
    assert (await client.scan(TableName=name))["Items"] == [item]


async def test_a_table_without_ttl_takes_everything_until_it_is_turned_on(client: Any) -> None:
    """A test that needs a record which expired by the real clock makes it there."""
    name = await create(client, ttl=False)
    await client.put_item(TableName=name, Item=ITEM)
    with pytest.raises(ClientError, match=REFUSED):
        await turn(client, name, on=True)


async def test_a_store_needs_a_clock_ahead_for_a_short_retention(ministack: Engine, session: AioSession) -> None:
    """By the real clock its record is refused, and by one of the year 2100 it is not; neither fails open."""
    name = f"test-{secrets.token_hex(6)}"
    options = {**store_options(ministack, session), "retention": 60}
    async with AsyncIdempotencyStore(name, fail_open=True, **options) as store:
        await store.create_table()
        with pytest.raises(ConfigurationError) as refused:
            await store.run("key", forbidden)
        assert re.search(REFUSED, str(refused.value.__cause__))
    async with AsyncIdempotencyStore(name, clock=FakeClock(), **options) as store:
        assert isinstance(await store.claim("key"), Claimed)


def test_a_record_that_a_test_makes_itself_lasts() -> None:
    """The helper that makes records gives them years, and refuses to make one that a TTL would delete."""
    location = SimpleKey().route(Table("records", "id", None, AttributeNames()), "namespace#key").locations(0)[0]
    assert record(location)["expiration"] == {"N": str(EXPIRES)}
    assert "expiration" not in record(location, expiration=None)
    for expiration in ({"N": PAST}, {"S": PAST}, {"N": str(int(time.time()) + 60)}):
        with pytest.raises(ShortLifeError, match=REFUSED):
            record(location, expiration=expiration)


async def forbidden() -> None:
    pytest.fail("ran unprotected")
