"""Claims far above the pool's connections: owners do not wait behind them."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from aioidempotency import AttributeNames, DynamoDBBackend, StoreError
from aioidempotency.backends import (
    Absent,
    Applied,
    Check,
    Delete,
    Get,
    HeldBy,
    Location,
    Operation,
    Put,
    Table,
    Transact,
    Update,
)
from aioidempotency.backends.dynamodb.room import Room
from tests.batches.crowd import settle
from tests.support.virtual_time import in_virtual_time

TABLE = Table("orders", "id", None, AttributeNames())


def at(key: str) -> Location:
    return Location(table=TABLE, partition=key)


def claim(key: str) -> Put:
    return Put(at(key), at(key).item, Absent())


OWNERS: list[Operation] = [
    Update(at("mine"), {"data": {"S": "1"}}, HeldBy("me")),
    Delete(at("mine"), HeldBy("me")),
    Put(at("mine"), {**at("mine").item, "freed_by": {"S": "you"}}, HeldBy("me")),
    Transact((Update(at("mine"), {"data": {"S": "1"}}, HeldBy("me")), Check(at("other"), Absent()))),
]
OTHERS: list[Callable[[str], Operation]] = [
    claim,
    lambda key: Get(at(key)),
    lambda key: Transact((claim(key), Check(at("other"), Absent()))),
]


async def held(**_: object) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("others", OTHERS, ids=["claims", "reads", "claims over locations"])
@pytest.mark.parametrize("owner", OWNERS, ids=["update", "delete", "a release that leaves a record", "transaction"])
async def test_owners_have_connections_of_their_own(
    session: AioSession, owner: Operation, others: Callable[[str], Operation]
) -> None:
    """G7: fifty claims that nothing answers hold three of four connections, and no owner up."""
    sent: list[str] = []
    begun = asyncio.Event()

    async def hold(params: dict[str, Any], model: Any, **_: object) -> Any:
        sent.append(model.name)
        if len(sent) == 3:
            begun.set()
        if model.name in {"UpdateItem", "DeleteItem"} or any(
            each in params["body"] for each in (b"Update", b"freed_by")
        ):
            return Response(), {}
        await held()
        return None

    options: Any = {"region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:1"}
    config = AioConfig(max_pool_connections=4)
    async with session.create_client("dynamodb", config=config, **options) as client:
        client.meta.events.register("before-call.dynamodb", hold)
        backend = DynamoDBBackend(client)
        claims = [asyncio.ensure_future(backend.execute(others(f"k{number}"))) for number in range(50)]
        await begun.wait()
        await settle()
        assert len(sent) == 3
        assert await backend.execute(owner) == Applied()
        for each in claims:
            each.cancel()
        await asyncio.gather(*claims, return_exceptions=True)
        assert (sent[3:], len(sent)) == ([sent[3]], 4), "a cancelled claim is not sent"
        assert backend._rooms[asyncio.get_running_loop()].free == 3


class Response:
    """What botocore looks at in a response."""

    status_code = 200


async def test_a_freed_connection_wakes_one_caller() -> None:
    """G8: the one that waits the longest; one that was cancelled at that moment passes it on."""
    room = Room(3)
    assert room.free == 2
    room.free = 0
    came: list[int] = []

    async def wait(number: int) -> None:
        await room.wait()
        came.append(number)

    callers = [asyncio.create_task(wait(number)) for number in range(4)]
    await settle()
    room.leave()
    await settle()
    assert came == [0]
    callers[1].cancel()
    room.leave()
    await settle()
    assert came == [0, 2]
    room.leave()
    callers[3].cancel()
    await settle()
    assert came == [0, 2]
    assert (room.free, [each.cancelled() for each in callers]) == (1, [False, True, False, True])


@pytest.mark.parametrize(("connections", "free"), [(1, 1), (2, 1), (10, 9), (256, 224)])
def test_how_many_connections_claims_have(connections: int, free: int) -> None:
    """G7: one of eight is the owners'; of a single one, none can be."""
    assert Room(connections).free == free


async def test_a_stub_has_room_for_all() -> None:
    """A client without a pool is not ours to bound."""
    assert Room.of(object(), limit=5.0).free == float("inf")


