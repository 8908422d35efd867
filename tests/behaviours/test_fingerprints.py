"""One key, another payload: refused whatever state the record is in."""

import asyncio
from typing import Any

import pytest

from aioidempotency import (
    Claimed,
    InProgress,
    InProgressError,
    Mismatch,
    MismatchError,
    Replay,
    Status,
    idempotent,
)
from aioidempotency.testing import FakeClock
from tests.conftest import MakeStore


async def test_another_payload_is_refused_while_the_first_runs(make_store: MakeStore) -> None:
    """O15: running: another payload is `Mismatch` and carries the record; the same payload is `InProgress`."""
    store = make_store()
    first = await store.claim("k", fingerprint={"amount": 1})
    assert isinstance(first, Claimed)
    other = await make_store().claim("k", fingerprint={"amount": 2})
    assert isinstance(other, Mismatch)
    assert (other.record.status, other.record.owner) == (Status.INPROGRESS, first.lease.owner)
    assert other.record.fingerprint == first.lease.fingerprint
    assert isinstance(await make_store().claim("k", fingerprint={"amount": 1}), InProgress)
    assert (await store.complete(first.lease, "paid")).result == "paid"


async def test_another_payload_is_refused_when_the_first_has_finished(make_store: MakeStore) -> None:
    """O15: finished: another payload is `Mismatch`, an identical retry replays."""
    store = make_store()
    first = await store.claim("k", fingerprint={"amount": 1, "currency": "EUR"})
    assert isinstance(first, Claimed)
    record = await store.complete(first.lease, "paid")
    other = await store.claim("k", fingerprint={"amount": 2, "currency": "EUR"})
    assert isinstance(other, Mismatch)
    assert (other.record.status, other.record.owner) == (Status.COMPLETED, first.lease.owner)
    identical = await store.claim("k", fingerprint={"currency": "EUR", "amount": 1})
    assert isinstance(identical, Replay)
    assert (identical.result, await store.get("k")) == ("paid", record)


async def test_another_payload_is_refused_after_a_lapsed_lease(make_store: MakeStore) -> None:
    """O15: lapsed: the key is not free for another payload; an identical retry takes it over."""
    clock = FakeClock()
    store = make_store(clock=clock)
    first = await store.claim("k", fingerprint="a")
    assert isinstance(first, Claimed)
    clock.advance(300)
    assert isinstance(await store.claim("k", fingerprint="b"), Mismatch)
    again = await store.claim("k", fingerprint="a")
    assert isinstance(again, Claimed)
    assert again.lease.fencing_token > first.lease.fencing_token


async def test_another_payload_is_accepted_when_the_record_has_expired(make_store: MakeStore) -> None:
    """O15: expired: the record no longer counts, whatever its payload was, though it is still stored."""
    clock = FakeClock()
    store = make_store(clock=clock, retention=600)
    first = await store.claim("k", fingerprint="a")
    assert isinstance(first, Claimed)
    await store.complete(first.lease, "old")
    clock.advance(600)
    assert isinstance(await store.claim("k", fingerprint="b"), Mismatch)
    clock.advance(1)
    second = await store.claim("k", fingerprint="b")
    assert isinstance(second, Claimed)
    assert (await store.complete(second.lease, "new")).result == "new"


async def test_a_claim_without_a_fingerprint_checks_none(make_store: MakeStore) -> None:
    """O15: where either side has no fingerprint, nothing is compared."""
    store = make_store()
    await store.claim("with", fingerprint="a")
    await store.claim("without")
    assert isinstance(await store.claim("with"), InProgress)
    assert isinstance(await store.claim("without", fingerprint="a"), InProgress)


@pytest.mark.parametrize("fingerprint", ["order", lambda order: order["amount"]], ids=["expression", "callable"])
async def test_a_decorated_call_with_another_payload_raises(make_store: MakeStore, fingerprint: Any) -> None:
    """O15: the decorator raises `MismatchError` while running and when finished, and does not run the body."""
    store, bodies = make_store(), []
    began, go_on = asyncio.Event(), asyncio.Event()

    @idempotent(store, key="order.id", fingerprint=fingerprint)
    async def charge(order: dict[str, Any]) -> str:
        bodies.append(order["amount"])
        began.set()
        await go_on.wait()
        return "paid"

    running = asyncio.create_task(charge({"id": "o-1", "amount": 1}))
    await began.wait()
    with pytest.raises(MismatchError) as raised:
        await charge({"id": "o-1", "amount": 2})
    assert raised.value.record.status is Status.INPROGRESS
    with pytest.raises(InProgressError):
        await charge({"id": "o-1", "amount": 1})
    go_on.set()
    assert await running == "paid"

    with pytest.raises(MismatchError) as raised:
        await charge({"id": "o-1", "amount": 2})
    assert (raised.value.record.status, raised.value.status_hint) == (Status.COMPLETED, 422)
    assert not raised.value.retryable
    assert await charge({"amount": 1, "id": "o-1"}) == "paid"
    assert bodies == [1]


async def test_a_refused_call_never_changes_the_record(make_store: MakeStore) -> None:
    """O15: neither a mismatch nor a refusal nor a replay writes to the record."""
    store = make_store()
    first = await store.claim("k", fingerprint="a")
    assert isinstance(first, Claimed)
    running = await store.get("k")
    await store.claim("k", fingerprint="b", lease=999, retention=9999)
    await store.claim("k", fingerprint="a", lease=999, retention=9999)
    assert await store.get("k") == running
    finished = await store.complete(first.lease, "paid")
    await store.claim("k", fingerprint="b", retention=9999)
    await store.claim("k", fingerprint="a", retention=9999)
    assert await store.get("k") == finished


async def test_a_fingerprint_that_finds_nothing_is_the_fingerprint_of_null(make_store: MakeStore) -> None:
    """C19: a field that the first call lacked, and the second one has, is another payload."""
    store = make_store()

    @idempotent(store, key="order.id", fingerprint="order.amount")
    async def pay(order: dict[str, Any]) -> str:
        return "paid"

    assert await pay({"id": 1}) == "paid"
    assert await pay({"id": 1, "amount": None}) == "paid"
    with pytest.raises(MismatchError):
        await pay({"id": 1, "amount": 5})
