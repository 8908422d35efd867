"""What several behaviours need: a store whose operations are kept, and one behind a proxy that fails."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, final

import pytest
from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore, Backend, CompositeKey, DynamoDBBackend
from aioidempotency._core.operations import Operation, Reply
from tests.conftest import MakeStore, store_options, stores
from tests.support.batched import BatchedBackend
from tests.support.counting import CountingBackend
from tests.support.engines import Engine
from tests.support.proxy import FaultProxy, Seen
from tests.support.values import replace


@final
@dataclass(frozen=True, slots=True)
class Counted:
    """A store, and every operation that it has sent."""

    store: AsyncIdempotencyStore
    operations: list[object]


@pytest.fixture
async def backend(backend_options: dict[str, Any]) -> AsyncIterator[Backend]:
    """On every backend: the backend itself, for a test that wraps it."""
    if "backend" in backend_options:
        given = backend_options["backend"]
        yield given
        if isinstance(given, BatchedBackend):
            await given.aclose()
        return
    opened = DynamoDBBackend(**backend_options)
    yield opened
    await opened.aclose()


@pytest.fixture
def counted(make_store: MakeStore, backend: Backend) -> Counted:
    """On every backend: a store on the test's table whose operations are kept."""
    counting = CountingBackend[Operation, Reply](backend)
    return Counted(make_store(backend=counting), counting.operations)


@final
@dataclass(frozen=True, slots=True)
class Proxied:
    """Stores on one table, reached through a proxy that can lose answers."""

    proxy: FaultProxy
    engine: Engine
    make_store: MakeStore

    def since(self, start: int, operation: str | None = None) -> list[Seen]:
        """What was sent after the first `start` requests, only `operation` if one is given."""
        return [seen for seen in self.proxy.requests[start:] if operation in {None, seen.operation}]


def behind_proxy(engine: Engine, session: AioSession, **options: Any) -> AbstractAsyncContextManager[Proxied]:
    """Reach an engine through a proxy."""
    return _behind_proxy(engine, session, options)


@asynccontextmanager
async def _behind_proxy(engine: Engine, session: AioSession, options: dict[str, Any]) -> AsyncIterator[Proxied]:
    async with FaultProxy(engine.endpoint_url) as proxy:
        reached = replace(engine, endpoint_url=proxy.url)
        async with stores({**store_options(reached, session), **options}) as make:
            yield Proxied(proxy, reached, make)


@pytest.fixture
async def proxied(engine: Engine, session: AioSession) -> AsyncIterator[Proxied]:
    """On each engine: stores on a fresh table, behind a proxy."""
    async with behind_proxy(engine, session) as made:
        yield made


@pytest.fixture(params=["simple", "composite"])
async def proxied_layouts(
    request: pytest.FixtureRequest, engine: Engine, session: AioSession
) -> AsyncIterator[Proxied]:
    """On each engine and with both kinds of table: stores behind a proxy."""
    options = {} if request.param == "simple" else {"layout": CompositeKey()}
    async with behind_proxy(engine, session, **options) as made:
        yield made
