"""Far more claims than the store serves: owners keep their leases and complete, and a crowd is served in turn."""

import asyncio
import sys
import types
from collections import Counter
from collections.abc import Coroutine, Generator, Iterator, Sequence
from types import FrameType
from typing import Any, final

import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, GroupCommit, MemoryBackend, StoreError
from aioidempotency._core.model import Table
from aioidempotency._core.operations import Applied, ConditionFailed, Found, Operation, Reply
from aioidempotency.backends.dynamodb.batches import Alone, Outcome
from aioidempotency.backends.dynamodb.group_commit import GroupCommitBackend
from aioidempotency.events import CompletionFailed, Event, LeaseLost, ReleaseFailed
from tests.batches.crowd import Crowd, completion, get, put, release, settle
from tests.support.virtual_time import epoch_seconds, in_virtual_time, pass_time


def puts(count: int, first: int = 0) -> list[Operation]:
    return [put(f"k{number}") for number in range(first, first + count)]


async def busy(crowd: Crowd) -> None:
    """Have as many claims under way as may be, and as many waiting as fill two more batches."""
    await crowd.call(*puts(1 + 3 * crowd.max_batch))
    assert crowd.inner.held == crowd.max_in_flight


@in_virtual_time
async def test_owners_have_a_request_of_their_own() -> None:
    """G7: it leaves at once, though no claim would, and carries no claim."""
    crowd = Crowd(max_batch=5, max_in_flight=2)
    await busy(crowd)
    await crowd.call(completion("a"), completion("b"), release("c"))
    assert crowd.inner.requests[2:] == [["a", "b", "c"]]


@in_virtual_time
async def test_owners_have_one_request_more_and_no_two() -> None:
    """G7: what comes while it is under way leaves when it returns, still ahead of the claims."""
    crowd = Crowd(max_batch=5, max_in_flight=2)
    await busy(crowd)
    await crowd.call(completion("a"))
    await crowd.call(*(completion(key) for key in "bcdefg"))
    assert crowd.inner.requests[2:] == ["a"]
    assert "3 requests under way" in repr(crowd.backend)
    crowd.inner.let_go_last()
    await settle()
    assert crowd.inner.requests[3:] == [["b", "c", "d", "e", "f"]]
    crowd.inner.let_go_last()
    await settle()
    assert crowd.inner.requests[4:] == ["g"]


@in_virtual_time
async def test_a_single_request_leaves_room_for_an_owner() -> None:
    """G7: with `max_in_flight=1`, too."""
    crowd = Crowd(max_batch=5, max_in_flight=1)
    await busy(crowd)
    await crowd.call(completion("a"))
    assert crowd.inner.requests == ["k0", "a"]


@in_virtual_time
async def test_owners_are_at_the_head_of_a_batch_and_claims_fill_it() -> None:
    """G7: where there is room for a request of any kind."""
    crowd = Crowd(max_batch=5, max_in_flight=4)
    await crowd.call(*puts(3))
    await crowd.call(completion("a"), completion("b"))
    assert crowd.inner.requests == ["k0", ["a", "b", "k1", "k2"]]


@in_virtual_time
async def test_owners_of_one_turn_share_a_request() -> None:
    """They leave in the loop's next turn, so a batch of claims is followed by a batch of completions."""
    crowd = Crowd(max_batch=10, max_in_flight=3)
    await crowd.call(*puts(21))
    assert [len(each) for each in crowd.inner.requests[1:]] == [10, 10]
    crowd.calls.clear()
    await crowd.call(*(completion(f"a{number}") for number in range(8)))
    assert [len(each) for each in crowd.inner.requests[3:]] == [8]


@in_virtual_time
async def test_owners_gather_while_a_request_of_theirs_is_under_way() -> None:
    """Else each completion would be a request of its own."""
    crowd = Crowd(max_batch=10, max_in_flight=4)
    await crowd.call(put("first"), completion("a"))
    await crowd.call(completion("b"), completion("c"))
    assert crowd.inner.requests == ["first", "a"]
    crowd.inner.let_go(2)
    await settle()
    assert crowd.inner.requests[2:] == [["b", "c"]]


@in_virtual_time
async def test_owners_gather_when_a_request_of_claims_returns() -> None:
    """Only the end of a request of theirs, or a store that is nearly idle, sends fewer than a batch holds."""
    crowd = Crowd(max_batch=5, max_in_flight=4)
    await crowd.call(*puts(11))
    await crowd.call(completion("a"))
    await crowd.call(completion("b"), completion("c"))
    assert crowd.inner.requests[3:] == ["a"]
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests[3:] == ["a"]
    crowd.inner.let_go_last()
    await settle()
    assert crowd.inner.requests[4:] == [["b", "c"]]


