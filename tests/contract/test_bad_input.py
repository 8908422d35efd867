"""What is set up wrongly: an error that says what is wrong and what to do, within the time limit."""

import math
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import BotoCoreError, ClientError

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    CompositeKey,
    ConfigurationError,
    DynamoDBBackend,
    HashBuckets,
    MemoryBackend,
    SimpleKey,
    Static,
    StoreError,
)
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.model import AttributeValue, Item
from aioidempotency._core.operations import Applied, Found, Get, Put
from tests.conftest import store_options
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy

ONCE: dict[str, Any] = {"retries": {"total_max_attempts": 1}}
LOOPBACK = {"endpoint_url": "http://127.0.0.1:1", "region_name": "eu-central-1"}
NONSENSE = [-1, -0.001, math.nan, math.inf, True, False, "60", None, timedelta(seconds=-1)]
RIGHT = {"status": {"S": "INPROGRESS"}, "expiration": {"N": "9999999999"}, "owner": {"S": "another"}}
NOT_RECORDS: dict[str, dict[str, AttributeValue]] = {
    "status is missing": {"status": {}},
    "status is neither": {"status": {"S": "SHIPPED"}},
    "expiration is missing": {"expiration": {}},
    "expiration has the type S": {"expiration": {"S": "tomorrow"}},
    "owner has the type N": {"owner": {"N": "5"}},
    "fencing_token has the type S": {"fencing_token": {"S": "7"}},
    "in_progress_expiration has the type BOOL": {"in_progress_expiration": {"BOOL": True}},
}
NON_SETTINGS: dict[str, Callable[[], object]] = {
    "one name": lambda: AttributeNames(status="state", data="state"),
    "one name: status": lambda: AsyncIdempotencyStore("orders", layout=SimpleKey("status")),
    "one name: pk": lambda: CompositeKey("pk", "pk"),
    "not empty": lambda: AttributeNames(owner=""),
    "namespace is a text without '#'": lambda: AsyncIdempotencyStore("orders", namespace="a#b"),
    "namespace has 400 bytes": lambda: AsyncIdempotencyStore("orders", namespace="é" * 201),
    "'my orders' is not a table's name": lambda: AsyncIdempotencyStore("my orders"),
    "known to be safe: not 32": lambda: CompositeKey(partitioning=32),  # type: ignore[arg-type]
    "at least one bucket.*not 0": lambda: HashBuckets(0),
    "at least one bucket.*not -1": lambda: HashBuckets(-1),
    "whole number.*not True": lambda: HashBuckets(True),
    "whole number.*not 1.5": lambda: HashBuckets(1.5),  # type: ignore[arg-type]
    "a prefix": lambda: HashBuckets(8, prefix=""),
    "a partition value": lambda: Static(""),
}


async def failure(expected: type[Exception], **options: Any) -> Exception:
    """Claim, and hand over the error."""
    async with AsyncIdempotencyStore(options.pop("table_name", "orders"), **options) as store:
        with pytest.raises(expected) as raised:
            await store.claim("invoice-42")
    return raised.value


async def failure_in_time(**options: Any) -> Exception:
    """Claim where nothing answers; an operation of a lease of 4 s has one second, and the claim two."""
    with anyio.fail_after(2):
        return await failure(StoreError, lease=4, **options)


