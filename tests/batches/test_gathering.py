"""When operations leave: alone at once, else together; full batches, a bound on each, one item once."""

import asyncio
from typing import Any

import pytest

from aioidempotency import ConfigurationError, GroupCommit
from aioidempotency._core.conditions import Unchanged
from aioidempotency._core.operations import Applied, ConditionFailed, Found
from tests.batches.crowd import Crowd, completion, get, put, settle
from tests.support.values import replace
from tests.support.virtual_time import in_virtual_time, pass_time


def puts(count: int, first: int = 0) -> list[Any]:
    return [put(f"k{number}") for number in range(first, first + count)]


@in_virtual_time
async def test_a_lone_call_is_a_plain_call() -> None:
    """G2: it waits for nobody, one after the other as well."""
    crowd = Crowd()
    for key in ("a", "b"):
        await crowd.call(put(key))
        crowd.inner.let_go()
        await settle()
    assert crowd.inner.requests == ["a", "b"]
    assert crowd.answers() == [Applied(), Applied()]


@in_virtual_time
async def test_what_comes_meanwhile_leaves_together_when_the_first_returns() -> None:
    """G2: a call gathers with others only while one is under way."""
    crowd = Crowd()
    await crowd.call(put("a"), put("b"), put("c"))
    assert crowd.inner.requests == ["a"]
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["a", ["b", "c"]]
    assert crowd.answers() == [Applied(), None, None]
    assert await crowd.all() == [Applied()] * 3


@in_virtual_time
async def test_one_that_gathered_alone_is_a_plain_call() -> None:
    """G2: a batch of one has nothing to gain."""
    crowd = Crowd()
    await crowd.call(put("a"), put("b"))
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["a", "b"]
    await crowd.all()


@in_virtual_time
async def test_a_full_batch_does_not_wait() -> None:
    """The bound of the service, or less; and no more requests at a time than may be under way."""
    crowd = Crowd(max_batch=10, max_in_flight=3)
    await crowd.call(*puts(45))
    assert [len(each) for each in crowd.inner.requests[1:]] == [10, 10]
    crowd.inner.let_go()
    await settle()
    assert [len(each) for each in crowd.inner.requests[1:]] == [10, 10, 10]
    crowd.inner.let_go(3)
    await settle()
    assert [len(each) for each in crowd.inner.requests[1:]] == [10, 10, 10, 10, 4]
    assert await crowd.all() == [Applied()] * 45


@in_virtual_time
async def test_who_was_answered_joins_the_next_batch() -> None:
    """A task that goes on at once, with its completion, must not find its batch gone."""
    crowd = Crowd()

    async def two(number: int) -> None:
        await crowd.backend.execute(put(f"first-{number}"))
        await crowd.backend.execute(put(f"second-{number}"))

    tasks = [asyncio.create_task(two(number)) for number in range(3)]
    for _ in range(4):
        await settle()
        crowd.inner.let_go(crowd.inner.held)
    await asyncio.gather(*tasks)
    assert crowd.inner.requests == [
        "first-0",
        ["first-1", "first-2", "second-0"],
        ["second-1", "second-2"],
    ]


@in_virtual_time
async def test_reads_and_writes_do_not_share_a_batch() -> None:
    """The service takes all reads, or all writes."""
    crowd = Crowd()
    await crowd.call(put("a"), get("b"), put("c"), get("d"), put("e"), get("f"))
    assert crowd.inner.requests == ["a", "b"]
    crowd.inner.let_go(2)
    await settle()
    assert crowd.inner.requests[2:] == [["c", "e"], ["d", "f"]]
    assert await crowd.all() == [Applied(), Found(None)] * 3


