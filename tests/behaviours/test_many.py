"""Many keys in one call, and calls that are cancelled in the middle."""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    Backend,
    Claimed,
    ConfigurationError,
    InProgress,
    MissingKeyError,
    Replay,
    Status,
    StoreError,
    idempotent,
)
from aioidempotency._core.operations import Operation, Put, Reply, Update
from tests.conftest import MakeStore
from tests.support.gate import GateBackend

KEYS = [f"k-{number}" for number in range(20)]


def digest(key: str) -> str:
    """The key of a text's record, in a store without a namespace."""
    return f"#{hashlib.sha256(json.dumps(key).encode()).hexdigest()}"


async def test_answers_come_in_the_order_asked(make_store: MakeStore) -> None:
    """O1: `claim_many` and `get_many` answer in the order of the keys, whichever is answered first."""
    store = make_store()
    done, running = await store.claim("k-3"), await store.claim("k-5")
    assert isinstance(done, Claimed)
    assert isinstance(running, Claimed)
    await store.complete(done.lease, "three")

    decisions = await store.claim_many(iter(KEYS), limit=7)
    assert [type(decision) for decision in decisions] == [
        {3: Replay, 5: InProgress}.get(number, Claimed) for number in range(20)
    ]
    keys = [decision.lease.key if isinstance(decision, Claimed) else decision.record.key for decision in decisions]
    assert keys == [digest(key) for key in KEYS]

    records = await store.get_many([*reversed(KEYS), "free"], limit=7)
    assert [record and record.key for record in records] == [*reversed(keys), None]
    assert (await store.claim_many([]), await store.get_many([])) == ([], [])


class Crowded:
    """Holds every operation until as many are there as were asked for; counts how many ever were at once."""

    def __init__(self, inner: Backend, crowd: int) -> None:
        self.most = 0
        self._inner = inner
        self._inside = 0
        self._crowd = crowd
        self._full = asyncio.Event()

    async def execute(self, operation: Operation) -> Reply:
        self._inside += 1
        self.most = max(self.most, self._inside)
        if self._inside == self._crowd:
            self._full.set()
        await self._full.wait()
        reply = await self._inner.execute(operation)
        self._inside -= 1
        return reply


@pytest.mark.parametrize("method", ["claim_many", "get_many"])
async def test_as_many_are_sent_at_once_as_the_limit_says(
    make_store: MakeStore, backend: Backend, method: Literal["claim_many", "get_many"]
) -> None:
    """O1: keys are sent concurrently, `limit` at a time: not one after the other, and never more."""
    crowded = Crowded(backend, crowd=4)
    store = make_store(backend=crowded)
    calls: dict[str, Callable[..., Awaitable[list[object]]]] = {
        "claim_many": store.claim_many,  # type: ignore[dict-item]
        "get_many": store.get_many,  # type: ignore[dict-item]
    }
    assert len(await calls[method](KEYS, limit=4)) == len(KEYS)
    assert crowded.most == 4
    for limit in (0, -1):
        with pytest.raises(ConfigurationError, match="limit="):
            await calls[method](KEYS, limit=limit)


class FailsAt:
    """Answers nothing to the put of one key, once every other key is there."""

    def __init__(self, inner: Backend, key: str, others: int) -> None:
        self._inner = inner
        self._key = key
        self._others = others
        self._claimed = asyncio.Event()

    async def execute(self, operation: Operation) -> Reply:
        if isinstance(operation, Put) and operation.location.key == self._key:
            await self._claimed.wait()
            raise StoreError("PutItem", "orders", "no answer")
        reply = await self._inner.execute(operation)
        self._others -= isinstance(operation, Put)
        if self._others == 0:
            self._claimed.set()
        return reply


async def test_when_one_claim_fails_the_others_are_released(make_store: MakeStore, backend: Backend) -> None:
    """O14: the error comes as itself, in no group, and no key that `claim_many` had won stays locked."""
    store = make_store()
    failing = make_store(backend=FailsAt(backend, digest("k-7"), others=len(KEYS) - 1))
    with pytest.raises(StoreError) as raised:
        await failing.claim_many(KEYS)
    assert type(raised.value) is StoreError
    assert await store.get_many(KEYS) == [None] * len(KEYS)


async def test_a_key_that_is_none_fails_without_locking_others(make_store: MakeStore) -> None:
    """C8: a missing key among many is `MissingKeyError`, in no group, and the other keys are free."""
    store = make_store()
    with pytest.raises(MissingKeyError):
        await store.claim_many(["k-1", "k-2", "", "k-3"])
    with pytest.raises(MissingKeyError):
        await store.get_many(["k-1", None])
    assert await store.get_many(["k-1", "k-2", "k-3"]) == [None] * 3


async def cancelled_at_the_gate(gate: GateBackend, store: AsyncIdempotencyStore) -> list[str]:
    """Call a decorated function, cancel it where the gate holds it, and let it end; its bodies."""
    bodies = []

    @idempotent(store, key="order_id", namespace="charge")
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        return "paid"

    call = asyncio.create_task(charge("o-1"))
    await gate.reached.wait()
    call.cancel()
    gate.open()
    with pytest.raises(asyncio.CancelledError):
        await call
    return bodies


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_cancelled_while_claiming_leaves_the_key_free(
    make_store: MakeStore, backend: Backend, when: Literal["before", "after"]
) -> None:
    """O5: whether or not its put was applied, the key is free at once, and the body did not run."""
    gate = GateBackend(backend, Put, when)
    assert await cancelled_at_the_gate(gate, make_store(backend=gate)) == []
    assert await make_store().get("o-1", namespace="charge") is None


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_call_cancelled_while_completing_leaves_the_record_finished(
    make_store: MakeStore, backend: Backend, when: Literal["before", "after"]
) -> None:
    """O5: the body has run, so whether or not its update was applied, its result is stored."""
    gate = GateBackend(backend, Update, when)
    assert await cancelled_at_the_gate(gate, make_store(backend=gate)) == ["o-1"]
    record = await make_store().get("o-1", namespace="charge")
    assert record is not None
    assert (record.status, record.result) == (Status.COMPLETED, "paid")


async def test_a_call_cancelled_while_its_body_runs_leaves_the_key_free(make_store: MakeStore) -> None:
    """O5: the key is free at once, and the next call runs."""
    store = make_store()
    began, never, bodies = asyncio.Event(), asyncio.Event(), []

    @idempotent(store, key="order_id", namespace="charge")
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        if len(bodies) == 1:
            began.set()
            await never.wait()
        return "paid"

    call = asyncio.create_task(charge("o-1"))
    await began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await store.get("o-1", namespace="charge") is None
    assert await charge("o-1") == "paid"
