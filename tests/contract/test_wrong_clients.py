"""A client, a session or an engine that cannot work: a wrong setting that is named, and never an outage."""

import gc
import secrets
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from botocore.config import Config
from botocore.handlers import BUILTIN_HANDLERS
from botocore.session import Session as BotocoreSession

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    ConfigurationError,
    DynamoDBBackend,
    GroupCommit,
    Replay,
    StoreError,
    TimeBuckets,
)
from aioidempotency.events import CompletionFailed, Event, FailedOpen, TtlUnavailable
from tests.contract.test_clients import ObservedSession, make, plain_client
from tests.support.engines import Engine, client_options
from tests.support.proxy import Fault, FaultProxy
from tests.support.values import replace


def table_name() -> str:
    """Name a table of the test's own: the engine is shared."""
    return f"test-{secrets.token_hex(6)}"


class Forwarding:
    """A wrapper around a client, as tools for traces make them."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Stub:
    """A client made by hand, with the operations and nothing else."""

    async def put_item(self, **_: Any) -> dict[str, Any]:
        return {}

    get_item = update_item = delete_item = transact_write_items = transact_get_items = put_item


class Blocking:
    """A stub that forgot `async`."""

    def put_item(self, **_: Any) -> dict[str, Any]:
        return {}


def blocking_client() -> Any:
    options = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
    return boto3.session.Session().client("dynamodb", **options)


def table_resource() -> Any:
    options = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
    return boto3.session.Session().resource("dynamodb", **options).Table("orders")


async def coroutine() -> None:
    """Stand for a function of the user's that opens a client."""


class OfAioboto3:
    """As a session of aioboto3 is made: one of aiobotocore's inside."""

    def __init__(self) -> None:
        self._session = AioSession()

    def client(self, service: str) -> Any:
        return self._session.create_client(service)


WRONG_CLIENTS: dict[str, Any] = {
    "boto3, which blocks": blocking_client,
    "is a resource": table_resource,
    "is a coroutine": coroutine,
    "not str": lambda: "orders",
    "not object": object,
    "not Session": boto3.session.Session,
}


@pytest.mark.parametrize("trouble", WRONG_CLIENTS)
def test_a_client_of_another_kind_is_refused(trouble: str) -> None:
    """O23: boto3's writes inside the event loop, and fails only when it is awaited."""
    with pytest.raises(ConfigurationError, match=f"client= .*{trouble}.*create_client"):
        AsyncIdempotencyStore("orders", client=WRONG_CLIENTS[trouble]())


async def test_a_client_that_was_not_opened_is_refused(ministack: Engine, session: AioSession) -> None:
    """O23: what `create_client` returns has to be entered."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nobody awaits the coroutine inside
        with pytest.raises(ConfigurationError, match="client= is not opened"):
            AsyncIdempotencyStore("orders", client=session.create_client("dynamodb", **client_options(ministack)))
        gc.collect()


async def test_a_client_of_another_service_is_refused(ministack: Engine, session: AioSession) -> None:
    """O23: S3 has no `put_item`."""
    async with session.create_client("s3", **client_options(ministack)) as client:
        with pytest.raises(ConfigurationError, match="client of s3"):
            AsyncIdempotencyStore("orders", client=client)


@pytest.mark.parametrize("wrapped", [True, False])
async def test_a_wrapper_of_a_client_passes(ministack: Engine, session: AioSession, wrapped: bool) -> None:
    """O23: tools for traces put one around it."""
    async with plain_client(ministack, session) as client:
        given: Any = Forwarding(client) if wrapped else client
        store = AsyncIdempotencyStore(table_name(), client=given)
        await store.create_table()
        assert isinstance(await store.claim("invoice-42"), Claimed)


async def test_a_stub_passes() -> None:
    """O23: the operations are all that is asked of it."""
    stub: Any = Stub()
    assert isinstance(await AsyncIdempotencyStore("orders", client=stub).claim("invoice-42"), Claimed)


async def test_a_stub_whose_answer_cannot_be_awaited_does_not_fail_open() -> None:
    """O23: Python's own error is no outage."""
    stub: Any = Blocking()
    store = AsyncIdempotencyStore("orders", client=stub, fail_open=True)
    await refused(store, "client= is no client of aiobotocore")


async def refused(store: AsyncIdempotencyStore, trouble: str) -> None:
    """Expect that no body runs."""
    with pytest.raises(ConfigurationError, match=trouble):
        async with store.execute("invoice-42"):
            pytest.fail("ran unprotected")
    assert store.failed_open == 0


