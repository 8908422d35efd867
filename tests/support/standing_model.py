"""The model of DynamoDB on a loopback port of this process, at the time that a test sets.

What a partition gives back by the second, it gives back when the test says that a second is over.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, final

from bench.model.limits import Limits
from bench.model.service import REPORT, Service
from bench.model.wire import Connection
from tests.support.engines import Engine


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StandingModel:
    """A running model: how to reach it, and the service that counts."""

    engine: Engine
    service: Service

    def counted(self, count: str) -> float:
        """Add up one count over all partitions of all tables."""
        tables: Any = self.service.call(REPORT, {}, 0.0)["tables"]
        return sum(float(each[count]) for table in tables.values() for each in table["partitions"])


@asynccontextmanager
async def standing_model(clock: Callable[[], float], limits: Limits) -> AsyncIterator[StandingModel]:
    """Serve a model with these limits until the block ends; `clock` shows its time, in seconds."""
    service = Service(limits)
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(service, clock), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        engine = Engine(name="model", endpoint_url=url, transactions=True, partiql=False)
        yield StandingModel(engine=engine, service=service)
