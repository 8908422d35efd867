"""Whose client is it: opened late, once for each loop, closed by whoever opened it."""

import asyncio
import gc
import secrets
import sys
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from anyio.lowlevel import checkpoint
from botocore.config import Config

import aioidempotency
from aioidempotency import AsyncIdempotencyStore, Claimed, DynamoDBBackend, InProgress, Replay, StoreError
from aioidempotency.backends import Absent, Applied, Delete, HeldBy, Location, Put, Table, Update, Write
from tests.conftest import store_options
from tests.support.engines import Engine, client_options
from tests.support.proxy import Fault, FaultProxy


class ObservedSession(AioSession):  # type: ignore[misc] # it ships no types
    """A session that remembers with what its clients were made."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[dict[str, Any]] = []
        self.set_credentials("observed", "testing")

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        self.made.append(options)
        return super().create_client(*arguments, **options)

    async def get_credentials(self) -> Any:
        """Let other tasks run meanwhile, as a request for a role's credentials does."""
        await checkpoint()
        return await super().get_credentials()


@pytest.fixture(scope="module")
def one_session() -> ObservedSession:
    """One for all tests: a session's first client takes long."""
    return ObservedSession()


@pytest.fixture
def observed(one_session: ObservedSession) -> ObservedSession:
    """A session that made nothing yet."""
    one_session.made.clear()
    return one_session


def make(engine: Engine, session: AioSession, table_name: str = "", **options: Any) -> AsyncIdempotencyStore:
    name = table_name or f"test-{secrets.token_hex(6)}"
    return AsyncIdempotencyStore(name, **{**store_options(engine, session), **options})


@asynccontextmanager
async def plain_client(engine: Engine, session: AioSession) -> AsyncIterator[Any]:
    """The client that a user has already: nothing about it is tuned."""
    async with session.create_client("dynamodb", **client_options(engine)) as client:
        yield client


async def test_nothing_is_opened_before_the_first_call(ministack: Engine, observed: ObservedSession) -> None:
    """A store is made at import time, where no loop runs and no credentials may be there yet."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        store = make(ministack, observed, endpoint_url=proxy.url)
        assert (observed.made, proxy.requests) == ([], [])
        assert "client not open" in repr(store)
        await store.create_table()
        assert len(observed.made) == 1
        assert "client open" in repr(store)
        await store.aclose()
        assert "client not open" in repr(store)


async def test_concurrent_first_calls_share_one_client(ministack: Engine, observed: ObservedSession) -> None:
    """A hundred calls at a cold start do not open a hundred clients."""
    async with make(ministack, observed) as store:
        await store.create_table()
        await store.aclose()
        observed.made.clear()
        assert all(isinstance(each, Claimed) for each in await store.claim_many(range(1, 101), limit=100))
    assert len(observed.made) == 1


async def test_the_callers_client_is_used_and_left_open(engine: Engine, session: AioSession) -> None:
    """C1 with a plain client, whose parameter validation is on: every request passes it."""
    async with plain_client(engine, session) as client:
        name = f"test-{secrets.token_hex(6)}"
        async with AsyncIdempotencyStore(name, client=client) as store:
            assert "client the caller's" in repr(store)
            await store.create_table()
            claimed = await store.claim("invoice-42", fingerprint="a")
            assert isinstance(claimed, Claimed)
            await store.complete(await store.renew(claimed.lease), {"total": 1})
            again = await store.claim("invoice-43")
            assert isinstance(again, Claimed)
            await store.release(again.lease)
            replay = await store.claim("invoice-42", fingerprint="a")
            assert isinstance(replay, Replay)
            assert await store.get("invoice-43") is None
        assert (await client.describe_table(TableName=name))["Table"]["TableName"] == name
        assert isinstance(await store.claim("invoice-44"), Claimed)


async def test_the_callers_backend_is_left_open(ministack: Engine, observed: ObservedSession) -> None:
    """Stores of several tables may share a backend; whoever made it closes it."""
    backend = DynamoDBBackend(**store_options(ministack, observed))
    async with AsyncIdempotencyStore(f"test-{secrets.token_hex(6)}", backend=backend) as store:
        await store.create_table()
    assert "client open" in repr(backend)
    assert isinstance(await store.claim("invoice-42"), Claimed)
    await backend.aclose()
    assert len(observed.made) == 1


async def test_a_closed_store_opens_again(ministack: Engine, observed: ObservedSession) -> None:
    """`aclose` gives connections back; the store's records do not end with it, nor does the store."""
    store = make(ministack, observed)
    await store.create_table()
    await store.aclose()
    await store.aclose()
    async with store.execute("invoice-42") as execution:
        execution.complete(1)
    await store.aclose()
    async with store, store.execute("invoice-42") as execution:
        assert execution.replayed
    assert len(observed.made) == 3


