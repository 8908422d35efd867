"""Calls of the library at the times of a schedule, and the fate of each."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

from botocore.exceptions import ClientError

from aioidempotency import AsyncIdempotencyStore, CompositeKey, ConfigurationError, DynamoDBBackend, StoreError
from aioidempotency.backends import Operation, Reply
from aioidempotency.partitioning import Partitioning

Fate = Literal["executed", "throttled", "unanswered"]
"""An `unanswered` call was still waiting for its completion when the measurement ended."""

# Half an hour from the next window of `TimeBuckets`, so that no measurement passes from one window to another; and far
# in the future, because MiniStack deletes expired items by the real clock.
_HALF_PAST = 4_102_446_600.0
_ORIGIN = time.monotonic()


def clock() -> float:
    """Show a time at which every run of the benchmark takes place."""
    return _HALF_PAST + time.monotonic() - _ORIGIN


@final
@dataclass(slots=True, kw_only=True)
class Outcome:
    """The fate of one call; times are seconds after the start: `at` of the schedule, the others as measured."""

    at: float
    begun: float = 0.0
    ended: float = 0.0
    fate: Fate = "unanswered"


@final
class _Closing:
    """A backend that can be shut: a completion that is still repeated then ends at once."""

    def __init__(self, backend: DynamoDBBackend) -> None:
        self._backend = backend
        self.closed = False

    async def execute(self, operation: Operation) -> Reply:
        """Execute an operation, unless the measurement is over."""
        if self.closed:
            raise ConfigurationError("the measurement is over")
        return await self._backend.execute(operation)


@final
class Calls:
    """The calls of one measurement, on a table of its own."""

    def __init__(self, opened: DynamoDBBackend, table_name: str, partitioning: Partitioning) -> None:
        def store(backend: DynamoDBBackend | _Closing) -> AsyncIdempotencyStore:
            return AsyncIdempotencyStore(
                table_name,
                layout=CompositeKey(partitioning=partitioning),
                backend=backend,
                verify_layout=False,
                on_completion_failure="raise",
                clock=clock,
            )

        self._backend = _Closing(opened)
        self._creator = store(opened)
        self._store = store(self._backend)

    async def play(self, schedule: Sequence[float], prefix: str, *, seconds: float) -> list[Outcome]:
        """Create the table, make all calls at their times, and give up on any without an answer after `seconds`."""
        await self._creator.create_table()
        loop = asyncio.get_running_loop()
        start = loop.time()
        outcomes = [Outcome(at=at) for at in schedule]
        tasks = []
        for number, outcome in enumerate(outcomes):
            await asyncio.sleep(start + outcome.at - loop.time())
            tasks.append(asyncio.create_task(self._call(f"{prefix}-{number}", outcome, start)))
        await asyncio.wait(tasks, timeout=start + seconds - loop.time())
        self._backend.closed = True
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended
        return outcomes

    async def _call(self, key: str, outcome: Outcome, start: float) -> None:
        loop = asyncio.get_running_loop()
        outcome.begun = loop.time() - start
        outcome.fate = await self._fate(key)
        outcome.ended = loop.time() - start

    async def _fate(self, key: str) -> Fate:
        """Make one call. An error other than throttling ends the benchmark."""
        try:
            async with self._store.execute(key) as execution:
                execution.complete(1)
        except StoreError as error:
            if not is_throttling(error.__cause__):
                raise
            return "throttled"
        except ConfigurationError:
            if not self._backend.closed:
                raise
            return "unanswered"
        return "executed"


def is_throttling(error: BaseException | None) -> bool:
    """Tell whether a partition without units caused an error."""
    if not isinstance(error, ClientError):
        return False
    reasons = error.response.get("CancellationReasons", ())
    codes = {error.response["Error"]["Code"], *(each.get("Code") for each in reasons)}
    return bool(codes & {"ProvisionedThroughputExceededException", "ThrottlingError"})
