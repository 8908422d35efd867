"""Calls of the library, as a schedule says, and what became of each."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Literal, final

from botocore.exceptions import ClientError

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    CompositeKey,
    ConfigurationError,
    DynamoDBBackend,
    InProgressError,
    StoreError,
)
from aioidempotency._core.operations import Operation, Reply
from aioidempotency.backends.dynamodb import requests as expressions
from aioidempotency.partitioning import Partitioning
from bench.hot.arrivals import Arrival

Fate = Literal["executed", "replayed", "refused", "throttled", "unanswered"]
"""What became of a call: `refused` is a duplicate of a running one, `unanswered` one that ended too late."""

WORKERS = 8
"""Stores that share the calls: duplicates meet in the table, as those of different processes do."""

_HALF_PAST = 1_800_001_800.0
"""The stores' clock at the start, half an hour from the next window of `TimeBuckets`."""

_ORIGIN = time.monotonic()


def clock() -> float:
    """Show a time at which every run of the benchmark takes place."""
    return _HALF_PAST + time.monotonic() - _ORIGIN


@final
@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one call; times are seconds after the start, `begun` and `ended` as they really were."""

    at: float
    begun: float = 0.0
    ended: float = 0.0
    fate: Fate = "unanswered"


@final
class _Closing:
    """A backend that can be shut: what is still under way then ends at once."""

    def __init__(self, backend: DynamoDBBackend) -> None:
        self._backend = backend
        self.closed = False

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, unless it is too late."""
        if self.closed:
            raise ConfigurationError("the measurement is over")
        return await self._backend.execute(operation)


@final
class Calls:
    """The calls of one measurement, on a table of its own."""

    def __init__(self, backend: DynamoDBBackend, table_name: str, partitioning: Partitioning) -> None:
        self._opened, self._backend = backend, _Closing(backend)
        self._table = CompositeKey().table(table_name, AttributeNames())
        layout = CompositeKey(partitioning=partitioning)
        self._stores = [
            AsyncIdempotencyStore(
                table_name,
                layout=layout,
                backend=self._backend,
                verify_layout=False,
                on_completion_failure="raise",
                clock=clock,
            )
            for _ in range(WORKERS)
        ]

    async def prepare(self) -> None:
        """Make the table, and open a client."""
        await self._opened.create_table(self._table)

    async def play(self, schedule: Sequence[Arrival], *, start: float, until: float) -> list[Outcome]:
        """Make all calls at their times from `start` on, and give up at `until` what is not answered; both by the loop."""
        loop = asyncio.get_running_loop()
        outcomes = [Outcome(at=arrival.at) for arrival in schedule]
        tasks = []
        for arrival, outcome, store in zip(schedule, outcomes, cycle(self._stores), strict=False):
            await asyncio.sleep(start + arrival.at - loop.time())
            tasks.append(asyncio.create_task(self._call(store, arrival.key, outcome, start)))
        await asyncio.wait(tasks, timeout=until - loop.time())
        await self._close(tasks)
        return outcomes

    async def _close(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        self._backend.closed = True
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    async def _call(self, store: AsyncIdempotencyStore, key: str, outcome: Outcome, start: float) -> None:
        loop = asyncio.get_running_loop()
        outcome.begun = loop.time() - start
        fate = await self._fate(store, key)
        outcome.fate, outcome.ended = fate, loop.time() - start

    async def _fate(self, store: AsyncIdempotencyStore, key: str) -> Fate:
        """Make one call. What nobody expects here ends the benchmark."""
        try:
            async with store.execute(key) as execution:
                if not execution.replayed:
                    execution.complete(1)
        except InProgressError:
            return "refused"
        except StoreError as error:
            if not is_throttling(error):
                raise
            return "throttled"
        except ConfigurationError:
            if not self._backend.closed:
                raise
            return "unanswered"
        return "replayed" if execution.replayed else "executed"


def is_throttling(error: BaseException | None) -> bool:
    """Tell whether an error goes back to a partition without units; a follower's goes back to its leader's."""
    if isinstance(error, StoreError):
        return is_throttling(error.__cause__)
    if not isinstance(error, ClientError):
        return False
    code = error.response["Error"]["Code"]
    return code == "ProvisionedThroughputExceededException" or "ThrottlingError" in expressions.reasons(error.response)
