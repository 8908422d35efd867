"""Where a batch cannot be had, or comes to nothing: whose operation becomes a plain call, for how long, and who hears of it."""

import asyncio
from collections.abc import Callable

import pytest

from aioidempotency import ConfigurationError, IdempotencyError, StoreError
from aioidempotency._core.operations import Applied, ConditionFailed, Found, Operation, Put
from aioidempotency.backends.dynamodb.batches import Alone, BatchError, Outcome
from tests.batches.crowd import Crowd, completion, get, put, release, settle
from tests.support.virtual_time import in_virtual_time, pass_time

DENIED = BatchError("denied", True)
NO_PARTIQL = BatchError("no PartiQL", False)
DOWN = StoreError("BatchExecuteStatement", "records", "down")
INTERNAL = StoreError("BatchExecuteStatement", "records", "InternalServerError; try again later")


async def claimed(crowd: Crowd, *keys: str) -> None:
    """Have keys claimed, one after the other."""
    crowd.inner.let_all_go()
    for key in keys:
        await crowd.backend.execute(put(key))
    crowd.inner.hold_again()
    crowd.inner.requests.clear()


async def together(crowd: Crowd, *operations: Operation) -> list[object]:
    """Send operations in one batch, and let everything end. Return their answers."""
    await crowd.call(put("first"))
    tasks = [asyncio.create_task(crowd.backend.execute(each)) for each in operations]
    await settle()
    crowd.inner.let_go()
    await settle()
    ended = await asyncio.gather(*tasks, crowd.all(), return_exceptions=True)
    return list(ended[:-1])


def of_batches(crowd: Crowd) -> list[list[str]]:
    return [each for each in crowd.inner.requests if isinstance(each, list)]


@pytest.mark.parametrize("error", [DENIED, NO_PARTIQL, DOWN, ConfigurationError("no credentials")])
@pytest.mark.parametrize("fallback", [False, True])
def test_owners_have_the_plain_call_whatever_becomes_of_a_batch(error: IdempotencyError, *, fallback: bool) -> None:
    """G6: no finished body loses its result because batches cannot be had, or a batch is not answered."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd(fallback=fallback)
        await claimed(crowd, "a", "b")
        crowd.inner.broken = error
        assert await together(crowd, completion("a"), release("b")) == [Applied(), Applied()]

    scene()


@pytest.mark.parametrize(
    ("error", "fallback", "answer"),
    [
        (DENIED, False, BatchError),
        (DENIED, True, Applied),
        (NO_PARTIQL, False, BatchError),
        (NO_PARTIQL, True, Applied),
        (DOWN, False, StoreError),
        (DOWN, True, StoreError),
    ],
)
def test_claims_have_it_if_they_may(error: IdempotencyError, *, fallback: bool, answer: type) -> None:
    """G6: what is missing is told, unless a fallback is asked for; a store that is down is down for plain calls, too."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd(fallback=fallback)
        crowd.inner.broken = error
        one, other = await together(crowd, put("a"), put("b"))
        assert [type(one), type(other)] == [answer, answer]
        assert one is not other

    scene()


@pytest.mark.parametrize(("fallback", "answer"), [(False, BatchError), (True, Found)])
def test_reads_have_it_if_they_may(*, fallback: bool, answer: type) -> None:
    """G6: as claims."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd(fallback=fallback)
        await crowd.call(get("first"), get("a"), get("b"))
        crowd.inner.broken = DENIED
        await crowd.all()
        assert [type(each) for each in crowd.answers("a", "b")] == [answer, answer]

    scene()


@in_virtual_time
async def test_a_denied_statement_is_denied_alone() -> None:
    """G6: the release goes as a plain call; nobody else's operation is sent twice."""
    crowd = Crowd()
    await claimed(crowd, "b", "c")
    crowd.inner.fault = lambda each: DENIED if each.location.partition == "b" else None
    assert await together(crowd, put("a"), release("b"), completion("c")) == [Applied()] * 3
    assert crowd.inner.requests == ["first", ["b", "c", "a"], "b"]