@pytest.mark.skipif(AIOHTTPSession()._sessions is not None, reason="this aiobotocore opens a closed client again")
async def test_a_client_that_was_closed_is_named(ministack: Engine, session: AioSession) -> None:
    """O23: at the call, and when a store is made with it."""
    async with plain_client(ministack, session) as client:
        store = AsyncIdempotencyStore(table_name(), client=client, fail_open=True)
        await store.create_table()
    await refused(store, "client= was closed.*for each loop.*leave client= out")
    with pytest.raises(ConfigurationError, match="client= is not open"):
        AsyncIdempotencyStore("orders", client=client)


PROGRAM = """
import asyncio, sys, threading
from aiobotocore.session import get_session
from aioidempotency import AsyncIdempotencyStore, ConfigurationError

async def opened():
    options = dict(endpoint_url=sys.argv[1], region_name="eu-central-1", aws_access_key_id="a", aws_secret_access_key="b")
    context = get_session().create_client("dynamodb", **options)
    store = AsyncIdempotencyStore(sys.argv[3], client=await context.__aenter__(), fail_open=True, lease=4)
    await store.create_table()
    return context, store

async def call(store):
    try:
        async with store.execute("invoice-42"):
            print("ran unprotected")
    except ConfigurationError as error:
        print(error)

if sys.argv[2] == "ended":
    runner = asyncio.Runner()
    kept = runner.run(opened())
    runner.close()
    asyncio.run(call(kept[1]))
else:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    kept = asyncio.run_coroutine_threadsafe(opened(), loop).result()
    asyncio.run(call(kept[1]))
"""
"""A program that leaves a client open in another loop, where nobody can close it: so in a process of its own."""


@pytest.mark.parametrize("loop", ["ended", "alive"])
def test_a_client_of_another_event_loop_is_named(ministack: Engine, loop: str) -> None:
    """O23: a module's client and one `asyncio.run` after another; or a thread with a loop of its own."""
    command = [sys.executable, "-c", PROGRAM, ministack.endpoint_url, loop, table_name()]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50).stdout
    assert "client= was opened in another event loop" in said
    assert "one client for each loop" in said
    assert "ran unprotected" not in said


WRONG_SESSIONS: dict[str, Any] = {
    r"not boto3.session.Session, whose clients block": boto3.session.Session,
    r"not botocore.session.Session, whose clients block": BotocoreSession,
    "with aioboto3": OfAioboto3,
    "not builtins.str": lambda: "profile",
    "not aiobotocore.session.AioSession": lambda: AioSession,
}


@pytest.mark.parametrize("trouble", WRONG_SESSIONS)
def test_a_session_of_another_library_is_refused(trouble: str) -> None:
    """O23: its clients block, or have to be opened otherwise."""
    with pytest.raises(ConfigurationError, match=f"session= .*{trouble}"):
        AsyncIdempotencyStore("orders", session=WRONG_SESSIONS[trouble]())


@pytest.mark.parametrize("grouped", [None, GroupCommit()])
@pytest.mark.parametrize("fault", [Fault.UNKNOWN_CREDENTIALS, Fault.BAD_SIGNATURE, Fault.EXPIRED])
async def test_static_credentials_that_are_refused_are_a_setting(
    ministack: Engine, session: AioSession, fault: Fault, grouped: GroupCommit | None
) -> None:
    """O23: nothing renews them."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        proxy.inject(fault, times=100)
        options: dict[str, Any] = {"fail_open": True, "group_commit": grouped}
        async with make(replace(ministack, endpoint_url=proxy.url), session, **options) as store:
            await refused(store, "credentials")


class Role:
    """A source of credentials that can be renewed."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked = 0
        self.fails = fails

    async def fetch(self) -> dict[str, str]:
        self.asked += 1
        if self.fails:
            raise OSError("no network")
        ends = datetime.now(UTC) + timedelta(hours=6)
        return {"access_key": "new", "secret_key": "new", "token": "new", "expiry_time": ends.isoformat()}

    def session(self) -> AioSession:
        """Make a session whose credentials are good for hours, as far as botocore knows."""
        made = get_session()
        ends = datetime.now(UTC) + timedelta(hours=6)
        made._credentials = AioRefreshableCredentials("old", "old", "old", ends, self.fetch, "test")
        return made


