"""Strategies over several locations: random buckets, and a move between two strategies."""

import datetime as dt
from collections import Counter
from math import inf
from typing import Any

import pytest

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning import (
    CompositeKey,
    CustomPartition,
    HashBuckets,
    Partitioning,
    RandomBuckets,
    Reshard,
    SimpleKey,
    Static,
    Terms,
    TimeBuckets,
)
from tests.support.values import replace

KEY = "orders#6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
NOW = 1_700_000_000.0


def everywhere(strategy: Partitioning, now: float = NOW, key: str = KEY) -> tuple[str, ...]:
    return (strategy.home(key, now), *strategy.elsewhere(key, now))


@pytest.mark.parametrize(
    ("key", "of_32", "of_7"),
    [
        ("", {2, 4}, {0, 4}),
        ("a", {10, 31}, {0, 1}),
        (KEY, {22, 26}, {0, 2}),
        ("läden#ключ", {27, 31}, {2, 3}),
    ],
)
def test_the_buckets_of_a_key_are_pinned(key: str, of_32: set[int], of_7: set[int]) -> None:
    """P1: the digits of the one hash, so that each process draws the same ones."""
    assert set(everywhere(RandomBuckets(32), key=key)) == {f"idempotency#{bucket}" for bucket in of_32}
    assert set(everywhere(RandomBuckets(7), key=key)) == {f"idempotency#{bucket}" for bucket in of_7}


def test_home_is_drawn_and_the_places_are_not() -> None:
    """P2: whichever bucket a claim takes, every other claim looks there."""
    strategy = RandomBuckets(16, choices=3)
    homes = Counter(strategy.home(KEY, NOW + step / 7) for step in range(3000))
    assert len(homes) == 3
    assert min(homes.values()) > 900
    assert {frozenset(everywhere(strategy, NOW + step)) for step in range(50)} == {frozenset(homes)}


def test_all_buckets_can_be_choices() -> None:
    """Then each key may be in any."""
    assert sorted(everywhere(RandomBuckets(3, choices=3, prefix="p"))) == ["p#0", "p#1", "p#2"]
    assert everywhere(RandomBuckets(1, choices=1)) == ("idempotency#0",)


def test_random_buckets_spread_evenly() -> None:
    """P1: over keys, each bucket is a candidate as often as any other; the keys are fixed."""
    counted = Counter(
        location for number in range(20_000) for location in everywhere(RandomBuckets(8), key=f"orders#{number}")
    )
    expected = 40_000 / 8
    assert sum((found - expected) ** 2 / expected for found in counted.values()) < 24.3, (
        "chi-squared, 7 degrees, 99.9 %"
    )


@pytest.mark.parametrize(("n", "choices"), [(1, 2), (2, 3), (200, 101)])
def test_more_choices_than_buckets_are_refused(n: int, choices: int) -> None:
    """Also more than one transaction takes."""
    with pytest.raises(PartitioningError, match=f"RandomBuckets can choose between {choices} buckets only if"):
        RandomBuckets(n, choices=choices)


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 4, "choices": 0}, {"n": 4, "prefix": ""}, {"n": 2.0}])
def test_random_buckets_are_counted_in_whole_numbers(options: dict[str, Any]) -> None:
    """As the buckets of the other strategies."""
    with pytest.raises(PartitioningError, match="RandomBuckets needs"):
        RandomBuckets(**options)


def by_suffix(key: str) -> str:
    return f"tenant-{key[-2:]}"


def test_a_simple_key_takes_no_other_partitioning() -> None:
    """DynamoDB spreads such a table by itself."""
    with pytest.raises(PartitioningError, match="takes no partitioning, except CustomPartition"):
        SimpleKey(partitioning=HashBuckets(32))  # type: ignore[arg-type] # that is the test


OLD, NEW = Static("idempotency#handler"), HashBuckets(32)


def test_a_move_puts_by_phase_and_looks_at_both() -> None:
    """P4: so that nodes of neighbouring phases exclude each other."""
    assert everywhere(Reshard(OLD, NEW)) == ("idempotency#handler", "idempotency#22")
    assert everywhere(Reshard(OLD, NEW, "cutover")) == ("idempotency#22", "idempotency#handler")


