"""What was measured, as it is kept in a file, and the medians of its rounds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from bench.hot.calls import Outcome
from bench.hot.settings import Settings
from bench.spread import Spread


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One placement under one load in one round.

    The counts of calls are of those that were to begin in the measured seconds; latencies are from
    the time that the schedule says, of calls that were executed or replayed. What the server counted is
    of all seconds.

    Attributes:
        completed_per_second: Calls that ended in the measured seconds, executed or replayed.
        tries: How often it was measured until its calls began in time.
        late_ms: How much later than the schedule says the latest of 99 % of the calls began.
        client_busy: Processor seconds of the client for each second, with all that it played at once.
        hottest_share: The share of the busiest partition in all write units.
    """

    stream: str
    offered: int
    strategy: str
    round: int
    tries: int
    calls: int
    executed: int
    replayed: int
    refused: int
    throttled: int
    unanswered: int
    completed_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    late_ms: float
    client_busy: float
    write_units: float
    throttled_writes: int
    partitions_used: int
    hottest_share: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One placement under a constant load: calls that ended in each second, by what became of them."""

    strategy: str
    split_after: float | None
    splits: int
    completed: list[int]
    throttled: list[int]
    late_ms: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One placement under one load: all rounds together. Shares are of the calls, 0 to 1.

    Attributes:
        failed_share: Throttled or unanswered.
    """

    stream: str
    offered: int
    strategy: str
    completed_per_second: Spread
    throttled_share: Spread
    unanswered_share: Spread
    failed_share: Spread
    p50_ms: Spread | None
    p99_ms: Spread | None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything about one run; `summary` follows from `rows`.

    Attributes:
        ceiling: For each round the calls a second that the client process makes without limits, 64 at a time.
    """

    command: str
    machine: dict[str, str | int]
    versions: dict[str, str]
    settings: Settings
    strategies: dict[str, dict[str, object]]
    ceiling: list[dict[str, float]]
    summary: list[Point]
    splitting: list[Curve]
    rows: list[Row]

    def at(self, stream: str, offered: int, strategy: str) -> Point:
        """Find a point."""
        wanted = stream, offered, strategy
        return next(each for each in self.summary if (each.stream, each.offered, each.strategy) == wanted)


def counted(outcomes: Sequence[Outcome], settings: Settings) -> dict[str, float | None]:
    """Count what became of the calls of the measured seconds."""
    begins, ends = settings.warm_up, settings.warm_up + settings.window
    measured = [each for each in outcomes if begins <= each.at < ends]
    fates = [each.fate for each in measured]
    latencies = [1000 * (each.ended - each.at) for each in measured if each.fate in {"executed", "replayed"}]
    completed = [each for each in outcomes if each.fate in {"executed", "replayed"} and begins <= each.ended < ends]
    return {
        "calls": len(measured),
        **{fate: fates.count(fate) for fate in ("executed", "replayed", "refused", "throttled", "unanswered")},
        "completed_per_second": round(len(completed) / settings.window, 2),
        "p50_ms": percentile(latencies, 0.5),
        "p99_ms": percentile(latencies, 0.99),
        "late_ms": late_ms(measured),
    }


def late_ms(outcomes: Sequence[Outcome]) -> float:
    """Tell how late the latest of 99 % of the calls began."""
    return percentile([1000 * (each.begun - each.at) for each in outcomes], 0.99) or 0.0


def percentile(values: Iterable[float], share: float) -> float | None:
    """Find the smallest value that so many are not above; None without any values."""
    ordered = sorted(values)
    return round(ordered[max(0, -int(-share * len(ordered) // 1) - 1)], 2) if ordered else None


def summary(rows: Sequence[Row]) -> list[Point]:
    """Put the rounds of each point together, in the order in which the points were first met."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.stream, row.offered, row.strategy), []).append(row)
    return [_point(group) for group in groups.values()]


def _point(group: Sequence[Row]) -> Point:
    first = group[0]
    return Point(
        stream=first.stream,
        offered=first.offered,
        strategy=first.strategy,
        completed_per_second=_spread(row.completed_per_second for row in group),
        throttled_share=_spread(row.throttled / row.calls for row in group),
        unanswered_share=_spread(row.unanswered / row.calls for row in group),
        failed_share=_spread((row.throttled + row.unanswered) / row.calls for row in group),
        p50_ms=_spread_of_known(row.p50_ms for row in group),
        p99_ms=_spread_of_known(row.p99_ms for row in group),
    )


def _spread(values: Iterable[float]) -> Spread:
    known = list(values)
    return Spread(round(statistics.median(known), 4), round(min(known), 4), round(max(known), 4))


def _spread_of_known(values: Iterable[float | None]) -> Spread | None:
    """Leave out the rounds in which no call was completed; None where that is all of them."""
    known = [value for value in values if value is not None]
    return _spread(known) if known else None
