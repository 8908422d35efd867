"""`CustomPartition`: functions of a user's own, in a process that uses them and in a test that checks them."""

import datetime as dt
import doctest
import gc
import itertools
import pickle
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import testing
from aioidempotency._core.model import AttributeNames, Location
from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning import CompositeKey, CustomPartition, SimpleKey, custom
from aioidempotency.testing import EXAMPLE_KEYS, FakeClock, check_partition_function

KEY = "orders#6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
OTHER = "orders#d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"
NOW = 1_700_000_000.0
TWO_ANSWERS = "gave two answers for one key"


def by_suffix(key: str) -> str:
    return f"tenant-{key[-2:]}"


def everywhere(strategy: CustomPartition, now: float = NOW, key: str = KEY) -> tuple[str, ...]:
    return (strategy.home(key, now), *strategy.elsewhere(key, now))


class Recorded:
    """A function that remembers what it was asked."""

    def __init__(self, answer: Callable[[str], str] = by_suffix) -> None:
        self.answer = answer
        self.keys: list[str] = []

    def __call__(self, key: str) -> str:
        self.keys.append(key)
        return self.answer(key)


def test_a_function_of_the_key_names_the_partition() -> None:
    """And another one the other locations, each once and home not again."""
    assert everywhere(CustomPartition(by_suffix)) == ("tenant-4b",)
    strategy = CustomPartition(by_suffix, elsewhere=lambda key: ["old", by_suffix(key), "old"])
    assert everywhere(strategy) == ("tenant-4b", "old")


def test_a_function_is_asked_sixteen_times_before_it_is_believed() -> None:
    """P3: then once for each question."""
    function = Recorded()
    strategy = CustomPartition(function)
    assert function.keys == []
    strategy.home(KEY, NOW)
    assert function.keys == [KEY] * (16 + 1)
    strategy.home(OTHER, NOW)
    assert function.keys == [KEY] * 17 + [OTHER]


def test_a_function_is_asked_for_its_first_key_again_every_thousand_questions() -> None:
    """P3: whatever keys the questions are about, and while the clock stands still."""
    function = Recorded()
    strategy = CustomPartition(function)
    strategy.home(KEY, NOW)
    for number in range(3000):
        strategy.home(f"other#{number}", NOW)
    assert function.keys.count(KEY) == 17 + 3


@pytest.mark.parametrize("minute", [60, -60])
def test_a_function_is_asked_for_its_first_key_again_after_a_minute(minute: float) -> None:
    """P3: also where the clock is set back; not before."""
    function = Recorded()
    strategy = CustomPartition(function)
    strategy.home(KEY, NOW)
    strategy.home(OTHER, NOW + 0.99 * minute)
    assert function.keys.count(KEY) == 17
    strategy.home(OTHER, NOW + minute)
    strategy.home(OTHER, NOW + minute)
    assert function.keys.count(KEY) == 18


def test_a_random_suffix_is_refused_at_once() -> None:
    """P3: before it names any location, with the strategies that are safe, and without the key."""
    strategy = CustomPartition(lambda key: f"{key[:4]}-{random.randrange(10**9)}")
    with pytest.raises(PartitioningError, match=TWO_ANSWERS) as refused:
        strategy.home(KEY, NOW)
    assert "HashBuckets" in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_suffix_by_the_hour_is_refused_within_a_minute_of_the_next_hour() -> None:
    """P3: and from then on, also in the hour of the first answer."""
    clock = FakeClock(NOW)

    def by_hour(_: str) -> str:
        return f"hour-{clock() // 3600:.0f}"

    strategy = CustomPartition(by_hour)
    assert strategy.home(KEY, clock()) == "hour-472222"
    clock.advance(3600)
    for _ in range(2):
        with pytest.raises(PartitioningError, match=r"by_hour gave two answers"):
            strategy.home(OTHER, clock())
        clock.advance(-3600)


def test_other_locations_that_change_are_refused_too() -> None:
    """P3: a claim that looks elsewhere than the claim before it is as bad as a home that changes."""
    named = ["old"]

    def elsewhere(_: str) -> list[str]:
        return named

    strategy = CustomPartition(by_suffix, elsewhere)
    assert strategy.elsewhere(KEY, NOW) == ("old",)
    named.append("older")
    with pytest.raises(PartitioningError, match="elsewhere gave two answers"):
        strategy.home(KEY, NOW + 60)