@in_virtual_time
async def test_a_denied_claim_fails_alone() -> None:
    """G6: its neighbours were executed."""
    crowd = Crowd()
    await claimed(crowd, "c")
    crowd.inner.fault = lambda each: DENIED if each.location.partition == "a" else None
    assert await together(crowd, put("a"), put("b"), completion("c")) == [DENIED, Applied(), Applied()]


@pytest.mark.parametrize("refused", ["Put", "Update", "Delete"])
def test_a_refused_batch_is_sent_again_kind_by_kind(refused: str) -> None:
    """G6: a refusal of the whole does not say which statement was at fault."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd()
        await claimed(crowd, "c", "d", "e", "f")
        crowd.inner.refuses = lambda each: DENIED if type(each).__name__ == refused else None
        sent: list[Operation] = [put("a"), put("b"), completion("c"), completion("d"), release("e"), release("f")]
        answers = await together(crowd, *sent)
        expected: list[type] = [BatchError if isinstance(each, Put) and refused == "Put" else Applied for each in sent]
        assert [type(each) for each in answers] == expected
        assert of_batches(crowd) == [["c", "d", "e", "f", "a", "b"], ["c", "d"], ["e", "f"], ["a", "b"]]

    scene()


@in_virtual_time
async def test_a_batch_refused_for_another_reason_is_sent_one_by_one_and_the_next_is_a_batch() -> None:
    """G6: an HTTP 500, or a request that one member spoils: nobody's call changes, and no verdict lasts."""
    crowd = Crowd()
    crowd.inner.fault = lambda _: Alone(INTERNAL)
    assert await together(crowd, put("a"), put("b")) == [Applied(), Applied()]
    assert crowd.inner.requests == ["first", ["a", "b"], "a", "b"]
    crowd.inner.fault = lambda _: None
    await crowd.call(put("c"), put("d"), put("e"))
    assert crowd.inner.requests[4:] == ["c", ["d", "e"]]
    assert crowd.causes == [INTERNAL]


@in_virtual_time
async def test_what_cannot_share_a_request_is_sent_alone_and_nobody_is_told() -> None:
    """G3: too large, or not to be written: the neighbours share the request all the same."""
    crowd = Crowd()
    crowd.inner.fault = lambda each: Alone() if each.location.partition == "a" else None
    assert await together(crowd, put("a"), put("b"), put("c")) == [Applied()] * 3
    assert crowd.inner.requests == ["first", ["a", "b", "c"], "a"]
    assert crowd.causes == []


@in_virtual_time
async def test_neighbours_do_not_wait_for_the_plain_call() -> None:
    """G3: what goes alone is awaited by its own caller."""
    crowd = Crowd()
    crowd.inner.fault = lambda each: Alone() if each.location.partition == "a" else None
    await crowd.call(put("first"), put("a"), put("b"))
    crowd.inner.let_go()
    await settle()
    crowd.inner.let_go()
    await settle()
    assert crowd.answers("a", "b") == [None, Applied()]
    await crowd.all()


