"""What was measured, as a file keeps it."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import final

from bench.hot.calls import Outcome
from bench.hot.settings import Settings
from bench.spread import Spread, percentile, spread


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One placement under one load in one round.

    The counts of calls are of those that the schedule has in the measured seconds; latencies are from the time of
    the schedule, of executed calls.

    Attributes:
        tries: How often the measurement was made until its calls began in time.
        completed_per_second: Executed calls that ended in the measured seconds.
        late_ms: How much later than the schedule says the latest of 99 % of the calls began.
        client_busy: Processor seconds of the client for each second.
    """

    offered: int
    strategy: str
    round: int
    tries: int
    calls: int
    executed: int
    throttled: int
    unanswered: int
    completed_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    late_ms: float
    client_busy: float

    @property
    def throttled_percent(self) -> float:
        """How many of a hundred calls were throttled."""
        return 100 * self.throttled / self.calls

    @property
    def unanswered_percent(self) -> float:
        """How many of a hundred calls still waited for their completion at the end."""
        return 100 * self.unanswered / self.calls


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything about one run."""

    command: str
    machine: dict[str, object]
    versions: dict[str, str]
    settings: Settings
    rows: list[Row]

    def at(self, offered: int, strategy: str, figure: str) -> Spread | None:
        """Put the rounds of one figure together; None where no round has it."""
        rows = (row for row in self.rows if (row.offered, row.strategy) == (offered, strategy))
        known = [value for value in map(attrgetter(figure), rows) if value is not None]
        return spread(known) if known else None

    def completed(self, offered: int, strategy: str) -> float:
        """Find the median of the calls that were completed in a second."""
        found = self.at(offered, strategy, "completed_per_second")
        assert found is not None
        return found.median


def counted(outcomes: Sequence[Outcome], settings: Settings) -> dict[str, float | None]:
    """Count the fates of the calls of the measured seconds."""
    begins, ends = settings.warm_up, settings.warm_up + settings.window
    measured = [each for each in outcomes if begins <= each.at < ends]
    fates = [each.fate for each in measured]
    latencies = [1000 * (each.ended - each.at) for each in measured if each.fate == "executed"]
    completed = [each for each in outcomes if each.fate == "executed" and begins <= each.ended < ends]
    return {
        "calls": len(measured),
        **{fate: fates.count(fate) for fate in ("executed", "throttled", "unanswered")},
        "completed_per_second": round(len(completed) / settings.window, 2),
        "p50_ms": round(percentile(latencies, 0.5), 2) if latencies else None,
        "p99_ms": round(percentile(latencies, 0.99), 2) if latencies else None,
        "late_ms": round(percentile([1000 * (each.begun - each.at) for each in measured], 0.99), 2),
    }
