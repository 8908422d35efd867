"""Two measurements beside the rounds: what splits change over time, and what the client could do."""

import asyncio
import time
from collections.abc import Sequence
from math import ceil

from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore, CompositeKey, DynamoDBBackend
from aioidempotency.partitioning import Partitioning
from bench.hot.arrivals import schedule
from bench.hot.calls import Calls, Fate, Outcome, clock
from bench.hot.counts import by_table
from bench.hot.playing import play, reached
from bench.hot.results import Curve, late_ms
from bench.hot.settings import BUCKETS, PLACEMENTS, RANDOM, STATIC, Settings
from tests.support.engines import model_engine

_AT_A_TIME = 64
_MADE = {each.name: each.made for each in PLACEMENTS}


async def measure_splitting(settings: Settings, session: AioSession) -> list[Curve]:
    """Offer one load for longer, to a static value with and without splits, and to buckets without them."""
    lines = ((STATIC, None), (STATIC, settings.split_after), (BUCKETS, None))
    return [await _in_time(settings, session, *line) for line in lines]


async def _in_time(settings: Settings, session: AioSession, strategy: str, split_after: float | None) -> Curve:
    """Measure one line; again, where calls began late, so often as the settings allow."""
    for _ in range(1 + settings.repeats):
        found = await _measured(settings, session, strategy, split_after)
        if found.late_ms <= settings.late_limit_ms:
            break
    return found


async def _measured(settings: Settings, session: AioSession, strategy: str, split_after: float | None) -> Curve:
    arrivals = schedule("uniform", settings.split_load, settings.split_seconds, "splitting")
    splitting = {} if split_after is None else {"split_after": split_after}
    with model_engine(**settings.limits, **splitting) as engine:
        async with reached(engine, session, settings) as backend:
            calls = Calls(backend, "splitting", _MADE[strategy]("splitting"))
            (outcomes,) = await play([calls], [arrivals], seconds=settings.split_seconds)
        count = int(by_table(engine)["splitting"]["splits"])
    return _curve(strategy, split_after, count, outcomes)


def _curve(strategy: str, split_after: float | None, count: int, outcomes: Sequence[Outcome]) -> Curve:
    return Curve(
        strategy=strategy,
        split_after=split_after,
        splits=count,
        completed=_by_second(outcomes, "executed"),
        throttled=_by_second(outcomes, "throttled"),
        late_ms=late_ms(outcomes),
    )


def _by_second(outcomes: Sequence[Outcome], fate: Fate) -> list[int]:
    seconds = [int(each.ended) for each in outcomes if each.fate == fate]
    return [seconds.count(second) for second in range(ceil(max(each.at for each in outcomes)))]


async def measure_ceiling(settings: Settings, session: AioSession) -> dict[str, float]:
    """Make calls as fast as they are answered, 64 at a time, on a server without limits; answer with calls a second."""
    with model_engine() as engine:
        async with reached(engine, session, settings) as backend:
            return {
                name: await _fastest(backend, _MADE[name]("ceiling"), settings.ceiling_seconds)
                for name in (BUCKETS, RANDOM)
            }


async def _fastest(backend: DynamoDBBackend, partitioning: Partitioning, seconds: float) -> float:
    table_name, layout = f"ceiling-{time.monotonic_ns()}", CompositeKey(partitioning=partitioning)
    store = AsyncIdempotencyStore(table_name, backend=backend, layout=layout, clock=clock, verify_layout=False)
    await store.create_table()
    start, end = time.monotonic(), time.monotonic() + seconds

    async def call_on(worker: int) -> int:
        number = 0
        while time.monotonic() < end:
            async with store.execute(f"{worker}-{number}") as execution:
                execution.complete(1)
            number += 1
        return number

    made = await asyncio.gather(*map(call_on, range(_AT_A_TIME)))
    return round(sum(made) / (time.monotonic() - start), 1)
