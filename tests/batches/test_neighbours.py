"""What one operation of a batch comes to changes nothing for the others, nor does what becomes of its caller."""

import asyncio
import gc

import pytest

from aioidempotency import ConfigurationError, StoreError
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Found
from aioidempotency.backends.dynamodb.batches import BatchError, Outcome
from tests.batches.crowd import Crowd, get, put, settle
from tests.support.values import replace
from tests.support.virtual_time import in_virtual_time, pass_time

TOO_LARGE = ConfigurationError("too large")


async def together(crowd: Crowd, *keys: str) -> None:
    """Have these keys in one batch, which is under way."""
    await crowd.call(put("first"), *map(put, keys))
    crowd.inner.let_go()
    await settle()
    assert crowd.inner.requests[-1] == list(keys)


@in_virtual_time
async def test_one_that_fails_leaves_the_others_alone() -> None:
    """G3: refused, or too large for an item."""
    crowd = Crowd()
    faults: dict[str, Outcome] = {"b": ConditionFailed(None), "c": TOO_LARGE}
    crowd.inner.fault = lambda operation: faults.get(operation.location.partition)
    await together(crowd, "a", "b", "c", "d")
    await crowd.all()
    assert crowd.answers("a", "b", "c", "d") == [Applied(), ConditionFailed(None), TOO_LARGE, Applied()]


@in_virtual_time
async def test_one_that_was_throttled_is_sent_again() -> None:
    """G3: after a pause, and as long as its time lasts; its neighbours are answered at once."""
    crowd = Crowd()
    throttled = iter(["ThrottlingError"] * 3)
    crowd.inner.fault = lambda operation: next(throttled, None) if operation.location.partition == "b" else None
    await together(crowd, "a", "b", "c")
    crowd.inner.let_all_go()
    await settle()
    assert crowd.answers("a", "b", "c") == [Applied(), None, Applied()]
    await pass_time(5)
    assert crowd.answers("b") == [Applied()]


@in_virtual_time
async def test_one_that_is_always_throttled_fails_in_time() -> None:
    """O14: with the service's word for it."""
    crowd = Crowd()
    crowd.inner.fault = lambda operation: "ThrottlingError"
    await together(crowd, "a", "b")
    crowd.inner.let_all_go()
    await pass_time(0.01)
    # They come back one at a time, and a batch of one is a plain call, which is not throttled here.
    await pass_time(10)
    assert set(map(type, crowd.answers("a", "b"))) <= {Applied, StoreError}
    assert None not in crowd.answers("a", "b")


@in_virtual_time
async def test_a_cancelled_caller_leaves_its_batch_alone() -> None:
    """G5: the request goes on, and the others are answered."""
    crowd = Crowd()
    await together(crowd, "a", "b", "c")
    crowd.calls["a"].cancel()
    await settle()
    await asyncio.gather(*(crowd.calls[key] for key in "bc"), crowd.all())
    assert crowd.answers("b", "c") == [Applied(), Applied()]
    assert crowd.calls["a"].cancelled()
    assert crowd.inner.requests == ["first", ["a", "b", "c"]]


@in_virtual_time
async def test_the_release_of_a_cancelled_claim_does_not_overtake_it() -> None:
    """O5, G5: its batch is still under way, so the release waits for that; and holds nobody else up."""
    crowd = Crowd(max_batch=2)
    claimed = put("a")
    claimed = replace(claimed, item={**claimed.item, "status": {"S": "INPROGRESS"}})
    await crowd.call(put("first"), claimed, put("b"))
    crowd.calls["a"].cancel()
    await crowd.call(Delete(claimed.location, HeldBy("me")), put("c"), put("d"))
    assert crowd.inner.requests == ["first", ["a", "b"], "c"]
    crowd.inner.let_go(1)
    await settle()
    assert crowd.inner.requests[3:] == []
    await crowd.all()
    assert crowd.inner.requests[3:] == ["d", "a"]
    assert crowd.answers("a again") == [Applied()]
    assert await crowd.backend.execute(get("a")) == Found(None)


@in_virtual_time
async def test_who_leaves_before_its_batch_does_is_not_sent() -> None:
    """G5: nothing was promised to it."""
    crowd = Crowd()
    await crowd.call(put("first"), put("a"), put("b"), put("c"))
    crowd.calls["b"].cancel()
    await crowd.all()
    assert crowd.inner.requests == ["first", ["a", "c"]]


@in_virtual_time
async def test_a_plain_call_that_is_cancelled_lets_the_next_batch_go() -> None:
    """G5: nobody else would."""
    crowd = Crowd()
    await crowd.call(put("first"), put("a"), put("b"))
    crowd.calls["first"].cancel()
    await settle()
    assert crowd.inner.requests == ["first", ["a", "b"]]
    await crowd.all()


@in_virtual_time
async def test_a_batch_that_is_not_answered_fails_each_with_an_error_of_its_own() -> None:
    """O14: callers may add to their error; it is not shared."""
    crowd = Crowd()
    cause = TimeoutError()
    crowd.inner.broken = StoreError("BatchExecuteStatement", "records", "down")
    crowd.inner.broken.__cause__ = cause
    await together(crowd, "a", "b")
    await crowd.all()
    one, other = crowd.answers("a", "b")
    assert isinstance(one, StoreError)
    assert isinstance(other, StoreError)
    assert one is not other
    assert str(one) == str(other) == str(crowd.inner.broken)
    assert one.__cause__ is other.__cause__ is cause