@pytest.mark.parametrize("grouped", [None, GroupCommit()])
@pytest.mark.parametrize("whose", ["own", "given"])
async def test_a_roles_credentials_are_renewed_once_and_the_request_is_sent_again(
    ministack: Engine, whose: str, grouped: GroupCommit | None
) -> None:
    """O23: nobody notices that a role's session was revoked."""
    role = Role()
    async with FaultProxy(ministack.endpoint_url) as proxy:
        engine = replace(ministack, endpoint_url=proxy.url)
        session = role.session()
        options: dict[str, Any] = {"group_commit": grouped}
        async with session.create_client("dynamodb", endpoint_url=proxy.url, region_name="eu-central-1") as client:
            if whose == "given":
                store = AsyncIdempotencyStore(table_name(), client=client, **options)
            else:
                store = make(engine, session, **options)
            async with store:
                await store.create_table()
                proxy.inject(Fault.EXPIRED, times=1)
                assert isinstance(await store.claim("invoice-42"), Claimed)
                assert role.asked == 1


async def test_many_refusals_at_once_renew_credentials_once(ministack: Engine) -> None:
    """O23: a thousand calls under way do not ask a thousand times."""
    role = Role()
    async with (
        FaultProxy(ministack.endpoint_url) as proxy,
        make(replace(ministack, endpoint_url=proxy.url), role.session()) as store,
    ):
        await store.create_table()
        proxy.inject(Fault.EXPIRED, operation="PutItem", times=20)
        decisions = await store.claim_many([f"invoice-{number}" for number in range(20)])
        assert all(isinstance(each, Claimed) for each in decisions)
    assert role.asked == 1


@pytest.mark.parametrize("fails", [True, False])
async def test_renewed_credentials_that_are_refused_are_retryable_and_do_not_fail_open(
    ministack: Engine, fails: bool
) -> None:
    """O23: who is not let in, is not let in unprotected either."""
    role, events = Role(fails=fails), list[Event]()
    async with FaultProxy(ministack.endpoint_url) as proxy:
        options: dict[str, Any] = {"fail_open": True, "on_event": events.append}
        async with make(replace(ministack, endpoint_url=proxy.url), role.session(), **options) as store:
            await store.create_table()
            proxy.inject(Fault.EXPIRED, operation="PutItem", times=100)
            before = len(proxy.requests)
            with pytest.raises(StoreError, match="credentials were refused") as caught:
                async with store.execute("invoice-42"):
                    pytest.fail("ran unprotected")
            assert (caught.value.refused, caught.value.retryable) == (True, True)
            assert len(proxy.requests) - before == (1 if fails else 2)
            assert role.asked == 1
    assert not any(isinstance(event, FailedOpen) for event in events)


async def test_a_completion_outlasts_refused_credentials(ministack: Engine, session: AioSession) -> None:
    """O18: the result is sent again until the lease ends, with static credentials too."""
    events: list[Event] = []
    for given in (session, Role().session()):
        async with FaultProxy(ministack.endpoint_url) as proxy:
            engine = replace(ministack, endpoint_url=proxy.url)
            async with make(engine, given, on_event=events.append) as store:
                await store.create_table()
                async with store.execute("invoice-42") as execution:
                    execution.complete("paid")
                    proxy.inject(Fault.EXPIRED, operation="UpdateItem", times=2)
                assert isinstance(await store.claim("invoice-42"), Replay)
    assert not any(isinstance(event, CompletionFailed) for event in events)


async def test_a_role_without_an_answer_is_no_outage_of_the_store(ministack: Engine) -> None:
    """O23: no credentials were ever had, and no request was sent."""
    role = Role(fails=True)
    session = role.session()
    session._credentials._expiry_time = datetime.now(UTC) - timedelta(hours=1)
    async with make(ministack, session, fail_open=True) as store:
        with pytest.raises((StoreError, ConfigurationError)):
            async with store.execute("invoice-42"):
                pytest.fail("ran unprotected")


LAYOUT = CompositeKey(partitioning=TimeBuckets(3600, buckets=2))


