"""Client id, system id, entity: whatever crashes, and however often it is tried, there is one entity."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, Backend, MemoryBackend
from aioidempotency._core.operations import Get, Operation
from tests.effects.conftest import Shop
from tests.support.scripted import Down, Fault, LostReply, ScriptedBackend


async def create_order(store: AsyncIdempotencyStore, table: str, client_key: str, **order: object) -> dict[str, object]:
    """Give a client's order an id of our own, and make the order, once."""
    order_id = await store.get_or_create_id(client_key, namespace="orders")
    return await store.put_if_absent(table, {"pk": order_id, **order})


class CrashError(BaseException):
    """The process ends here."""


class Crash(Fault):
    """The process ends before its request is sent, or when it was applied."""

    def __init__(self, *, applied: bool) -> None:
        self.applied = applied

    async def answer(self, backend: Backend, operation: Operation) -> Any:
        if self.applied:
            await backend.execute(operation)
        raise CrashError


def at(step: int, fault: Fault) -> Callable[[Operation], Fault | None]:
    """Let a fault meet one write, counted from 0."""
    left = [step]

    def rule(operation: Operation) -> Fault | None:
        if isinstance(operation, Get):
            return None
        left[0] -= 1
        return fault if left[0] == -1 else None

    return rule


FAULTS = [Crash(applied=False), Crash(applied=True), Down(), LostReply()]


@pytest.mark.parametrize("fault", FAULTS, ids=["crash", "crash after it", "not answered", "answer lost"])
@pytest.mark.parametrize("step", [0, 1])
async def test_at_every_step_a_crash_leaves_what_the_next_attempt_goes_on_from(step: int, fault: Fault) -> None:
    """X1: before and after each of the two writes; the first attempt's order wins where it was stored."""
    table = MemoryBackend()
    first = AsyncIdempotencyStore("ids", backend=ScriptedBackend(table, at(step, fault)))
    with pytest.raises(BaseException) as crashed:  # noqa: PT011 - a crash is no Exception
        await create_order(first, "orders", "client-1", attempt=1)
    assert not isinstance(crashed.value, AssertionError)
    again = AsyncIdempotencyStore("ids", backend=table)
    order = await create_order(again, "orders", "client-1", attempt=2)
    stored = step == 1 and fault in (FAULTS[1], FAULTS[3])
    assert order["attempt"] == (1 if stored else 2)
    assert await create_order(again, "orders", "client-1", attempt=3) == order
    assert sum(location[0] == "orders" for location in table._items) == 1


async def test_any_number_of_attempts_at_once_make_one_entity(shop: Shop) -> None:
    """X1: on engines, from two stores; all attempts are answered with the same order."""
    stores = [shop.make_store(), shop.make_store()]
    answers = await asyncio.gather(
        *(create_order(stores[n % 2], shop.table, f"client-{n % 3}", attempt=n) for n in range(90))
    )
    assert len(await shop.items()) == 3
    assert len({str(answer) for answer in answers}) == 3
