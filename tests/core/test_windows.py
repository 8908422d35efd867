"""Windows of time: which partitions a claim looks into, and that no live record lies in another."""

import random
from datetime import timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning import Partitioning, Terms, TimeBuckets
from aioidempotency.partitioning.windows import ANSWER_WITHIN

KEY = "orders#6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
TERMS = Terms(retention=3600.0, lease=60.0, clock_skew=1.0)
NOW = 1_700_000_000.0
"""Inside the window of 600 s that has the number 2,833,333: 200 s after it began."""


def everywhere(strategy: Partitioning, now: float) -> tuple[str, ...]:
    return (strategy.home(KEY, now), *strategy.elsewhere(KEY, now))


def test_the_places_of_a_key_are_pinned() -> None:
    """P1: window number, then the bucket of the same hash that `HashBuckets` takes. It is the table's format."""
    strategy = TimeBuckets(600, buckets=7).bound(TERMS)
    assert everywhere(strategy, NOW) == tuple(
        f"idempotency#{number}#2" for number in (2_833_333, *range(2_833_332, 2_833_326, -1))
    )
    assert TimeBuckets(timedelta(minutes=10), buckets=7, prefix="orders").home(KEY, NOW) == "orders#2833333#2"


def test_near_a_boundary_the_next_window_is_looked_into() -> None:
    """P2: another clock may have turned already, or turn while this claim is on its way."""
    strategy = TimeBuckets(600, buckets=1).bound(TERMS)
    ends = 2_833_334 * 600.0
    ahead = "idempotency#2833334#0"
    assert ahead not in everywhere(strategy, ends - ANSWER_WITHIN - 1.5)
    assert ahead in strategy.elsewhere(KEY, ends - ANSWER_WITHIN - 0.5)
    assert strategy.home(KEY, ends) == ahead


@given(
    window=st.floats(37, 5000),
    retention=st.floats(1, 3600),
    lease=st.floats(0.1, 100),
    claimed=st.floats(1e9, 2e9),
    share=st.floats(0, 1),
)
def test_a_live_record_is_always_in_a_place_that_is_looked_at(
    window: float, retention: float, lease: float, claimed: float, share: float
) -> None:
    """P2: from its claim to the last instant at which it can count, by every clock that reads those instants."""
    terms = Terms(retention=retention, lease=lease, clock_skew=1.0)
    strategy = TimeBuckets(window).bound(terms)
    home = strategy.home(KEY, claimed)
    until = strategy.searched_until(home)
    assert until >= claimed + max(retention, lease + 1) - 1, "the claim's own retention and lease fit in"
    # A record counts through the whole second of its expiration.
    last = int(until) + 1 - 1e-3
    assert home in everywhere(strategy, claimed + share * (last - claimed))


@given(at=st.floats(1e9, 2e9), apart=st.floats(-1, 1), delay=st.floats(0, ANSWER_WITHIN))
def test_two_claims_look_at_each_others_home(at: float, apart: float, delay: float) -> None:
    """P2: with clocks a second apart, and as late as an answer may come."""
    strategy = TimeBuckets(60, buckets=4).bound(TERMS)
    one, other = at, at + delay + apart
    assert strategy.home(KEY, other) in everywhere(strategy, one)
    assert strategy.home(KEY, one) in everywhere(strategy, other)


def test_buckets_share_the_load_of_a_window() -> None:
    """One partition for all that is claimed now would be as hot as a static one."""
    strategy = TimeBuckets(600, buckets=8)
    dice = random.Random(1)
    homes = {strategy.home(f"orders#{dice.random()}", NOW) for _ in range(500)}
    assert homes == {f"idempotency#2833333#{bucket}" for bucket in range(8)}


def test_every_partition_is_listed() -> None:
    """For what counts records: all buckets of all windows that may hold a live one."""
    strategy = TimeBuckets(600, buckets=3).bound(TERMS)
    listed = strategy.partitions(NOW)
    assert len(set(listed)) == len(listed) == 3 * 7
    assert set(everywhere(strategy, NOW)) <= set(listed)


def test_a_partition_of_another_strategy_is_looked_at_for_ever() -> None:
    """During a move, the locations of both are asked about."""
    strategy = TimeBuckets(600).bound(TERMS)
    assert strategy.searched_until("idempotency#7") == inf
    assert strategy.searched_until("idempotency#2833333#1") == 2_833_334 * 600 + 3600 - 1


def test_a_longer_retention_than_the_stores_can_be_given() -> None:
    """For calls that keep their results longer than the store's others."""
    strategy = TimeBuckets(600, retention=7200).bound(TERMS)
    assert strategy.longest_retention == 7200
    assert len(everywhere(strategy, NOW)) == 13


def test_a_lease_longer_than_the_retention_is_looked_back_for() -> None:
    """A running record must be seen as long as its lease lasts."""
    assert TimeBuckets(600).bound(Terms(retention=5, lease=1000, clock_skew=2)).longest_retention == 1003


@pytest.mark.parametrize("window", [0, -1, None, "60", timedelta(0)])
def test_a_window_that_is_no_duration_is_refused(window: float) -> None:
    """With its value."""
    with pytest.raises(PartitioningError, match="TimeBuckets needs window= in seconds, above 0: not"):
        TimeBuckets(window).bound(TERMS)


@pytest.mark.parametrize(("options", "what"), [({"buckets": 0}, "bucket"), ({"prefix": ""}, "prefix")])
def test_buckets_and_prefix_are_checked(options: dict[str, object], what: str) -> None:
    """As those of the other strategies."""
    with pytest.raises(PartitioningError, match=f"TimeBuckets needs .*{what}"):
        TimeBuckets(60, **options)  # type: ignore[arg-type] # that is the test
    with pytest.raises(PartitioningError, match="retention= in seconds"):
        TimeBuckets(60, retention=-5)


def test_windows_shorter_than_the_clocks_differ_are_refused() -> None:
    """The remedy is named."""
    with pytest.raises(PartitioningError, match=r"windows of 0.5 s, and clocks may differ by 1 s: give a window="):
        TimeBuckets(0.5).bound(TERMS)


def test_more_windows_than_a_transaction_takes_are_refused() -> None:
    """P7: with the shortest window that would do; that one does."""
    with pytest.raises(PartitioningError, match=r"look at 364 windows .* window= of 38 s or more") as refused:
        TimeBuckets(10).bound(TERMS)
    assert "one transaction takes 100" in str(refused.value)
    assert TimeBuckets(38).bound(TERMS).most_locations <= 100


@given(now=st.floats(1e9, 2e9), window=st.floats(38, 4000))
def test_no_claim_looks_at_more_places_than_promised(now: float, window: float) -> None:
    """The bound is the one that is checked when a store is made."""
    strategy = TimeBuckets(window).bound(TERMS)
    assert len(everywhere(strategy, now)) <= strategy.most_locations


def test_without_a_store_its_default_settings_count() -> None:
    """A strategy can be asked before any store has it."""
    strategy, bound = TimeBuckets(600, buckets=5), TimeBuckets(600, buckets=5).bound(TERMS)
    assert everywhere(strategy, NOW) == everywhere(bound, NOW)
    assert strategy.partitions(NOW) == bound.partitions(NOW)
    assert strategy.searched_until("idempotency#1#1") == bound.searched_until("idempotency#1#1")
    assert strategy.description() == bound.description()
    assert (strategy.most_locations, strategy.longest_retention) == (bound.most_locations, 3600.0)
    assert strategy.answer_within == bound.answer_within == 10.0
