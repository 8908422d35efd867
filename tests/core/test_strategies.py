"""Strategies over several locations: random buckets, functions of one's own, and a move between two."""

import datetime as dt
import gc
import random
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any

import pytest

from aioidempotency._core.model import AttributeNames, Location
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


def test_a_function_of_the_key_names_the_partition() -> None:
    """And another one the other locations, each once and home not again."""
    assert everywhere(CustomPartition(by_suffix)) == ("tenant-4b",)
    strategy = CustomPartition(by_suffix, elsewhere=lambda key: ["old", by_suffix(key), "old"])
    assert everywhere(strategy) == ("tenant-4b", "old")
    listed: object = Reshard(Static("a"), strategy).partitions(NOW)
    assert listed is None


def hour(_: str) -> str:
    return f"hour-{int(time.time()) // 3600}"


DICE = random.Random(1)

IMPURE: dict[str, tuple[Callable[[str], Any], str]] = {
    "a random suffix": (lambda key: f"{key[:4]}-{random.randrange(10**9)}", "two answers"),
    "one of few random suffixes": (lambda _: str(random.choice([1, 1])), "chance"),
    "a seeded generator of its own": (lambda _: str(DICE.random() < 2), "chance"),
    "a secret": (lambda _: secrets.token_hex(1)[:0] + "x", "chance"),
    "a random UUID": (lambda _: uuid.uuid4().hex[:0] + "x", "chance"),
    "the hour": (hour, "the time"),
    "the hour, one call deeper": (lambda key: hour(key), "the time"),  # noqa: PLW0108 - that is the test
    "the day": (lambda _: dt.date.today().isoformat(), "the time"),  # noqa: DTZ011 - that is the test
    "the month": (lambda _: f"{dt.datetime.now(dt.UTC):%Y-%m}", "the time"),
    "the local time": (lambda _: time.strftime("%Y", time.localtime()), "the time"),
    "the hash of a text": (lambda key: str(hash(key) % 32), "what differs between processes"),
}


@pytest.mark.parametrize("name", IMPURE)
def test_what_is_no_function_of_the_key_is_refused(name: str) -> None:
    """P3: on first use, with the cause and the strategies that are safe."""
    function, cause = IMPURE[name]
    with pytest.raises(PartitioningError, match=cause) as refused:
        CustomPartition(function).home(KEY, NOW)
    assert "HashBuckets" in str(refused.value)
    assert KEY not in str(refused.value)
    with pytest.raises(PartitioningError, match=cause):
        CustomPartition(by_suffix, elsewhere=lambda key: [function(key)]).home(KEY, NOW)


def test_a_pure_function_is_watched_once() -> None:
    """On first use it is called twice more; from then on once a call."""
    seen: list[str] = []

    def remembering(key: str) -> str:
        seen.append(key)
        return "here"

    strategy = CustomPartition(remembering)
    assert seen == []
    strategy.home(KEY, NOW)
    strategy.home(KEY, NOW)
    assert seen == [KEY] * 4


def test_a_collection_of_garbage_is_not_the_functions_doing() -> None:
    """Some tools measure how long it takes, and so ask for the time in the middle of whatever runs."""

    def measure(*_: object) -> None:
        time.perf_counter()

    gc.callbacks.append(measure)
    try:
        answer = CustomPartition(lambda key: str(len([[key] for _ in range(5000)]))).home(KEY, NOW)
    finally:
        gc.callbacks.remove(measure)
    assert answer == "5000"
    assert gc.isenabled()


def test_a_function_that_raises_is_tried_again_the_next_time() -> None:
    """Its error is the caller's own."""
    table: dict[str, str] = {}
    strategy = CustomPartition(lambda key: table[key])
    with pytest.raises(KeyError):
        strategy.home(KEY, NOW)
    table[KEY] = "here"
    assert strategy.home(KEY, NOW) == "here"


@pytest.mark.parametrize("answer", [None, 5, "", b"x", ["a"]])
def test_an_answer_that_is_no_text_is_refused(answer: Any) -> None:
    """DynamoDB takes no empty partition value."""
    with pytest.raises(PartitioningError, match="needs a partition value: a text that is not empty"):
        CustomPartition(lambda _: answer).home(KEY, NOW)
    with pytest.raises(PartitioningError, match=r"a text that is not empty|in a list"):
        CustomPartition(by_suffix, elsewhere=lambda _: [answer] if answer else answer).elsewhere(KEY, NOW)


def test_a_partition_value_longer_than_dynamodb_takes_is_refused() -> None:
    """2,048 bytes."""
    with pytest.raises(PartitioningError, match="2048 bytes"):
        CustomPartition(lambda _: "é" * 1025).home(KEY, NOW)


async def a_coroutine(_: str) -> str:
    return "here"


@pytest.mark.parametrize("function", [a_coroutine, "text", 5])
def test_what_cannot_be_called_is_refused_at_once(function: Any) -> None:
    """A coroutine function would not run."""
    with pytest.raises(PartitioningError, match="takes plain functions of a key"):
        CustomPartition(function)
    with pytest.raises(PartitioningError, match="takes plain functions of a key"):
        CustomPartition(by_suffix, elsewhere=function)


def test_a_partial_and_an_object_are_functions_too() -> None:
    """They are named by what they are."""
    assert CustomPartition(partial(by_suffix)).home(KEY, NOW) == "tenant-4b"
    described = CustomPartition(by_suffix, elsewhere=partial(by_suffix)).description()
    assert described == {
        "strategy": "CustomPartition",
        "function": f"{__name__}.by_suffix",
        "elsewhere": "functools.partial",
    }


def test_with_a_simple_key_the_function_makes_the_whole_key() -> None:
    """And has to keep the digest: two keys with one text would share one answer."""
    layout = SimpleKey("id", partitioning=CustomPartition(lambda key: f"tenant/{key}"))
    table = layout.table("records", AttributeNames())
    route = layout.route(table, KEY)
    assert route.locations(NOW) == (Location(table=table, partition=f"tenant/{KEY}"),)
    assert route.key == KEY
    cut = SimpleKey(partitioning=CustomPartition(by_suffix)).route(table, KEY)
    with pytest.raises(PartitioningError, match="two calls could get one answer"):
        cut.locations(NOW)


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
def test_a_move_between_strategies_with_several_places_looks_at_all(phase: Any) -> None:
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


def test_a_key_with_more_places_than_a_transaction_takes_is_refused() -> None:
    """A function of one's own may name too many."""
    layout = CompositeKey(partitioning=CustomPartition(by_suffix, elsewhere=lambda _: map(str, range(100))))
    route = layout.route(layout.table("records", AttributeNames()), KEY)
    with pytest.raises(PartitioningError, match="101 locations, and one transaction takes 100"):
        route.locations(NOW)


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
