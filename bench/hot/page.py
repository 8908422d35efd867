"""The numbers of the page `docs/pages/hot-partitions.md`, from the file of a run of `bench.placements`."""

import math

from bench.hot.results import Result
from bench.hot.settings import BUCKETS, NO_LIMITS, PLACEMENTS, STATIC
from bench.pages import setting, table
from bench.spread import Spread, spread


def blocks(result: Result) -> dict[str, str]:
    """Write all numbers of the page, by the names of their blocks."""
    return {
        "ratio": _ratio(result),
        "setting": _setting(result),
        "completed": _completed(result),
        "highest": _highest(result),
        "client": _client(result),
        "waiting": _waiting(result),
    }


def ratio(result: Result) -> Spread:
    """Divide the calls that 32 buckets complete at the highest load, in each round, by those of a static value."""
    top = max(result.settings.loads)
    done = {(row.strategy, row.round): row.completed_per_second for row in result.rows if row.offered == top}
    pairs = [(done[BUCKETS, number], done[STATIC, number]) for number in range(1, result.settings.rounds + 1)]
    # In the one short round of a quick run, a static value may complete nothing.
    return spread([buckets / static if static else math.inf for buckets, static in pairs])


def _ratio(result: Result) -> str:
    top, limit = max(result.settings.loads), result.settings.partition_limit
    static, buckets = (_number(result.completed(top, name)) for name in (STATIC, BUCKETS))
    median, least, most = map(_number, ratio(result))
    return (
        f"At {top} offered calls a second, `{BUCKETS}` completes {buckets} and `{STATIC}` {static}: "
        f"**{median} times the calls** ({least} to {most} in the rounds). By arithmetic one partition of this run takes {limit:g} new "
        f"calls a second, and the offered load is {top / limit:g} times as much."
    )


def _setting(result: Result) -> str:
    settings = result.settings
    again, late = sum(row.tries > 1 for row in result.rows), math.ceil(max(row.late_ms for row in result.rows))
    rows = {
        "Server": f"MiniStack behind `python -m bench.hot.proxy --scale {settings.scale:g}`: a partition gives "
        f"{1000 * settings.scale:g} write units a second, so {settings.partition_limit:g} new calls",
        "Offered": f"{', '.join(map(str, settings.loads))} calls a second; {max(settings.loads)} stand for "
        f"{max(settings.loads) / settings.scale:,.0f} at the scale of DynamoDB",
        "Measured": f"{settings.window} s, after {settings.warm_up} s in which full partitions spend their saved units; "
        f"an answer counts until {settings.patience:g} s later; medians of {settings.rounds} rounds",
        "Measured again": f"{again} of {len(result.rows)} measurements, because 1 % of their calls began more than "
        f"{settings.late_limit_ms:g} ms late; in the measurements that count, 99 % of the calls began less than {late} ms late",
        "botocore's attempts": f"{settings.attempts}",
    }
    return setting(result.machine, result.versions, result.command, rows)


def _completed(result: Result) -> str:
    loads = result.settings.loads
    rows = [(_code(name), *(_number(result.completed(load, name)) for load in loads)) for name in PLACEMENTS]
    return table(("Offered calls a second", *map(str, loads)), rows)


def _highest(result: Result) -> str:
    top = max(result.settings.loads)
    rows = []
    for name in PLACEMENTS:
        done = result.at(top, name, "completed_per_second")
        completed = f"{_number(done.median)} ({_number(done.least)} to {_number(done.most)})" if done else "none"
        shares = (result.at(top, name, figure) for figure in ("throttled_percent", "unanswered_percent"))
        percents = (f"{each.median:.1f} %" if each else "none" for each in shares)
        times = (_milliseconds(result.at(top, name, figure)) for figure in ("p50_ms", "p99_ms"))
        rows.append((_code(name), completed, *percents, *times))
    return table((f"At {top} calls a second", "completed a second", "throttled", "unanswered", "p50", "p99"), rows)


def _client(result: Result) -> str:
    top = max(result.settings.loads)
    busy = max(row.client_busy for row in result.rows)
    return (
        f"The client process was busy {busy:.0%} of the time at the most. Without limits it completes "
        f"{_number(result.completed(top, NO_LIMITS))} of {top} calls a second: neither the client nor MiniStack sets "
        "the limit."
    )


def _waiting(result: Result) -> str:
    """Show how long a completed call of a static value takes."""
    loads = result.settings.loads
    rows = [
        (name, *(_milliseconds(result.at(load, STATIC, figure)) for load in loads))
        for name, figure in (("p50 of completed calls", "p50_ms"), ("p99", "p99_ms"))
    ]
    return table((f"`{STATIC}`, offered calls a second", *map(str, loads)), rows)


def _code(name: str) -> str:
    return name if name == NO_LIMITS else f"`{name}`"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 20 else f"{value:.0f}"  # noqa: PLR2004 - three digits say enough


def _milliseconds(spread: Spread | None) -> str:
    return "none" if spread is None else f"{spread.median:.0f} ms"
