"""Several measurements at a time, by one client process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session

from aioidempotency import DynamoDBBackend
from bench.hot.arrivals import Arrival
from bench.hot.calls import Calls, Outcome
from bench.hot.settings import Settings
from tests.support.engines import Engine, client_options

_AHEAD = 0.1
"""Seconds between the preparation of calls and the first of them."""

_APART = 0.04
"""Seconds between the starts of two measurements, since calls with one schedule would all come at once."""


def opened_session() -> AioSession:
    """Make the session of all clients."""
    session = get_session()
    session.set_credentials("bench", "bench")
    return session


@asynccontextmanager
async def reached(engine: Engine, session: AioSession, settings: Settings) -> AsyncIterator[DynamoDBBackend]:
    """Open a backend whose client sends each request as often as the settings say."""
    backend = DynamoDBBackend(
        session=session,
        endpoint_url=engine.endpoint_url,
        region_name=client_options(engine)["region_name"],
        config=AioConfig(retries={"total_max_attempts": settings.attempts}),
    )
    try:
        yield backend
    finally:
        await backend.aclose()


async def play(
    calls: Sequence[Calls], schedules: Sequence[Sequence[Arrival]], *, seconds: float
) -> list[list[Outcome]]:
    """Play schedules at the same time, and give up so many seconds after its start what is not answered of each."""
    for each in calls:
        await each.prepare()
    start = asyncio.get_running_loop().time() + _AHEAD
    starts = (start + number * _APART for number in range(len(calls)))
    pairs = zip(calls, schedules, starts, strict=True)
    playing = (each.play(arrivals, start=begins, until=begins + seconds) for each, arrivals, begins in pairs)
    return list(await asyncio.gather(*playing))
