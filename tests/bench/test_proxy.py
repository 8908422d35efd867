"""The proxy with limits: units are spent for each partition, and refusals have the shapes that clients understand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, final

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore, CompositeKey, GroupCommit, HashBuckets, StoreError
from bench.hot.proxy import Partitions, proxying
from tests.conftest import store_options
from tests.support.engines import Engine, client_options

ONCE = AioConfig(retries={"total_max_attempts": 1})
TABLE = "proxied"


@final
class Standing:
    """A clock that shows what a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def limited(
    ministack: Engine, session: AioSession, *, units: float
) -> AsyncIterator[tuple[Any, Partitions, Standing, Engine]]:
    """Reach a table behind the proxy, whose partitions have so many write units and three times the read units."""
    clock = Standing()
    partitions = Partitions(scale=units / 1000, clock=clock)
    async with proxying(ministack.endpoint_url, partitions) as proxy:
        engine = replace(ministack, endpoint_url=proxy.url)
        async with session.create_client("dynamodb", config=ONCE, **client_options(engine)) as client:
            keys = [("pk", "HASH"), ("sk", "RANGE")]
            await client.create_table(
                TableName=TABLE,
                KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in keys],
                AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in keys],
                BillingMode="PAY_PER_REQUEST",
            )
            try:
                yield client, partitions, clock, engine
            finally:
                await client.delete_table(TableName=TABLE)


def key(partition: str, sort: str = "a") -> dict[str, Any]:
    return {"pk": {"S": partition}, "sk": {"S": sort}}


def statement(partition: str, sort: str) -> dict[str, Any]:
    text = f"INSERT INTO \"{TABLE}\" VALUE {{'sk': ?, 'pk': ?}}"
    return {"Statement": text, "Parameters": [{"S": sort}, {"S": partition}]}


def put(partition: str, sort: str = "a", **attributes: Any) -> dict[str, Any]:
    return {"TableName": TABLE, "Item": {**key(partition, sort), **attributes}}


async def test_units_are_those_of_a_partition_and_come_back_with_time(ministack: Engine, session: AioSession) -> None:
    """One busy partition value takes nothing from another one of the table."""
    async with limited(ministack, session, units=2) as (client, partitions, clock, _):
        for sort in "ab":
            await client.put_item(**put("hot", sort))
        with pytest.raises(ClientError) as raised:
            await client.put_item(**put("hot", "c"))
        assert raised.value.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
        assert raised.value.response["ThrottlingReasons"][0]["reason"] == "TableWriteKeyRangeThroughputExceeded"
        await client.put_item(**put("cold"))
        assert "Item" not in await client.get_item(TableName=TABLE, Key=key("hot", "c"), ConsistentRead=True)
        clock.now += 0.5
        await client.put_item(**put("hot", "c"))
        assert partitions.consumed == {
            (TABLE, "hot", "Write"): 3,
            (TABLE, "cold", "Write"): 1,
            (TABLE, "hot", "Read"): 1,
        }
        assert partitions.throttled == {(TABLE, "hot", "Write"): 1}


