"""The time limit of operations: one timer for each loop, and cancellations as with `asyncio.timeout`."""

import asyncio
from typing import Any

import pytest

from aioidempotency import DynamoDBBackend, StoreError
from aioidempotency._core.model import AttributeNames, Location, Table
from aioidempotency._core.operations import Get
from aioidempotency.backends.dynamodb.backend import TimeLimit
from tests.support.virtual_time import in_virtual_time

HERE = Location(table=Table("records", "id", None, AttributeNames()), partition="orders#1")


class Silent:
    """A client that answers after some seconds, and counts who waits."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        async def call(**_: object) -> dict[str, object]:
            self.asked += 1
            await asyncio.sleep(self.seconds)
            return {}

        return call


def backend(seconds: float) -> DynamoDBBackend:
    client: Any = Silent(seconds)
    return DynamoDBBackend(client, time_limit=5.0)


@in_virtual_time
async def test_each_operation_ends_at_its_own_limit() -> None:
    here, ends = backend(60.0), []
    loop = asyncio.get_running_loop()

    async def read(after: float) -> None:
        await asyncio.sleep(after)
        with pytest.raises(StoreError, match=r"within 5"):
            await here.execute(Get(HERE))
        ends.append(round(loop.time() - start, 3))
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    start = loop.time()
    await asyncio.gather(*map(read, (0.0, 1.0, 1.0, 4.5, 7.0)))
    assert ends == [5.0, 6.0, 6.0, 9.5, 12.0]


@in_virtual_time
async def test_operations_in_time_leave_nothing_behind() -> None:
    """A later operation gets its whole time, although the timer was set for an earlier one."""
    here = backend(4.9)
    for _ in range(3):
        assert await here.execute(Get(HERE)) is not None
    limit = here._limits[asyncio.get_running_loop()]
    assert not limit._under_way


@in_virtual_time
async def test_a_cancellation_by_the_caller_passes() -> None:
    """Before the limit, and at the same moment."""
    here = backend(60.0)
    for after in (1.0, 5.0):
        task = asyncio.create_task(here.execute(Get(HERE)))
        asyncio.get_running_loop().call_later(after, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


@in_virtual_time
async def test_a_limit_around_it_comes_first() -> None:
    here = backend(60.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2.0):
            await here.execute(Get(HERE))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@in_virtual_time
async def test_a_swallowed_cancellation_is_taken_back() -> None:
    """As by a client that turns a cancellation into an error of its own."""
    limit = TimeLimit(5.0)
    limited = limit.begin()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(60)
    assert limited.task.cancelling() == 1
    assert limit.end(limited)
    assert not limit.end(limited)
    assert limited.task.cancelling() == 0


@in_virtual_time
async def test_the_timer_comes_back_after_it_found_nothing() -> None:
    """An operation that begins when the last timer has gone off has a limit, too."""
    here = backend(1.0)
    await here.execute(Get(HERE))
    await asyncio.sleep(60)
    here._given.client.seconds = 60.0  # type: ignore[union-attr] # it was given
    with pytest.raises(StoreError, match=r"within 5"):
        await here.execute(Get(HERE))


@in_virtual_time
async def test_an_operation_is_cancelled_once_however_long_its_end_takes() -> None:
    """Its clean-up may wait, while the limits of others pass."""
    limit = TimeLimit(5.0)
    limited = limit.begin()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(60)
    assert not limit.end(limit.begin())
    await asyncio.sleep(30)
    assert limited.task.cancelling() == 1
    assert limit.end(limited)


@in_virtual_time
async def test_many_operations_share_one_timer() -> None:
    loop = asyncio.get_running_loop()
    limit = TimeLimit(5.0)
    timers = len(loop._scheduled)  # type: ignore[attr-defined] # asyncio tells it nowhere else
    running = [limit.begin() for _ in range(100)]
    assert len(loop._scheduled) == timers + 1  # type: ignore[attr-defined]
    for each in running:
        assert not limit.end(each)


def test_an_operation_outside_of_a_task_says_so() -> None:
    async def make() -> TimeLimit:
        return TimeLimit(5.0)

    limit = asyncio.run(make())
    with pytest.raises(RuntimeError, match="task"):
        limit.begin()