def test_a_store_works_in_one_loop_after_another(ministack: Engine, session: AioSession) -> None:
    """O19: a second `asyncio.run` on a store of module level, closed at the end of each, leaves no resource open."""
    store = make(ministack, session)

    async def first() -> None:
        async with store:
            await store.create_table()
            assert isinstance(await store.claim("invoice-42"), Claimed)

    async def second() -> None:
        async with store:
            assert isinstance(await store.claim("invoice-43"), Claimed)

    _run_strictly(first, second)


def test_many_loops_in_turn_leave_no_client_open(ministack: Engine, session: AioSession) -> None:
    """O19: nobody closes the store, and each loop closes its client when it ends."""
    store = make(ministack, session)

    async def first() -> None:
        await store.create_table()

    async def later() -> None:
        assert isinstance(await store.claim("invoice-42"), Claimed | InProgress)

    _run_strictly(first, later, later, later)
    assert "client not open" in repr(store)


def _run_strictly(*mains: Any) -> None:
    """Run each in a loop of its own; a resource that is left open is an error, wherever it is collected."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for main in mains:
            asyncio.run(main())
            gc.collect()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []


def test_a_store_left_open_in_a_loop_that_ended_answers_in_the_next(ministack: Engine, session: AioSession) -> None:
    """O19: a client is bound to its loop; the next loop gets a new one instead of "Event loop is closed"."""
    store = make(ministack, session)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(store.create_table())
        claimed = asyncio.run(store.claim("invoice-42"))
        asyncio.run(store.aclose())
        said = repr(store)
        del store
        gc.collect()
    assert isinstance(claimed, Claimed)
    assert "client not open" in said


@pytest.mark.parametrize("kind", [AioConfig, Config])
async def test_the_callers_configuration_is_laid_over_the_tuned_one(
    ministack: Engine, observed: ObservedSession, kind: type[Config]
) -> None:
    """What the caller sets counts, and the rest stays tuned: short time-outs, a fixed user agent."""
    async with make(ministack, observed, config=kind(read_timeout=0.5, max_pool_connections=3)) as store:
        await store.create_table()
    config = observed.made[0]["config"]
    assert (config.read_timeout, config.max_pool_connections) == (0.5, 3)
    assert (config.connect_timeout, config.parameter_validation) == (1, False)
    assert config.user_agent.startswith("aioidempotency/")
    assert config.connector_args["keepalive_timeout"] == 60


async def test_the_callers_read_timeout_ends_a_call(ministack: Engine, observed: ObservedSession) -> None:
    """O14: with one attempt of 0.2 s there is no waiting for the store's own 3 s."""
    config = AioConfig(read_timeout=0.2, retries={"total_max_attempts": 1})
    async with FaultProxy(ministack.endpoint_url) as proxy:
        proxy.inject(Fault.STALL)
        async with make(ministack, observed, endpoint_url=proxy.url, config=config) as store:
            with pytest.raises(StoreError, match="ReadTimeoutError"):
                await store.claim("invoice-42")


