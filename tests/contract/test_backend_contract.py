"""What every backend answers: conditions hold or refuse, failures bring the item, writes are atomic."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from aiobotocore.session import AioSession

from aioidempotency import AttributeNames, Backend, CompositeKey, DynamoDBBackend, MemoryBackend, SimpleKey
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged
from aioidempotency._core.model import AttributeValue, Item, Location, Role, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Found, Get, Put, Update, Write
from tests.conftest import store_options
from tests.support.batched import BatchedBackend
from tests.support.engines import Engine
from tests.support.proxy import FaultProxy
from tests.support.records import EXPIRES, RECORD, record

RIVALS = 50
LATER = {"N": str(EXPIRES + 1)}
RESERVED = AttributeNames(
    status="status", expiration="ttl", in_progress_expiration="in.progress-until", owner="user", encoding="#value:"
)
FOREIGN: Item = {
    "blob": {"B": b"\x00\xff"},
    "blobs": {"BS": [b"\x00"]},
    "words": {"SS": ["a"]},
    "numbers": {"NS": ["1"]},
    "nested": {"M": {"list": {"L": [{"BOOL": False}, {"NULL": True}, {"N": "1"}]}}},
    "empty": {"S": ""},
}
Made = DynamoDBBackend | MemoryBackend | BatchedBackend


@pytest.fixture(scope="module")
def tables() -> dict[tuple[str, str], Table]:
    """The tables made so far, one for each backend and layout; each test has keys of its own in them."""
    return {}


@pytest.fixture
async def backend(backend_options: dict[str, Any]) -> AsyncIterator[Made]:
    """Each backend, closed at the end."""
    made: Made = backend_options.get("backend") or DynamoDBBackend(**backend_options)
    yield made
    if not isinstance(made, MemoryBackend):
        await made.aclose()


@pytest.fixture(params=["simple", "composite"])
async def location(request: pytest.FixtureRequest, backend: Made, tables: dict[tuple[str, str], Table]) -> Location:
    """A location that was never used; in the composite layout, every attribute has a reserved or an odd name."""
    layout = SimpleKey() if request.param == "simple" else CompositeKey("key", "order")
    kind = (request.node.callspec.params["backend_options"], request.param)
    if kind not in tables:
        attributes = RESERVED if request.param == "composite" else AttributeNames()
        tables[kind] = layout.table(f"test-{secrets.token_hex(6)}", attributes)
        await backend.create_table(tables[kind])
    return layout.route(tables[kind], f"orders#{secrets.token_hex(16)}").locations(0)[0]


def write(kind: str, location: Location, condition: Condition) -> Write:
    """Make a write of each kind."""
    if kind == "put":
        return Put(location, record(location, owner={"S": "next"}), condition)
    return Delete(location, condition) if kind == "delete" else Update(location, {"data": {"S": "done"}}, condition)


async def given(backend: Backend, location: Location, item: Item) -> None:
    assert await backend.execute(Put(location, item, Absent())) == Applied()


async def stored(backend: Backend, location: Location) -> Item | None:
    reply = await backend.execute(Get(location))
    assert isinstance(reply, Found)
    return reply.item


async def test_a_place_is_empty_at_first(backend: Backend, location: Location) -> None:
    """A read of nothing finds None."""
    assert await backend.execute(Get(location)) == Found(None)


async def test_a_put_into_an_empty_place_is_read_back_whole(backend: Backend, location: Location) -> None:
    """Every type of attribute comes back as it was written."""
    item = {**record(location), **FOREIGN}
    assert await backend.execute(Put(location, item, Absent())) == Applied()
    assert await stored(backend, location) == item


@pytest.mark.parametrize("kind", ["put", "update", "delete"])
async def test_a_refused_write_brings_the_item_and_changes_nothing(
    backend: Backend, location: Location, kind: str
) -> None:
    """C1: a duplicate needs no read, because the refusal of each kind of write brings the item."""
    item = {**record(location), **FOREIGN}
    await given(backend, location, item)
    for condition in (Absent(), HeldBy("another"), Unchanged(record(location, fencing_token={"N": "8"}))):
        assert await backend.execute(write(kind, location, condition)) == ConditionFailed(item)
        assert await stored(backend, location) == item


@pytest.mark.parametrize("kind", ["put", "update", "delete"])
async def test_a_write_on_a_missing_item_is_refused_without_one(
    backend: Backend, location: Location, kind: str
) -> None:
    """O4: what was deleted is not revived by its old owner."""
    # In PartiQL, what is not there is deleted: the one difference, and no harm to who gives a key back.
    said = kind == "delete" and isinstance(backend, BatchedBackend)
    for condition, expected in (
        (HeldBy("me"), Applied() if said else ConditionFailed(None)),
        (Unchanged(record(location)), ConditionFailed(None)),
    ):
        assert await backend.execute(write(kind, location, condition)) == expected
        assert await stored(backend, location) is None


@pytest.mark.parametrize("wanted", ["held", "unchanged"])
async def test_a_put_that_is_applied_replaces_the_whole_item(backend: Backend, location: Location, wanted: str) -> None:
    """A takeover leaves nothing of the record before."""
    item = {**record(location), **FOREIGN}
    await given(backend, location, item)
    next_item = record(location, owner={"S": "next"})
    condition = HeldBy("me") if wanted == "held" else Unchanged(item)
    assert await backend.execute(Put(location, next_item, condition)) == Applied()
    assert await stored(backend, location) == next_item


@pytest.mark.parametrize("wanted", ["held", "unchanged"])
async def test_an_update_leaves_the_other_attributes(backend: Backend, location: Location, wanted: str) -> None:
    """A completion keeps fingerprint, owner, and attributes that we know nothing of, binary ones too."""
    item = {**record(location, validation={"S": "digest"}), **FOREIGN}
    await given(backend, location, item)
    changes: dict[Role, AttributeValue] = {"status": {"S": "COMPLETED"}, "data": {"S": "{}"}, "expiration": LATER}
    condition = HeldBy("me") if wanted == "held" else Unchanged(item)
    assert await backend.execute(Update(location, changes, condition)) == Applied()
    named = {location.table.names[role]: value for role, value in changes.items()}
    assert await stored(backend, location) == {**item, **named}


@pytest.mark.parametrize("wanted", ["held", "unchanged"])
async def test_a_delete_that_is_applied_leaves_nothing(backend: Backend, location: Location, wanted: str) -> None:
    """A released key is free: the next put finds nothing."""
    item = record(location)
    await given(backend, location, item)
    condition = HeldBy("me") if wanted == "held" else Unchanged(item)
    assert await backend.execute(Delete(location, condition)) == Applied()
    assert await backend.execute(Put(location, item, Absent())) == Applied()


async def test_nobody_holds_a_finished_record(backend: Backend, location: Location) -> None:
    """O8: its own owner's late heartbeat does not revive a finished record."""
    item = record(location, status={"S": "COMPLETED"})
    await given(backend, location, item)
    assert await backend.execute(Update(location, {"expiration": LATER}, HeldBy("me"))) == ConditionFailed(item)


