"""The first calls of a process: the lean transport without aiobotocore, until something loads aiobotocore."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import SimpleNamespace
from typing import Any

import botocore
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.config import Config

from aioidempotency import AttributeNames, DynamoDBBackend
from aioidempotency.backends import Applied, Table
from aioidempotency.backends.dynamodb import early
from aioidempotency.backends.dynamodb.borrowed import CALLED_EARLY, READ_EARLY, Borrowed, obstacle, parts_of
from aioidempotency.backends.dynamodb.client import ClientTransport
from aioidempotency.backends.dynamodb.configuration import Configuration
from aioidempotency.backends.dynamodb.early import EarlyClient
from aioidempotency.backends.dynamodb.lean import LeanTransport
from tests.support.engines import Engine
from tests.support.wire_server import APPLIED, WireServer, scripted
from tests.transport.conftest import PUT, Backends
from tests.transport.test_signature import REQUESTS, SETTINGS

NUMBERS = itertools.count()
KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}

BEGIN = """
import asyncio, sys
from typing import Any
from aioidempotency import AsyncIdempotencyStore, ConfigurationError, GroupCommit, idempotent
from aioidempotency.events import TransportFellBack

url, table = sys.argv[1:]
told: list[Any] = []

def make(**options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore(table, endpoint_url=url, region_name="eu-central-1", on_event=told.append, **options)

store = make()

@idempotent(store)
async def charge(order: str) -> str:
    return f"receipt for {order}"

def reasons() -> list[str]:
    return [each.reason for each in told if isinstance(each, TransportFellBack)]

def loaded() -> set[str]:
    return {"aiohttp", "aiobotocore.session", "aiobotocore.client"} & set(sys.modules)

def wrap(module: Any) -> None:
    wrapped = module.AioBaseClient._make_api_call

    async def call(self: Any, name: str, parameters: Any) -> Any:
        seen.append(name)
        return await wrapped(self, name, parameters)

    module.AioBaseClient._make_api_call = call

seen: list[str] = []
"""
"""What the programs of this file have in common."""


def run(program: str, ministack: Engine, **environment: str) -> None:
    """Run a program in a fresh process, with a table. Warnings are errors there, too."""
    table = f"early-{os.getpid()}-{next(NUMBERS)}"

    async def create() -> None:
        session = get_session()
        session.set_credentials("testing", "testing")
        backend = DynamoDBBackend(session=session, region_name="eu-central-1", endpoint_url=ministack.endpoint_url)
        await backend.create_table(Table(table, "id", None, AttributeNames()))
        await backend.aclose()

    asyncio.run(create())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", BEGIN + program, ministack.endpoint_url, table],
        env={**os.environ, **KEYS, **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("transport", ["auto", "lean"])
def test_first_calls_load_no_aiohttp(transport: str, ministack: Engine) -> None:
    """T5: calls, replays, blocks and batches on the lean transport need neither aiohttp nor aiobotocore's client."""
    program = f"""
batching = make(group_commit=GroupCommit(), transport="{transport}")
store = make(transport="{transport}")

@idempotent(batching)
async def send(order: str) -> str:
    return order

@idempotent(store)
async def charge(order: str) -> str:
    return order

async def main() -> None:
    async with store, batching:
        assert await charge("1") == await charge("1") == "1"
        async with store.execute("block") as execution:
            execution.complete(1)
        assert await store.get("block") is not None
        orders = [str(number) for number in range(60)]
        assert await asyncio.gather(*map(send, orders)) == orders
        await store.aclose()
        assert await charge("1") == "1"

asyncio.run(main())
assert not loaded(), loaded()
assert not reasons(), reasons()
"""
    run(program, ministack)


def test_loops_in_turn_leave_nothing_open(ministack: Engine) -> None:
    """O19: each loop closes its connections when it ends, though nobody closes the store."""
    program = """
for number in range(3):
    assert asyncio.run(charge(str(number))) == f"receipt for {number}"
assert not loaded(), loaded()
"""
    run(program, ministack)


def test_a_request_about_tables_opens_the_client(ministack: Engine) -> None:
    """T5: botocore's client must not send, so aiobotocore's does, and later calls are lean on that client."""
    program = """
async def main() -> None:
    assert await charge("1") == "receipt for 1"
    assert not loaded()
    await store.create_table()
    assert "aiobotocore.client" in loaded()
    assert await asyncio.gather(*(charge(str(number)) for number in range(30)))
    transport = store._parts.backend._own.opened()
    assert (type(transport).__name__, type(transport.client).__name__) == ("LeanTransport", "DynamoDB")
    assert store._parts.backend._own._session is not None
    await store.aclose()

asyncio.run(main())
assert not reasons(), reasons()
"""
    run(program, ministack)


def test_another_import_of_aiobotocore_ends_the_beginning(ministack: Engine) -> None:
    """T5: calls under way and later ones are answered, and the client is opened once for all of them."""
    program = """
async def main() -> None:
    async with store:
        assert await charge("1") == "receipt for 1"
        calls = [asyncio.ensure_future(charge(f"a{number}")) for number in range(20)]
        await asyncio.sleep(0)
        import aiobotocore.session
        calls += [asyncio.ensure_future(charge(f"b{number}")) for number in range(20)]
        assert len(await asyncio.gather(*calls)) == 40
        assert type(store._parts.backend._own.opened().client).__name__ == "DynamoDB"

asyncio.run(main())
assert not reasons(), reasons()
"""
    run(program, ministack)


def test_a_tracer_that_starts_late_sees_the_calls(ministack: Engine) -> None:
    """T5: as Datadog, X-Ray and OpenTelemetry wrap the class, after the first call."""
    program = """
async def main() -> None:
    async with store:
        assert await charge("1") == "receipt for 1"
        import aiobotocore.client
        wrap(aiobotocore.client)
        assert await charge("2") == "receipt for 2"
        assert seen == ["PutItem", "UpdateItem"], seen
    strict = make(transport="lean")
    try:
        await strict.get("1")
    except ConfigurationError as error:
        assert "_make_api_call" in str(error)
    else:
        raise AssertionError

asyncio.run(main())
assert len(reasons()) == 1 and "_make_api_call" in reasons()[0], reasons()
"""
    run(program, ministack)


def test_a_tracer_that_waits_for_the_import_sees_the_calls(ministack: Engine) -> None:
    """T5: as wrapt, and what is built on it, wraps a module when it is imported. Nothing else would import it."""
    program = """
import wrapt
wrapt.register_post_import_hook(wrap, "aiobotocore.client")

async def main() -> None:
    async with store:
        assert await charge("1") == "receipt for 1"

asyncio.run(main())
assert seen == ["PutItem", "UpdateItem"], seen
assert len(reasons()) == 1 and "_make_api_call" in reasons()[0], reasons()
"""
    run(program, ministack)


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ("region_name=None", {"AWS_REGION": "", "AWS_DEFAULT_REGION": ""}),
        ("region_name='no region'", {}),
        ("region_name=None", {"AWS_PROFILE": "nobody"}),
        ("endpoint_url=None", {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "maybe"}),
    ],
)
def test_what_is_wrong_is_told_as_the_client_tells_it(
    options: str, environment: dict[str, str], ministack: Engine
) -> None:
    """O23: the same error at the same moment, whatever begins."""
    program = f"""
async def main(transport: str) -> str:
    made = AsyncIdempotencyStore(
        table, transport=transport, **{{"endpoint_url": url, "region_name": "eu-central-1", **dict({options})}}
    )
    try:
        await made.get("1")
    except Exception as error:
        return f"{{type(error).__name__}}: {{error}}"
    return "no error"

beginning, ours = loaded(), asyncio.run(main("auto"))
theirs = asyncio.run(main("client"))
assert not beginning and ours == theirs and ours != "no error", (ours, theirs)
"""
    run(program, ministack, **environment)


