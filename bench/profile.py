"""Where the processor time of one execution goes: samples of what runs, by whose work it is.

    python -m bench.profile --output bench/results/profile.json

A signal looks at the stack every few milliseconds of processor time. A sample belongs to the innermost frame
that a rule names: so what the standard library does for the signer is the signer's. Shares are of the
client's process alone; `bench.speed` measures their sum.
"""

import argparse
import asyncio
import json
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Final

import aioidempotency
from bench.speed import bare, ours
from bench.speed.machine import machine, versions
from bench.speed.server import Server
from tests.support.engines import model_engine

_OURS: Final = str(Path(aioidempotency.__file__).parent)

AREAS: Final[Mapping[str, Sequence[str]]] = {
    "ours: batches": ("@ours/backends/dynamodb/group_commit", "@ours/backends/dynamodb/batches"),
    "ours: requests and replies": ("@ours/backends/",),
    "ours: protocol and keys": ("@ours/_core/", "@ours/_keys", "@ours/_options"),
    "ours: lease and cancellation": ("@ours/_lease", "@ours/_concurrency", "@ours/_backoff", "/anyio/"),
    "ours: the rest": ("@ours/",),
    "client: signing": ("botocore/auth", "botocore/signers", "aiobotocore/signers"),
    "client: event hooks": ("botocore/hooks", "aiobotocore/hooks"),
    "client: endpoint rules": ("botocore/endpoint_provider", "botocore/regions", "aiobotocore/regions"),
    "client: writing requests": ("botocore/serialize", "botocore/validate", "botocore/awsrequest"),
    "client: reading answers": ("botocore/parsers", "aiobotocore/parsers", "aiobotocore/response"),
    "client: retries": ("botocore/retr", "aiobotocore/retr"),
    "client: HTTP": ("/aiohttp/", "/yarl/", "/multidict/", "aiobotocore/httpsession"),
    "client: the rest": ("/botocore/", "/aiobotocore/"),
    "event loop": ("/asyncio/", "selectors.py"),
}
"""Parts of paths, of which the first that fits counts; `@ours` is the package."""

CONTESTANTS: Final[Mapping[str, Callable[[str], Awaitable[Any]]]] = {
    "two bare calls, tuned": bare.tuned,
    "plain path": ours.plain,
    "group commit": ours.group_commit,
}
AT_ONCE: Final = 64
CALLS_EACH: Final = 20
INTERVAL: Final = 0.001
"""Seconds of processor time; many kernels look every 4 ms at the most."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample all contestants, and write their shares."""
    parser = argparse.ArgumentParser(prog="python -m bench.profile", description="Where an execution's time goes.")
    parser.add_argument("--output", type=Path, help="a file for the shares, as JSON")
    parser.add_argument("--samples", type=int, default=3000, help="looks at each contestant")
    options = parser.parse_args(arguments)
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "eu-west-1"}
    with model_engine() as engine:
        server = Server(engine.endpoint_url)
        server.renew_table()
        found = {name: asyncio.run(_sampled(make, server.url, options.samples)) for name, make in CONTESTANTS.items()}
        server.close()
    result = {
        "command": f"python -m bench.profile --samples {options.samples}",
        "machine": machine(),
        "versions": versions([]),
        "shares": {name: shares(samples) for name, samples in found.items()},
        "samples": {name: samples.total() for name, samples in found.items()},
    }
    text = json.dumps(result, indent=1) + "\n"
    if options.output is None:
        print(text)  # noqa: T201 - a command
    else:
        options.output.write_text(text)


def shares(samples: Counter[str]) -> dict[str, float]:
    """Compute each area's percentage."""
    return {area: round(100 * samples[area] / samples.total(), 1) for area in [*AREAS, "other"] if samples[area]}


def area_of(frame: FrameType | None) -> str:
    """Find whose work a stack is at."""
    while frame is not None:
        path = frame.f_code.co_filename.replace(_OURS, "@ours")
        for area, parts in AREAS.items():
            if any(part in path for part in parts):
                return area
        frame = frame.f_back
    return "other"


@contextmanager
def sampling(samples: Counter[str]) -> Iterator[None]:
    """Count where the process is, at each interval of its processor time."""

    def look(_: int, frame: FrameType | None) -> None:
        samples[area_of(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


async def _sampled(make: Callable[[str], Awaitable[Any]], url: str, wanted: int) -> Counter[str]:
    contestant, keys, samples = await make(url), count(), Counter[str]()

    async def work(share: int) -> None:
        for _ in range(share):
            await contestant.call(f"profile-{make.__name__}-{next(keys)}")

    async def all_calls() -> None:
        await asyncio.gather(*(work(CALLS_EACH) for _ in range(AT_ONCE)))

    await all_calls()
    with sampling(samples):
        while samples.total() < wanted:
            await all_calls()
    await contestant.aclose()
    return samples


if __name__ == "__main__":
    main()
