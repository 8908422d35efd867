"""Measure an execution: ours, two bare calls of the client, and Powertools, in one run.

    python -m bench.speed --output bench/results/speed.json --plots docs/pages/images --page docs/pages/speed.md

It takes about ten minutes; with --quick two.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from bench import pages
from bench.machine import machine, versions
from bench.speed import contest, goals, page, plots, rounds
from bench.speed.figures import summary
from bench.speed.rounds import Settings

_PACKAGES: Final = ("aioidempotency", "aiobotocore", "aiohttp", "anyio", "botocore", "msgspec")
_PEERS: Final = ("aws-lambda-powertools", "boto3")
_QUICK: Final = {"concurrency": [1, 64], "rounds": 3, "seconds": 0.2}


def main(arguments: Sequence[str]) -> None:
    """Measure, or read what was measured; write and draw it."""
    parser, normal = pages.parser("bench.speed", __doc__), Settings()
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(normal.concurrencies), help="calls at once")
    parser.add_argument("--rounds", type=int, default=normal.rounds, help="measured rounds")
    parser.add_argument("--seconds", type=float, default=normal.seconds, help="what a span should take")
    parser.add_argument("--only", nargs="+", choices=contest.ORDER, default=contest.ORDER, metavar="NAME")
    if "--quick" in arguments:
        parser.set_defaults(**_QUICK)
    options = parser.parse_args(arguments)
    if options.read is None:
        settings = Settings(concurrencies=tuple(options.concurrency), rounds=options.rounds, seconds=options.seconds)
        result = measured(settings, options.only, " ".join(("python -m bench.speed", *arguments)))
    else:
        result = json.loads(options.read.read_text(encoding="utf-8"))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    pages.publish(options, page.blocks(result), lambda: plots.drawn(result["figures"]))


def measured(settings: Settings, wanted: Sequence[str], command: str) -> dict[str, Any]:
    """Measure everything."""
    contestants, missing = contest.gather(wanted)
    rows, memory = rounds.run(contestants, settings, pages.say)
    return {
        "command": command,
        "machine": machine(),
        "versions": versions(_PACKAGES) | versions(_PEERS) | contest.typescript_versions(),
        "server": "`bench/speed/server.py`, in memory and without limits",
        "settings": {
            "concurrencies": settings.concurrencies,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
        },
        "left_out": missing,
        "goals": goals.outcomes(rows, memory),
        "memory": memory,
        "figures": summary(rows),
        "rounds": rows,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