def client_of(backend: DynamoDBBackend) -> object:
    transport: Any = backend._own.opened()
    return transport.client


@pytest.mark.usefixtures("without_aiobotocore")
async def test_a_process_begins_without_aiobotocore(backends: Backends) -> None:
    """T5: as the tests of the lean transport have it."""
    async with WireServer(scripted(APPLIED)) as server:
        for options in ({}, {"config": Config(read_timeout=2)}, {"config": AioConfig(max_pool_connections=5)}):
            backend = backends(server.url, transport="auto", **options)
            assert await backend.execute(PUT) == Applied()
            assert type(client_of(backend)) is EarlyClient
        assert backend._rooms[asyncio.get_running_loop()].free == 4, "an eighth is for owners"


class Watching:
    """A finder that puts a loader of its own around Python's, as tracing libraries do."""

    class Loader(SourceFileLoader):
        """Would wrap the module."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        found = PathFinder.find_spec(name, path, target) if name == "aiobotocore.client" else None
        if found is not None:
            assert found.origin is not None
            found.loader = self.Loader(name, found.origin)
        return found


def no_hook(**_: object) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("case", "options"),
    [
        ("no credentials in the environment", {}),
        ("credentials that expire", {}),
        ("an older aiobotocore", {}),
        ("a watched import", {}),
        ("a mode that asks for the region", {}),
        ("a session of the caller's", {"session": get_session()}),
        ("a configuration for aiobotocore", {"config": AioConfig(connector_args={"ttl_dns_cache": 5})}),
        ("the client", {"transport": "client"}),
        ("a proxy", {"config": Config(proxies={"http": "http://127.0.0.1:2"})}),
        ("another signature", {"config": Config(signature_version="v4a")}),
        ("a hook of all sessions", {}),
    ],
)
@pytest.mark.usefixtures("without_aiobotocore")
async def test_where_only_aiobotocore_will_do(
    case: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """T5: the client of aiobotocore is opened at once, and looked at as ever."""
    match case:
        case "no credentials in the environment":
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "")
        case "credentials that expire":
            monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2100-01-01T00:00:00Z")
        case "an older aiobotocore":
            monkeypatch.setattr(early, "aiobotocore_version", "3.8.1")
        case "a watched import":
            monkeypatch.setattr(sys, "meta_path", [Watching(), *sys.meta_path])
        case "a mode that asks for the region":
            monkeypatch.setenv("AWS_DEFAULTS_MODE", "auto")
        case "a hook of all sessions":
            monkeypatch.setattr(
                botocore, "_INITIALIZERS", [lambda made: made.register("before-call.dynamodb", no_hook)]
            )
        case _:
            pass  # the options say it
    backend = DynamoDBBackend(
        **{"endpoint_url": "http://127.0.0.1:1", "region_name": "eu-central-1", **options}, fell_back=lambda _: None
    )
    transport: Any = await backend._ready("orders")
    assert type(transport) in {LeanTransport, ClientTransport}
    assert type(transport.client) is not EarlyClient
    await backend.aclose()


@pytest.mark.parametrize(("text", "recent"), [("3.9.0", True), ("10.0", True), ("3.8.1", False), ("dev", False)])
def test_versions_that_begin_without_aiobotocore(text: str, recent: bool) -> None:
    """A version that cannot be read is none."""
    assert early._is_recent(text) is recent


@pytest.fixture(scope="module")
def one_session() -> Any:
    """One session for all settings: the first client of a session takes long."""
    return early.session()


async def nothing() -> Any:
    """Open nothing."""
    raise NotImplementedError


@pytest.fixture
def beginning(one_session: Any, without_aiobotocore: None) -> EarlyClient:
    """An early client as the library makes it."""
    made = early.client(one_session, Configuration(10.0), nothing, region_name="eu-central-1", endpoint_url=None)
    assert made is not None
    return made


def test_nothing_is_in_the_way(beginning: EarlyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed botocore is one that the library knows, as long as aiobotocore is not loaded."""
    assert obstacle(beginning) is None
    monkeypatch.setitem(sys.modules, "aiobotocore.client", SimpleNamespace())
    assert obstacle(beginning) == early.OVER


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for group in (CALLED_EARLY, READ_EARLY) for owner, names in group.items() for name in names],
)
def test_a_part_is_there(owner: str, name: str, beginning: EarlyClient) -> None:
    """Each part of botocore's client exists."""
    assert hasattr(parts_of(beginning.inner)[owner], name)