def test_a_move_to_the_same_place_costs_one_put() -> None:
    """P7: where both strategies name one partition, there is nowhere else to look."""
    move = Reshard(HashBuckets(32), HashBuckets(64))
    assert everywhere(move, key="even") == ("idempotency#4", "idempotency#36")
    assert everywhere(move, key="k") == ("idempotency#29",)


@pytest.mark.parametrize("phase", ["prepare", "cutover"])
def test_a_move_between_strategies_with_several_locations_looks_at_all(phase: Any) -> None:
    """Windows and random buckets can be moved to and from, too."""
    old, new = TimeBuckets(600, prefix="w").bound(Terms()), RandomBuckets(8, prefix="r")
    move = Reshard(old, new, phase)
    assert set(everywhere(move)) == {*everywhere(old), *everywhere(new)}
    assert move.home(KEY, NOW) == (old if phase == "prepare" else new).home(KEY, NOW)
    assert move.searched_until(old.home(KEY, NOW)) == old.searched_until(old.home(KEY, NOW))
    assert move.searched_until(new.home(KEY, NOW)) == inf
    assert (move.answer_within, move.longest_retention, move.most_locations) == (10.0, 3600.0, old.most_locations + 2)
    assert set(move.partitions(NOW) or ()) == {*old.partitions(NOW), *new.partitions(NOW)}


def test_a_move_takes_a_stores_settings_in() -> None:
    """For both of its strategies."""
    move = Reshard(OLD, TimeBuckets(600)).bound(Terms(retention=600))
    assert len(everywhere(move)) == 3
    with pytest.raises(PartitioningError, match="clocks may differ"):
        Reshard(OLD, TimeBuckets(0.5)).bound(Terms())
    with pytest.raises(PartitioningError, match=r"150 locations, and one transaction takes 100"):
        Reshard(RandomBuckets(100, choices=60, prefix="a"), RandomBuckets(100, choices=90, prefix="b")).bound(Terms())


@pytest.mark.parametrize(
    ("arguments", "trouble"),
    [
        ((OLD, NEW, "later"), "'prepare' and 'cutover'"),
        ((Reshard(OLD, NEW), NEW), "finish one move"),
        ((OLD, Reshard(OLD, NEW)), "finish one move"),
        ((HashBuckets(32), HashBuckets(32)), "both are the same"),
        ((TimeBuckets(600), TimeBuckets(60)), "a prefix= of its own"),
    ],
)
def test_a_move_that_is_none_is_refused(arguments: tuple[Any, ...], trouble: str) -> None:
    """With the reason."""
    with pytest.raises(PartitioningError, match=trouble):
        Reshard(*arguments)


@pytest.mark.parametrize("phase", ["prepare", "cutover"])
@pytest.mark.parametrize("new", [TimeBuckets(60, prefix="w"), TimeBuckets(600, buckets=8)])
def test_a_move_between_windows_ends_no_lease_before_its_window(new: TimeBuckets, phase: Any) -> None:
    """P4: two lengths with one prefix gave every lease an end years ago, and the key to everyone at once."""
    old = TimeBuckets(dt.timedelta(minutes=10), buckets=4)
    move = Reshard(old, new, phase).bound(Terms())
    assert move.searched_until(move.home(KEY, NOW)) >= NOW + 3600 - 1
    for length in (60.0, dt.timedelta(minutes=1)):
        with pytest.raises(PartitioningError, match="windows of two lengths with the same names"):
            Reshard(old, TimeBuckets(length)).bound(Terms())


def test_a_move_with_a_function_cannot_list_its_partitions() -> None:
    """What a function answers is not known beforehand."""
    assert Reshard(OLD, CustomPartition(by_suffix)).partitions(NOW) is None


def test_a_layout_takes_its_terms_from_the_store() -> None:
    """The strategy is replaced by one that knows them; one that needs none stays."""
    assert CompositeKey(partitioning=TimeBuckets(600)).bound(Terms()).partitioning == TimeBuckets(600).bound(Terms())
    assert CompositeKey().bound(Terms()) == CompositeKey()
    assert replace(SimpleKey()).bound(Terms(retention=1)) == SimpleKey()


@pytest.mark.parametrize("strategy", [Static("a"), HashBuckets(3), RandomBuckets(3)])
def test_buckets_can_be_listed(strategy: Partitioning) -> None:
    """For what counts records; every location of a key is among them."""
    listed = strategy.partitions(NOW)
    assert listed is not None
    assert {location for number in range(99) for location in everywhere(strategy, key=str(number))} == set(listed)
