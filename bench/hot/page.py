"""The numbers of the page `docs/pages/hot-partitions.md`, as they follow from what was measured."""

import statistics
from collections.abc import Sequence

from bench import pages
from bench.hot.results import Point, Result, Row
from bench.hot.settings import BUCKETS, NO_LIMITS, RANDOM, STATIC, STREAMS, WINDOWS
from bench.pages import table
from bench.spread import Spread


def renewed(text: str, result: Result) -> str:
    """Put a result's numbers into the text of the page."""
    return pages.renewed(text, blocks(result))


def blocks(result: Result) -> dict[str, str]:
    """Write all numbers of the page, by the names of their blocks."""
    return {
        "ratio": _ratio(result),
        "setting": _setting(result),
        "completed": _completed(result),
        **{f"highest-{stream}": _highest(result, stream) for stream in STREAMS},
        "waiting": _waiting(result),
        "several-places": _several_places(result),
        "shared": _shared(result),
        "duplicates": _duplicates(result),
        "replays": _replays(result),
        "client": _client(result),
        "splitting": _splitting(result),
    }


def ratio(result: Result, offered: int) -> float:
    """Say how many times the calls of a static value 32 buckets complete, of new keys at one load."""
    return _done(result, "uniform", offered, BUCKETS) / _done(result, "uniform", offered, STATIC)


def _ratio(result: Result) -> str:
    top = max(result.settings.loads)
    static, buckets = (_done(result, "uniform", top, name) for name in (STATIC, BUCKETS))
    below = result.settings.loads[-2]
    limit = result.settings.partition_limit
    return (
        f"At {top} offered calls a second, `HashBuckets(32)` completes {_number(buckets)} and `Static` "
        f"{_number(static)}: **{_number(ratio(result, top))} times the calls**. At {below} it is "
        f"{_number(ratio(result, below))} times, where {below / limit:g} is all that was offered. By arithmetic one "
        f"partition gives {limit:g} new calls a second; against that, `HashBuckets(32)` completes "
        f"{_number(buckets / limit)} times as many."
    )


def _setting(result: Result) -> str:
    machine, settings = result.machine, result.settings
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    server = f"`--partitions {settings.partitions} --scale {settings.scale:g} --burst {settings.burst:g}`"
    units = f"a partition gives {1000 * settings.scale:g} write units a second, {settings.partition_limit:g} new calls"
    top = max(settings.loads)
    stands_for = f"{top} stand for {top / settings.scale:,.0f} at the scale of DynamoDB"
    seconds = f"{settings.window} s, after {settings.warm_up} s that spend what full partitions had saved"
    waited = f"a call is waited for until {settings.patience:g} s after the last one's time"
    system = f"{machine['cores']} virtual cores; {machine['os']}"
    rows = [
        ("Machine", f"{system}; Python {machine['python']}, {versions}"),
        ("Command", f"`{result.command}`"),
        ("Server", f"{server}: {units}"),
        ("Offered", f"{_listed(settings.loads)} calls a second; {stands_for}"),
        ("Measured", f"{seconds}; {waited}; {settings.rounds} rounds, whose medians are shown"),
        ("Measured again", _repeated(result)),
        ("botocore's attempts", f"{settings.attempts}"),
    ]
    return table(("", ""), rows, numbers=":---")


def _repeated(result: Result) -> str:
    repeated, late = sum(row.tries > 1 for row in result.rows), max(row.late_ms for row in result.rows)
    return (
        f"{repeated} of {len(result.rows)} measurements, since 1 % of the calls that were played together began more than "
        f"{result.settings.late_limit_ms:g} ms late; of those that count, {late:.0f} ms"
    )


def _completed(result: Result) -> str:
    loads = result.settings.loads
    rows = [
        (_code(name), *(_number(_done(result, "uniform", load, name)) for load in loads)) for name in result.strategies
    ]
    return table(("Offered calls a second", *map(str, loads)), rows)


def _highest(result: Result, stream: str) -> str:
    top = max(result.settings.loads)
    head = (f"At {top} calls a second", "completed a second", "throttled", "unanswered", "p50", "p99")
    return table(head, [(_code(name), *_cells(result.at(stream, top, name))) for name in result.strategies])


def _cells(point: Point) -> tuple[str, ...]:
    done = point.completed_per_second
    return (
        f"{_number(done.median)} ({_number(done.least)} to {_number(done.most)})",
        _share(point.throttled_share),
        _share(point.unanswered_share),
        _milliseconds(point.p50_ms),
        _milliseconds(point.p99_ms),
    )


