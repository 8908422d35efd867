r"""Placements of records under rising load, on an emulator behind a proxy that limits each partition.

    python -m bench.placements --output bench/results/placements.json --plots docs/pages/images \
        --page docs/pages/hot-partitions.md

For each placement: completed calls a second, throttled calls and latencies. A call is a claim and a completion, with
a body that does nothing. All requests go to servers on loopback that this command starts and ends. A run takes under
four minutes.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence

import msgspec

from bench import pages
from bench.hot import page, pictures
from bench.hot.results import Result, Row
from bench.hot.rounds import measure_round
from bench.hot.settings import QUICK, Settings
from bench.machine import machine, versions

_PACKAGES = ("aioidempotency", "aiobotocore", "botocore", "aiohttp", "ministack")


def main(arguments: Sequence[str]) -> None:
    """Measure, or read what was measured; write and draw it."""
    options = pages.parser("bench.placements", __doc__).parse_args(arguments)
    # Throttling is the subject here: it is counted, not logged.
    logging.getLogger("aioidempotency").setLevel(logging.CRITICAL)
    if options.read is None:
        command = " ".join(["python -m bench.placements", *arguments])
        result = asyncio.run(measured(QUICK if options.quick else Settings(), command))
    else:
        result = msgspec.json.decode(options.read.read_bytes(), type=Result)
    if options.output is not None:
        options.output.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    pages.publish(options, page.blocks(result), lambda: pictures.drawn(result))


async def measured(settings: Settings, command: str) -> Result:
    """Measure everything."""
    rows: list[Row] = []
    for number in range(1, settings.rounds + 1):
        rows += await measure_round(settings, number, pages.say)
    return Result(command=command, machine=machine(), versions=versions(_PACKAGES), settings=settings, rows=rows)


if __name__ == "__main__":
    main(sys.argv[1:])
