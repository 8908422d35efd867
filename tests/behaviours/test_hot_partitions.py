"""A DynamoDB with a limit for each partition, P6: in counts, and in a time that stands until a test moves it.

The engine is MiniStack behind the benchmark's proxy, whose partitions have 20 write units each, so 10 new calls, and
give nothing back while the clock stands. `bench/placements.py` measures the same at rising load.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    HashBuckets,
    InProgress,
    RandomBuckets,
    Replay,
    Static,
    StoreError,
    TimeBuckets,
)
from aioidempotency.partitioning import Partitioning
from aioidempotency.testing import FakeClock
from bench.hot.proxy import Partitions, proxying
from tests.conftest import store_options, stores
from tests.support.engines import Engine

ONCE = AioConfig(retries={"total_max_attempts": 1})
UNITS = 20
"""Write units of a full partition, and what it gives back in a second."""

CALLS = range(200)
PER_PARTITION = UNITS // 2
"""A claim and a completion take one unit each."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Hot:
    """A store on limited partitions, the clock of both, and how often each body ran."""

    store: AsyncIdempotencyStore
    partitions: Partitions
    clock: FakeClock
    runs: Counter[int]

    async def call(self, number: int) -> str:
        """Make one call: "done", or "throttled" where the error says so and what to do. Any other is a failure."""
        try:
            assert await self.store.run(number, self.body, number) == number
        except StoreError as error:
            check_advice(error)
            return "throttled"
        return "done"

    async def body(self, number: int) -> int:
        self.runs[number] += 1
        return number

    async def answers(self, calls: Any) -> list[str]:
        """Make calls one after the other: what each partition has is then shared in one order."""
        return [await self.call(number) for number in calls]


def check_advice(error: StoreError) -> None:
    """Throttling is told as that, with its cause and the way out."""
    assert isinstance(error.__cause__, ClientError)
    assert error.retryable
    assert "ProvisionedThroughputExceededException" in str(error)
    assert "one partition is too hot; spread the records with layout=CompositeKey(" in str(error)
    assert "HashBuckets" in str(error)


@asynccontextmanager
async def hot(
    ministack: Engine, session: AioSession, partitioning: Partitioning, units: int = UNITS
) -> AsyncIterator[Hot]:
    """Make a store whose table's partitions have so many write units each, and a clock that stands."""
    clock = FakeClock()
    partitions = Partitions(scale=units / 1000, clock=clock)
    options = {"layout": CompositeKey(partitioning=partitioning), "verify_layout": False, "clock": clock}
    async with proxying(ministack.endpoint_url, partitions) as proxy:
        engine = replace(ministack, endpoint_url=proxy.url)
        async with stores({**store_options(engine, session), **options, "config": ONCE}) as make:
            yield Hot(store=make(), partitions=partitions, clock=clock, runs=Counter())


async def test_one_partition_value_takes_what_one_partition_has(ministack: Engine, session: AioSession) -> None:
    """P6: with `Static` every further call is throttled, told so with the advice, and its body does not run."""
    async with hot(ministack, session, Static("idempotency")) as table:
        answers = await table.answers(CALLS)
        assert answers == ["done"] * PER_PARTITION + ["throttled"] * (len(CALLS) - PER_PARTITION)
        assert table.partitions.consumed.total() == UNITS
        assert table.partitions.throttled.total() == answers.count("throttled")
        assert sorted(table.runs) == list(range(PER_PARTITION))


async def test_thirty_two_buckets_take_many_times_the_calls_of_one_value(
    ministack: Engine, session: AioSession
) -> None:
    """P6: of the calls of which `Static` completes 10, `HashBuckets(32)` completes at least 80."""
    async with hot(ministack, session, HashBuckets(32)) as table:
        answers = await table.answers(CALLS)
    assert answers.count("done") >= 8 * PER_PARTITION
    assert table.runs == Counter([number for number, answer in enumerate(answers) if answer == "done"])


async def test_four_buckets_take_four_times_the_calls(ministack: Engine, session: AioSession) -> None:
    """P6: buckets that lie on partitions of their own add up."""
    async with hot(ministack, session, HashBuckets(4)) as table:
        assert (await table.answers(CALLS)).count("done") == 4 * PER_PARTITION


@pytest.mark.parametrize("partitioning", [Static("idempotency"), HashBuckets(32)], ids=["Static", "HashBuckets"])
async def test_calls_that_were_throttled_run_later_and_no_body_runs_twice(
    ministack: Engine, session: AioSession, partitioning: Partitioning
) -> None:
    """P6: whoever repeats them gets through when the partition has units again."""
    async with hot(ministack, session, partitioning) as table:
        waiting, seconds = list(CALLS), 0
        while waiting:
            answers = await table.answers(waiting)
            waiting = [number for number, answer in zip(waiting, answers, strict=True) if answer == "throttled"]
            table.clock.advance(1)
            seconds += 1
        assert table.runs == Counter(CALLS)
        assert await table.answers(range(PER_PARTITION)) == ["done"] * PER_PARTITION
        assert table.runs == Counter(CALLS), "these were replays"
        assert seconds == len(CALLS) / PER_PARTITION or not isinstance(partitioning, Static)


async def test_a_completion_that_is_throttled_is_sent_again_and_its_key_stays_taken(
    ministack: Engine, session: AioSession
) -> None:
    """P6: the limit may fall between a claim and its completion; meanwhile nobody else owns the key."""
    async with hot(ministack, session, Static("idempotency"), units=1) as table:
        claimed = await table.store.claim("k")
        assert isinstance(claimed, Claimed)
        with pytest.raises(StoreError, match="HashBuckets"):
            await table.store.complete(claimed.lease, "first")
        table.clock.advance(1)
        assert isinstance(await table.store.claim("k"), InProgress)
        table.clock.advance(1)
        await table.store.complete(claimed.lease, "first")
        table.clock.advance(1)
        replay = await table.store.claim("k")
        assert isinstance(replay, Replay)
        assert replay.result == "first"


@pytest.mark.parametrize(
    ("partitioning", "units"),
    [(Static("idempotency"), 2), (HashBuckets(32), 2), (RandomBuckets(32), 5), (TimeBuckets(3600), 5)],
    ids=lambda each: type(each).__name__,
)
async def test_a_claim_of_two_locations_costs_double_for_each(
    ministack: Engine, session: AioSession, partitioning: Partitioning, units: int
) -> None:
    """P6, P7: a transaction takes two units in each location, and the completion one."""
    async with hot(ministack, session, partitioning) as table:
        table.clock.advance(1800)
        assert await table.answers(range(10)) == ["done"] * 10
        assert table.partitions.consumed.total() == 10 * units


async def test_a_throttled_transaction_says_that_it_was_throttled(ministack: Engine, session: AioSession) -> None:
    """Two locations are on two partitions, and either may be the busy one: the error names the cause."""
    async with hot(ministack, session, RandomBuckets(32, 2), units=1) as table:
        with pytest.raises(StoreError, match=r"TransactionCanceledException \(\w*Thr\w*\); try again later"):
            for number in CALLS:
                await table.store.claim(number)
        assert 0 < table.partitions.consumed.total() < len(CALLS)