@in_virtual_time
async def test_a_throttled_owner_is_sent_again_ahead_of_the_claims() -> None:
    """G7: after its pause, by the request that is kept for owners."""
    crowd = Crowd(max_batch=5, max_in_flight=2)
    throttled = iter(["ThrottlingError"])
    crowd.inner.fault = lambda each: next(throttled, None) if each.location.partition == "a" else None
    await busy(crowd)
    await crowd.call(completion("a"), completion("b"))
    crowd.inner.let_go_last()
    await settle()
    await pass_time(1)
    assert crowd.inner.requests[2:] == [["a", "b"], "a"]


@in_virtual_time
async def test_a_crowd_does_not_keep_owners_waiting_for_room() -> None:
    """G7: room is for claims and reads."""
    crowd = Crowd(max_batch=5, max_in_flight=1, max_waiting=1)
    await crowd.call(*puts(20))
    await crowd.call(completion("a"))
    assert crowd.inner.requests == ["k0", "a"]


@final
class SlowStore:
    """Takes batches, and answers each request a second later; counts what is under way."""

    time_limit = 10.0

    def __init__(self) -> None:
        self._memory = MemoryBackend()

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation."""
        await asyncio.sleep(1)
        return await self._memory.execute(operation)

    async def execute_many(self, operations: Sequence[Operation]) -> list[Outcome]:
        """Execute many."""
        await asyncio.sleep(1)
        return [await self._memory.execute(each) for each in operations]

    async def create_table(self, table: Table) -> None:
        """Need none."""

    async def aclose(self) -> None:
        """Hold nothing."""


@in_virtual_time
async def test_owners_keep_their_leases_when_claims_come_three_times_too_fast() -> None:
    """G7: fifty bodies of four leases, and 300 claims a second on a store that takes 100."""
    events: list[Event] = []
    ran: Counter[int] = Counter()
    store = AsyncIdempotencyStore(
        "records",
        backend=SlowStore(),
        group_commit=GroupCommit(),
        clock=epoch_seconds,
        on_event=events.append,
        lease=40,
    )

    async def body(number: int) -> int:
        async with store.execute(f"owner-{number}", lease=6, heartbeat=2) as execution:
            ran[number] += 1
            await asyncio.sleep(24)
            execution.complete(number)
        return number

    async def flood() -> list[object]:
        claims: list[asyncio.Future[object]] = []
        for second in range(24):
            claims += [asyncio.ensure_future(store.claim(f"{second}/{number}")) for number in range(300)]
            await asyncio.sleep(1)
        return await asyncio.gather(*claims, return_exceptions=True)

    owners = [asyncio.ensure_future(body(number)) for number in range(50)]
    await asyncio.sleep(3)
    flooded = asyncio.ensure_future(flood())
    assert await asyncio.gather(*owners) == list(range(50))
    assert set(ran.values()) == {1}
    assert not any(isinstance(each, LeaseLost | CompletionFailed | ReleaseFailed) for each in events)
    assert Counter(map(type, await flooded)).keys() == {Claimed, StoreError}, "more than the store takes"


@final
class Stepped:
    """A coroutine that counts how often it is resumed."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], steps: Counter[int]) -> None:
        self._coroutine = coroutine
        self._steps = steps

    @types.coroutine
    def run(self) -> Generator[Any, Any, Any]:
        """Resume it, and count."""
        sent: Any = None
        while True:
            self._steps[id(self)] += 1
            try:
                awaited = self._coroutine.send(sent)
            except StopIteration as end:
                return end.value
            sent = yield awaited


@in_virtual_time
async def test_a_caller_that_waits_for_room_is_woken_once() -> None:
    """G8: by its answer. Each of 4,000 calls starts, waits, and is answered."""
    crowd = Crowd(max_waiting=100)
    crowd.inner.let_all_go()
    steps: Counter[int] = Counter()
    calls = [Stepped(crowd.backend.execute(each), steps) for each in puts(4000)]
    assert await asyncio.gather(*(each.run() for each in calls)) == [Applied()] * 4000
    assert max(steps.values()) == 2


@in_virtual_time
async def test_fifty_thousand_calls_at_once_succeed() -> None:
    """G8: they take longer than the time limit of an operation, which is for a store that is silent."""
    store = GroupCommitBackend(SlowStore(), GroupCommit(max_in_flight=100), closes_inner=True, fell_back=print)
    assert await asyncio.gather(*map(store.execute, puts(50_000))) == [Applied()] * 50_000
    assert 10 < asyncio.get_running_loop().time() < 30


