"""What every backend answers over several locations: all or nothing, failures by index, one moment's reading."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiobotocore.session import AioSession

from aioidempotency import (
    AttributeNames,
    Backend,
    CompositeKey,
    ConfigurationError,
    DynamoDBBackend,
    MemoryBackend,
    StoreError,
)
from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.model import Item, Location, Locations, Table
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
    FoundAll,
    GetAll,
    Put,
    Transact,
    TransactionFailed,
    Update,
    Write,
)
from tests.conftest import store_options
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy
from tests.support.records import record
from tests.support.values import replace

RIVALS = 50
RENAMED = AttributeNames(status="status", expiration="ttl", in_progress_expiration="in.progress-until", owner="user")


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """The tables made so far, one for each backend; each test has keys of its own in them."""
    return {}


@pytest.fixture
async def backend(backend_options: dict[str, Any]) -> AsyncIterator[Backend]:
    """Each backend, closed at the end."""
    made = backend_options.get("backend") or DynamoDBBackend(**backend_options)
    yield made
    if not isinstance(made, MemoryBackend):
        await made.aclose()


@pytest.fixture
async def locations(request: pytest.FixtureRequest, backend: Any, tables: dict[str, Table]) -> Locations:
    """Three locations of one key that was never used."""
    kind = request.node.callspec.params["backend_options"]
    if kind not in tables:
        tables[kind] = CompositeKey("key", "order").table(f"test-{secrets.token_hex(6)}", RENAMED)
        await backend.create_table(tables[kind])
    key = f"orders#{secrets.token_hex(16)}"
    return tuple(Location(table=tables[kind], partition=f"bucket#{number}", sort=key) for number in range(3))


def owned(location: Location, owner: str) -> Item:
    return record(location, owner={"S": owner})


async def stored(backend: Backend, locations: Locations) -> tuple[Item | None, ...]:
    reply = await backend.execute(GetAll(locations))
    assert isinstance(reply, FoundAll)
    return reply.items


async def given(backend: Backend, *items: Put) -> None:
    for put in items:
        assert await backend.execute(put) == Applied()


async def test_several_places_are_empty_at_first(backend: Backend, locations: Locations) -> None:
    """P2: each is answered for, in the order asked."""
    assert await stored(backend, locations) == (None, None, None)


async def test_a_claim_and_its_take_over_are_one_transaction_each(backend: Backend, locations: Locations) -> None:
    """P7: put, check and delete, all applied."""
    home, near, far = locations
    claim = Transact((Put(home, record(home), Absent()), Check(near, Absent()), Check(far, Absent())))
    assert await backend.execute(claim) == Applied()
    assert await stored(backend, locations) == (record(home), None, None)

    take_over = Transact(
        (Put(far, owned(far, "next"), Absent()), Check(near, Absent()), Delete(home, Unchanged(record(home))))
    )
    assert await backend.execute(take_over) == Applied()
    assert await stored(backend, locations) == (None, None, owned(far, "next"))


async def test_a_transaction_of_every_kind_is_applied(backend: Backend, locations: Locations) -> None:
    """An update leaves the other attributes, as alone."""
    home, near, far = locations
    await given(backend, Put(near, record(near), Absent()))
    whole = Transact(
        (
            Put(home, record(home), Absent()),
            Update(near, {"data": {"S": "done"}, "status": {"S": "COMPLETED"}}, HeldBy("me")),
            Check(far, Absent()),
        )
    )
    assert await backend.execute(whole) == Applied()
    finished = record(near, data={"S": "done"}, status={"S": "COMPLETED"})
    assert await stored(backend, locations) == (record(home), finished, None)


@pytest.mark.parametrize("index", range(3))
async def test_one_refusal_refuses_the_whole_and_brings_its_item_by_index(
    backend: Backend, locations: Locations, index: int
) -> None:
    """P2: whatever the kind of write; nothing is applied."""
    there = record(locations[index], owner={"S": "other"}, validation={"S": "digest"})
    await given(backend, Put(locations[index], there, Absent()))
    before = await stored(backend, locations)
    for write in _refused_writes(locations[index]):
        writes = tuple(
            write if number == index else Put(location, record(location), Absent())
            for number, location in enumerate(locations)
        )
        reply = await backend.execute(Transact(writes))
        assert reply == TransactionFailed(
            tuple(ConditionFailed(there) if number == index else None for number in range(3))
        )
        assert await stored(backend, locations) == before


def _refused_writes(location: Location) -> tuple[Write | Check, ...]:
    return (
        Put(location, record(location), Absent()),
        Check(location, Absent()),
        Delete(location, HeldBy("me")),
        Update(
            location,
            {"data": {"S": "done"}},
            Unchanged(record(location, owner={"S": "other"}, fencing_token={"N": "8"})),
        ),
    )


async def test_every_refusal_is_told(backend: Backend, locations: Locations) -> None:
    """A key may have records in two locations that count no more: both have to be seen to be taken over."""
    home, near, far = locations
    await given(backend, Put(home, owned(home, "a"), Absent()), Put(far, owned(far, "b"), Absent()))
    claim = Transact((Put(home, record(home), Absent()), Check(near, Absent()), Check(far, Absent())))
    assert await backend.execute(claim) == TransactionFailed(
        (ConditionFailed(owned(home, "a")), None, ConditionFailed(owned(far, "b")))
    )


async def test_a_refusal_by_a_missing_item_brings_none(backend: Backend, locations: Locations) -> None:
    """A record that went away meanwhile is not taken over."""
    home, near, _ = locations
    take_over = Transact((Put(home, record(home), Absent()), Delete(near, Unchanged(record(near)))))
    assert await backend.execute(take_over) == TransactionFailed((None, ConditionFailed(None)))
    assert await stored(backend, locations) == (None, None, None)


async def test_of_fifty_concurrent_transactions_one_wins(backend: Backend, locations: Locations) -> None:
    """P2: with homes that differ, each checking the others: one record, and all others are shown it."""
    claims = []
    for number in range(RIVALS):
        home = locations[number % 3]
        others = tuple(Check(location, Absent()) for location in locations if location != home)
        claims.append(Transact((Put(home, owned(home, f"rival-{number}"), Absent()), *others)))
    replies = await asyncio.gather(*(backend.execute(claim) for claim in claims))
    assert replies.count(Applied()) == 1
    (winner,) = [item for item in await stored(backend, locations) if item is not None]
    assert winner == claims[replies.index(Applied())].writes[0].item  # type: ignore[union-attr] # a put
    for reply in replies:
        assert reply == Applied() or [each.item for each in reply.failures if each] == [winner]  # type: ignore[union-attr]


@pytest.fixture
async def proxied(
    ministack: Engine, session: AioSession
) -> AsyncIterator[tuple[FaultProxy, DynamoDBBackend, Locations]]:
    """A table behind a proxy, and two locations of one key in it."""
    async with FaultProxy(ministack.endpoint_url) as proxy:
        backend = DynamoDBBackend(**store_options(replace(ministack, endpoint_url=proxy.url), session))
        table = CompositeKey().table(f"test-{secrets.token_hex(6)}", AttributeNames())
        await backend.create_table(table)
        yield proxy, backend, tuple(Location(table=table, partition=f"p{number}", sort="k") for number in range(2))
        await backend.aclose()


def claim_of(locations: Locations) -> Transact:
    return Transact((Put(locations[0], record(locations[0]), Absent()), Check(locations[1], Absent())))


async def test_a_transaction_that_meets_another_is_sent_again(proxied: Any) -> None:
    """It was not applied, and no retry mode repeats it; in the end the store is not answering."""
    proxy, backend, locations = proxied
    proxy.inject(Fault.CANCELLED_BY_CONFLICT, operation="TransactWriteItems", times=3)
    assert await backend.execute(claim_of(locations)) == Applied()
    proxy.inject(Fault.CANCELLED_BY_CONFLICT, operation="TransactWriteItems", times=6)
    with pytest.raises(StoreError, match="TransactionCanceledException"):
        await backend.execute(Transact((Check(locations[0], Absent()), Check(locations[1], Absent()))))
    proxy.inject(Fault.CANCELLED_BY_CONFLICT, operation="TransactGetItems", times=3)
    assert await stored(backend, locations) == (record(locations[0]), None)


async def test_a_transaction_that_is_refused_and_meets_another_is_refused(proxied: Any) -> None:
    """The record that was found decides; nothing is sent again."""
    proxy, backend, locations = proxied
    proxy.inject(Fault.CANCELLED_BY_BOTH, operation="TransactWriteItems", times=1)
    reply = await backend.execute(claim_of(locations))
    assert reply == TransactionFailed((None, ConditionFailed({"pk": {"S": "there"}})))
    assert [seen.operation for seen in proxy.requests].count("TransactWriteItems") == 1


async def test_an_invalid_transaction_is_a_configuration_error(proxied: Any) -> None:
    """Waiting does not mend it."""
    proxy, backend, locations = proxied
    proxy.inject(Fault.CANCELLED_AS_INVALID, operation="TransactWriteItems", times=1)
    with pytest.raises(ConfigurationError, match="layout="):
        await backend.execute(claim_of(locations))


async def test_a_transaction_needs_the_permissions_of_its_parts(proxied: Any) -> None:
    """There is none of its own to ask for."""
    proxy, backend, locations = proxied
    proxy.inject(Fault.DENY, operation="TransactWriteItems", times=1)
    proxy.inject(Fault.DENY, operation="TransactGetItems", times=1)
    with pytest.raises(ConfigurationError, match=r"allow them dynamodb:PutItem, .* ConditionCheckItem on the table"):
        await backend.execute(claim_of(locations))
    with pytest.raises(ConfigurationError, match="allow them dynamodb:GetItem on the table"):
        await stored(backend, locations)


async def test_a_lost_answer_of_a_transaction_is_settled_by_its_token(proxied: Any) -> None:
    """O2: the client sends it again with its token, and the service knows that it was applied."""
    proxy, backend, locations = proxied
    proxy.inject(Fault.CUT, operation="TransactWriteItems", times=1)
    assert await backend.execute(claim_of(locations)) == Applied()
    sent = [seen.body["ClientRequestToken"] for seen in proxy.requests if seen.operation == "TransactWriteItems"]
    assert len(sent) == 2
    assert len(set(sent)) == 1
