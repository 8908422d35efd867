"""Rounds of measurements: each placement under each load, one after the other, on fresh servers in each round."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from aioidempotency import DynamoDBBackend
from bench.hot.arrivals import schedule
from bench.hot.calls import Calls
from bench.hot.results import Row, counted
from bench.hot.settings import NO_LIMITS, PLACEMENTS, Settings
from tests.support.engines import ministack_engine, serving

_NEVER_MET: Final = 1000.0
"""The scale of partitions without limits; their requests pass a proxy too, so that all placements pay for one."""

_TIMEOUT: Final = 10.0
"""Seconds for a connection or an answer: a busy machine makes a call late, and never makes one fail."""


@contextmanager
def servers(settings: Settings) -> Iterator[tuple[str, str]]:
    """Run MiniStack behind two proxies, one with the limits of the settings and one without; give their URLs."""
    with (
        ministack_engine() as engine,
        serving("bench.hot.proxy", engine.endpoint_url, f"--scale={settings.scale}") as (limited, _),
        serving("bench.hot.proxy", engine.endpoint_url, f"--scale={_NEVER_MET}") as (free, _),
    ):
        yield limited, free


async def measure_round(settings: Settings, number: int, progress: Callable[[str], object]) -> list[Row]:
    """Measure all placements under all loads, once."""
    rows = []
    with servers(settings) as (limited, free):
        for offered in settings.loads:
            progress(f"round {number}: {offered} calls a second")
            rows += [
                await _measured(settings, free if name == NO_LIMITS else limited, offered, name, number)
                for name in PLACEMENTS
            ]
    return rows


async def _measured(settings: Settings, url: str, offered: int, strategy: str, number: int) -> Row:
    """Measure one placement under one load; again, where calls began late."""
    # Each round has keys of its own, and a prefix of its own, so its keys fall into other buckets.
    prefix = f"round-{number}"
    arrivals = schedule(offered, settings.warm_up + settings.window, prefix)
    seconds = settings.warm_up + settings.window + settings.patience
    tries, late = 0, True
    found: dict[str, Any] = {}
    while late and tries < settings.tries:
        tries += 1
        backend = _opened(url, settings)
        calls = Calls(backend, f"placements-{time.monotonic_ns()}", PLACEMENTS[strategy](prefix))
        wall, processor = time.monotonic(), time.process_time()
        outcomes = await calls.play(arrivals, prefix, seconds=seconds)
        busy = (time.process_time() - processor) / (time.monotonic() - wall)
        await backend.aclose()
        found = {**counted(outcomes, settings), "client_busy": round(busy, 3)}
        late = found["late_ms"] > settings.late_limit_ms
    return Row(offered=offered, strategy=strategy, round=number, tries=tries, **found)


def _opened(url: str, settings: Settings) -> DynamoDBBackend:
    session = get_session()
    session.set_credentials("bench", "bench")
    config = AioConfig(
        connect_timeout=_TIMEOUT, read_timeout=_TIMEOUT, retries={"total_max_attempts": settings.attempts}
    )
    return DynamoDBBackend(session=session, endpoint_url=url, region_name="eu-central-1", config=config)
