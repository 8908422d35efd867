"""The engines start, are atomic, and leave nothing behind."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from tests.support.engines import (
    Engine,
    EngineStartError,
    client_options,
    ministack_engine,
    moto_engine,
    serving,
    user_engine,
)

_ROOT = Path(__file__).resolve().parents[2]
_RIVALS = 50
# The first client of a session is slow, the others are not.
_SESSION = get_session()
_PARENT = """
from tests.support.engines import ministack_engine

with ministack_engine() as engine:
    print(engine.endpoint_url, flush=True)
    input()
"""


@pytest.fixture(scope="module", params=[moto_engine, ministack_engine])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each engine in turn."""
    with request.param() as running:
        yield running


def _client(engine: Engine) -> Any:
    config = AioConfig(max_pool_connections=_RIVALS, retries={"total_max_attempts": 1})
    return _SESSION.create_client("dynamodb", config=config, **client_options(engine))


async def _create_table(client: Any, name: str) -> None:
    await client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


async def _claim(client: Any, table: str, owner: int) -> ClientError | None:
    try:
        await client.put_item(
            TableName=table,
            Item={"id": {"S": "key"}, "owner": {"N": str(owner)}},
            ConditionExpression="attribute_not_exists(id)",
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except ClientError as refusal:
        return refusal
    return None


async def test_one_of_fifty_concurrent_claims_wins(engine: Engine) -> None:
    """A conditional put is atomic: the others are refused and shown the winner's item."""
    async with _client(engine) as client:
        await _create_table(client, "race")
        ends = await asyncio.gather(*(_claim(client, "race", n) for n in range(_RIVALS)))
    winners = [owner for owner, refusal in enumerate(ends) if refusal is None]
    assert len(winners) == 1
    item = {"id": {"S": "key"}, "owner": {"N": str(winners[0])}}
    assert all(refusal.response["Item"] == item for refusal in ends if refusal is not None)


@pytest.mark.parametrize("operation", ["put_item", "update_item", "delete_item"])
async def test_a_refused_write_returns_the_item(engine: Engine, operation: str) -> None:
    """All three kinds of write return the old item with the refusal."""
    item = {"id": {"S": "key"}}
    target = {"Item": item} if operation == "put_item" else {"Key": item}
    table = operation.replace("_", "-")
    async with _client(engine) as client:
        await _create_table(client, table)
        await client.put_item(TableName=table, Item=item)
        with pytest.raises(ClientError) as refusal:
            await getattr(client, operation)(
                TableName=table,
                ConditionExpression="attribute_not_exists(id)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **target,
            )
    assert refusal.value.response["Error"]["Code"] == "ConditionalCheckFailedException"
    assert refusal.value.response["Item"] == item


async def test_an_engine_starts_empty() -> None:
    """MiniStack keeps no table from one start to the next."""
    with ministack_engine() as first:
        async with _client(first) as client:
            await _create_table(client, "left-behind")
    with ministack_engine() as second:
        async with _client(second) as client:
            assert (await client.list_tables())["TableNames"] == []


@pytest.mark.parametrize("module", ["moto_server", "ministack_server"])
def test_an_engine_ends_when_its_input_does(module: str) -> None:
    """The engine's process exits by itself, without a signal."""
    with serving(f"tests.support.{module}") as (_, process):
        assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=5) == 0


def test_an_engine_dies_with_a_killed_parent() -> None:
    """A parent that had no chance to clean up leaves no engine behind: its connection ends, one way or the other."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with parent:
        assert parent.stdout is not None
        address = urlsplit(parent.stdout.readline().decode())
        with socket.create_connection((address.hostname, address.port), timeout=5) as watch:
            os.kill(parent.pid, signal.SIGKILL)
            with suppress(ConnectionResetError):
                assert watch.recv(1) == b""


def test_a_failed_start_shows_what_the_process_wrote() -> None:
    """The error carries the output, so that a broken installation explains itself."""
    with (
        pytest.raises(EngineStartError, match="No module named") as failure,
        serving("tests.support.missing"),
    ):
        pass
    assert failure.value.module == "tests.support.missing"
    assert "missing" in failure.value.output


def test_the_users_engine_is_the_endpoint_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable alone decides, and nothing is started."""
    monkeypatch.setenv("AIOIDEMPOTENCY_TEST_ENDPOINT", "http://127.0.0.1:9")
    assert user_engine() == Engine(name="user", endpoint_url="http://127.0.0.1:9", transactions=True, partiql=True)


@pytest.mark.parametrize("value", [None, ""])
def test_there_is_no_users_engine_by_default(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    """Unset and empty mean the same."""
    monkeypatch.delenv("AIOIDEMPOTENCY_TEST_ENDPOINT", raising=False)
    if value is not None:
        monkeypatch.setenv("AIOIDEMPOTENCY_TEST_ENDPOINT", value)
    assert user_engine() is None