def test_the_order_of_other_locations_does_not_matter() -> None:
    """A claim looks at all of them in one transaction."""
    orders = itertools.cycle([["a", "b"], ["b", "a"]])
    assert set(everywhere(CustomPartition(by_suffix, lambda _: next(orders)))) == {"tenant-4b", "a", "b"}


def test_an_answer_that_is_no_partition_value_any_more_is_refused_for_good() -> None:
    """P3: it was one before."""
    answers: dict[str, Any] = {KEY: "here", OTHER: "there"}
    strategy = CustomPartition(answers.__getitem__)
    strategy.home(KEY, NOW)
    answers[KEY] = None
    for _ in range(2):
        with pytest.raises(PartitioningError, match="a text that is not empty"):
            strategy.home(OTHER, NOW + 60)


@given(seed=st.integers(), share=st.floats(0.1, 0.9), every_minute=st.booleans())
def test_randomness_that_shows_only_sometimes_is_caught(*, seed: int, share: float, every_minute: bool) -> None:
    """P3: a function that strays in one call of ten is refused after 200 checks but for one in a billion."""
    chance = random.Random(seed)
    strategy = CustomPartition(lambda _: "astray" if chance.random() < share else "here")
    with pytest.raises(PartitioningError, match=TWO_ANSWERS):
        for check in range(200):
            for question in range(1 if every_minute else 1000):
                strategy.home(f"{check}#{question}", NOW + 60 * check * every_minute)


def test_a_function_that_raises_is_tried_again_the_next_time() -> None:
    """Its error is the caller's own."""
    table: dict[str, str] = {}
    strategy = CustomPartition(lambda key: table[key])
    with pytest.raises(KeyError):
        strategy.home(KEY, NOW)
    table[KEY] = "here"
    assert strategy.home(KEY, NOW) == "here"