async def test_an_engine_without_transactions_names_what_needs_them(ministack: Engine, session: AioSession) -> None:
    """O23: dynalite and Alternator have none; waiting does not change that."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        engine = replace(ministack, endpoint_url=proxy.url)
        async with make(engine, session, layout=LAYOUT, fail_open=True) as store:
            await store.create_table()
            proxy.inject(Fault.UNKNOWN_OPERATION, operation="TransactWriteItems", times=100)
            await refused(store, "does not know TransactWriteItems.*HashBuckets")


async def test_a_commit_on_an_engine_without_transactions_is_not_tried_again(
    ministack: Engine, session: AioSession
) -> None:
    """O23: the error says what the engine lacks, in place of a lease of silence."""
    async with (
        FaultProxy(ministack.endpoint_url) as proxy,
        make(replace(ministack, endpoint_url=proxy.url), session) as store,
    ):
        await store.create_table()
        name = repr(store).split("'")[1]
        proxy.inject(Fault.UNKNOWN_OPERATION, operation="TransactWriteItems", times=100)
        with pytest.raises(ConfigurationError, match=r"TransactWriteItems.*execution\.transaction"):
            async with store.execute("invoice-42") as execution:
                execution.transaction.put(name, {"id": "order-1"})
        assert sum(seen.operation == "TransactWriteItems" for seen in proxy.requests) == 1


@pytest.mark.parametrize("unknown", ["DescribeTimeToLive", "UpdateTimeToLive"])
@pytest.mark.parametrize("grouped", [None, GroupCommit()])
async def test_a_table_is_made_on_an_engine_without_ttl(
    ministack: Engine, session: AioSession, unknown: str, grouped: GroupCommit | None
) -> None:
    """O23: expired records stay there, which an event tells; each reader compares the time itself."""
    events: list[Event] = []
    name = table_name()
    async with FaultProxy(ministack.endpoint_url) as proxy:
        proxy.inject(Fault.UNKNOWN_OPERATION, operation=unknown, times=100)
        engine = replace(ministack, endpoint_url=proxy.url)
        async with make(engine, session, name, on_event=events.append, group_commit=grouped) as store:
            await store.create_table()
            async with store.execute(f"invoice-{unknown}-{grouped}") as execution:
                execution.complete("paid")
    assert TtlUnavailable(name) in events


async def test_an_unknown_operation_of_any_other_kind_doubts_the_endpoint(
    ministack: Engine, session: AioSession
) -> None:
    """O23: no engine of this kind lacks `PutItem`."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        proxy.inject(Fault.UNKNOWN_OPERATION, operation="PutItem", times=100)
        async with make(replace(ministack, endpoint_url=proxy.url), session, fail_open=True) as store:
            await refused(store, "does not know PutItem.*endpoint_url=")


async def test_a_real_engine_says_what_it_does_not_know(ministack: Engine, session: AioSession) -> None:
    """O23: the wire of MiniStack, for an operation of DynamoDB's that it lacks."""
    async with plain_client(ministack, session) as client:
        asking = client.describe_global_table_settings(GlobalTableName="orders")
        with pytest.raises(ConfigurationError, match="does not know DescribeGlobalTableSettings"):
            await DynamoDBBackend(client)._answered("DescribeGlobalTableSettings", "orders", asking)


async def test_the_mock_of_moto_is_named() -> None:
    """O23: its answers cannot be awaited, and the advice is its server."""
    from moto import mock_aws
    from moto.core.models import botocore_stubber

    # The import does so only once, and each test takes back what it added.
    BUILTIN_HANDLERS.append(("before-send", botocore_stubber))
    with mock_aws():
        async with AsyncIdempotencyStore("orders", region_name="eu-central-1", fail_open=True) as store:
            await refused(store, "mock_aws is active.*endpoint_url=")
            with pytest.raises(ConfigurationError, match="mock_aws"):
                await store.create_table()


@pytest.mark.parametrize("kind", [AioConfig, Config])
@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"total_max_attempts": 1}, {"mode": "standard", "total_max_attempts": 1}),
        ({"mode": "adaptive"}, {"mode": "adaptive", "total_max_attempts": 3}),
        ({"max_attempts": 4}, {"mode": "standard", "max_attempts": 4}),
    ],
)
def test_one_of_the_retries_leaves_the_others(kind: Any, given: Any, wanted: Any) -> None:
    """O23: the caller's number of attempts does not bring back the mode of ten years ago."""
    observed = ObservedSession()
    store = DynamoDBBackend(session=observed, config=kind(retries=given))
    assert store._own._config.aio().retries == wanted
    assert store._own._config.aio().connect_timeout == 1


def test_one_of_the_connector_arguments_leaves_the_others() -> None:
    """O23: members inside are merged like those outside."""
    backend = DynamoDBBackend(config=AioConfig(connector_args={"ttl_dns_cache": 5}))
    assert backend._own._config.aio().connector_args == {"keepalive_timeout": 60, "ttl_dns_cache": 5}
    assert backend._own._config.aio().read_timeout == 3


def test_no_event_loop_of_asyncio_is_named() -> None:
    """O23: as under trio."""
    for call in (
        AsyncIdempotencyStore("orders").claim("invoice-42"),
        AsyncIdempotencyStore.in_memory().claim("invoice-42"),
        AsyncIdempotencyStore.in_memory(fail_open=True).execute("invoice-42").__aenter__(),
        AsyncIdempotencyStore.in_memory().aclose(),
    ):
        with pytest.raises(ConfigurationError, match="asyncio alone"):
            call.send(None)
