"""Rounds of measurements: each placement under each load, on fresh tables of a fresh server.

Several measurements share the client process at a time, as far as `Settings.at_once` allows, and their
tables share the server: a table has partitions of its own, with units of their own.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from aiobotocore.session import AioSession

from bench.hot.arrivals import schedule
from bench.hot.calls import Calls, Outcome
from bench.hot.counts import by_table
from bench.hot.playing import play, reached
from bench.hot.results import Row, counted
from bench.hot.settings import PLACEMENTS, STREAMS, Measurement, Settings, batches
from tests.support.engines import Engine, model_engine

Progress = Callable[[str], object]


async def measure_round(settings: Settings, session: AioSession, turn: int, progress: Progress) -> list[Row]:
    """Measure all placements under all loads, once; who plays together differs from turn to turn."""
    rows: list[Row] = []
    with model_engine() as free:
        for stream in STREAMS:
            played = _Played(settings=settings, session=session, free=free, stream=stream, turn=turn)
            for batch in batches(settings, turn):
                progress(f"round {turn + 1}, {stream} keys: " + ", ".join(map(str, batch)))
                rows += await _in_time(played, batch)
    return rows


async def _in_time(played: "_Played", batch: Sequence[Measurement], tries: int = 1) -> list[Row]:
    """Measure; where calls began late, measure again, and half of them at a time, so often as the settings allow."""
    found = [replace(row, tries=tries) for row in await played.together(batch)]
    if max(row.late_ms for row in found) <= played.settings.late_limit_ms or not played.may_repeat():
        return found
    halves = [half for half in (batch[::2], batch[1::2]) if half]
    return [row for half in halves for row in await _in_time(played, half, tries + 1)]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Put the rows of all rounds in an order in which they can be read."""
    return sorted(rows, key=_place)


def _place(row: Row) -> tuple[int, int, int, int]:
    names = [each.name for each in PLACEMENTS]
    return STREAMS.index(row.stream), row.offered, names.index(row.strategy), row.round


@final
@dataclass(slots=True, kw_only=True)
class _Played:
    """The measurements of one stream in one round, on a server without limits and fresh ones with them."""

    settings: Settings
    session: AioSession
    free: Engine
    stream: str
    turn: int
    plays: int = 0
    repeats: int = 0

    def may_repeat(self) -> bool:
        """Tell whether something may be measured again, and count that it is."""
        self.repeats += 1
        return self.repeats <= self.settings.repeats

    async def together(self, batch: Sequence[Measurement]) -> list[Row]:
        """Play some at the same time, and put together what the client and the servers counted."""
        settings = self.settings
        self.plays += 1
        with model_engine(**settings.limits) as engine:
            async with (
                reached(engine, self.session, settings) as limited,
                reached(self.free, self.session, settings) as free,
            ):
                backends = [limited if each.placement.limited else free for each in batch]
                tables = [f"{self.stream}-{self.plays}-{number}" for number in range(len(batch))]
                # Another prefix puts the buckets on other partitions: one table is luckier than another.
                prefix = f"round-{self.turn + 1}"
                made = zip(backends, tables, batch, strict=True)
                calls = [Calls(backend, table, each.placement.made(prefix)) for backend, table, each in made]
                outcomes, busy = await self._outcomes(batch, calls)
            servers = by_table(engine) | by_table(self.free)
        found = zip(batch, outcomes, tables, strict=True)
        return [self._row(each, ended, servers[table], busy) for each, ended, table in found]

    async def _outcomes(
        self, batch: Sequence[Measurement], calls: Sequence[Calls]
    ) -> tuple[list[list[Outcome]], float]:
        """Play the schedules; measure, too, how busy this process was."""
        seconds = self.settings.warm_up + self.settings.window
        schedules = [schedule(self.stream, each.offered, seconds, f"round {self.turn + 1}") for each in batch]
        before = time.monotonic(), time.process_time()
        outcomes = await play(calls, schedules, seconds=seconds + self.settings.patience)
        return outcomes, (time.process_time() - before[1]) / (time.monotonic() - before[0])

    def _row(self, each: Measurement, outcomes: Sequence[Outcome], server: dict[str, Any], busy: float) -> Row:
        found: dict[str, Any] = counted(outcomes, self.settings) | server
        del found["splits"]
        return Row(
            stream=self.stream,
            offered=each.offered,
            strategy=each.placement.name,
            round=self.turn + 1,
            tries=1,
            client_busy=round(busy, 3),
            **found,
        )
