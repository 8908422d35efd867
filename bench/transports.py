"""What two requests cost on each transport: processor time over TLS, and instructions.

    python -m bench.transports

The library's own two requests of a fresh call go out 64 at once, by aiobotocore's client as the library configures it,
and by the lean transport; to the server of `bench.speed`, on loopback, with and without TLS. Each transport is a process
of its own. Processor time is the median of the rounds' ratios, with the transports taking turns. Instructions are counted
by `valgrind --tool=cachegrind`, as the difference between a long and a short run; without valgrind they are left out.
The command takes about three minutes.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from aioidempotency.backends.dynamodb.client import OwnClients
from aioidempotency.backends.dynamodb.transport import Choice
from bench import cachegrind
from bench.pages import say
from bench.speed.bare import TwoCalls, recorded, tuned
from bench.speed.calls import Calls
from bench.speed.processes import ROOT, Server, running
from bench.spread import spread

_AT_ONCE: Final = 64
_PAIRS: Final = 2000
"""Pairs of requests in a span of processor time."""

_COUNTED: Final = (400, 1200)
"""Pairs of requests in the short and in the long run of which instructions are counted."""

_CONTESTANTS: Final = ("client", "lean")


def main(arguments: Sequence[str]) -> None:
    """Measure both transports, or be one of the processes."""
    match arguments:
        case ["work", contestant, url, *spans]:
            _work(contestant, url, [int(each) for each in spans])
        case _:
            parser = argparse.ArgumentParser("bench.transports", description=__doc__)
            parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
            say(json.dumps(measured(parser.parse_args(arguments).rounds), indent=1))


def measured(rounds: int) -> dict[str, Any]:
    """Measure everything."""
    with running() as server:
        with ExitStack() as workers:
            asked = {each: workers.enter_context(_working(each, server)) for each in _CONTESTANTS}
            taken: dict[str, list[float]] = {each: [] for each in _CONTESTANTS}
            for number in range(rounds + 1):
                for each in _CONTESTANTS if number % 2 else _CONTESTANTS[::-1]:
                    seconds = _ask(asked[each], _PAIRS)
                    # The first round opens the connections.
                    if number:
                        taken[each].append(seconds / _PAIRS * 1e6)
        ratios = [lean / client for client, lean in zip(taken["client"], taken["lean"], strict=True)]
        found: dict[str, Any] = {
            "processor_us": {name: spread(each)._asdict() for name, each in taken.items()},
            "processor_ratio": spread(ratios)._asdict(),
        }
        if cachegrind.available():
            counts = {each: _instructions(each, server) for each in _CONTESTANTS}
            found["thousand_instructions"] = {name: round(each / 1e3) for name, each in counts.items()}
            found["instructions_ratio"] = round(counts["lean"] / counts["client"], 4)
    return found


class TwoLeanCalls:
    """The client of `TwoCalls`, in front of a transport."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    async def put_item(self, **parameters: Any) -> Mapping[str, Any]:
        """Send PutItem."""
        found: Mapping[str, Any] = await self._transport.send("PutItem", parameters)
        return found

    async def update_item(self, **parameters: Any) -> Mapping[str, Any]:
        """Send UpdateItem."""
        found: Mapping[str, Any] = await self._transport.send("UpdateItem", parameters)
        return found


async def _opened(contestant: str, url: str) -> Calls:
    # Under valgrind everything takes fifty times as long.
    config = AioConfig(connect_timeout=60, read_timeout=60)
    if contestant == "client":
        return await tuned(url, config)
    chosen: Choice = "lean"
    clients = OwnClients(
        get_session(),
        config,
        endpoint_url=url,
        region_name=None,
        time_limit=60,
        transport=chosen,
        fell_back=lambda _: None,
    )
    resources = AsyncExitStack()
    resources.push_async_callback(clients.aclose)
    return TwoCalls(TwoLeanCalls(await clients.open()), resources, await recorded())


def _work(contestant: str, url: str, spans: Sequence[int]) -> None:
    """Make pairs of requests, as many as each line of the standard input says, or as many as are given."""
    with asyncio.Runner() as runner:
        calls = runner.run(_opened(contestant, url))
        lines = map(str, spans) if spans else iter(sys.stdin)
        for start, line in enumerate(lines):
            before = time.process_time()
            runner.run(_run(calls, f"{contestant}-{os.getpid()}-{start}", int(line)))
            say(json.dumps(time.process_time() - before))
        runner.run(calls.aclose())


async def _run(calls: Calls, prefix: str, pairs: int) -> None:
    keys = iter([f"{prefix}-{number}" for number in range(pairs)])

    async def one_after_the_other() -> None:
        for key in keys:
            await calls.call(key)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(_AT_ONCE):
            tasks.create_task(one_after_the_other())


@contextmanager
def _working(contestant: str, server: Server) -> Iterator["subprocess.Popen[str]"]:
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    command = _command(contestant, server.secure_url)
    with subprocess.Popen(command, cwd=ROOT, env=server.environment, **pipes) as process:
        try:
            yield process
        finally:
            # A worker ends with its standard input.
            process.communicate(timeout=30)


def _command(contestant: str, url: str) -> list[str]:
    return [sys.executable, "-m", "bench.transports", "work", contestant, url]


def _ask(worker: "subprocess.Popen[str]", pairs: int) -> float:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{pairs}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def _instructions(contestant: str, server: Server) -> float:
    """Count the instructions of a pair: the difference between two runs, which leaves out start and end."""
    short, long = (
        cachegrind.counted([*_command(contestant, server.url), str(_AT_ONCE), str(pairs)], server.environment)
        for pairs in _COUNTED
    )
    return (long - short) / (_COUNTED[1] - _COUNTED[0])


if __name__ == "__main__":
    main(sys.argv[1:])
