"""Calls and replays: what a first and a second call send, and what they answer."""

import asyncio
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, ConfigurationError, MemoryBackend, idempotent
from aioidempotency._core.conditions import Absent, HeldBy
from aioidempotency._core.operations import Operation, Put, Reply, Update
from tests.behaviours.conftest import Proxied
from tests.conftest import MakeStore
from tests.support.counting import CountingBackend


async def test_a_first_call_is_a_put_and_an_update_and_a_second_one_a_refused_put(proxied_layouts: Proxied) -> None:
    """C1: on the wire, a first call sends a conditional put and an update, a second one a refused put."""
    store, bodies = proxied_layouts.make_store(), []
    await store.get("opens the store")

    @idempotent(store)
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        return "paid"

    start = len(proxied_layouts.proxy.requests)
    assert await charge("o-1") == "paid"
    first = proxied_layouts.since(start)
    assert [(seen.operation, seen.status) for seen in first] == [("PutItem", 200), ("UpdateItem", 200)]
    assert first[0].body["ConditionExpression"] == "attribute_not_exists(#key)"
    assert first[1].body["ConditionExpression"] == "#owner = :owner AND #status = :status"

    assert await charge("o-1") == "paid"
    again = proxied_layouts.since(start + 2)
    assert [(seen.operation, seen.status) for seen in again] == [("PutItem", 400)]
    assert bodies == ["o-1"]


async def test_a_first_call_is_a_put_and_an_update_in_memory_too() -> None:
    """C1: the same operations reach a backend that is not DynamoDB."""
    backend = CountingBackend[Operation, Reply](MemoryBackend())
    store, bodies = AsyncIdempotencyStore("calls", backend=backend), []

    @idempotent(store)
    async def charge(order_id: str) -> str:
        bodies.append(order_id)
        return "paid"

    assert [await charge("o-1"), await charge("o-1")] == ["paid", "paid"]
    put, update, refused = backend.operations
    assert isinstance(put, Put)
    assert put.condition == Absent()
    assert isinstance(update, Update)
    assert update.condition == HeldBy(str(put.item["owner"]["S"]))
    assert isinstance(refused, Put)
    assert bodies == ["o-1"]


async def test_a_one_place_claim_is_one_request(proxied_layouts: Proxied) -> None:
    """P7: where a key has one location, claiming it is one request, whether it wins or not."""
    store = proxied_layouts.make_store()
    await store.get("opens the store")
    for _ in range(2):
        start = len(proxied_layouts.proxy.requests)
        await store.claim("k")
        assert [seen.operation for seen in proxied_layouts.since(start)] == ["PutItem"]


async def test_a_coroutine_function_is_awaited(make_store: MakeStore) -> None:
    """C2: the body is awaited; what comes back, first and replayed, is its result and no coroutine."""
    bodies = []

    @idempotent(make_store())
    async def charge(order_id: str) -> dict[str, str]:
        await asyncio.sleep(0)
        bodies.append(order_id)
        return {"order": order_id}

    assert [await charge("o-1"), await charge("o-1")] == [{"order": "o-1"}] * 2
    assert bodies == ["o-1"]


async def test_a_plain_function_is_refused(make_store: MakeStore) -> None:
    """C2: a plain function would run before its key is claimed: it is refused, by `run` before anything is sent."""
    store, bodies = make_store(), []

    def charge(order_id: str) -> None:
        bodies.append(order_id)

    with pytest.raises(ConfigurationError, match=r"charge is not a coroutine function.*async def"):
        idempotent(store)(charge)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="charge is not a coroutine function"):
        await store.run("k", charge, "o-1")  # type: ignore[arg-type]
    assert bodies == []
    assert await store.get("k") is None


@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}, None], ids=repr)
async def test_values_that_are_false_replay_as_themselves(make_store: MakeStore, value: object) -> None:
    """C3: `0`, `0.0`, `False`, `""`, `[]`, `{}` and `None` are results, not the lack of one."""
    store, bodies = make_store(), []

    @idempotent(store)
    async def answer(call: int) -> Any:
        bodies.append(call)
        return value

    first, replayed = await answer(1), await answer(1)
    assert (type(first), first) == (type(replayed), replayed) == (type(value), value)
    assert bodies == [1]

    async with store.execute("in a block") as execution:
        execution.complete(value)
    async with store.execute("in a block") as execution:
        assert execution.replayed
        assert (type(execution.result), execution.result) == (type(value), value)


async def test_the_order_of_names_in_a_payload_does_not_matter(make_store: MakeStore) -> None:
    """C5: two payloads that differ in the order of their names, at any depth, are one key."""
    bodies = []

    @idempotent(make_store())
    async def charge(order: dict[str, Any]) -> None:
        bodies.append(order)

    await charge({"a": 1, "b": {"c": 2, "d": 3}})
    await charge({"b": {"d": 3, "c": 2}, "a": 1})
    assert len(bodies) == 1


async def test_a_number_and_its_text_are_two_keys(make_store: MakeStore) -> None:
    """C5: `1`, `1.0`, `True` and `"1"` are four different payloads."""
    bodies = []

    @idempotent(make_store())
    async def charge(order: dict[str, Any]) -> None:
        bodies.append(repr(order["a"]))

    for value in (1, "1", 1.0, True):
        await charge({"a": value})
    assert bodies == ["1", "'1'", "1.0", "True"]


@pytest.mark.parametrize(
    ("material", "digest"),
    [
        (1, "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"),
        (1.0, "d0ff5974b6aa52cf562bea5921840c032a860a91a3512f7fe8f768f6bbe005f6"),
        (True, "b5bea41b6c623f7c09f1bf24dcae58ebab3c0cdd90ad966bc43a45b44867e12b"),
        ("1", "391552c099c101b131feaf24c5795a6a15bc8ec82015424e0d2b4274a369a0bf"),
        ({"b": 1, "a": 2}, "21501dbaf73f5223934d22283f01caff4132bc1de4a9550c1ed0dffeb397a323"),
        ({"k": "é"}, "cd98d4d64cd4794df4b701d7f3a0e740c0f4dd422428a1b774fb7823539e2ac7"),
    ],
)
async def test_digests_are_pinned(material: object, digest: str) -> None:
    """C5: the digest of a key is part of the table's format: SHA-256 of its canonical JSON."""
    decision = await AsyncIdempotencyStore.in_memory(namespace="orders").claim(material)
    assert isinstance(decision, Claimed)
    assert decision.lease.key == f"orders#{digest}"