async def test_without_a_configuration_the_client_is_tuned(ministack: Engine, observed: ObservedSession) -> None:
    """Keep-alive of 60 s, connect 1 s, read 3 s, three attempts, no validation, and its own user agent."""
    async with make(ministack, observed) as store:
        await store.create_table()
    config = observed.made[0]["config"]
    assert (config.connect_timeout, config.read_timeout) == (1, 3)
    assert config.retries == {"mode": "standard", "total_max_attempts": 3}
    assert config.connector_args["keepalive_timeout"] == 60


async def test_stores_may_share_a_session(ministack: Engine, observed: ObservedSession) -> None:
    """The session's credentials and region are used, and closing one store leaves the other's client open."""
    observed.set_config_variable("region", "eu-central-1")
    name = f"test-{secrets.token_hex(6)}"
    one = make(ministack, observed, name, region_name=None)
    async with make(ministack, observed, name, region_name=None) as other:
        await one.create_table()
        await other.get("invoice-42")
        await one.aclose()
        assert isinstance(await other.claim("invoice-42"), Claimed)
    assert len(observed.made) == 2


@pytest.mark.skipif(AIOHTTPSession()._sessions is not None, reason="this aiobotocore opens a closed client again")
async def test_closing_while_a_first_call_opens_the_client_leaks_nothing(
    ministack: Engine, session: AioSession
) -> None:
    """The client is closed when it is there; the call that opened it may fail, and a later one opens anew."""
    store = make(ministack, session)
    await store.create_table()
    await store.aclose()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opening = asyncio.ensure_future(store.claim("invoice-42"))
        await asyncio.sleep(0)
        await store.aclose()
        await asyncio.gather(opening, return_exceptions=True)
        assert isinstance(await store.claim("invoice-43"), Claimed)
        await store.aclose()
        gc.collect()
    assert [str(each.message) for each in caught if issubclass(each.category, ResourceWarning)] == []


PLACE = Location(table=Table("orders", "id", None, aioidempotency.AttributeNames()), partition="shop#1")


@pytest.mark.parametrize(
    "operation",
    [
        Put(PLACE, PLACE.item, Absent()),
        Update(PLACE, {"data": {"S": "1"}}, HeldBy("me")),
        Delete(PLACE, HeldBy("me")),
    ],
)
async def test_a_request_leaves_after_two_awaits_of_the_backend(operation: Write) -> None:
    """The way of a call is the product: what it passes in the backend is pinned, by files and functions."""
    passed: list[tuple[str, str]] = []
    depths: list[int] = []

    class Stub:
        """A client that takes every write, and notes how deep it was called."""

        def __getattr__(self, name: str) -> Any:
            async def call(**_: object) -> dict[str, object]:
                frame: FrameType | None = sys._getframe(1)
                files = []
                while frame is not None:
                    files.append(frame.f_code.co_filename)
                    frame = frame.f_back
                depths.append(sum(_is_ours(file) for file in files))
                return {}

            return call

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call" and _is_ours(frame.f_code.co_filename):
            passed.append((frame.f_code.co_filename.rpartition("/")[2], frame.f_code.co_name))

    stub: Any = Stub()
    backend = DynamoDBBackend(stub)
    assert await backend.execute(operation) == Applied()
    sys.setprofile(note)
    try:
        await backend.execute(operation)
    finally:
        sys.setprofile(None)
    assert depths == [2, 2]
    written = "_put_if_absent" if isinstance(operation, Put) else "_write_of_owner"
    key = [] if isinstance(operation, Put) else [("requests.py", "_of_owner"), ("model.py", "item")]
    assert passed == [
        ("backend.py", "execute"),
        ("backend.py", "begin"),
        ("backend.py", "_send"),
        ("requests.py", "request"),
        ("requests.py", written),
        *key,
        ("backend.py", "send"),
        ("requests.py", "reply"),
        ("backend.py", "end"),
    ]


def _is_ours(file: str) -> bool:
    return file.startswith(aioidempotency.__path__[0])