@in_virtual_time
async def test_one_item_is_in_a_batch_once() -> None:
    """G4: the service would reject the whole; the later one goes with the next, in order."""
    crowd = Crowd()
    await crowd.call(put("a"), put("k"), put("b"), put("k"), put("c"))
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["a", ["k", "b", "c"]]
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["a", ["k", "b", "c"], "k"]
    answers = await crowd.all()
    assert answers[1] == Applied()
    assert isinstance(answers[3], ConditionFailed)


@in_virtual_time
async def test_what_no_statement_can_say_is_sent_alone() -> None:
    """A take-over replaces a whole item."""
    crowd = Crowd()
    crowd.inner.let_all_go()
    take_over = replace(put("k"), condition=Unchanged({"owner": {"S": "me"}}))
    await crowd.call(put("a"), put("b"), take_over, put("c"))
    assert crowd.inner.requests == ["a", "k", ["b", "c"]]


@in_virtual_time
async def test_callers_wait_until_there_is_room() -> None:
    """What waits is bounded: whoever comes later does not add to it."""
    crowd = Crowd(max_batch=2, max_in_flight=1, max_waiting=3)
    await crowd.call(*puts(8))
    assert "3 operations waiting, 1 requests under way" in repr(crowd.backend)
    assert await crowd.all() == [Applied()] * 8
    assert [each if isinstance(each, str) else len(each) for each in crowd.inner.requests] == ["k0", 2, 2, 2, "k7"]


@in_virtual_time
async def test_the_wait_for_room_counts_too() -> None:
    """O14: whoever waited for room as long as an operation may take is not sent afterwards."""
    crowd = Crowd(max_batch=1, max_in_flight=1, max_waiting=1)
    await crowd.call(put("a"), put("b"), put("c"))
    await pass_time(11)
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["a"]
    assert ["not sent within 10 s" in str(each) for each in crowd.answers("b", "c")] == [True, True]


@in_virtual_time
async def test_a_request_that_leaves_is_no_answer() -> None:
    """O14: the store was silent for eleven seconds, whatever was sent meanwhile."""
    crowd = Crowd(max_batch=1, max_in_flight=1)
    await crowd.call(put("a"), put("b"))
    await pass_time(5)
    await crowd.call(completion("owner"))
    assert crowd.inner.requests == ["a", "owner"]
    await pass_time(6)
    crowd.inner.let_go(2)
    await settle()
    assert "not sent within 10 s" in str(crowd.answers("b")[0])
    await crowd.all()


@in_virtual_time
async def test_whoever_waits_in_a_crowd_is_sent_while_the_store_answers() -> None:
    """G8: the time limit is for a store that is silent; a crowd is served for three times as long, and no longer."""
    crowd = Crowd(max_batch=1, max_in_flight=1, max_waiting=1)
    await crowd.call(*puts(8))
    for _ in range(8):
        await pass_time(5)
        crowd.inner.let_go(crowd.inner.held)
        await settle()
    assert crowd.inner.requests == [f"k{number}" for number in range(7)]
    assert crowd.answers()[:7] == [Applied()] * 7
    assert "not sent within 30 s" in str(crowd.answers("k7")[0])


@in_virtual_time
async def test_what_waited_too_long_is_not_sent() -> None:
    """O14: a caller hears within the time limit that the store does not answer, not minutes later."""
    crowd = Crowd(max_in_flight=1)
    await crowd.call(put("a"), put("b"), put("c"))
    await pass_time(11)
    await crowd.call(put("d"))
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["a", "d"]
    failed = crowd.answers("b", "c")
    assert ["not sent within 10 s" in str(each) for each in failed] == [True, True]
    await crowd.all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch": 0},
        {"max_batch": 26},
        {"max_batch": -1},
        {"max_batch": 2.0},
        {"max_batch": True},
        {"max_in_flight": 0},
        {"max_waiting": 0},
    ],
)
def test_numbers_out_of_their_bounds_are_refused(wrong: dict[str, Any]) -> None:
    """With the bounds."""
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"GroupCommit takes {name}= as a whole number from 1 to"):
        GroupCommit(**wrong)
