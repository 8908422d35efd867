"""Engines for all tests: each is started once in each process, and every test has a table of its own on it."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiobotocore.session import AioSession, get_session

from aioidempotency import AsyncIdempotencyStore, Backend, CompositeKey, DynamoDBBackend, MemoryBackend
from tests.support.batched import BatchedBackend
from tests.support.engines import Engine, ministack_engine, moto_engine, user_engine

MakeStore = Callable[..., AsyncIdempotencyStore]
"""Makes a store on the test's own table; all stores of one test share it, each with its own client."""


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