@in_virtual_time
async def test_writes_of_one_item_leave_one_after_the_other() -> None:
    """G4: in the order in which they came, each once, and those that are given up are passed over."""
    crowd = Crowd()
    names = [f"owner-{number}" for number in range(200)]
    writes = [completion("k", owner=name) for name in names]
    tasks = [asyncio.create_task(crowd.backend.execute(each)) for each in writes]
    await settle()
    for task in tasks[50:150]:
        task.cancel()
    await settle()
    crowd.inner.let_all_go()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert crowd.inner.owners == names[:50] + names[150:]


@in_virtual_time
async def test_writes_of_one_item_are_each_looked_at_a_few_times() -> None:
    """G8: no batch looks through all that wait for an item. The queues and the loop are emptied a few times for each."""
    crowd = Crowd()
    crowd.inner.let_all_go()
    looks = 0

    def count(_: FrameType, event: str, called: object) -> None:
        nonlocal looks
        looks += event == "c_call" and getattr(called, "__qualname__", "") == "deque.popleft"

    sys.setprofile(count)
    try:
        await asyncio.gather(*(crowd.backend.execute(put("k")) for _ in range(500)))
    finally:
        sys.setprofile(None)
    assert 500 <= looks <= 500 * 10


@in_virtual_time
async def test_a_write_that_waited_for_its_item_is_at_the_head_of_the_queue() -> None:
    """It came before those that wait only for a request."""
    crowd = Crowd(max_batch=3, max_in_flight=1)
    await crowd.call(put("first"), put("k"), put("b"), put("k"))
    crowd.inner.let_go()
    await settle()
    await crowd.call(put("c"), put("d"), put("e"))
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["first", ["k", "b"], ["k", "c", "d"]]
    await crowd.all()


@in_virtual_time
async def test_a_write_that_gives_up_when_its_turn_comes_passes_the_item_on() -> None:
    """G5: the one behind it would wait for ever."""
    crowd = Crowd(max_batch=3, max_in_flight=1)
    await crowd.call(put("first"), put("k"), put("b"))
    second, third = (asyncio.create_task(crowd.backend.execute(put("k"))) for _ in range(2))
    await settle()
    crowd.inner.let_go()
    await settle()
    await crowd.call(completion("owner"))
    await crowd.call(*(completion(key) for key in "xyz"))
    crowd.inner.let_go()
    await settle()
    sent = ["first", ["k", "b"], "owner", ["x", "y", "z"]]
    assert crowd.inner.requests == sent, "there is no room for the second write"
    second.cancel()
    await crowd.all()
    assert isinstance(await third, ConditionFailed)


@in_virtual_time
async def test_an_owner_behind_a_claim_that_gives_up_is_sent_at_once() -> None:
    """G5: with nothing else under way, no batch would end and send it."""
    crowd = Crowd(max_batch=2)
    await crowd.call(put("first"), put("k"))
    crowd.inner.let_go()
    await settle()
    claim = asyncio.create_task(crowd.backend.execute(put("k")))
    await crowd.call(put("b"))
    owners = asyncio.create_task(crowd.backend.execute(completion("k")))
    await settle()
    claim.cancel()
    crowd.inner.let_go_last()
    await settle()
    crowd.inner.let_all_go()
    assert await owners == Applied()
    assert crowd.inner.requests == ["first", "k", "b", "k"]
    await crowd.all()


@in_virtual_time
async def test_a_throttled_write_waits_for_its_item_like_any_other() -> None:
    """G4: during its pause, the next write on the item has left."""
    crowd = Crowd(max_batch=2)
    throttled = iter(["ThrottlingError"])
    crowd.inner.fault = lambda each: next(throttled, None) if each.location.partition == "k" else None
    await crowd.call(put("first"), put("k"), put("b"))
    crowd.inner.let_go(2)
    await settle()
    await crowd.call(put("c"), put("k"), put("d"))
    await pass_time(1)
    await crowd.call(put("e"), put("f"))
    assert crowd.inner.requests == ["first", ["k", "b"], "c", ["k", "d"], "e"]
    await crowd.all()
    assert crowd.inner.requests[5:] == ["f", "k"]