async def test_a_record_is_another_one_when_any_part_of_its_identity_is(backend: Backend, location: Location) -> None:
    """O7: whatever moved, came, went or changed its type since it was seen keeps a contender from taking over."""
    token: dict[str, AttributeValue] = {"fencing_token": {"N": str(EXPIRES)}}
    before = record(location, **token)
    await given(backend, location, before)
    for role, value in product(RECORD, (None, {"S": str(EXPIRES)}, LATER)):
        after = record(location, **{**token, role: value})
        assert await backend.execute(Delete(location, Unchanged(after))) == ConditionFailed(before), role
        assert await backend.execute(Put(location, after, Unchanged(before))) == Applied(), role
        assert await backend.execute(Delete(location, Unchanged(before))) == ConditionFailed(after), role
        assert await backend.execute(Put(location, before, Unchanged(after))) == Applied(), role


async def test_a_record_without_an_owner_can_be_taken_over_unchanged(backend: Backend, location: Location) -> None:
    """A record of Powertools has neither owner nor token; what is missing must still be missing."""
    theirs = record(location, owner=None, fencing_token=None, in_progress_expiration=None)
    await given(backend, location, theirs)
    assert await backend.execute(write("put", location, Unchanged(theirs))) == Applied()
    assert await backend.execute(write("put", location, Unchanged(theirs))) == ConditionFailed(
        record(location, owner={"S": "next"})
    )


