"""The plan's numbers, against ones that were found in another way."""

import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, CompositeKey, MemoryBackend, Static
from aioidempotency._cli import capacity, planning, tails
from aioidempotency._cli.billing import PARTS, Bill, Units, bill
from aioidempotency._cli.planning import Terms, make_plan
from aioidempotency._cli.simulation import hottest_loads
from aioidempotency._cli.tails import Stream
from aioidempotency._cli.workload import PlanError, Workload
from aioidempotency._core import model
from aioidempotency._core.operations import Found, Get, Operation, Put, Reply
from aioidempotency.testing import FakeClock
from tests.support.values import replace

EXAMPLE = Workload(calls_per_second=20_000, duplicates=0.2, result_bytes=900)
SMALL = Workload(calls_per_second=2_000, duplicates=0.2, result_bytes=900)
NEVER = math.inf


def _poisson(rate: float, events: int) -> float:
    return math.exp(events * math.log(rate) - rate - math.lgamma(events + 1))


def _fresh_share(work: Workload, buckets: int) -> tuple[float, float]:
    return work.calls_per_second * (1 - work.duplicates) / buckets, work.calls_per_second * work.duplicates / buckets


def _enough_alone(work: Workload) -> float:
    try:
        return capacity.smallest(bill(work), 0.99)
    except PlanError:
        return NEVER


def _enough_together(work: Workload, partitions: int) -> float:
    return planning._enough_together(bill(work), partitions, 0.99) or NEVER


def test_the_example_is_what_one_computes_by_hand() -> None:
    """16,000 fresh calls take a unit and two, 4,000 duplicates two; a record has 1,152 bytes."""
    plan = make_plan(EXAMPLE, Terms())
    names = {"pk": 16, "sk": 30 + 1 + 64, "status": 9, "expiration": 10, "in_progress_expiration": 13}
    names |= {"owner": 32, "fencing_token": 13, "data": 900}
    assert plan.finished_bytes == sum(len(name) + size for name, size in names.items()) == 1152
    assert plan.running_bytes == plan.finished_bytes - len("data") - 900 + len("INPROGRESS") - len("COMPLETED")
    assert (plan.write_units, plan.read_units) == (16_000 * (1 + 2) + 4_000 * 2, 0)
    assert plan.cost == pytest.approx(56_000 * 730 * 3600 / 1e6 * 0.625)
    assert plan.static == pytest.approx(1000 / 56_000)
    assert plan.partitions == 112


async def test_the_sizes_are_those_of_what_a_store_writes() -> None:
    """The claim's item and the finished one, of a store with the same namespace, result and fingerprint."""
    written: list[Put] = []

    class Recording:
        def __init__(self) -> None:
            self.inner = MemoryBackend()

        async def execute(self, operation: Operation) -> Reply:
            if isinstance(operation, Put):
                written.append(operation)
            return await self.inner.execute(operation)

    async def work() -> str:
        return "x" * 898

    backend = Recording()
    layout = CompositeKey(partitioning=Static("idempotency#9999"))
    clock = FakeClock(1_790_000_000.5)
    store = AsyncIdempotencyStore(
        "t", namespace="n" * 30, layout=layout, backend=backend, clock=clock, verify_layout=False
    )
    await store.run("key", work)
    await store.claim("other", fingerprint="payload")
    first, second = written
    assert model.size(first.item) == EXAMPLE.running_bytes
    assert model.size(second.item) == replace(EXAMPLE, fingerprint=True).running_bytes
    finished = await backend.execute(Get(first.location))
    assert isinstance(finished, Found)
    assert finished.item is not None
    assert model.size(finished.item) == EXAMPLE.finished_bytes


