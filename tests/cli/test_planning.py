"""The plan's numbers, against ones that were found in another way: by hand, by exact sums, and by drawn tables."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, Claimed, CompositeKey, MemoryBackend, Static
from aioidempotency._cli.failure import CommandError
from aioidempotency._cli.planning import LIMIT, MOST_BUCKETS, Load, Units, make_plan
from aioidempotency._core import model
from aioidempotency._core.operations import Found, Get, Operation, Put, Reply
from aioidempotency.testing import FakeClock
from tests.support.values import replace

EXAMPLE = Load(calls_per_second=20_000, duplicates=0.2, result_bytes=900)
SMALL = Load(calls_per_second=2_000, duplicates=0.2, result_bytes=900)


def passing(load: Load, fraction: float, limit: float) -> float:
    """How likely a fraction of the load is above a limit, in parts: the sum over all pairs of two Poisson numbers."""
    (fresh, duplicates), (first, second) = zip(*load.calls(), strict=True)
    parts = [3 * units.write + units.read for units in (first, second)]
    counts = [np.arange(int(limit // each) + 1) for each in parts]
    masses = [_poisson(rate * fraction, count) for rate, count in zip((fresh, duplicates), counts, strict=True)]
    fits = parts[0] * counts[0][:, None] + parts[1] * counts[1] <= limit
    return float(1 - (masses[0][:, None] * masses[1] * fits).sum())


def _poisson(mean: float, counts: Any) -> Any:
    logs = np.array([math.lgamma(count + 1) for count in counts])
    return np.exp(counts * math.log(mean) - mean - logs) if mean else (counts == 0).astype(float)


def drawn(load: Load, buckets: int, partitions: int, *, tables: int = 10_000, seed: int = 1) -> Any:
    """The hottest partition's load on so many tables, each with buckets and calls of its own; 1 is the limit."""
    chance = np.random.default_rng(seed)
    placed = chance.multinomial(buckets, [1 / partitions] * partitions, tables)
    parts = sum(
        (3 * units.write + units.read) * chance.poisson(rate * placed / buckets) for rate, units in load.calls()
    )
    return np.max(parts, axis=1) / LIMIT


def test_the_example_is_what_one_computes_by_hand() -> None:
    """16,000 fresh calls take a unit and two, 4,000 duplicates two; a record has 1,187 bytes."""
    plan = make_plan(EXAMPLE)
    names = {"pk": 17, "sk": 30 + 1 + 64, "status": 9, "expiration": 10, "in_progress_expiration": 13}
    names |= {"owner": 32, "fencing_token": 13, "claimed_by": 24, "data": 900}
    assert plan.finished_bytes == sum(len(name) + size for name, size in names.items()) == 1187
    assert plan.running_bytes == plan.finished_bytes - len("data") - 900 + len("INPROGRESS") - len("COMPLETED")
    assert (plan.write_units, plan.read_units) == (16_000 * (1 + 2) + 4_000 * 2, 0)
    assert plan.cost == pytest.approx(56_000 * 730 * 3600 / 1e6 * 0.625)
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

    backend = Recording()
    layout = CompositeKey(partitioning=Static(f"idempotency#{MOST_BUCKETS - 1}"))
    clock = FakeClock(1_790_000_000.5)
    store = AsyncIdempotencyStore(
        "t", namespace="n" * 30, layout=layout, backend=backend, clock=clock, verify_layout=False, label="0" * 24
    )
    claimed = await store.claim("key")
    assert isinstance(claimed, Claimed)
    await store.complete(claimed.lease, "x" * 898)
    await store.claim("other", fingerprint="payload")
    first, second = written
    assert model.size(first.item) == EXAMPLE.sizes()[0]
    assert model.size(second.item) == replace(EXAMPLE, fingerprint=True).sizes()[0]
    finished = await backend.execute(Get(first.location))
    assert isinstance(finished, Found)
    assert finished.item is not None
    assert model.size(finished.item) == EXAMPLE.sizes()[1]


