"""What a body may do to its arguments, to other calls and to its caller, and what becomes of its record."""

import asyncio
import traceback
from typing import Any

import pytest

from aioidempotency import (
    IdempotencyError,
    InProgressError,
    LeaseLostError,
    MismatchError,
    MissingKeyError,
    Record,
    ResultUnavailableError,
    SerializationError,
    Status,
    StoreError,
    idempotent,
)
from aioidempotency.testing import FakeClock
from tests.behaviours.conftest import Counted
from tests.conftest import MakeStore

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it

RUNNING = Record(key="charge#0", status=Status.INPROGRESS, expiration=1)


class CardDeclinedError(Exception):
    """What a user's body raises."""


async def test_a_body_that_changes_its_arguments_completes_the_record_it_claimed(counted: Counted) -> None:
    """C9: key and fingerprint are what the arguments were when the call came."""
    store, bodies = counted.store, []

    @idempotent(store, key="order.id", fingerprint="order")
    async def charge(order: dict[str, Any]) -> str:
        bodies.append(dict(order))
        order["id"] = "another"
        order["amount"] = 0
        return "paid"

    assert await charge({"id": "o-1", "amount": 5}) == "paid"
    assert await charge({"id": "o-1", "amount": 5}) == "paid"
    assert bodies == [{"id": "o-1", "amount": 5}]
    with pytest.raises(MismatchError):
        await charge({"id": "o-1", "amount": 0})
    claimed, completed = (operation.location for operation in counted.operations[:2])  # type: ignore[attr-defined]
    assert claimed == completed


async def test_a_body_that_empties_all_its_arguments_is_found_again(make_store: MakeStore) -> None:
    """C9: the same holds where all arguments are the key, and are emptied in place."""
    bodies = []

    @idempotent(make_store())
    async def import_rows(rows: list[int], *, options: dict[str, int]) -> int:
        bodies.append(len(rows))
        options.clear()
        rows.clear()
        return bodies[0]

    assert await import_rows([1, 2], options={"limit": 3}) == 2
    assert await import_rows([1, 2], options={"limit": 3}) == 2
    assert bodies == [2]


async def test_nested_calls_complete_their_own_records(make_store: MakeStore) -> None:
    """C10: a decorated function called by another, on one store and with one payload, has its own record."""
    store, bodies = make_store(), []

    @idempotent(store, key="order_id", namespace="inner")
    async def reserve(order_id: str) -> str:
        bodies.append("reserve")
        return "reserved"

    @idempotent(store, key="order_id", namespace="outer")
    async def charge(order_id: str) -> str:
        bodies.append("charge")
        return f"{await reserve(order_id)}, paid"

    assert [await charge("o-1"), await charge("o-1")] == ["reserved, paid"] * 2
    assert await reserve("o-1") == "reserved"
    assert bodies == ["charge", "reserve"]
    inner, outer = await store.get("o-1", namespace="inner"), await store.get("o-1", namespace="outer")
    assert inner is not None
    assert outer is not None
    assert (inner.result, outer.result) == ("reserved", "reserved, paid")


async def test_calls_that_overlap_complete_their_own_records(make_store: MakeStore) -> None:
    """C10: two functions in two tasks of one store, the first to begin being the last to end."""
    store = make_store()
    began, finished = asyncio.Event(), asyncio.Event()

    @idempotent(store)
    async def slow(order_id: str) -> str:
        began.set()
        await finished.wait()
        return f"slow {order_id}"

    @idempotent(store)
    async def quick(order_id: str) -> str:
        return f"quick {order_id}"

    running = asyncio.create_task(slow("o-1"))
    await began.wait()
    assert await quick("o-1") == "quick o-1"
    finished.set()
    assert await running == "slow o-1"
    assert [await slow("o-1"), await quick("o-1")] == ["slow o-1", "quick o-1"]


async def test_every_function_keeps_its_own_settings(make_store: MakeStore) -> None:
    """C10: two configurations on one store, the second call inside the first, do not mix."""
    clock = FakeClock()
    store = make_store(clock=clock)
    short_lease: list[Record | None] = []

    @idempotent(store, key="order_id", namespace="short", retention=100, lease=10)
    async def short(order_id: str) -> str:
        await long(order_id)
        short_lease.append(await store.get(order_id, namespace="short"))
        return "short"

    @idempotent(store, key="order_id", namespace="long", retention=5000, lease=90, fingerprint="order_id")
    async def long(order_id: str) -> str:
        record = await store.get(order_id, namespace="long")
        assert record is not None
        assert record.lease_ends_at == clock() + 90
        return "long"

    await short("o-1")
    assert short_lease[0] is not None
    assert short_lease[0].lease_ends_at == clock() + 10
    kept = [await store.get("o-1", namespace=name) for name in ("short", "long")]
    assert [(record and record.expiration) for record in kept] == [clock() + 100, clock() + 5000]
    assert [record is not None and record.fingerprint is not None for record in kept] == [False, True]


@pytest.mark.parametrize(
    "error",
    [
        CardDeclinedError("declined"),
        KeyError("order"),
        TimeoutError(),
        StopAsyncIteration(),
        ExceptionGroup("the user's own", [ValueError(1), TypeError(2)]),
        IdempotencyError("the user's own"),
        InProgressError(RUNNING, 1.0),
        MismatchError(RUNNING),
        LeaseLostError("charge#0", None),
        ResultUnavailableError(RUNNING, "the user's own"),
        SerializationError("the result", "object", "the user's own"),
        MissingKeyError("the user's own"),
        StoreError("PutItem", "orders", "the user's own"),
        SystemExit(3),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_error_of_the_body_passes_on_as_itself(make_store: MakeStore, error: BaseException) -> None:
    """C11: whatever the body raises, even an error of ours, the caller gets it, and the key is free again."""
    store, bodies = make_store(), []

    @idempotent(store, key="order_id", namespace="charge")
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        if len(bodies) == 1:
            raise error
        return "paid"

    with pytest.raises(type(error)) as raised:
        await charge("o-1")
    assert raised.value is error
    assert raised.value.__cause__ is None
    assert traceback.extract_tb(raised.value.__traceback__)[-1].name == "charge"
    assert len(bodies) == 1
    assert await store.get("o-1", namespace="charge") is None
    assert await charge("o-1") == "paid"


async def test_an_error_in_a_block_passes_on_as_itself(make_store: MakeStore) -> None:
    """C11: the same for `execute` and `run`, where the key is free again at once, too."""
    store, error = make_store(), CardDeclinedError("declined")

    async def decline() -> None:
        raise error

    with pytest.raises(CardDeclinedError) as raised:
        async with store.execute("block"):
            raise error
    assert raised.value is error
    with pytest.raises(CardDeclinedError) as raised:
        await store.run("run", decline)
    assert raised.value is error
    assert await store.get_many(["block", "run"]) == [None, None]


async def test_an_error_keeps_what_it_was_raised_from(make_store: MakeStore) -> None:
    """C11: cause and context are those that the body gave, and nothing is added to them."""
    cause = ValueError("the cause")

    @idempotent(make_store())
    async def charge(order_id: str) -> str:
        try:
            raise cause
        except ValueError as error:
            raise CardDeclinedError(order_id) from error

    with pytest.raises(CardDeclinedError) as raised:
        await charge("o-1")
    assert raised.value.__cause__ is cause
    assert raised.value.__context__ is cause
    assert cause.__context__ is None
