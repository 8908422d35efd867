"""Measure an execution: ours, two bare calls of the client, and Powertools, in one run.

    python -m bench.speed --output bench/results/speed.json --plots docs/pages/images --page docs/pages/speed.md

It takes about ten minutes; with --quick two. The page also shows what `bench.profile`
wrote next to the output.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench import pages
from bench.speed import contest, goals, page, rounds, tables
from bench.speed.figures import summary, written
from bench.speed.machine import machine, versions
from bench.speed.rounds import Settings

_QUICK: Final = {"concurrency": [1, 64], "rounds": 3, "seconds": 0.2}


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    options = _options(arguments)
    console = Console(width=150)
    contestants, missing = contest.gather(options.only)
    for name, reason in missing.items():
        console.print(f"Left out: {name}; {reason}.")
    settings = Settings(concurrencies=tuple(options.concurrency), rounds=options.rounds, seconds=options.seconds)
    rows, memory = rounds.run(contestants, settings, console.print)
    found, outcomes = summary(rows), goals.outcomes(rows, memory)
    tables.show(console, found, memory, outcomes)
    result = {
        "command": " ".join(("python -m bench.speed", *arguments)),
        "machine": machine(),
        "versions": versions(contestants),
        "settings": {"concurrencies": options.concurrency, "rounds": options.rounds, "seconds": options.seconds},
        "left_out": missing,
        "goals": [each.written() for each in outcomes],
        "memory": memory,
        "figures": written(found),
        "rounds": rows,
    }
    _write(result, options.output)
    if options.page is not None:
        profiles = [_read(options.output.with_name(name)) for name in ("profile-before.json", "profile.json")]
        text = options.page.read_text(encoding="utf-8")
        options.page.write_text(pages.renewed(text, page.blocks(_read(options.output), *profiles)), encoding="utf-8")
    if options.plots is not None:
        from bench.speed.plots import draw  # noqa: PLC0415 - it takes a second, and not every run draws

        for path in draw(found, options.plots):
            console.print(f"Drawn: {path}")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(result: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    normal = Settings()
    parser.add_argument("--output", type=Path, help="a file for the result as JSON, raw rounds included")
    parser.add_argument("--plots", type=Path, help="a directory for the pictures")
    parser.add_argument("--page", type=Path, help="renew the numbers of this page; needs --output")
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it runs")
    parser.add_argument("--concurrency", type=int, nargs="+", default=list(normal.concurrencies), help="calls at once")
    parser.add_argument("--rounds", type=int, default=normal.rounds, help="measured rounds")
    parser.add_argument("--seconds", type=float, default=normal.seconds, help="what a span should take")
    parser.add_argument(
        "--only", nargs="+", choices=contest.ORDER, default=contest.ORDER, metavar="NAME", help="contestants"
    )
    if "--quick" in arguments:
        parser.set_defaults(**_QUICK)
    options = parser.parse_args(arguments)
    if options.page is not None and options.output is None:
        parser.error("--page shows what --output names: give both")
    return options


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