@pytest.mark.parametrize(
    ("changes", "fresh", "duplicate"),
    [
        ({}, Units(3, 0), Units(2, 0)),
        ({"result_bytes": 4000}, Units(1 + 5, 0), Units(5, 0)),
        ({"fingerprint": True, "result_bytes": 700}, Units(1 + 2, 0), Units(2, 0)),
        ({"fingerprint": False, "result_bytes": 700}, Units(1 + 1, 0), Units(1, 0)),
        ({"namespace_bytes": 400, "result_bytes": 500}, Units(1 + 2, 0), Units(2, 0)),
        ({"read_first": True}, Units(3, 1), Units(0, 1)),
        ({"read_first": True, "result_bytes": 4000}, Units(6, 1), Units(0, 2)),
        ({"locations": 3}, Units(3 * 2 + 2, 0), Units(2 * 2 + 2 * 2, 0)),
        ({"locations": 3, "read_first": True}, Units(8, 3), Units(0, 3)),
    ],
)
def test_a_call_takes_the_units_of_its_requests(changes: dict[str, Any], fresh: Units, duplicate: Units) -> None:
    """Writes by KB, reads by 4 KB, twice as much in a transaction over several locations."""
    load = replace(EXAMPLE, **changes)
    plan = make_plan(load)
    assert (plan.fresh, plan.duplicate) == (fresh, duplicate)
    assert plan.write_units == 16_000 * fresh.write + 4_000 * duplicate.write
    assert plan.read_units == 16_000 * fresh.read + 4_000 * duplicate.read


@settings(deadline=None)
@given(
    calls=st.floats(1, 1000),
    duplicates=st.floats(0, 1),
    result_bytes=st.integers(0, 20_000),
    probability=st.sampled_from([0.5, 0.99, 0.9999]),
    read_first=st.booleans(),
)
def test_one_partition_has_more_no_more_often_than_asked_for(
    calls: float, duplicates: float, result_bytes: int, probability: float, *, read_first: bool
) -> None:
    """The rule with all buckets on one partition, against the exact sum."""
    load = Load(calls_per_second=calls, duplicates=duplicates, result_bytes=result_bytes, read_first=read_first)
    bound = load.hottest(1, 1, probability)
    assert passing(load, 1, bound * LIMIT) <= (1 - probability) * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("probability", [0.9, 0.99, 0.9999])
@pytest.mark.parametrize("load", [replace(SMALL, calls_per_second=200), replace(SMALL, calls_per_second=900)])
def test_the_bound_of_one_partition_is_close(load: Load, probability: float) -> None:
    """A load that is smaller by an eighth is too small: the exact sum passes it more often than asked for."""
    bound = load.hottest(1, 1, probability)
    assert passing(load, 1, bound * LIMIT * 7 / 8) > 1 - probability


@pytest.mark.parametrize("buckets", [1, 8, 32, 128, 512, 4096])
@pytest.mark.parametrize("partitions", [4, 12])
@pytest.mark.parametrize("probability", [0.9, 0.99])
@pytest.mark.parametrize("load", [SMALL, replace(SMALL, read_first=True), replace(SMALL, result_bytes=20_000)])
def test_drawn_tables_have_more_no_more_often_than_asked_for(
    load: Load, probability: float, partitions: int, buckets: int
) -> None:
    """10,000 tables: the share above the bound, less four standard errors; and the bound is not far above it."""
    hottest, bound = drawn(load, buckets, partitions), load.hottest(buckets, partitions, probability)
    error = math.sqrt(probability * (1 - probability) / len(hottest))
    assert np.mean(hottest > bound) <= 1 - probability + 4 * error
    assert np.quantile(hottest, probability) > bound / 2