@pytest.fixture(params=SETTINGS, ids=str)
def both(
    request: pytest.FixtureRequest, one_session: Any, without_aiobotocore: None, runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Borrowed, Borrowed]]:  # fmt: skip
    """What is borrowed from both clients, for each kind of endpoint."""
    options = dict(SETTINGS[request.param])
    if (account := options.pop("account", None)) is not None:
        monkeypatch.setenv("AWS_ACCOUNT_ID", account)
    given = options.pop("config", AioConfig())
    configuration = Configuration(10.0, Config(**given._user_provided_options))
    # Credentials are read once for each session.
    one_session._credentials = None
    made = early.client(one_session, configuration, nothing, **options)
    assert made is not None
    creating = AioSession().create_client("dynamodb", config=configuration.aio(), **options)
    yield Borrowed(made), Borrowed(runner.run(creating.__aenter__()))
    runner.run(creating.__aexit__(None, None, None))


def test_requests_are_those_of_aiobotocores_client(both: tuple[Borrowed, Borrowed], runner: asyncio.Runner) -> None:
    """T2: endpoint, path, headers and signature, byte for byte, for each operation and endpoint."""
    for operation, _, parameters in REQUESTS:
        sent = []
        for each in both:
            route = runner.run(each.route(operation, parameters))
            assert not isinstance(route, str)
            credentials = runner.run(each.credentials())
            sent.append((route.origin, route.members, route.signer.request(credentials, 1.8e9, b"{}")))
        assert sent[0] == sent[1]
        assert both[0].error_members("ConditionalCheckFailedException")
    limits = [(each.limit, each.keep, each.connect_timeout, each.read_timeout) for each in both]
    assert limits[0] == limits[1]