@in_virtual_time
async def test_a_throttled_write_that_is_sent_again_has_its_item_for_itself() -> None:
    """G4: though its first batch, which lasts longer because of another operation, ends meanwhile."""
    crowd = Crowd(max_batch=2)
    faults: dict[str, Iterator[Outcome]] = {"k": iter(["ThrottlingError"]), "large": iter([Alone()])}
    crowd.inner.fault = lambda each: next(faults.get(each.location.partition, iter(())), None)
    await crowd.call(put("first"), put("k"), put("large"))
    crowd.inner.let_go(2)
    await pass_time(1)
    await crowd.call(put("c"), release("k"))
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["first", ["k", "large"], "large", ["k", "c"]]
    await crowd.all()
    assert crowd.inner.requests[4:] == ["k"]


@pytest.mark.parametrize("end", ["time", "close"])
def test_writes_behind_an_item_do_not_wait_for_ever(end: str) -> None:
    """O14: they fail in time, or when the store is closed."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd()
        await crowd.call(put("first"), put("k"), put("b"), put("k"), put("k"))
        crowd.inner.let_go()
        await settle()
        tasks = list(crowd.calls.values())[3:]
        if end == "close":
            await crowd.backend.aclose()
        else:
            await pass_time(11)
            crowd.inner.let_all_go()
        failures = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in failures] == [StoreError] * len(tasks)
        await crowd.all()

    scene()


@in_virtual_time
async def test_equal_reads_that_leave_together_share_one() -> None:
    """O22: 1,500 callers wait for one record; a read that is under way is no answer to those that came later."""
    crowd = Crowd()
    tasks = [asyncio.create_task(crowd.backend.execute(get("k"))) for _ in range(1500)]
    await settle()
    crowd.inner.let_all_go()
    assert await asyncio.gather(*tasks) == [Found(None)] * 1500
    assert len(crowd.inner.requests) <= 1 + crowd.max_in_flight


@in_virtual_time
async def test_a_shared_read_is_made_though_the_first_to_ask_has_left() -> None:
    """Also where the first leaves in the turn in which the read does."""
    crowd = Crowd(max_batch=2)
    await crowd.call(get("first"))
    first, second = (asyncio.create_task(crowd.backend.execute(get("k"))) for _ in range(2))
    asyncio.get_running_loop().call_soon(first.cancel)
    await settle()
    crowd.inner.let_all_go()
    assert await second == Found(None)
    assert first.cancelled()
    await crowd.all()


@in_virtual_time
async def test_a_shared_read_fails_for_each_by_itself() -> None:
    """O14: whoever gives up changes nothing for the others, and no two share an error."""
    crowd = Crowd()
    crowd.inner.broken = StoreError("BatchGetItem", "records", "down")
    tasks = [asyncio.create_task(crowd.backend.execute(get(key))) for key in ("first", "k", "b", "k", "k", "k")]
    await settle()
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests == ["first", ["k", "b"]]
    tasks[1].cancel()
    await settle()
    crowd.inner.let_all_go()
    failures = (await asyncio.gather(*tasks, return_exceptions=True))[3:]
    assert [type(each) for each in failures] == [StoreError] * 3
    assert len({id(each) for each in failures}) == 3


@in_virtual_time
async def test_a_shared_read_that_was_left_is_asked_for_again_by_each() -> None:
    """O22: DynamoDB read only some of the keys; one of the callers has gone meanwhile."""
    crowd = Crowd()
    left = iter(["UnprocessedKeys"])
    crowd.inner.fault = lambda each: next(left, None) if each.location.partition == "k" else None
    tasks = [asyncio.create_task(crowd.backend.execute(get(key))) for key in ("first", "k", "b", "k", "k")]
    await settle()
    crowd.inner.let_all_go()
    await settle()
    tasks[1].cancel()
    await pass_time(1)
    assert await asyncio.gather(*tasks[2:]) == [Found(None)] * 3


@in_virtual_time
async def test_a_shared_read_is_asked_for_again_as_long_as_its_own_caller_waits() -> None:
    """O14: the first caller's time ends before that of the others."""
    crowd = Crowd()
    left = iter(["UnprocessedKeys"])
    crowd.inner.fault = lambda each: next(left, None) if each.location.partition == "k" else None
    tasks = [asyncio.create_task(crowd.backend.execute(get(key))) for key in ("first", "k", "b")]
    await settle()
    await pass_time(9.98)
    tasks.append(asyncio.create_task(crowd.backend.execute(get("k"))))
    await settle()
    crowd.inner.let_all_go()
    first, mine, other, follower = await asyncio.gather(*tasks, return_exceptions=True)
    assert [first, other, follower] == [Found(None)] * 3
    assert isinstance(mine, StoreError)