@pytest.fixture
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, region or profile from anywhere."""
    for variable in [each for each in os.environ if each.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for variable in ("HOME", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "nothing"))


async def test_a_table_that_is_not_there(engine: Engine, session: AioSession) -> None:
    """The message names the table and the way to make it."""
    error = await failure(ConfigurationError, table_name="orders-2", **store_options(engine, session))
    assert "'orders-2'" in str(error)
    assert "create_table" in str(error)
    assert isinstance(error.__cause__, ClientError)


@pytest.mark.parametrize(("made", "used"), [(SimpleKey("id"), CompositeKey()), (CompositeKey(), SimpleKey("id"))])
async def test_a_table_with_another_key(engine: Engine, session: AioSession, made: Any, used: Any) -> None:
    """The message names the table and the setting that describes its key; nothing is written."""
    options = {**store_options(engine, session), "table_name": f"test-{secrets.token_hex(6)}"}
    async with AsyncIdempotencyStore(layout=made, **options) as store:
        await store.create_table()
        error = await failure(ConfigurationError, layout=used, **options)
        assert options["table_name"] in str(error)
        assert "layout=" in str(error)
        assert await store.get("invoice-42") is None


async def test_permissions_that_are_missing(engine: Engine, session: AioSession) -> None:
    """The message names the permissions to give, and nothing is tried again."""
    async with FaultProxy(engine.endpoint_url) as proxy:
        proxy.inject(Fault.DENY, times=100)
        error = await failure(ConfigurationError, **{**store_options(engine, session), "endpoint_url": proxy.url})
    assert "allow them dynamodb:PutItem on the table" in str(error)
    assert len(proxy.requests) == 1


FAULTS = {
    Fault.THROTTLE: "ProvisionedThroughputExceededException; try again later",
    Fault.ERROR_500: "InternalServerError; try again later",
    Fault.REFUSE: "is the endpoint reachable?",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_store_that_answers_with_trouble(moto: Engine, session: AioSession, fault: Fault) -> None:
    """O14: throttled, failing or cut off: `StoreError` with botocore's error as its cause."""
    async with FaultProxy(moto.endpoint_url) as proxy:
        proxy.inject(fault, times=100)
        options = {**store_options(moto, session), "endpoint_url": proxy.url, "config": AioConfig(**ONCE)}
        error = await failure(StoreError, **options)
    assert "PutItem on table 'orders'" in str(error)
    assert FAULTS[fault] in str(error)
    assert isinstance(error.__cause__, BotoCoreError | ClientError)


async def test_a_store_that_does_not_answer(moto: Engine, session: AioSession) -> None:
    """O14: silent for as long as the client's own limit: `StoreError` with botocore's error as its cause."""
    async with FaultProxy(moto.endpoint_url) as proxy:
        proxy.inject(Fault.STALL, times=100)
        config = AioConfig(read_timeout=0.3, **ONCE)
        error = await failure_in_time(**{**store_options(moto, session), "endpoint_url": proxy.url}, config=config)
    assert "PutItem on table 'orders'" in str(error)
    assert "ReadTimeoutError" in str(error)
    assert isinstance(error.__cause__, BotoCoreError)