@pytest.mark.parametrize(
    ("changes", "fresh", "duplicate"),
    [
        ({}, Units(write=3), Units(write=2)),
        ({"result_bytes": 4000}, Units(write=1 + 5), Units(write=5)),
        ({"fingerprint": True, "result_bytes": 700}, Units(write=1 + 2), Units(write=2)),
        ({"fingerprint": False, "result_bytes": 700}, Units(write=1 + 1), Units(write=1)),
        ({"namespace_bytes": 400, "result_bytes": 500}, Units(write=1 + 2), Units(write=2)),
        ({"read_first": True}, Units(write=3, read=1), Units(read=1)),
        ({"read_first": True, "result_bytes": 4000}, Units(write=6, read=1), Units(read=2)),
        ({"places": 3}, Units(write=3 * 2 + 2), Units(write=2 * 2 + 2 * 2)),
        ({"places": 3, "read_first": True}, Units(write=8, read=3), Units(read=3)),
    ],
)
def test_a_call_takes_the_units_of_its_requests(changes: dict[str, Any], fresh: Units, duplicate: Units) -> None:
    """Writes by KB, reads by 4 KB, twice as much in a transaction over several places."""
    billed = bill(replace(EXAMPLE, **changes))
    assert (billed.per_fresh, billed.per_duplicate) == (fresh, duplicate)
    assert billed.write_units == 16_000 * fresh.write + 4_000 * duplicate.write
    assert tails.mean(billed.streams) == pytest.approx(3 * billed.write_units + billed.read_units)


