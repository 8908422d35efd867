"""The numbers of the page `docs/pages/speed.md`, from a run of `bench.speed` and one of `bench.profile`."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from bench.pages import table
from bench.speed import contest
from bench.speed.goals import MANY

Result = Mapping[str, Any]
"""What a run wrote, read from its file."""

_COLUMNS: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "processor time": lambda row: f"{row['processor_us'][0]:,.0f} µs",
    "per second": lambda row: f"{row['per_second'][0]:,.0f}",
    "p50": lambda row: f"{row['p50_ms'][0]:.1f} ms",
    "p99": lambda row: f"{row['p99_ms'][0]:.1f} ms",
    "requests": lambda row: f"{row['requests'][0]:.2f}",
    "write units": lambda row: f"{row['write_units'][0]:.2f}",
    "peak memory": lambda row: f"{row['peak_mb'][2]:.0f} MB",
}


def blocks(speed: Result, before: Result, after: Result) -> dict[str, str]:
    """Write all numbers of the page, by the names of their blocks."""
    return {
        "setting": _setting(speed),
        "goals": _goals(speed),
        **{workload: _workload(speed, workload) for workload in ("fresh", "duplicates", "mix")},
        "concurrency": _concurrency(speed),
        "memory": _memory(speed),
        "profile": _profile(before, after),
    }


def _setting(speed: Result) -> str:
    machine, settings = speed["machine"], speed["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in speed["versions"].items())
    busiest = max(row["server_share"][2] for row in speed["figures"])
    rows = [
        ("Machine", f"{machine['cores']} cores, {machine['processor']}; {machine['system']}, {machine['python']}"),
        ("Versions", packages),
        ("Command", f"`{speed['command']}`"),
        ("Server", f"the model in `bench/model`, without limits; busy {busiest:.0%} of the time at most"),
        ("Rounds", f"{settings['rounds']}, of spans of {settings['seconds']:g} s; tables have their median"),
        *(("Left out", f"{name}: {reason}") for name, reason in speed["left_out"].items()),
    ]
    return table(("", ""), rows, numbers=":---")


def _goals(speed: Result) -> str:
    rows = []
    for goal in speed["goals"]:
        sense = "at most" if "at most" in goal else "at least"
        median, least, most = goal["measured"]
        verdict = "met" if goal["met"] else "**missed**"
        rows.append((goal["goal"], f"{sense} {goal[sense]:g}", f"{median:.2f}", f"{least:.2f} to {most:.2f}", verdict))
    return table(("Goal", "wanted", "measured", "in its rounds", ""), rows)


def _workload(speed: Result, workload: str) -> str:
    rows = [
        (name, *(column(row) for column in _COLUMNS.values()))
        for name in contest.ORDER
        for row in speed["figures"]
        if row["contestant"] == name and row["workload"] == workload and row["concurrency"] == _most_like(name)
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


def _profile(before: Result, after: Result) -> str:
    shown = [
        ("two bare calls", after["shares"]["two bare calls, tuned"]),
        ("plain path, before", before["shares"]["plain path"]),
        ("plain path", after["shares"]["plain path"]),
        ("group commit, before", before["shares"]["group commit"]),
        ("group commit", after["shares"]["group commit"]),
    ]
    areas = list(dict.fromkeys(area for _, shares in shown for area in shares))
    rows = [(area, *(f"{shares[area]:.1f} %" if area in shares else "" for _, shares in shown)) for area in areas]
    sums = [
        (f"**{whose}, in all**", *(f"{_sum(shares, whose):.1f} %" for _, shares in shown))
        for whose in ("client", "ours")
    ]
    return table(("Share of samples", *(name for name, _ in shown)), rows + sums)


def _sum(shares: Mapping[str, float], whose: str) -> float:
    return sum(share for area, share in shares.items() if area.startswith(whose))


def _most_like(name: str) -> int:
    """Powertools on one thread makes one call at a time."""
    return 1 if name == contest.POWERTOOLS.name else MANY