@pytest.mark.parametrize("load", [SMALL, replace(SMALL, read_first=True), replace(SMALL, result_bytes=4000), EXAMPLE])
def test_the_buckets_are_enough_and_a_quarter_of_them_are_not(load: Load) -> None:
    """On drawn tables, as many of which stay within the limit as were asked for."""
    plan = make_plan(load)
    assert plan.buckets.bit_count() == 1
    assert np.mean(drawn(load, plan.buckets, plan.partitions, tables=4000) <= 1) >= 0.99
    assert np.mean(drawn(load, plan.buckets // 4, plan.partitions, tables=4000) <= 1) < 0.99


@pytest.mark.parametrize("load", [EXAMPLE, SMALL, replace(SMALL, calls_per_second=500)])
def test_buckets_that_are_enough_stay_enough_when_partitions_split(load: Load) -> None:
    """Each bucket alone on a partition, by the exact sum: the share of seconds in which none passes."""
    buckets = make_plan(load).buckets
    assert (1 - passing(load, 1 / buckets, LIMIT)) ** buckets >= 0.99


def test_the_load_divided_by_the_limit_is_too_few() -> None:
    """Each of 56 buckets would be full on average, and pass in about half of all seconds."""
    assert passing(EXAMPLE, 1 / 56, LIMIT) == pytest.approx(0.5, abs=0.03)


@settings(deadline=None)
@given(
    calls=st.tuples(st.floats(1, 1e5), st.floats(1, 1e5)),
    results=st.tuples(st.integers(0, 20_000), st.integers(0, 20_000)),
    buckets=st.tuples(st.integers(0, 16), st.integers(0, 16)),
    partitions=st.integers(1, 1000),
    read_first=st.booleans(),
)
def test_less_load_and_more_buckets_are_never_hotter(
    calls: tuple[float, float],
    results: tuple[int, int],
    buckets: tuple[int, int],
    partitions: int,
    *,
    read_first: bool,
) -> None:
    """So the first power of two that is enough is the smallest one."""
    less, more = (
        Load(calls_per_second=each, result_bytes=size, duplicates=0.1, read_first=read_first)
        for each, size in zip(sorted(calls), sorted(results), strict=True)
    )
    many, few = (1 << exponent for exponent in sorted(buckets, reverse=True))
    assert less.hottest(many, partitions, 0.99) <= more.hottest(few, partitions, 0.99) * (1 + 1e-6)


def test_partitions_are_those_of_a_table_that_has_had_the_load() -> None:
    """Four for a new table; else what twice the load needs, reads and writes together."""
    assert make_plan(replace(EXAMPLE, calls_per_second=10)).partitions == 4
    assert make_plan(EXAMPLE).partitions == math.ceil(2 * 56)
    reading = make_plan(replace(EXAMPLE, read_first=True))
    assert reading.partitions == math.ceil(2 * (48_000 / 1000 + 20_000 / 3000))


def test_partitions_that_are_full_on_average_are_never_enough() -> None:
    """Five partitions for 5,600 units: no number of buckets helps."""
    with pytest.raises(CommandError, match="no number of buckets is enough for this load on 5 partitions"):
        make_plan(SMALL, partitions=5)


@pytest.mark.parametrize(("calls", "enough"), [(10, True), (500, True), (2000, False), (20_000, False)])
def test_the_default_of_the_layout_carries_some_hundred_calls(calls: float, *, enough: bool) -> None:
    """32 buckets."""
    assert (make_plan(replace(EXAMPLE, calls_per_second=calls)).buckets <= 32) is enough


def test_duplicates_alone_are_a_load_too() -> None:
    """All calls duplicates: one refused write each."""
    plan = make_plan(replace(EXAMPLE, duplicates=1.0))
    assert plan.write_units == 40_000
    assert plan.buckets > 40


def test_the_rows_of_a_plan_are_those_of_its_rule() -> None:
    """Powers of two around the answer, which is the first within the limit."""
    plan = make_plan(EXAMPLE, probability=0.999)
    assert list(plan.hottest) == [2 * plan.buckets >> shift for shift in range(7, -1, -1)]
    assert next(buckets for buckets, share in plan.hottest.items() if share <= 1) == plan.buckets
    assert plan.hottest[plan.buckets] == EXAMPLE.hottest(plan.buckets, plan.partitions, 0.999)
