"""The numbers of the page `docs/pages/speed.md`, from the files of `bench.speed` and `bench.instructions`."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.pages import setting, table
from bench.speed import contest, goals, loads
from bench.speed.contest import MANY
from bench.speed.figures import by_round
from bench.spread import spread

Result = Mapping[str, Any]
_COLD: Final = "cold start"

_COLUMNS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "processor time": lambda row: f"{row['processor_us'][0]:,.0f} µs",
    "per second": lambda row: f"{row['per_second'][0]:,.0f}",
    "p50": lambda row: f"{row['p50_ms'][0]:.1f} ms",
    "p99": lambda row: f"{row['p99_ms'][0]:.1f} ms",
    "requests": lambda row: f"{row['requests'][0]:.2f}",
    "write units": lambda row: f"{row['write_units'][0]:.2f}",
    "peak memory": lambda row: f"{row['peak_mb'][2]:.0f} MB",
}


def blocks(speed: Result, instructions: Result) -> dict[str, str]:
    """Write all numbers of the page, by the names of their blocks."""
    counted: Mapping[str, float] = instructions["thousands"]
    return {
        "answer": _answer(speed, counted),
        "goals": _goals(speed, counted),
        "setting": _setting(speed),
        **{workload: _workload(speed, workload) for workload in contest.WORKLOADS},
        "concurrency": _concurrency(speed),
        "open-load": _open_load(speed),
        "bursts": _bursts(speed),
        "cold-starts": _cold_starts(speed),
        "instructions": table(
            ("thousand instructions", ""), [(name, f"{each:,.0f}") for name, each in counted.items()]
        ),
        "memory": _memory(speed),
    }


def _answer(speed: Result, counted: Mapping[str, float]) -> str:
    """Compare a fresh call with two bare ones."""
    rows = []
    for name in (contest.PLAIN.name, contest.GROUP_COMMIT.name):
        ours, theirs = (
            by_round(speed["rounds"], (each, "fresh", MANY), "processor_us") for each in (name, contest.BARE.name)
        )
        ratio = spread([ours[each] / theirs[each] for each in ours if each in theirs] or [float("nan")])
        of_instructions = f"{counted[name] / counted[contest.BARE.name]:.3f}"
        rows.append((name, f"{ratio.median:.2f}", of_instructions, f"{statistics.median(ours.values()):,.0f} µs"))
    return table((f"A fresh call, {MANY} at once", "over two bare calls", "in instructions", "processor time"), rows)


def _setting(speed: Result) -> str:
    settings = speed["settings"]
    busiest = max(row["server_share"][2] for row in speed["figures"] if row["workload"] != _COLD)
    rows = {
        "Server": f"{speed['server']}; busy {busiest:.0%} of the time at most",
        "Rounds": f"{settings['rounds']}, of spans of {settings['seconds']:g} s; tables have their median",
    }
    left_out = "; ".join(f"{name}: {reason}" for name, reason in speed["left_out"].items())
    return setting(
        speed["machine"], speed["versions"], speed["command"], rows | ({"Left out": left_out} if left_out else {})
    )


def _goals(speed: Result, counted: Mapping[str, float]) -> str:
    rows = []
    for goal in goals.outcomes(speed["rounds"], speed["memory"], counted):
        sense = "at most" if "at most" in goal else "at least"
        median, least, most = goal["measured"] or (float("nan"),) * 3
        verdict = {True: "met", False: "**missed**", None: "not measured"}[goal["met"]]
        rows.append((goal["goal"], f"{sense} {goal[sense]:g}", f"{median:.2f}", f"{least:.2f} to {most:.2f}", verdict))
    return table(("Goal", "wanted", "measured", "in its rounds", ""), rows)


def _workload(speed: Result, workload: str) -> str:
    rows = [
        (name, *(column(row) for column in _COLUMNS.values()))
        for name in contest.ORDER
        for row in speed["figures"]
        if (row["contestant"], row["workload"]) == (name, workload) and row["level"] == contest.usual_concurrency(name)
    ]
    return table((f"{MANY} at once", *_COLUMNS), rows)


def _concurrency(speed: Result) -> str:
    found = _levels(speed, "fresh")
    levels = speed["settings"]["concurrencies"]
    rows = [
        (name, *(f"{found[name, level]['processor_us'][0]:,.0f}" for level in levels))
        for name in contest.ORDER
        if all((name, level) in found for level in levels)
    ]
    return table(("µs for an execution, at once", *map(str, levels)), rows)


def _open_load(speed: Result) -> str:
    """Write latencies and processor time at each rate."""
    found = _levels(speed, "open load")
    rows = []
    for (name, rate), row in sorted(found.items(), key=lambda each: (each[0][1], contest.ORDER.index(each[0][0]))):
        late = row["drain_ms"][0] > loads.KEPT_UP
        latencies = [f"{row[each][0]:,.1f} ms" for each in ("p50_ms", "p99_ms")]
        rows.append((f"{rate:,}", name, *latencies, f"{row['processor_us'][0]:,.0f} µs", "**no**" if late else "yes"))
    return table(("arrivals a second", "", "p50", "p99", "processor time", "keeps up"), rows)


def _bursts(speed: Result) -> str:
    rows = [
        (
            f"{level:,}",
            name,
            f"{row['processor_us'][0]:,.0f} µs",
            f"{row['p99_ms'][0] / 1e3:,.2f} s",
            f"{row['failed'][2]:,.0f}",
        )
        for (name, level), row in _levels(speed, "burst").items()
    ]
    return table(("at once", "", "processor time", "p99", "failed"), rows)


def _cold_starts(speed: Result) -> str:
    rows = [
        (name, f"{row['processor_us'][0] / 1e3:,.0f} ms", f"{row['peak_mb'][2]:.0f} MB")
        for (name, _), row in _levels(speed, _COLD).items()
    ]
    return table(("A process that makes one call", "processor time", "peak memory"), rows)


def _levels(speed: Result, workload: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Find the figures of a workload, by contestant and level."""
    return {(row["contestant"], row["level"]): row for row in speed["figures"] if row["workload"] == workload}


def _memory(speed: Result) -> str:
    rows = [
        (row["contestant"], f"{row['bytes_per_call'] / 1024:.1f} KB", f"{row['bytes_of_the_body'] / 1024:.1f} KB")
        for row in speed["memory"]
    ]
    return table(("A call in flight keeps", "itself", "its body"), rows)