def test_threads_can_share_a_strategy() -> None:
    """Also when all of them are the first; a function that changes is refused in each."""
    together, suffix = threading.Barrier(8), [""]
    strategy = CustomPartition(lambda key: by_suffix(key) + suffix[0])
    found: list[object] = []

    def ask(key: str, now: float) -> None:
        together.wait(timeout=10)
        try:
            found.append(strategy.home(key, now))
        except PartitioningError as error:
            found.append(str(error))

    for now in NOW, NOW + 60:
        threads = [threading.Thread(target=ask, args=(key, now)) for key in EXAMPLE_KEYS[:8]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        suffix[0] = "-new"
    assert set(found[:8]) == set(map(by_suffix, EXAMPLE_KEYS[:8]))
    refused = [each for each in found[8:] if TWO_ANSWERS in str(each)]
    assert refused
    with pytest.raises(PartitioningError, match=TWO_ANSWERS):
        strategy.home(KEY, NOW)


def test_a_function_may_wait_for_a_lock_that_another_thread_holds_while_it_asks() -> None:
    """The guard waits for nothing, so nothing waits in a circle."""
    lock, held, asked = threading.RLock(), threading.Event(), threading.Event()

    def locked(key: str) -> str:
        asked.set()
        with lock:
            return by_suffix(key)

    strategy = CustomPartition(locked)

    def hold_and_ask() -> None:
        with lock:
            held.set()
            asked.wait(timeout=10)
            strategy.home(OTHER, NOW)

    other = threading.Thread(target=hold_and_ask, daemon=True)
    other.start()
    held.wait(timeout=10)
    assert strategy.home(KEY, NOW) == "tenant-4b"
    other.join(timeout=10)
    assert not other.is_alive()


def test_nothing_of_the_process_is_touched() -> None:
    """No profile function and no setting of the garbage collector, while a user's function runs."""
    seen: list[tuple[object, bool]] = []

    def looking(_: str) -> str:
        seen.append((sys.getprofile(), gc.isenabled()))
        return "here"

    before = sys.getprofile(), gc.isenabled()
    CustomPartition(looking).home(KEY, NOW)
    assert set(seen) == {before}


def test_a_strategy_can_be_pickled_and_compared() -> None:
    """Like every other one; what the guard remembers is no part of it."""
    strategy = CustomPartition(by_suffix)
    strategy.home(KEY, NOW)
    assert strategy == CustomPartition(by_suffix)
    assert "_checks" not in repr(strategy)
    assert pickle.loads(pickle.dumps(CustomPartition(str.upper))) == CustomPartition(str.upper)


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


def test_a_key_with_more_locations_than_a_transaction_takes_is_refused() -> None:
    """A function of one's own may name too many."""
    layout = CompositeKey(partitioning=CustomPartition(by_suffix, elsewhere=lambda _: map(str, range(100))))
    route = layout.route(layout.table("records", AttributeNames()), KEY)
    with pytest.raises(PartitioningError, match="101 locations, and one transaction takes 100"):
        route.locations(NOW)


def hour(_: str) -> str:
    return f"hour-{int(time.time()) // 3600}"


DICE = random.Random(1)
COUNTER = itertools.count()

IMPURE: dict[str, tuple[Callable[[str], Any], str]] = {
    "a random suffix": (lambda key: f"{key[:4]}-{random.randrange(10**9)}", "chance"),
    "one of few random suffixes": (lambda _: str(random.choice([1, 1])), "chance"),
    "a seeded generator of its own": (lambda _: str(DICE.random() < 2), "chance"),
    "a secret": (lambda _: secrets.token_hex(1)[:0] + "x", "chance"),
    "a random UUID": (lambda _: uuid.uuid4().hex[:0] + "x", "chance"),
    "the hour": (hour, "the time"),
    "the hour, one call deeper": (lambda key: hour(key), "the time"),  # noqa: PLW0108 - that is the test
    "the day": (lambda _: dt.date.today().isoformat(), "the time"),  # noqa: DTZ011 - that is the test
    "the month": (lambda _: f"{dt.datetime.now(dt.UTC):%Y-%m}", "the time"),
    "the local time": (lambda _: time.strftime("%Y", time.localtime()), "the time"),
    "the hash of a text": (lambda key: str(hash(key) % 32), "a fact of this process"),
    "one after the other": (lambda _: str(next(COUNTER) % 32), "two answers"),
    "chance for one key of many": (lambda key: str(random.random() < 2 if key == EXAMPLE_KEYS[40] else 1), "chance"),
}


@pytest.mark.parametrize("name", IMPURE)
def test_a_users_test_finds_what_is_no_function_of_the_key(name: str) -> None:
    """P3: with the cause and the strategies that are safe; what `elsewhere=` takes, too."""
    function, cause = IMPURE[name]
    with pytest.raises(PartitioningError, match=cause) as refused:
        check_partition_function(function)
    assert "HashBuckets" in str(refused.value)
    with pytest.raises(PartitioningError, match=cause):
        check_partition_function(lambda key: [function(key)])


def test_a_users_test_passes_a_function_of_the_key() -> None:
    """For the keys that it names, or for examples that look like a store's."""
    function = Recorded()
    check_partition_function(function, keys=[KEY, OTHER])
    assert function.keys == [KEY, OTHER, OTHER, KEY]
    check_partition_function(function)
    assert {key.partition("#")[0] for key in function.keys[4:]} == {"example"}
    assert {len(key.partition("#")[2]) for key in function.keys} == {64}


def test_a_check_leaves_the_process_as_it_was() -> None:
    """Also where the function raises."""
    before = sys.getprofile(), gc.isenabled()
    with pytest.raises(KeyError):
        check_partition_function(dict[str, str]().__getitem__)
    assert (sys.getprofile(), gc.isenabled()) == before


def test_a_collection_of_garbage_is_not_the_functions_doing() -> None:
    """Some tools measure how long it takes, and so ask for the time in the middle of whatever runs."""

    def measure(*_: object) -> None:
        time.perf_counter()

    gc.callbacks.append(measure)
    try:
        check_partition_function(lambda key: str(len([[key] for _ in range(5000)])))
    finally:
        gc.callbacks.remove(measure)


@pytest.mark.parametrize("module", [custom, testing])
def test_the_examples_of_the_docstrings_are_true(module: Any) -> None:
    """U2: what a reader sees there is what happens."""
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0