def _waiting(result: Result) -> str:
    """Show how long a call of a static value takes, where it is completed."""
    loads = result.settings.loads
    half = [_milliseconds(result.at("uniform", load, STATIC).p50_ms) for load in loads]
    most = [_milliseconds(result.at("uniform", load, STATIC).p99_ms) for load in loads]
    head = ("`Static`, offered calls a second", *map(str, loads))
    return table(head, [("p50 of completed calls", *half), ("p99", *most)])


def _several_places(result: Result) -> str:
    top = max(result.settings.loads)
    done = {name: _number(_done(result, "uniform", top, name)) for name in (BUCKETS, WINDOWS, RANDOM)}
    return (
        f"At {top} offered calls a second, `{WINDOWS}` completes {done[WINDOWS]} and `{RANDOM}` {done[RANDOM]}, where "
        f"`{BUCKETS}` completes {done[BUCKETS]}."
    )


def _shared(result: Result) -> str:
    top = max(result.settings.loads)
    rows = []
    for name in (name for name in result.strategies if name.startswith("HashBuckets")):
        found = {stream: _rows(result, stream, top, name) for stream in STREAMS}
        used = [row.partitions_used for row in found["uniform"]]
        shares = (_range([100 * row.hottest_share for row in found[stream]]) for stream in STREAMS)
        rows.append((_code(name), f"{min(used)} to {max(used)}", *shares))
    return table(("", "partitions with records", "the busiest one's units", "where half repeat a key"), rows)


def _duplicates(result: Result) -> str:
    top = max(result.settings.loads)
    rows = [
        (_code(name), *(_number(_done(result, stream, top, name)) for stream in STREAMS))
        for name in result.strategies
        if name != NO_LIMITS
    ]
    return table((f"Completed a second, of {top}", "new keys only", "half repeat a key"), rows)


def _replays(result: Result) -> str:
    """Show how many of the completed calls were replays, all rounds together."""
    loads = result.settings.loads
    rows = [
        (_code(name), *(_replayed(_rows(result, "skewed", load, name)) for load in loads))
        for name in (STATIC, "HashBuckets(4)", BUCKETS)
    ]
    return table(("Offered calls a second", *map(str, loads)), rows)


def _replayed(rows: Sequence[Row]) -> str:
    replayed = sum(row.replayed for row in rows)
    return f"{100 * replayed / (replayed + sum(row.executed for row in rows)):.0f} %"


def _rows(result: Result, stream: str, offered: int, strategy: str) -> list[Row]:
    wanted = stream, offered, strategy
    return [row for row in result.rows if (row.stream, row.offered, row.strategy) == wanted]


def _range(percentages: Sequence[float]) -> str:
    return f"{min(percentages):.1f} to {max(percentages):.1f} %"


def _done(result: Result, stream: str, offered: int, strategy: str) -> float:
    return result.at(stream, offered, strategy).completed_per_second.median


def _client(result: Result) -> str:
    one, two = (statistics.median(each[name] for each in result.ceiling) for name in (BUCKETS, RANDOM))
    top, at_once = max(result.settings.loads), result.settings.at_once
    busy = max(row.client_busy for row in result.rows)
    return (
        f"Without limits the client process makes {_number(one)} calls a second with one place and {_number(two)} with "
        f"two, 64 at a time. It is never given more than the work of {at_once} with one place, and was at most "
        f"{100 * busy:.0f} % busy. On a server without limits it completes "
        f"{_number(_done(result, 'uniform', top, NO_LIMITS))} of {top}: the client is not what limits."
    )


def _splitting(result: Result) -> str:
    last = result.settings.split_seconds // 3
    rows = [
        (
            _code(curve.strategy),
            "never" if curve.split_after is None else f"{curve.split_after:g} s of saturation",
            str(curve.splits),
            _number(sum(curve.completed[:last]) / last),
            _number(sum(curve.completed[-last:]) / last),
        )
        for curve in result.splitting
    ]
    first, final = f"completed a second, first {last} s", f"last {last} s"
    return table((f"At {result.settings.split_load} calls a second", "split after", "splits", first, final), rows)


def _code(name: str) -> str:
    return name if name == NO_LIMITS else f"`{name}`"


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 20 else f"{value:.0f}"  # noqa: PLR2004 - three digits say enough


def _share(spread: Spread) -> str:
    return f"{100 * spread.median:.1f} %"


def _milliseconds(spread: Spread | None) -> str:
    return "none" if spread is None else f"{spread.median:.0f} ms"


def _listed(numbers: Sequence[int]) -> str:
    return f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
