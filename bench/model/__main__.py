"""Serve the model on a free loopback port, until standard input ends.

The port is printed on one line. Without `--no-limits` every partition has the limits of DynamoDB's,
times `--scale`.

    python -m bench.model --partitions 64 --scale 0.05
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence

from bench.model.limits import Limits
from bench.model.service import Service
from bench.model.wire import Connection
from tests.support.lifeline import announce, exit_with_parent, listen


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options and serve."""
    limits = _limits(arguments)
    exit_with_parent()
    asyncio.run(_serve(Service(limits)))


async def _serve(service: Service) -> None:
    listener = listen()
    clock = _clock()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(service, clock), sock=listener)
    announce(listener.getsockname()[1])
    async with server:
        await server.serve_forever()


def _clock() -> Callable[[], float]:
    """Make a clock that shows the time of day and never jumps."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()


def _limits(arguments: Sequence[str] | None) -> Limits | None:
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    if options.pop("no_limits"):
        return None
    try:
        return Limits(**options)
    except ValueError as error:
        parser.error(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    normal = Limits()
    parser.add_argument("--partitions", type=int, default=normal.partitions, help="of each new table")
    parser.add_argument("--scale", type=float, default=normal.scale, help="multiplies the units of each partition")
    parser.add_argument("--burst", type=float, default=normal.burst, help="seconds of unused units that are kept")
    parser.add_argument("--split-after", type=float, help="seconds of saturation before a split; never, if not given")
    parser.add_argument("--no-limits", action="store_true", help="only count")
    return parser


if __name__ == "__main__":
    main()
