"""A record that others change at every attempt: the caller is told so, with no invented record."""

from collections.abc import Callable

import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, MemoryBackend, StoreError, Wait
from aioidempotency._core.operations import (
    ConditionFailed,
    Found,
    Get,
    Operation,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Update,
)
from aioidempotency._core.protocol import ATTEMPTS
from aioidempotency.testing import FakeClock
from tests.support.scripted import Fault, ScriptedBackend


class Vanishing(Fault):
    """Another record is in the way of each write, and gone when the table is read."""

    async def answer(self, backend: object, operation: Operation) -> Reply:
        """Refuse a write, and find nothing."""
        return Found(None) if isinstance(operation, Get) else ConditionFailed(None)


def contended_store(kind: type[Operation], **options: object) -> tuple[AsyncIdempotencyStore, ScriptedBackend]:
    """Make a store whose writes of one kind are always refused."""
    backend = ScriptedBackend(MemoryBackend())
    backend.rule = lambda operation: Vanishing() if isinstance(operation, kind | Get) else None
    return AsyncIdempotencyStore("orders", backend=backend, **options), backend  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"fail_open": True}, {"read_first": True}])
async def test_a_claim_that_is_always_too_late_says_that_the_key_is_contended(options: dict[str, object]) -> None:
    """The store answers, so `fail_open` runs no body: the others do."""
    store, backend = contended_store(Put, **options)
    ran = []

    async def body() -> None:
        ran.append(1)

    for call in (
        lambda: store.claim("k"),
        lambda: store.run("k", body),
        lambda: store.execute("k", on_in_progress=Wait(5)).__aenter__(),
    ):
        with pytest.raises(StoreError, match=r"claim on table 'orders' failed: .*#?[0-9a-f]{64} is contended") as told:
            await call()
        assert told.value.retryable
        assert told.value.contended
    assert not ran
    assert backend.count(Put) <= 3 * ATTEMPTS


async def test_a_completion_and_a_renewal_that_are_always_too_late_say_so_too() -> None:
    """The record is the caller's own, and runs: neither lost nor finished."""
    backend, clock = ScriptedBackend(MemoryBackend()), FakeClock()
    store = AsyncIdempotencyStore("orders", backend=backend, clock=clock)
    claimed = await store.claim("k")
    assert isinstance(claimed, Claimed)
    clock.advance(1)
    refused = Refused()
    backend.rule = lambda operation: refused if isinstance(operation, Update) else None
    for call in (lambda: store.renew(claimed.lease), lambda: store.complete(claimed.lease, 1)):
        with pytest.raises(StoreError, match="is contended") as told:
            await call()
        assert told.value.contended
    backend.rule = lambda _: None
    assert (await store.complete(claimed.lease, 1)).result == 1


class Refused(Fault):
    """A write is refused, with the record that is there."""

    async def answer(self, backend: object, operation: Operation) -> Reply:
        """Refuse."""
        assert isinstance(operation, Update)
        found = await backend.execute(Get(operation.location))  # type: ignore[attr-defined]
        return ConditionFailed(found.item)


@pytest.mark.parametrize(
    "made", [lambda store: store.get_or_create_id("k"), lambda store: store.put_if_absent("shop", {"pk": "a"})]
)
async def test_an_item_that_others_delete_again_and_again_is_contended(
    made: Callable[[AsyncIdempotencyStore], object],
) -> None:
    store, _ = contended_store(Put)
    with pytest.raises(StoreError, match="is contended") as told:
        await made(store)  # type: ignore[misc]
    assert told.value.contended


async def test_a_transaction_that_is_always_too_late_is_contended() -> None:
    """`commit_once` has no record to show, either."""
    store, backend = contended_store(Put)
    backend.rule = lambda operation: VanishingPart() if isinstance(operation, Transact) else None
    with pytest.raises(StoreError, match=r"the transaction on table 'orders' failed: .* is contended"):
        await store.commit_once("k", 1, [])


class VanishingPart(Fault):
    """Another record is in the way of a transaction, and gone when the table is read."""

    async def answer(self, backend: object, operation: Operation) -> Reply:
        """Refuse the record's part."""
        return TransactionFailed((ConditionFailed(None),))