@in_virtual_time
async def test_what_no_backend_should_raise_is_a_store_that_did_not_answer() -> None:
    """Nobody waits for ever; the task's own error is seen by the loop."""
    crowd = Crowd()
    crowd.inner.broken = RuntimeError("the session is closed")
    seen: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
    await together(crowd, "a", "b")
    answers = await crowd.all()
    assert [isinstance(each, StoreError) for each in answers[1:]] == [True, True]
    assert "RuntimeError" in str(answers[1])
    crowd.calls.clear()
    gc.collect()
    assert seen == [crowd.inner.broken]


@in_virtual_time
async def test_closing_lets_what_waits_fail() -> None:
    """Batches under way are ended and awaited; what was opened is closed."""
    crowd = Crowd()
    await together(crowd, "a", "b")
    await crowd.call(put("c"), put("d"))
    await crowd.backend.aclose()
    await settle()
    assert all(isinstance(each, StoreError) for each in crowd.answers("a", "b", "c", "d"))
    assert crowd.inner.closed
    crowd.inner.let_all_go()
    await crowd.call(put("e"))
    assert crowd.answers("e") == [Applied()], "a later call opens anew"


@in_virtual_time
async def test_closing_lets_those_fail_who_wait_for_room() -> None:
    """They are not left in a queue that nobody sends any more."""
    crowd = Crowd(max_in_flight=1, max_waiting=1)
    await crowd.call(put("a"), put("b"), put("c"), put("d"))
    await crowd.backend.aclose()
    await settle()
    assert [type(each) for each in crowd.answers("b", "c", "d")] == [StoreError] * 3
    crowd.inner.let_all_go()
    await crowd.all()


@in_virtual_time
async def test_closing_lets_those_fail_whose_batch_has_not_begun() -> None:
    """A task that is cancelled before its first step runs nothing, not even its `finally`."""
    crowd = Crowd(max_batch=2)
    await crowd.call(put("a"))
    answers = [asyncio.create_task(crowd.backend.execute(put(key))) for key in "bc"]
    closing = asyncio.create_task(crowd.backend.aclose())
    await settle()
    assert crowd.inner.requests == ["a"]
    assert closing.done()
    failures = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(each) for each in failures] == [StoreError] * 2
    crowd.inner.let_all_go()
    await crowd.all()


@in_virtual_time
async def test_closing_ends_pauses_too() -> None:
    """What was to be sent again is not sent after its store was closed."""
    crowd = Crowd()
    crowd.inner.fault = lambda _: "ThrottlingError"
    await together(crowd, "a", "b")
    crowd.inner.let_all_go()
    await settle()
    await crowd.backend.aclose()
    await pass_time(1)
    assert [str(each).endswith("the store was closed") for each in crowd.answers("a", "b")] == [True, True]
    assert crowd.inner.requests == ["first", ["a", "b"]]


@in_virtual_time
async def test_missing_permissions_are_an_error_that_names_them() -> None:
    """Unless a fallback is asked for."""
    crowd = Crowd()
    crowd.inner.broken = BatchError("denied", True)
    await together(crowd, "a", "b")
    await crowd.all()
    assert [str(each) for each in crowd.answers("a", "b")] == ["denied", "denied"]
    assert crowd.causes == []


@in_virtual_time
async def test_missing_permissions_fall_back_to_plain_calls() -> None:
    """One event; the batch at hand, and all that comes later, are sent one by one."""
    crowd = Crowd(fallback=True)
    crowd.inner.broken = BatchError("denied", True)
    await together(crowd, "a", "b")
    await crowd.all()
    await crowd.call(put("c"), put("d"), put("e"))
    assert crowd.answers("a", "b", "c", "d", "e") == [Applied()] * 5
    assert crowd.inner.requests == ["first", ["a", "b"], "a", "b", "c", "d", "e"]
    assert [str(each) for each in crowd.causes] == ["denied"]
    assert "plain calls for Put" in repr(crowd.backend)


@in_virtual_time
async def test_claims_on_an_engine_without_statements_do_not_fall_back() -> None:
    """That is a setting, and the error names it, unless a fallback is asked for."""
    crowd = Crowd()
    crowd.inner.broken = BatchError("no PartiQL", False)
    await together(crowd, "a", "b")
    await crowd.all()
    assert [str(each) for each in crowd.answers("a", "b")] == ["no PartiQL", "no PartiQL"]


@pytest.mark.parametrize("keys", [("a", "b"), ("a", "b", "c")])
def test_two_loops_gather_apart(keys: tuple[str, ...]) -> None:
    """A store may be used in one loop after the other."""
    crowd = Crowd()
    crowd.inner.let_all_go()

    async def all_at_once() -> list[object]:
        return list(await asyncio.gather(*(crowd.backend.execute(put(f"{key}")) for key in keys)))

    assert asyncio.run(all_at_once()) == [Applied()] * len(keys)
    assert all(isinstance(each, ConditionFailed) for each in asyncio.run(all_at_once()))
