"""The numbers of the page `docs/pages/speed.md`, from the file of a run of `bench.speed`."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.pages import setting, table
from bench.speed import contest
from bench.speed.goals import MANY

Result = Mapping[str, Any]

_COLUMNS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "processor time": lambda row: f"{row['processor_us'][0]:,.0f} µs",
    "per second": lambda row: f"{row['per_second'][0]:,.0f}",
    "p50": lambda row: f"{row['p50_ms'][0]:.1f} ms",
    "p99": lambda row: f"{row['p99_ms'][0]:.1f} ms",
    "requests": lambda row: f"{row['requests'][0]:.2f}",
    "write units": lambda row: f"{row['write_units'][0]:.2f}",
    "peak memory": lambda row: f"{row['peak_mb'][2]:.0f} MB",
}


def blocks(speed: Result) -> dict[str, str]:
    """Write all numbers of the page, by the names of their blocks."""
    return {
        "setting": _setting(speed),
        "goals": _goals(speed),
        **{workload: _workload(speed, workload) for workload in ("fresh", "duplicates", "mix")},
        "concurrency": _concurrency(speed),
        "memory": _memory(speed),
    }


def _setting(speed: Result) -> str:
    settings, busiest = speed["settings"], max(row["server_share"][2] for row in speed["figures"])
    rows = {
        "Server": f"{speed['server']}; busy {busiest:.0%} of the time at most",
        "Rounds": f"{settings['rounds']}, of spans of {settings['seconds']:g} s; tables have their median",
    }
    left_out = "; ".join(f"{name}: {reason}" for name, reason in speed["left_out"].items())
    return setting(
        speed["machine"], speed["versions"], speed["command"], rows | ({"Left out": left_out} if left_out else {})
    )


def _goals(speed: Result) -> str:
    rows = []
    for goal in speed["goals"]:
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
        if (row["contestant"], row["workload"]) == (name, workload)
        and row["concurrency"] == contest.usual_concurrency(name, MANY)
    ]
    return table((f"{MANY} at once", *_COLUMNS), rows)


def _concurrency(speed: Result) -> str:
    found = {(row["contestant"], row["concurrency"]): row for row in speed["figures"] if row["workload"] == "fresh"}
    levels = speed["settings"]["concurrencies"]
    rows = [
        (name, *(f"{found[name, level]['processor_us'][0]:,.0f}" for level in levels))
        for name in contest.ORDER
        if all((name, level) in found for level in levels)
    ]
    return table(("µs for an execution, at once", *map(str, levels)), rows)


def _memory(speed: Result) -> str:
    rows = [
        (row["contestant"], f"{row['bytes_per_call'] / 1024:.1f} KB", f"{row['bytes_of_the_body'] / 1024:.1f} KB")
        for row in speed["memory"]
    ]
    return table(("A call in flight keeps", "itself", "its body"), rows)
