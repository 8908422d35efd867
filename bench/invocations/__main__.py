"""Measure an invocation of a Lambda handler: undecorated, with the library, and with Powertools, in one run.

    python -m bench.invocations --output bench/results/invocations.json --page docs/pages/lambda.md

It takes about a minute. Each handler is a process of its own, and is called as Lambda's runtime calls it; the server is
on loopback, so no latency of DynamoDB's is in the numbers.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

from bench import pages
from bench.invocations.handlers import HANDLERS
from bench.machine import machine, versions
from bench.speed import processes
from bench.speed.contest import Contestant
from bench.spread import spread

_PACKAGES: Final = ("aioidempotency", "aiobotocore", "aws-lambda-powertools", "boto3", "botocore")
_COLD_STARTS: Final = 5
_WARMING: Final = 20
_SLOWER: Final = {"asyncio.run each time": 10}
"""By how much fewer invocations a span of a handler has."""

Result = Mapping[str, Any]


def main(arguments: Sequence[str]) -> None:
    """Measure, or read what was measured; write it."""
    parser = pages.parser("bench.invocations", __doc__)
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds")
    parser.add_argument("--calls", type=int, default=200, help="invocations of a span")
    if "--quick" in arguments:
        parser.set_defaults(rounds=2, calls=20)
    options = parser.parse_args(arguments)
    if options.read is None:
        result = measured(options.rounds, options.calls, " ".join(("python -m bench.invocations", *arguments)))
    else:
        result = json.loads(options.read.read_text(encoding="utf-8"))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    pages.publish(options, blocks(result), dict)


def measured(rounds: int, calls: int, command: str) -> dict[str, Any]:
    """Measure everything. Handlers take turns in each round."""
    found: dict[str, dict[str, list[float]]] = {name: {"cold": [], "fresh": [], "duplicates": []} for name in HANDLERS}
    bodies = dict.fromkeys(HANDLERS, 0.0)
    with processes.running() as server:
        for number in range(min(_COLD_STARTS, rounds)):
            for name in HANDLERS:
                with processes.working(_contestant(name), server, tls=False) as worker:
                    found[name]["cold"].append(1e3 * worker.ask(do="cold", keys=[f"{name}-{number}"])["processor"])
        with ExitStack() as stack:
            workers = {
                name: stack.enter_context(processes.working(_contestant(name), server, tls=False)) for name in HANDLERS
            }
            for name, worker in workers.items():
                worker.ask(do="run", keys=[f"{name}-warm-{number}" for number in range(_WARMING)], concurrency=1)
            for number in range(rounds):
                server.renew_table()
                for name, worker in workers.items():
                    keys = [f"{name}-{number}-{call}" for call in range(calls // _SLOWER.get(name, 1))]
                    for kind in "fresh", "duplicates":
                        span = worker.ask(do="measure", keys=keys, concurrency=1)
                        found[name][kind].append(1e6 * span["processor"] / span["calls"])
                        bodies[name] += span["bodies"] / span["calls"] / rounds
                pages.say(f"round {number + 1} of {rounds}")
    return {
        "command": command,
        "machine": machine(),
        "versions": versions(_PACKAGES),
        "settings": {"rounds": rounds, "calls": calls},
        # How often the body ran for a key that came twice.
        "bodies": bodies,
        "figures": {name: {kind: spread(values) for kind, values in kinds.items()} for name, kinds in found.items()},
    }


def blocks(result: Result) -> dict[str, str]:
    """Write all numbers of the page, by the names of their blocks."""
    settings, rows = result["settings"], []
    for name, kinds in result["figures"].items():
        cells = [f"{kinds[kind][0]:,.0f} µs ({kinds[kind][1]:,.0f} to {kinds[kind][2]:,.0f})" for kind in _WARM]
        rows.append((name, f"{kinds['cold'][0]:,.0f} ms", *cells))
    how = f"{settings['rounds']} rounds of {settings['calls']} invocations; medians, and the least and the most"
    return {
        "invocations": pages.table(("processor time", "first answer of a process", "fresh", "duplicate"), rows),
        "setting": pages.setting(result["machine"], result["versions"], result["command"], {"Rounds": how}),
    }


_WARM: Final = ("fresh", "duplicates")


def _contestant(name: str) -> Contestant:
    return Contestant(name=name, command=(sys.executable, "-m", "bench.invocations.worker", name), levels=(1,))


if __name__ == "__main__":
    main(sys.argv[1:])
