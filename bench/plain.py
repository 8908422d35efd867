"""Processor time of one execution on the plain path, over two bare aiobotocore calls.

An execution is a claim and a completion: two requests. The peer sends the same two requests through a
client with the same configuration, and does nothing else. Both talk to MiniStack in a process of its
own on loopback; only this process's processor time counts. Rounds alternate, and the medians of the
rounds are compared, so a noisy machine disturbs both alike.

    python -m bench.plain --calls 200 --rounds 9 --concurrency 32
"""

import argparse
import asyncio
import json
import platform
import statistics
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from aiobotocore.session import get_session

from aioidempotency import AsyncIdempotencyStore
from aioidempotency._core import expressions, records
from aioidempotency._core.conditions import Absent, HeldBy
from aioidempotency._core.model import Encoded, Location
from aioidempotency._core.operations import Put, Update
from aioidempotency._core.protocol import _grant
from aioidempotency._settings import Settings
from aioidempotency.backends.dynamodb import _tuned
from tests.support.engines import client_options, ministack_engine

Call = Callable[[str], Awaitable[object]]


async def main(*, calls: int, rounds: int, concurrency: int) -> dict[str, object]:
    """Measure, and answer with the figures."""
    with ministack_engine() as engine:
        session = get_session()
        session.set_credentials("bench", "bench")
        options = client_options(engine)
        async with (
            AsyncIdempotencyStore(
                "bench", session=session, endpoint_url=engine.endpoint_url, region_name=options["region_name"]
            ) as store,
            session.create_client("dynamodb", config=_tuned(10.0), **options) as client,
        ):
            await store.create_table()
            contestants = {"plain path": ours(store), "two bare calls": bare(client, store._settings)}
            spent: dict[str, list[float]] = {name: [] for name in contestants}
            for number in range(rounds + 1):
                for name, call in contestants.items():
                    seconds = await measured(call, f"{number}", calls=calls, concurrency=concurrency)
                    if number:  # the first round warms up
                        spent[name].append(seconds / calls * 1e6)
    return figures(spent, calls=calls, rounds=rounds, concurrency=concurrency)


def ours(store: AsyncIdempotencyStore) -> Call:
    """Make the call of a user of the library."""

    async def body() -> int:
        return 1

    return lambda key: store.run(f"ours-{key}", body)


def bare(client: object, settings: Settings) -> Call:
    """Make the same two requests, written beforehand, by a client alone."""
    template = settings.attempt("bare")

    async def call(key: str) -> None:
        location = Location(table=settings.table, partition=f"bare-{key}")
        lease = _grant(template, location, 1)
        put = expressions.request(Put(location, {**records.running(lease), **location.item}, Absent()))
        changes = records.completed(Encoded("1"), expiration=lease.expiration)
        update = expressions.request(Update(location, changes, HeldBy(lease.owner)))
        await client.put_item(**put.parameters)  # type: ignore[attr-defined]
        await client.update_item(**update.parameters)  # type: ignore[attr-defined]

    return call


async def measured(call: Call, round_name: str, *, calls: int, concurrency: int) -> float:
    """Spend processor seconds on so many calls."""
    limit = asyncio.Semaphore(concurrency)

    async def one(number: int) -> None:
        async with limit:
            await call(f"{round_name}-{number}")

    start = time.process_time()
    await asyncio.gather(*(one(number) for number in range(calls)))
    return time.process_time() - start


def figures(spent: dict[str, list[float]], **settings: int) -> dict[str, object]:
    """Put the medians, their spread and the ratio together with what they were measured on."""
    medians = {name: statistics.median(values) for name, values in spent.items()}
    return {
        "microseconds_per_execution": {name: round(value, 1) for name, value in medians.items()},
        "spread": {name: [round(min(values), 1), round(max(values), 1)] for name, values in spent.items()},
        "ratio": round(medians["plain path"] / medians["two bare calls"], 3),
        "settings": settings,
        "versions": {name: version(name) for name in ("aiobotocore", "botocore", "aiohttp", "ministack")},
        "machine": f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    result = asyncio.run(main(calls=arguments.calls, rounds=arguments.rounds, concurrency=arguments.concurrency))
    text = json.dumps(result, indent=2)
    print(text)  # noqa: T201 - the result
    if arguments.output is not None:
        arguments.output.write_text(text + "\n")