async def test_result_and_fingerprint_are_no_part_of_the_identity(backend: Backend, location: Location) -> None:
    """A condition sends five small attributes, never a result of 400 KB."""
    await given(backend, location, record(location, data={"S": "stored"}))
    assert await backend.execute(Delete(location, Unchanged(record(location, validation={"S": "other"})))) == Applied()


async def test_numbers_are_compared_by_value(backend: Backend, location: Location) -> None:
    """Two spellings of one number are one number, since DynamoDB normalises what it stores."""
    for written, asked in (("1.50", "1.5"), ("100", "1E+2"), ("007", "7"), ("-0", "0")):
        await given(backend, location, record(location, fencing_token={"N": written}))
        seen = Unchanged(record(location, fencing_token={"N": asked}))
        assert await backend.execute(Delete(location, seen)) == Applied(), asked


async def test_places_are_told_apart(backend: Backend, location: Location) -> None:
    """A write touches the item of its own key, in its own partition."""
    other = Location(table=location.table, partition=f"{location.partition}-other", sort=location.sort)
    await given(backend, location, record(location))
    await given(backend, other, record(other))
    assert await backend.execute(Delete(other, HeldBy("me"))) == Applied()
    assert await stored(backend, location) == record(location)


@pytest.mark.parametrize("wanted", ["absent", "unchanged"])
async def test_of_fifty_concurrent_puts_one_wins(backend: Backend, location: Location, wanted: str) -> None:
    """O1, O7: for a free key and for a lapsed one there is one owner, and all others are shown it."""
    vacant = record(location, owner={"S": "gone"})
    condition: Condition = Absent()
    if wanted == "unchanged":
        await given(backend, location, vacant)
        condition = Unchanged(vacant)
    items = [record(location, owner={"S": f"rival-{number}"}) for number in range(RIVALS)]
    replies = await asyncio.gather(*(backend.execute(Put(location, item, condition)) for item in items))
    winner = items[replies.index(Applied())]
    assert replies.count(Applied()) == 1
    assert replies.count(ConditionFailed(winner)) == RIVALS - 1
    assert await stored(backend, location) == winner


async def test_every_write_carries_a_condition_without_a_time_and_reads_are_consistent(
    engine: Engine, session: AioSession
) -> None:
    """O7: the expressions are one constant text at every time, and ask for the item that refuses them."""
    texts: dict[object, set[tuple[str, str]]] = {}
    async with FaultProxy(engine.endpoint_url) as proxy:
        backend = DynamoDBBackend(**{**store_options(engine, session), "endpoint_url": proxy.url})
        table = SimpleKey().table(f"test-{secrets.token_hex(6)}", AttributeNames())
        await backend.create_table(table)
        for kind, now in product(("put", "update", "delete"), (EXPIRES, EXPIRES + 1)):
            location = Location(table=table, partition=f"{kind}#{now}")
            seen = record(location, expiration={"N": f"{now}"}, fencing_token={"N": f"{now}000"})
            for condition in (Absent(), HeldBy(f"{now}"), Unchanged(seen)):
                await backend.execute(write(kind, location, condition))
                body = proxy.requests[-1].body
                text = body["ConditionExpression"], body.get("UpdateExpression", "")
                texts.setdefault((kind, type(condition)), set()).add(text)
                assert body["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD"
        await backend.execute(Get(location))
        assert proxy.requests[-1].body["ConsistentRead"] is True
        await backend.aclose()
    assert [len(each) for each in texts.values()] == [1] * 9
    assert not any(re.search(r"\d", "".join(text)) for each in texts.values() for text in each)