@settings(deadline=None, max_examples=60)
@given(
    rates=st.lists(st.floats(0.01, 60), min_size=2, max_size=2),
    parts=st.lists(st.integers(1, 9), min_size=2, max_size=2),
    limit=st.integers(1, 400),
)
def test_a_tail_is_the_sum_over_all_pairs_of_counts(rates: list[float], parts: list[int], limit: int) -> None:
    """Two streams, added up one count at a time."""
    fitting = math.fsum(
        _poisson(rates[0], first) * _poisson(rates[1], second)
        for first in range(limit // parts[0] + 1)
        for second in range((limit - first * parts[0]) // parts[1] + 1)
    )
    streams = [Stream(rate, each) for rate, each in zip(rates, parts, strict=True)]
    assert tails.passing(streams, limit) == pytest.approx(1 - fitting, abs=1e-12)


def test_a_tail_holds_where_an_empty_second_is_too_rare_for_a_float() -> None:
    """900 events a second: e to the -900 is 0 as a float, and the tail is not."""
    expected = math.fsum(_poisson(900, events) for events in range(1001, 1400))
    assert 1e-4 < expected < 1e-3
    assert tails.passing([Stream(900, 3)], 3000) == pytest.approx(expected, rel=1e-6)


def test_a_load_of_nothing_passes_nothing() -> None:
    """Streams without events add nothing."""
    assert tails.passing([Stream(0, 3)], 3000) == 0


@pytest.mark.parametrize(("trials", "chance"), [(1, 1.0), (1, 0.25), (8, 0.25), (4096, 1 / 112), (8192, 1 / 4)])
def test_the_binomial_probabilities_are_whole(trials: int, chance: float) -> None:
    """They add up to 1, with the right mean, from the largest count to the smallest."""
    drawn = list(tails.binomial(trials, chance))
    assert math.fsum(mass for _, mass in drawn) == pytest.approx(1, abs=1e-9)
    assert math.fsum(count * mass for count, mass in drawn) == pytest.approx(trials * chance)
    assert [count for count, _ in drawn] == sorted((count for count, _ in drawn), reverse=True)


@pytest.mark.parametrize("buckets", [6, 7, 8])
def test_each_bucket_alone_agrees_with_drawn_seconds(buckets: int) -> None:
    """20,000 seconds of every bucket, drawn call by call; within four standard errors."""
    drawn = np.random.default_rng(buckets)
    fresh, duplicates = _fresh_share(SMALL, buckets)
    units = 3 * drawn.poisson(fresh, (20_000, buckets)) + 2 * drawn.poisson(duplicates, (20_000, buckets))
    exact = capacity.alone(bill(SMALL), buckets)
    assert np.mean((units <= 1000).all(axis=1)) == pytest.approx(exact, abs=4 * math.sqrt(0.25 / 20_000))


@pytest.mark.parametrize(("buckets", "partitions"), [(1, 4), (16, 12), (64, 12), (128, 12), (512, 12), (128, 6)])
def test_the_bounds_hold_around_drawn_tables(buckets: int, partitions: int) -> None:
    """10,000 tables, each with a placement and a second of its own; within four standard errors."""
    drawn = np.random.default_rng(buckets)
    held = drawn.multinomial(buckets, [1 / partitions] * partitions, 10_000)
    fresh, duplicates = _fresh_share(SMALL, buckets)
    units = 3 * drawn.poisson(fresh * held) + 2 * drawn.poisson(duplicates * held)
    share, bounds = np.mean((units <= 1000).all(axis=1)), capacity.together(bill(SMALL), buckets, partitions)
    error = 4 * math.sqrt(0.25 / 10_000)
    assert bounds.low - error <= share <= bounds.high + error
    assert bounds.high <= capacity.alone(bill(SMALL), buckets)


@pytest.mark.parametrize(("buckets", "partitions"), [(8, 6), (1024, 6), (4096, 6), (8192, 7)])
def test_runs_of_numbers_bound_the_sum_over_all_of_them(buckets: int, partitions: int) -> None:
    """Only some numbers of buckets on a partition are computed; the sum over each single one lies between."""
    billed = bill(SMALL)
    whole = math.fsum(
        mass * tails.passing(tails.share(billed.streams, held / buckets), PARTS)
        for held, mass in tails.binomial(buckets, 1 / partitions)
    )
    low, high = capacity._passing_somewhere(billed, buckets, partitions)
    assert low * 0.999999 <= whole <= high * 1.000001
    assert high - low < whole / 2


@pytest.mark.parametrize(("buckets", "partitions"), [(256, 12), (512, 12), (1024, 12)])
def test_the_bounds_are_close_where_it_matters(buckets: int, partitions: int) -> None:
    """Where the answer is near the probability asked for, a hundredth lies between them at the most."""
    bounds = capacity.together(bill(SMALL), buckets, partitions)
    assert bounds.low > 0.9
    assert bounds.high - bounds.low < 0.01


@pytest.mark.parametrize(("buckets", "partitions"), [(64, 12), (128, 12), (256, 12)])
def test_the_simulation_agrees_with_the_bounds(buckets: int, partitions: int) -> None:
    """4,000 seconds on a fixed seed; within four standard errors."""
    loads = hottest_loads(bill(SMALL).streams, buckets=buckets, partitions=partitions, seconds=4000, chance=Random(1))
    share, bounds = sum(load <= PARTS for load in loads) / 4000, capacity.together(bill(SMALL), buckets, partitions)
    error = 4 * math.sqrt(0.25 / 4000)
    assert bounds.low - error <= share <= bounds.high + error


def test_the_simulation_draws_the_load_that_there_is() -> None:
    """On one partition the hottest load is the whole: its mean and variance are those of the calls."""
    loads = hottest_loads(bill(SMALL).streams, buckets=5, partitions=1, seconds=4000, chance=Random(1))
    assert np.mean(loads) / 3 == pytest.approx(5600, rel=0.002)
    assert np.var(loads) / 9 == pytest.approx(1600 * 3**2 + 400 * 2**2, rel=0.1)


@pytest.mark.parametrize("work", [EXAMPLE, SMALL, replace(SMALL, read_first=True), replace(SMALL, places=2)])
@pytest.mark.parametrize("probability", [0.5, 0.99, 0.9999])
def test_one_bucket_fewer_would_not_do(work: Workload, probability: float) -> None:
    """The smallest number is the first of all that holds."""
    billed = bill(work)
    numbers = range(1, 10_000)
    first = next(number for number in numbers if capacity.alone(billed, number) >= probability)
    assert capacity.smallest(billed, probability) == first


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_mean_at_the_limit_passes_it_about_half_the_time(share: float) -> None:
    """A bucket with 1,000 units on average is not enough, whatever the mix: load by limit is too few buckets."""
    billed = bill(replace(SMALL, duplicates=share))
    full = tails.share(billed.streams, 1000 / billed.write_units)
    assert tails.passing(full, PARTS) == pytest.approx(0.5, abs=0.03)


@settings(deadline=None, max_examples=25)
@given(
    calls=st.tuples(st.floats(1, 2e6), st.floats(1, 2e6)),
    results=st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)),
    duplicates=st.floats(0, 1),
    read_first=st.booleans(),
)
def test_more_load_never_gives_fewer_buckets(
    calls: tuple[float, float], results: tuple[int, int], duplicates: float, *, read_first: bool
) -> None:
    """More calls and larger results need as many buckets or more, or more than there may be."""
    less, more = (
        Workload(calls_per_second=each, result_bytes=size, duplicates=duplicates, read_first=read_first)
        for each, size in zip(sorted(calls), sorted(results), strict=True)
    )
    assert _enough_alone(less) <= _enough_alone(more)