async def test_a_wait_for_room_ends_with_the_time_limit(session: AioSession) -> None:
    """O14: as the wait for a connection does."""
    options: Any = {"region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:1"}
    async with session.create_client("dynamodb", config=AioConfig(max_pool_connections=1), **options) as client:
        client.meta.events.register("before-call.dynamodb", held)
        backend = DynamoDBBackend(client, time_limit=0.05)
        failures = await asyncio.gather(*(backend.execute(claim(key)) for key in "abc"), return_exceptions=True)
        assert [type(each) for each in failures] == [StoreError] * 3
        assert backend._rooms[asyncio.get_running_loop()].free == 1


async def test_an_answered_claim_lets_the_next_one_leave(session: AioSession) -> None:
    """G8: all are answered, though one leaves at a time; a failed one gives its connection back, too."""
    under_way, most = 0, 0

    async def answer(params: dict[str, Any], **_: object) -> Any:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await settle()
        under_way -= 1
        if b"fails" in params["body"]:
            raise OSError
        return Response(), {}

    options: Any = {"region_name": "eu-central-1", "endpoint_url": "http://127.0.0.1:1"}
    async with session.create_client("dynamodb", config=AioConfig(max_pool_connections=1), **options) as client:
        client.meta.events.register("before-call.dynamodb", answer)
        backend = DynamoDBBackend(client)
        keys = ["a", "b", "fails", "c", "d"]
        answers = await asyncio.gather(*(backend.execute(claim(key)) for key in keys), return_exceptions=True)
        assert [type(each) for each in answers] == [Applied, Applied, StoreError, Applied, Applied]
        assert (most, backend._rooms[asyncio.get_running_loop()].free) == (1, 1)


class Pool:
    """A client with four connections, whose answers take some seconds; None: no answer ever comes."""

    def __init__(self, seconds: float | None) -> None:
        self.meta = SimpleNamespace(config=SimpleNamespace(max_pool_connections=4))
        self.seconds = seconds
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        async def call(**_: object) -> dict[str, object]:
            self.asked += 1
            if self.seconds is None:
                await asyncio.Event().wait()
            await asyncio.sleep(self.seconds or 0)
            return {}

        return call


async def crowd_of(pool: Any, callers: int) -> list[tuple[str, float]]:
    """Send claims at once. Tell how each one ended, and when."""
    backend, loop = DynamoDBBackend(pool, time_limit=5.0), asyncio.get_running_loop()
    start = loop.time()

    async def call(number: int) -> tuple[str, float]:
        try:
            said = type(await backend.execute(claim(f"k{number}"))).__name__
        except StoreError as error:
            said = error.reason
        return said, round(loop.time() - start, 2)

    return await asyncio.gather(*map(call, range(callers)))


@in_virtual_time
async def test_a_crowd_is_served_beyond_the_time_limit() -> None:
    """G8: the limit of five seconds is for a silent store; three connections serve 36 claims in twelve."""
    ended = await crowd_of(Pool(1.0), 36)
    assert {said for said, _ in ended} == {"Applied"}
    assert ended[-1] == ("Applied", 12.0)


@in_virtual_time
async def test_who_waits_behind_a_silent_store_is_turned_away_with_it() -> None:
    pool = Pool(None)
    ended = await crowd_of(pool, 10)
    assert ended == [("no answer within 5 s", 5.0)] * 3 + [("not sent within 5 s", 5.0)] * 7
    assert pool.asked == 3


@in_virtual_time
async def test_a_crowd_that_is_too_large_is_turned_away_in_the_end() -> None:
    """After three time limits, since a claim must be renewed when half of its lease is over."""
    ended = await crowd_of(Pool(1.0), 100)
    served = [when for said, when in ended if said == "Applied"]
    assert 45 <= len(served) <= 50
    turned_away = {(said, 15.0 <= when <= 16.5) for said, when in ended if said != "Applied"}
    assert turned_away == {("not sent within 15 s", True)}


@in_virtual_time
async def test_a_caller_that_is_turned_away_takes_no_connection_with_it() -> None:
    pool = Pool(None)
    await crowd_of(pool, 10)
    pool.seconds = 0.0
    assert await crowd_of(pool, 10) == [("Applied", 0.0)] * 10
