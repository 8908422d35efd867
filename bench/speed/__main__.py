"""Measure an execution: ours, two bare calls by several clients, and Powertools, in one run and over TLS.

    python -m bench.speed --output bench/results/speed.json --plots docs/pages/images --page docs/pages/speed.md

It takes about twelve minutes; with --quick two and a half. Instructions are counted by `bench.instructions`, and read from its file.
"""

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from bench import pages
from bench.instructions import RESULTS
from bench.machine import machine, versions
from bench.speed import contest, loads, page, plots, rounds
from bench.speed.figures import summary
from bench.speed.rounds import Settings

_PACKAGES: Final = ("aioidempotency", "aiobotocore", "aiohttp", "anyio", "botocore", "msgspec")
_PEERS: Final = ("aiodynamo", "pydynox", "aws-lambda-powertools", "boto3")
_FILES: Final = 8192
_QUICK: Final = {"concurrency": [1, 64], "rounds": 3, "seconds": 0.2, "rates": [400, 1500], "bursts": [1000, 10_000]}


def main(arguments: Sequence[str]) -> None:
    """Measure, or read what was measured; write and draw it."""
    parser, normal = pages.parser("bench.speed", __doc__), Settings()
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(normal.concurrencies), help="calls at once")
    parser.add_argument("--rounds", type=int, default=normal.rounds, help="measured rounds")
    parser.add_argument("--seconds", type=float, default=normal.seconds, help="what a span should take")
    parser.add_argument("--rates", type=int, nargs="+", default=list(normal.rates), help="arrivals in a second")
    parser.add_argument("--bursts", type=int, nargs="+", default=list(normal.bursts), help="calls that begin at once")
    parser.add_argument("--only", nargs="+", choices=contest.ORDER, default=contest.ORDER, metavar="NAME")
    if "--quick" in arguments:
        parser.set_defaults(**_QUICK)
    options = parser.parse_args(arguments)
    if options.read is None:
        settings = Settings(
            concurrencies=tuple(options.concurrency),
            rounds=options.rounds,
            seconds=options.seconds,
            rates=tuple(options.rates),
            bursts=tuple(options.bursts),
        )
        result = measured(settings, options.only, " ".join(("python -m bench.speed", *arguments)))
    else:
        result = json.loads(options.read.read_text(encoding="utf-8"))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    instructions = json.loads(RESULTS.read_text(encoding="utf-8"))
    pages.publish(options, page.blocks(result, instructions), lambda: plots.drawn(result["figures"]))


def measured(settings: Settings, wanted: Sequence[str], command: str) -> dict[str, Any]:
    """Measure everything."""
    # All processes inherit it: of 1,024 calls at once each may have a connection.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, _FILES) if most > 0 else _FILES, most))
    contestants, missing = contest.gather(wanted)
    loaded = [
        measure(contestants, settings, pages.say) for measure in (loads.bursts, loads.cold_starts, loads.open_loads)
    ]
    rows, memory = rounds.run(contestants, settings, pages.say)
    rows += [row for part in loaded for row in part]
    return {
        "command": command,
        "machine": machine(),
        "versions": versions(_PACKAGES) | versions(_PEERS) | contest.typescript_versions(),
        "server": "`bench/speed/server.py`, in memory and without limits",
        "settings": asdict(settings),
        "left_out": missing,
        "memory": memory,
        "figures": summary(rows),
        "rounds": rows,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