async def test_an_endpoint_where_nobody_listens(session: AioSession) -> None:
    """O14: a closed port is an error within the time limit; botocore's own retries would take 25 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    error = await failure_in_time(session=session, region_name="eu-central-1", endpoint_url=url)
    assert isinstance(error.__cause__, TimeoutError | BotoCoreError)


async def test_a_store_that_is_slower_than_the_time_limit(moto: Engine, session: AioSession) -> None:
    """O14: the time limit counts for all attempts together, and the message says how long it was."""
    async with FaultProxy(moto.endpoint_url) as proxy:
        proxy.inject(Fault.STALL, times=100)
        error = await failure_in_time(**{**store_options(moto, session), "endpoint_url": proxy.url})
    assert "no answer within 1 s" in str(error)


@pytest.mark.parametrize("url", ["localhost:8000", "http://", "no url", "http://localhost:99999", "ftp://there", 8000])
def test_an_endpoint_that_is_none(url: Any) -> None:
    """The message names the setting, when the store is made."""
    with pytest.raises(ConfigurationError, match="endpoint_url="):
        AsyncIdempotencyStore("orders", endpoint_url=url)


async def test_a_region_that_is_none(session: AioSession) -> None:
    """The message names the setting."""
    error = await failure(ConfigurationError, **{**LOOPBACK, "region_name": "eu central"}, session=session)
    assert "region_name=" in str(error)


@pytest.mark.usefixtures("_no_environment")
@pytest.mark.parametrize("profile", [None, "nobody"])
async def test_no_credentials(monkeypatch: pytest.MonkeyPatch, profile: str | None) -> None:
    """The message names the ways to give some; a profile that is not there gives none either."""
    if profile is not None:
        monkeypatch.setenv("AWS_PROFILE", profile)
    error = await failure(ConfigurationError, **LOOPBACK)
    assert "AWS_ACCESS_KEY_ID" in str(error)
    assert "session=" in str(error)


@pytest.mark.usefixtures("_no_environment")
async def test_no_region() -> None:
    """The message names both ways to give one."""
    session = get_session()
    session.set_credentials("testing", "testing")
    error = await failure(ConfigurationError, session=session)
    assert "region_name=" in str(error)
    assert "AWS_DEFAULT_REGION" in str(error)


@pytest.mark.parametrize("setting", ["region_name", "endpoint_url", "session", "config"])
def test_a_client_and_a_setting_that_it_has_already(setting: str) -> None:
    """The message names the setting; silently ignoring it would send records elsewhere."""
    given: dict[str, Any] = {"client": DynamoDBBackend(), setting: AioSession() if setting == "session" else "x"}
    with pytest.raises(ConfigurationError, match=f"leave {setting}= out"):
        AsyncIdempotencyStore("orders", **given)


@pytest.mark.parametrize("value", [0, timedelta(0), *NONSENSE], ids=repr)
@pytest.mark.parametrize("setting", ["lease", "retention"])
async def test_a_duration_that_makes_no_sense(setting: str, value: Any) -> None:
    """ConditionFailed for the store when it is made, and for one call before its first request."""
    with pytest.raises(ConfigurationError, match=f"{setting}="):
        AsyncIdempotencyStore.in_memory(**{setting: value})
    if value is not None:
        with pytest.raises(ConfigurationError, match=f"{setting}="):
            await AsyncIdempotencyStore.in_memory().claim("invoice-42", **{setting: value})


@pytest.mark.parametrize("value", NONSENSE, ids=repr)
def test_a_clock_skew_that_makes_no_sense(value: Any) -> None:
    """Zero is a clock skew: one machine has one clock."""
    AsyncIdempotencyStore.in_memory(clock_skew=0)
    with pytest.raises(ConfigurationError, match="clock_skew="):
        AsyncIdempotencyStore.in_memory(clock_skew=value)


@pytest.mark.parametrize("message", NON_SETTINGS)
def test_names_and_partitionings_that_cannot_be(message: str) -> None:
    """ConditionFailed when they are given; the message repeats what was wrong."""
    with pytest.raises(ConfigurationError, match=message):
        NON_SETTINGS[message]()


async def test_an_item_that_is_no_record(backend_options: dict[str, Any]) -> None:
    """Each method names the item and its attribute, and leaves the item as it is."""
    backend = backend_options.get("backend") or DynamoDBBackend(**backend_options)
    async with AsyncIdempotencyStore(f"test-{secrets.token_hex(6)}", backend=backend) as store:
        await store.create_table()
        for trouble, wrong in NOT_RECORDS.items():
            decision = await store.claim(trouble)
            assert isinstance(decision, Claimed)
            lease = decision.lease
            item: Item = {**lease.location.item, **{each: value for each, value in {**RIGHT, **wrong}.items() if value}}
            assert await backend.execute(Put(lease.location, item, HeldBy(lease.owner))) == Applied()
            calls: list[Callable[[], Awaitable[object]]] = [
                *(partial(method, trouble) for method in (store.claim, store.get)),
                *(partial(method, lease) for method in (store.renew, store.release)),
                partial(store.complete, lease, "done"),
            ]
            for call in calls:
                with pytest.raises(ConfigurationError) as raised:
                    await call()
                assert lease.key in str(raised.value)
                assert trouble in str(raised.value).replace("'", "")
                assert await backend.execute(Get(lease.location)) == Found(item)
    if not isinstance(backend, MemoryBackend):
        await backend.aclose()