@settings(deadline=None, max_examples=15)
@given(calls=st.tuples(st.floats(10, 4000), st.floats(10, 4000)), partitions=st.integers(1, 20))
def test_more_load_on_the_same_partitions_never_gives_fewer_buckets(
    calls: tuple[float, float], partitions: int
) -> None:
    """Likewise before splits, where the number of partitions does not grow with the load."""
    less, more = (replace(SMALL, calls_per_second=each) for each in sorted(calls))
    assert _enough_together(less, partitions) <= _enough_together(more, partitions)


def test_partitions_are_those_of_a_table_that_has_had_the_load() -> None:
    """Four for a new table; else what twice the load needs, reads and writes together."""
    assert capacity.partitions_for(bill(replace(EXAMPLE, calls_per_second=10))) == 4
    assert capacity.partitions_for(bill(EXAMPLE)) == math.ceil(2 * 56)
    reading = bill(replace(EXAMPLE, read_first=True))
    assert capacity.partitions_for(reading) == math.ceil(2 * (48_000 / 1000 + 20_000 / 3000))


def test_buckets_are_a_power_of_two_that_holds_before_and_after_splits() -> None:
    """The plan's number is enough for both, and half of it is not."""
    plan, billed = make_plan(SMALL, Terms()), bill(SMALL)
    assert plan.buckets.bit_count() == 1
    assert capacity.alone(billed, plan.buckets) >= 0.99
    assert capacity.together(billed, plan.buckets, plan.partitions).low >= 0.99
    assert capacity.together(billed, plan.buckets // 2, plan.partitions).low < 0.99
    assert plan.enough_together == plan.buckets > plan.enough_alone


def test_partitions_that_are_full_on_average_are_never_enough() -> None:
    """Five partitions for 5,600 units: no number of buckets helps, and the plan counts on splits."""
    plan = make_plan(SMALL, Terms(partitions=5))
    assert plan.enough_together is None
    assert plan.buckets == 8 >= plan.enough_alone
    assert max(row.simulated for row in plan.rows) == 0


@pytest.mark.parametrize(("calls", "enough"), [(10, True), (500, True), (2000, False), (20_000, False)])
def test_the_default_of_the_layout_is_judged(calls: float, *, enough: bool) -> None:
    """32 buckets carry some hundred calls a second before splits."""
    assert make_plan(replace(EXAMPLE, calls_per_second=calls), Terms()).default_is_enough is enough


def test_a_seed_gives_one_plan() -> None:
    """The same seed, the same plan; another seed changes what was drawn, and nothing that was computed."""
    plan, again, other = (make_plan(SMALL, Terms(seed=seed)) for seed in (1, 1, 2))
    assert plan == again
    assert [row.hottest for row in plan.rows] != [row.hottest for row in other.rows]
    assert [row.together for row in plan.rows] == [row.together for row in other.rows]


def test_the_simulated_seconds_lie_between_the_bounds_of_each_row() -> None:
    """Every row of the plan, within four standard errors."""
    for row in make_plan(EXAMPLE, Terms()).rows:
        error = 4 * math.sqrt(0.25 / row.seconds)
        assert row.together - error <= row.simulated <= row.together_at_most + error


def test_duplicates_alone_are_a_load_too() -> None:
    """All calls duplicates: one refused write each."""
    billed: Bill = bill(replace(EXAMPLE, duplicates=1.0))
    assert billed.write_units == 40_000
    assert capacity.smallest(billed, 0.99) > 40
