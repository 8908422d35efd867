"""Placements of records under rising load, on a model of DynamoDB with a limit for each partition.

For each of several strategies: completed calls a second, throttled calls and latencies, with new keys
alone and with many duplicates of few keys; and what splits of a hot partition change over time. A call
is what a user of the library makes: a claim and a completion, of a body that does nothing. All requests
go to servers on loopback that this command starts and ends; it takes eight minutes on two idle cores.

    python -m bench.placements --output bench/results/placements.json --plots docs/pages/images
"""

import argparse
import asyncio
import logging
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from bench.hot import page, pictures
from bench.hot.extras import measure_ceiling, measure_splitting
from bench.hot.playing import opened_session
from bench.hot.results import Result, Row, summary
from bench.hot.rounds import in_order, measure_round
from bench.hot.settings import PLACEMENTS, QUICK, Settings

_DISTRIBUTIONS = ("aioidempotency", "aiobotocore", "botocore", "aiohttp", "matplotlib")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or read what was measured; write and draw it."""
    given = _parser().parse_args(arguments)
    # Throttling is the subject here: it is counted, not logged.
    logging.getLogger("aioidempotency").setLevel(logging.CRITICAL)
    if given.read is None:
        result = asyncio.run(measured(QUICK if given.quick else Settings(), _command(arguments)))
    else:
        result = msgspec.json.decode(given.read.read_bytes(), type=Result)
    if given.output is not None:
        given.output.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    if given.plots is not None:
        pictures.save(result, given.plots)
    if given.page is not None:
        given.page.write_text(page.renewed(given.page.read_text(encoding="utf-8"), result), encoding="utf-8")
    _say("\n\n".join(page.blocks(result).values()))


async def measured(settings: Settings, command: str) -> Result:
    """Measure everything."""
    session = opened_session()
    ceiling: list[dict[str, float]] = []
    found: list[Row] = []
    for turn in range(settings.rounds):
        ceiling.append(await measure_ceiling(settings, session))
        found += await measure_round(settings, session, turn, _say)
    rows = in_order(found)
    _say(f"splitting: {settings.split_load} calls a second for {settings.split_seconds} s")
    splitting = await measure_splitting(settings, session)
    return Result(
        command=command,
        machine={"cores": os.cpu_count() or 0, "os": platform.system(), "python": platform.python_version()},
        versions={name: version(name) for name in _DISTRIBUTIONS},
        settings=settings,
        strategies={each.name: dict(each.made("round-1").description()) for each in PLACEMENTS},
        ceiling=ceiling,
        summary=summary(rows),
        splitting=splitting,
        rows=rows,
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _command(arguments: Sequence[str] | None) -> str:
    return " ".join(["python -m bench.placements", *(sys.argv[1:] if arguments is None else arguments)])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.placements", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="write all numbers into this file")
    parser.add_argument("--plots", type=Path, help="draw into this folder")
    parser.add_argument("--page", type=Path, help="renew the numbers of this page")
    parser.add_argument("--read", type=Path, help="measure nothing, and read the numbers from this file")
    parser.add_argument("--quick", action="store_true", help="one round of a minute")
    return parser


if __name__ == "__main__":
    main()
