"""Engines for all tests: each is started once in each process, and every test has a table of its own on it.

The contract suite runs on every backend, and says that they answer alike. So a behaviour is tested on one of them,
on MiniStack unless its mark `backends` says otherwise; `--matrix` tests it on all.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import botocore
import hypothesis
import pytest
from aiobotocore.session import AioSession, get_session
from botocore.handlers import BUILTIN_HANDLERS

from aioidempotency import AsyncIdempotencyStore, Backend, CompositeKey, DynamoDBBackend, MemoryBackend
from tests.support.batched import BatchedBackend
from tests.support.engines import Engine, ministack_engine, moto_engine, user_engine

# A timing is no test: how long an example takes says how busy the machine is.
hypothesis.settings.register_profile("aioidempotency", deadline=None)
hypothesis.settings.load_profile("aioidempotency")

MakeStore = Callable[..., AsyncIdempotencyStore]
"""Makes a store on the test's own table; all stores of one test share it, each with its own client."""


BACKENDS = ("memory", "moto", "ministack", "batched")
CONTRACT = Path(__file__).parent / "contract"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    parser.addoption("--matrix", action="store_true", help="run every test on every backend that it can run on")
    parser.addoption("--transport", choices=["auto", "client"], help="what sends the requests of backends by default")


def pytest_configure(config: pytest.Config) -> None:
    """T1: run the whole suite on another transport than the library's default one."""
    if (chosen := config.getoption("transport")) is not None:
        for made in (AsyncIdempotencyStore, DynamoDBBackend):
            defaults = made.__init__.__kwdefaults__
            assert defaults is not None
            defaults["transport"] = chosen


def pytest_report_header(config: pytest.Config) -> str:
    """Say what is left out."""
    if config.getoption("matrix"):
        return "backends: all for every test"
    return "backends: all for the contract, for a behaviour those of its mark, or MiniStack; --matrix for all"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the backends that a behaviour need not run on, and no test as a whole."""
    if config.getoption("matrix"):
        return
    chosen = [item for item in items if _runs(item)]
    left_out = [item for item in items if not _runs(item)]
    if lost := {_name(item) for item in left_out} - {_name(item) for item in chosen}:
        raise pytest.UsageError(f"left out on every backend that was asked for, without --matrix: {sorted(lost)}")
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen


def _runs(item: pytest.Item) -> bool:
    given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    asked = {given.get("engine"), given.get("backend_options")} & set(BACKENDS)
    if not asked or CONTRACT in item.path.parents:
        return True
    mark = item.get_closest_marker("backends")
    return asked <= set((mark.args or BACKENDS) if mark else ["ministack"])


def _name(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.fixture(autouse=True, scope="session")
def no_hook_of_powertools() -> None:
    """Take back the hook that an import of Powertools adds to all later sessions."""
    botocore._INITIALIZERS.clear()


@pytest.fixture(autouse=True)
def hooks_of_all_sessions() -> Iterator[None]:
    """Take back the hooks that a test adds to all later sessions: an import of moto does so."""
    hooks = list(BUILTIN_HANDLERS)
    yield
    BUILTIN_HANDLERS[:] = hooks


@pytest.fixture(scope="session")
def session() -> AioSession:
    """One aiobotocore session: its first client takes long, the others do not."""
    made = get_session()
    made.set_credentials("testing", "testing")
    return made


@pytest.fixture(scope="session")
def moto() -> Iterator[Engine]:
    with moto_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def ministack() -> Iterator[Engine]:
    with ministack_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def own_endpoint() -> Engine:
    """The endpoint of the user's own that AIOIDEMPOTENCY_TEST_ENDPOINT names."""
    engine = user_engine()
    assert engine is not None
    return engine


def engine_names() -> list[str]:
    return ["moto", "ministack", *(["own_endpoint"] if user_engine() else [])]


@pytest.fixture(params=engine_names())
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine that speaks DynamoDB's API."""
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["memory", *engine_names(), "batched"])
def backend_options(request: pytest.FixtureRequest, session: AioSession) -> dict[str, Any]:
    """What a store needs to reach each backend."""
    return options_of(request, session)


def options_of(request: pytest.FixtureRequest, session: AioSession) -> dict[str, Any]:
    """Reach the backend that a fixture's parameter names: the memory, an engine, or MiniStack by statements."""
    if request.param == "memory":
        backend: Backend = MemoryBackend()
        return {"backend": backend}
    if request.param == "batched":
        engine = request.getfixturevalue("ministack")
        return {"backend": BatchedBackend(DynamoDBBackend(**store_options(engine, session)), engine.endpoint_url)}
    return store_options(request.getfixturevalue(request.param), session)


def store_options(engine: Engine, session: AioSession) -> dict[str, Any]:
    return {"endpoint_url": engine.endpoint_url, "region_name": "eu-central-1", "session": session}


@pytest.fixture(params=["simple", "composite"])
def layout_options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Both kinds of table."""
    return {} if request.param == "simple" else {"layout": CompositeKey()}


@pytest.fixture
async def make_store(backend_options: dict[str, Any]) -> AsyncIterator[MakeStore]:
    """On every backend: make stores on one fresh table with a simple key."""
    async with stores(backend_options) as make:
        yield make


class stores:  # noqa: N801 - reads as a function
    """Stores on one fresh table, closed at the end."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._table_name = f"test-{secrets.token_hex(6)}"
        self._resources = AsyncExitStack()

    async def __aenter__(self) -> MakeStore:
        await self.make().create_table()
        return self.make

    def make(self, **options: Any) -> AsyncIdempotencyStore:
        """Make a store; `options` come before those of the backend."""
        store = AsyncIdempotencyStore(self._table_name, **{**self._options, **options})
        self._resources.push_async_callback(store.aclose)
        return store

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()
        if isinstance(backend := self._options.get("backend"), BatchedBackend):
            await backend.aclose()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many of the protocol's states each exploration of tests/model has seen."""
    reports = terminalreporter.getreports("passed")
    explored = [value for report in reports for name, value in report.user_properties if name == "explored"]
    if explored:
        terminalreporter.section("the protocol's states")
        for line in explored:
            terminalreporter.write_line(str(line))