@pytest.mark.parametrize(
    ("raised", "told"), [(DOWN, "down"), (RuntimeError("the session is closed"), "the backend raised RuntimeError")]
)
def test_a_plain_call_that_fails_fails_alone(raised: Exception, told: str) -> None:
    """G6: with its own error, and its cause."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd()
        crowd.inner.fault = lambda _: Alone(INTERNAL)
        crowd.inner.plain_fault = lambda each: raised if each.location.partition == "a" else None
        failed, applied = await together(crowd, put("a"), put("b"))
        assert applied == Applied()
        assert isinstance(failed, StoreError)
        assert told in str(failed)
        assert raised in {failed, failed.__cause__}

    scene()


@in_virtual_time
async def test_a_plain_call_is_not_made_for_whoever_waits_no_longer() -> None:
    """O14: the batch took as long as an operation may take, or the caller has gone."""
    crowd = Crowd()
    crowd.inner.fault = lambda _: Alone(INTERNAL)
    await crowd.call(put("first"), put("a"), put("b"))
    crowd.inner.let_go()
    await settle()
    crowd.calls["b"].cancel()
    await pass_time(11)
    await crowd.all()
    assert crowd.inner.requests == ["first", ["a", "b"]]
    assert "not sent within 10 s" in str(crowd.answers("a")[0])


async def kinds_of_requests(crowd: Crowd, *operations: Operation) -> list[str]:
    """Say of each request of these operations whether it was a batch."""
    crowd.inner.let_all_go()
    crowd.inner.requests.clear()
    await asyncio.gather(*map(crowd.backend.execute, operations), return_exceptions=True)
    return ["batch" if isinstance(each, list) else "plain" for each in crowd.inner.requests]


@in_virtual_time
async def test_a_refused_kind_is_sent_plainly_for_a_minute() -> None:
    """G6: a permission seldom returns, so not each batch asks for it; and it is asked for again."""
    crowd = Crowd(fallback=True)
    crowd.inner.refuses = lambda each: DENIED if isinstance(each, Put) else None
    assert await kinds_of_requests(crowd, put("a"), put("b"), put("c")) == ["plain", "batch", "plain", "plain"]
    assert await kinds_of_requests(crowd, put("d"), put("e"), put("f")) == ["plain"] * 3
    owners = [completion(key) for key in "abc"]
    assert await kinds_of_requests(crowd, *owners) == ["plain", "batch"], "another kind is not refused"
    await pass_time(61)
    assert await kinds_of_requests(crowd, put("g"), put("h"), put("i")) == ["plain", "batch", "plain", "plain"]
    crowd.inner.refuses = lambda _: None
    await pass_time(61)
    assert await kinds_of_requests(crowd, put("j"), put("k"), put("l")) == ["plain", "batch"]
    assert [str(each) for each in crowd.causes] == ["denied"], "once for each cause"


@in_virtual_time
async def test_without_partiql_all_statements_are_sent_plainly_and_reads_are_not() -> None:
    """G6: an engine without PartiQL may well have batches of reads."""
    crowd = Crowd(fallback=True)
    crowd.inner.refuses = lambda each: NO_PARTIQL if isinstance(each, Put) else None
    await kinds_of_requests(crowd, put("a"), put("b"), put("c"))
    assert await kinds_of_requests(crowd, completion("a"), release("b"), put("d")) == ["plain"] * 3
    assert await kinds_of_requests(crowd, get("a"), get("b"), get("c")) == ["plain", "batch"]
    assert "plain calls for Put, Update, Delete, on" in repr(crowd.backend)


@in_virtual_time
async def test_a_claim_that_may_not_fall_back_is_tried_in_each_batch() -> None:
    """G6: once the permission is there, claims are made."""
    crowd = Crowd()
    crowd.inner.broken = DENIED
    await kinds_of_requests(crowd, put("a"), put("b"), put("c"))
    crowd.inner.broken = None
    assert await kinds_of_requests(crowd, put("d"), put("e"), put("f")) == ["plain", "batch"]
    assert crowd.causes == []


@pytest.mark.parametrize("answer", [ConditionFailed(None), "ThrottlingError"])
def test_every_operation_of_a_batch_is_told_its_own_outcome(answer: Outcome) -> None:
    """G3: an owner's, too, after the pauses."""

    @in_virtual_time
    async def scene() -> None:
        crowd = Crowd()
        await claimed(crowd, "a", "b")
        given: Callable[[Operation], Outcome | None] = lambda each: (  # noqa: E731 - it has a type
            answer if each.location.partition == "a" and crowd.inner.requests.count("a") == 0 else None
        )
        crowd.inner.fault = given
        outcome, applied = await together(crowd, completion("a"), completion("b"))
        assert applied == Applied()
        assert outcome == (Applied() if isinstance(answer, str) else answer)

    scene()
