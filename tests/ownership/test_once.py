"""What is done once, however many ask for it: shared while it is under way, tried again when it failed."""

import asyncio
import traceback

import pytest

from aioidempotency import StoreError
from aioidempotency._concurrency import Once


class Work:
    """Something to be done once, held until it is told to end."""

    def __init__(self) -> None:
        self.begun = 0
        self.going_on = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> None:
        self.begun += 1
        await self.going_on.wait()
        if self.failure is not None:
            raise self.failure


async def begin(once: Once, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(once()) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_many_wait_for_one() -> None:
    """A cold start of many calls reads the layout once."""
    work = Work()
    once = Once(work)
    tasks = await begin(once, 50)
    work.going_on.set()
    await asyncio.gather(*tasks)
    await once()
    assert work.begun == 1
    assert once.done


async def test_who_waits_shares_the_failure() -> None:
    """Or else they would fail one after the other, each after its own time limit; the next call tries again."""
    work = Work()
    once = Once(work)
    work.failure = ValueError("down")
    tasks = await begin(once, 50)
    work.going_on.set()
    assert await asyncio.gather(*tasks, return_exceptions=True) == [work.failure] * 50
    assert work.begun == 1
    work.failure = None
    await once()
    assert work.begun == 2


async def test_what_is_asked_again_meanwhile_is_done_again() -> None:
    """What has begun knows nothing of the change: its caller goes on, and who asked for more waits for more."""
    work = Work()
    once = Once(work)
    (first,) = await begin(once, 1)
    once.again()
    (second,) = await begin(once, 1)
    work.going_on.set()
    await asyncio.gather(first, second)
    assert (work.begun, once.done) == (2, True)
    once.again()
    assert not once.done
    await once()
    assert work.begun == 3


async def test_a_cancelled_one_leaves_it_to_the_next() -> None:
    """Its cancellation is its own."""
    work = Work()
    once = Once(work)
    first, *others = await begin(once, 3)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    work.going_on.set()
    await asyncio.gather(*others)
    assert work.begun == 2


def test_what_a_closed_loop_left_behind_is_begun_anew() -> None:
    """An event that nobody sets any more must not be waited for."""
    work = Work()
    once = Once(work)
    left_behind = once()
    loop = asyncio.new_event_loop()
    loop.call_soon(left_behind.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()
    work.going_on = asyncio.Event()
    work.going_on.set()
    asyncio.run(once())
    assert work.begun == 2
    left_behind.close()


async def test_an_error_that_is_shared_does_not_grow() -> None:
    """Each of a thousand callers adds its frames to the error that it raises."""

    async def fail() -> None:
        await asyncio.sleep(0)
        raise StoreError("Get", "orders", "down")

    once = Once(fail)
    outcomes = await asyncio.gather(*(once() for _ in range(1000)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, StoreError)
        assert len(traceback.extract_tb(outcome.__traceback__)) < 10