@pytest.mark.parametrize(
    ("operation", "parameters", "units"),
    [
        ("put_item", put("a", data={"S": "x" * 900}), 1),
        ("put_item", put("a", data={"S": "x" * 1100}), 2),
        ("put_item", put("a") | {"ConditionExpression": "attribute_exists(pk)"}, 1),
        ("delete_item", {"TableName": TABLE, "Key": key("a")}, 1),
        ("get_item", {"TableName": TABLE, "Key": key("a"), "ConsistentRead": True}, 1),
        ("get_item", {"TableName": TABLE, "Key": key("a")}, 0.5),
        ("transact_write_items", {"TransactItems": [{"Put": put("a")}, {"Put": put("b")}]}, 4),
        ("transact_get_items", {"TransactItems": [{"Get": {"TableName": TABLE, "Key": key("a")}}]}, 2),
        ("batch_execute_statement", {"Statements": [statement("a", "1"), statement("a", "2")]}, 2),
        ("batch_get_item", {"RequestItems": {TABLE: {"Keys": [key("a"), key("b")], "ConsistentRead": True}}}, 2),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_a_request_costs_what_dynamodb_charges(
    ministack: Engine, session: AioSession, operation: str, parameters: dict[str, Any], units: float
) -> None:
    """Writes by the kilobyte, refused ones too; reads by consistency; transactions double."""
    async with limited(ministack, session, units=100) as (client, partitions, _, _):
        with suppress(client.exceptions.ConditionalCheckFailedException):
            await getattr(client, operation)(**parameters)
        assert partitions.consumed.total() == units


async def test_what_many_items_are_about_is_refused_by_item(ministack: Engine, session: AioSession) -> None:
    """A transaction as a whole, and by index; statements and keys each by itself."""
    async with limited(ministack, session, units=2) as (client, partitions, clock, _):
        for sort in "ab":
            await client.put_item(**put("hot", sort))
        with pytest.raises(ClientError) as cancelled:
            await client.transact_write_items(TransactItems=[{"Put": put("cold")}, {"Put": put("hot")}])
        reasons = cancelled.value.response["CancellationReasons"]
        assert [each["Code"] for each in reasons] == ["None", "ThrottlingError"]
        assert partitions.consumed[TABLE, "cold", "Write"] == 0
        statements = [statement("hot", "c"), statement("cold", "c"), statement("hot", "d")]
        answer = await client.batch_execute_statement(Statements=statements)
        codes = [each.get("Error", {}).get("Code") for each in answer["Responses"]]
        assert codes == ["ThrottlingError", None, "ThrottlingError"]
        clock.now += 10
        asked = {TABLE: {"Keys": [key("hot", str(number)) for number in range(9)], "ConsistentRead": True}}
        answer = await client.batch_get_item(RequestItems=asked)
        assert len(answer["UnprocessedKeys"][TABLE]["Keys"]) == 3
        with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
            await client.batch_get_item(RequestItems=answer["UnprocessedKeys"])


async def test_what_costs_more_than_a_full_bucket_leaves_a_debt(ministack: Engine, session: AioSession) -> None:
    """A large item can be written at any scale, and the partition is busy for as long as it is worth."""
    async with limited(ministack, session, units=2) as (client, _, clock, _):
        large = put("a", data={"S": "x" * 5000})
        await client.put_item(**large)
        for _ in range(2):
            clock.now += 1
            with pytest.raises(client.exceptions.ProvisionedThroughputExceededException):
                await client.put_item(**large)
        clock.now += 1
        await client.put_item(**large)


async def test_a_request_without_a_known_cost_is_refused(ministack: Engine, session: AioSession) -> None:
    """Nothing passes uncounted: no unknown operation, statement or table."""
    async with limited(ministack, session, units=2) as (client, _, _, _):
        for operation, parameters in (
            ("scan", {"TableName": TABLE}),
            ("get_item", {"TableName": "other", "Key": key("a")}),
            ("batch_execute_statement", {"Statements": [{"Statement": f'SELECT * FROM "{TABLE}"'}]}),
            ("batch_execute_statement", {"Statements": [{"Statement": f'DELETE FROM "{TABLE}"'}]}),
        ):
            with pytest.raises(ClientError, match="the proxy does not know"):
                await getattr(client, operation)(**parameters)


@pytest.mark.parametrize("group_commit", [None, GroupCommit()], ids=["plain", "group commit"])
async def test_the_library_understands_all_its_answers(
    ministack: Engine, session: AioSession, group_commit: GroupCommit | None
) -> None:
    """Of 40 calls at once on four partitions of 5 units, some are throttled with the advice; none runs twice."""
    clock, decided = Standing(), asyncio.Event()
    partitions = Partitions(scale=0.005, clock=clock)
    runs: list[int] = []
    failed: list[StoreError] = []

    def decide() -> None:
        if len(runs) + len(failed) == 40:
            decided.set()

    async def body(number: int) -> int:
        runs.append(number)
        decide()
        return number

    async def call(number: int) -> None:
        try:
            assert await store.run(number, body, number) == number
        except StoreError as error:
            failed.append(error)
            decide()

    async with proxying(ministack.endpoint_url, partitions) as proxy:
        engine = replace(ministack, endpoint_url=proxy.url)
        options = {**store_options(engine, session), "config": ONCE, "group_commit": group_commit}
        options |= {"layout": CompositeKey(partitioning=HashBuckets(4)), "verify_layout": False}
        async with AsyncIdempotencyStore(f"library-{group_commit is None}", **options) as store:
            await store.create_table()
            calls = {asyncio.create_task(call(number)) for number in range(40)}
            await decided.wait()
            # The partitions give units again when every claim has its answer, so that none of the claims waits for any.
            while calls:
                clock.now += 1
                done, calls = await asyncio.wait(calls, timeout=0.05)
                for each in done:
                    each.result()
    assert 0 < len(failed) < 40
    assert all("HashBuckets" in str(each) for each in failed)
    assert partitions.throttled.total() >= len(failed)
    assert sorted(runs) == sorted(set(runs))
    assert len(runs) + len(failed) == 40
