"""One table for Powertools and for us: their records are read, and ours are what they can read."""

import json
import os
import secrets
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, final

import pytest
from aiobotocore.session import AioSession

from aioidempotency import (
    AsyncIdempotencyStore,
    Claimed,
    CompositeKey,
    InProgress,
    InProgressError,
    LeaseLostError,
    Mismatch,
    Replay,
    SimpleKey,
    Static,
)
from aioidempotency._core.model import Item
from tests.conftest import store_options
from tests.support.engines import Engine

KEY = "invoice-42"
NOW = 4_000_000_000.25
"""The stores' time: in the future, or an engine's own TTL would delete what expires."""

HOUR = {"N": str(int(NOW) + 3600)}
PAST = {"N": str(int(NOW) - 1)}
STORED: dict[str, list[tuple[Item, object]]] = {
    "Python": [
        ({"data": {"S": '{"id": 7, "lines": ["a", "b"], "total": 1.5}'}}, {"id": 7, "lines": ["a", "b"], "total": 1.5}),
        ({"data": {"S": "null"}}, None),
        ({"data": {"S": '"paid"'}}, "paid"),
        ({"data": {"S": "false"}}, False),
        ({"data": {"S": "0"}, "in_progress_expiration": {"N": str(int(NOW * 1000) - 9)}}, 0),
        ({"data": {"S": "[]"}, "validation": {"S": ""}}, []),
    ],
    "TypeScript": [
        (
            {"data": {"M": {"n": {"N": "7"}, "b": {"BOOL": True}, "none": {"NULL": True}, "l": {"L": [{"S": "é"}]}}}},
            {"n": 7, "b": True, "none": None, "l": ["é"]},
        ),
        ({"data": {"L": [{"N": "1.5"}, {"M": {}}]}}, [1.5, {}]),
        ({"data": {"N": "42"}}, 42),
        ({"data": {"BOOL": False}}, False),
        ({"data": {"NULL": True}}, None),
        ({}, None),
    ],
    "Java": [
        ({"data": {"S": "paid, thank you"}}, "paid, thank you"),
        ({"data": {"S": ""}}, ""),
        ({"data": {"S": '{"id":7}'}}, {"id": 7}),
    ],
    "anybody": [
        ({"data": {"S": "1"}, "expiration": {"N": f"{int(NOW) + 3600}.5"}}, 1),
        ({"data": {"S": "1"}, "blob": {"B": b"\x00"}, "words": {"SS": ["a"]}}, 1),
    ],
}
LAYOUTS: dict[str, SimpleKey | CompositeKey] = {
    "simple": SimpleKey("id"),
    "composite": CompositeKey("id", "sort_key", partitioning=Static("idempotency#orders-function")),
}


@final
@dataclass(frozen=True)
class Shared:
    """A table that Powertools uses as well: `client` stands for its functions."""

    store: AsyncIdempotencyStore
    client: Any
    table_name: str
    key: Item

    async def written(self, **attributes: Any) -> None:
        """Write a record unconditionally, as Powertools completes one."""
        await self.client.put_item(TableName=self.table_name, Item={**self.key, **attributes})

    async def stored(self) -> Any:
        answer = await self.client.get_item(TableName=self.table_name, Key=self.key, ConsistentRead=True)
        return answer.get("Item")


@pytest.fixture(scope="module")
def tables() -> dict[tuple[str, str], str]:
    """The tables made so far, by engine and layout; each test has a namespace of its own in them."""
    return {}


@pytest.fixture(params=LAYOUTS)
async def shared(
    request: pytest.FixtureRequest, engine: Engine, session: AioSession, tables: dict[tuple[str, str], str]
) -> AsyncIterator[Shared]:
    """Each layout that Powertools knows, on each engine."""
    options = store_options(engine, session)
    layout = LAYOUTS[request.param]
    async with options.pop("session").create_client("dynamodb", **options) as client:
        known = tables.get((engine.name, request.param))
        name, namespace = known or f"test-{secrets.token_hex(6)}", secrets.token_hex(6)
        store = AsyncIdempotencyStore(name, namespace=namespace, layout=layout, clock=lambda: NOW, client=client)
        if known is None:
            await store.create_table()
            tables[engine.name, request.param] = name
        key = {"S": await _key(namespace)}
        composite = {"id": {"S": "idempotency#orders-function"}, "sort_key": key}
        yield Shared(store, client, name, {"id": key} if request.param == "simple" else composite)


async def _key(namespace: str) -> str:
    """Ask a store in memory for the record's key; this suite is about attributes, not about digests."""
    decision = await AsyncIdempotencyStore.in_memory(namespace=namespace).claim(KEY)
    assert isinstance(decision, Claimed)
    return decision.lease.key


@pytest.mark.parametrize("language", STORED)
async def test_what_powertools_finished_is_replayed(shared: Shared, language: str) -> None:
    """C3: the result is read whatever language stored it, and the record stays as it is."""
    for stored, result in STORED[language]:
        await shared.written(**{"status": {"S": "COMPLETED"}, "expiration": HOUR, **stored})
        before = await shared.stored()
        decision = await shared.store.claim(KEY, fingerprint="ours")
        assert isinstance(decision, Replay)
        assert (type(decision.result), decision.result) == (type(result), result)
        async with shared.store.execute(KEY) as execution:
            assert (execution.replayed, execution.result) == (True, result)
        assert await shared.stored() == before


async def test_what_powertools_is_running_is_refused(shared: Shared) -> None:
    """O11: until the end of its lease and our clocks' difference; the record stays as it is."""
    lease = {"N": str(int(NOW * 1000) + 5000)}
    await shared.written(status={"S": "INPROGRESS"}, expiration=HOUR, in_progress_expiration=lease)
    before = await shared.stored()
    decision = await shared.store.claim(KEY)
    assert isinstance(decision, InProgress)
    assert decision.retry_after == pytest.approx(6.0, abs=0.01)
    assert decision.record.owner is None
    assert await shared.stored() == before


async def test_what_powertools_runs_without_a_lease_is_refused_until_it_expires(shared: Shared) -> None:
    """Outside Lambda it knows no remaining time, and writes no lease."""
    await shared.written(status={"S": "INPROGRESS"}, expiration=HOUR)
    decision = await shared.store.claim(KEY)
    assert isinstance(decision, InProgress)
    assert decision.retry_after == pytest.approx(3600, abs=1)


@pytest.mark.parametrize(
    "ended",
    [
        {"status": {"S": "INPROGRESS"}, "expiration": HOUR, "in_progress_expiration": {"N": str(int(NOW - 2) * 1000)}},
        {"status": {"S": "INPROGRESS"}, "expiration": PAST},
        {"status": {"S": "COMPLETED"}, "expiration": PAST, "data": {"S": "1"}},
    ],
    ids=["lease over", "expired while running", "expired when finished"],
)
async def test_what_powertools_left_behind_is_taken_over(shared: Shared, ended: dict[str, Any]) -> None:
    """O6: our record takes its location, whole; nothing of the old result is left."""
    await shared.written(**ended)
    decision = await shared.store.claim(KEY)
    assert isinstance(decision, Claimed)
    item = await shared.stored()
    assert item["owner"] == {"S": decision.lease.owner}
    assert "data" not in item


async def test_a_record_that_expires_this_second_still_counts(shared: Shared) -> None:
    """Their comparison is strict, and so is ours: a record of this second is replayed."""
    await shared.written(status={"S": "COMPLETED"}, expiration={"N": str(int(NOW))}, data={"S": "1"})
    assert isinstance(await shared.store.claim(KEY), Replay)


@pytest.mark.parametrize("status", ["INPROGRESS", "COMPLETED"])
async def test_another_payload_under_their_key_is_a_mismatch(shared: Shared, status: str) -> None:
    """O15: `validation` is compared where both have one."""
    await shared.written(status={"S": status}, expiration=HOUR, data={"S": "1"}, validation={"S": "0" * 32})
    assert isinstance(await shared.store.claim(KEY, fingerprint="ours"), Mismatch)
    assert not isinstance(await shared.store.claim(KEY), Mismatch)


async def test_a_running_record_has_what_powertools_reads_and_ours(shared: Shared) -> None:
    """Section 2 of the record's table: names, types, whole numbers, seconds here and milliseconds there."""
    decision = await shared.store.claim(KEY, fingerprint="ours", lease=60, retention=3600)
    assert isinstance(decision, Claimed)
    assert await shared.stored() == {
        **shared.key,
        "status": {"S": "INPROGRESS"},
        "expiration": {"N": str(int(NOW) + 3600)},
        "in_progress_expiration": {"N": str(round((NOW + 60) * 1000))},
        "validation": {"S": decision.lease.fingerprint},
        "owner": {"S": decision.lease.owner},
        "fencing_token": {"N": str(round(NOW * 1000))},
        "claimed_by": {"S": f"{socket.gethostname()} {os.getpid()}"},
    }
    assert len(bytes.fromhex(decision.lease.owner)) == 16
    assert len(bytes.fromhex(str(decision.lease.fingerprint))) == 32


async def test_a_finished_record_has_what_powertools_reads_and_ours(shared: Shared) -> None:
    """Completion adds the result as JSON text, and leaves the lease's end as Powertools does; no encoding is noted."""
    decision = await shared.store.claim(KEY, lease=60, retention=3600)
    assert isinstance(decision, Claimed)
    await shared.store.complete(decision.lease, {"id": 7, "note": "é"})
    item = await shared.stored()
    assert json.loads(item.pop("data")["S"]) == {"id": 7, "note": "é"}
    assert item == {
        **shared.key,
        "status": {"S": "COMPLETED"},
        "expiration": {"N": str(int(NOW) + 3600)},
        "in_progress_expiration": {"N": str(round((NOW + 60) * 1000))},
        "owner": {"S": decision.lease.owner},
        "fencing_token": {"N": str(round(NOW * 1000))},
        "claimed_by": {"S": f"{socket.gethostname()} {os.getpid()}"},
    }


async def test_what_powertools_has_finished_can_be_forgotten(shared: Shared) -> None:
    """C21: as it was seen, without an owner."""
    await shared.written(status={"S": "COMPLETED"}, expiration=HOUR, data={"S": '"theirs"'})
    assert await shared.store.forget(KEY)
    assert await shared.stored() is None
    assert not await shared.store.forget(KEY)


async def test_what_powertools_runs_can_be_freed_for_the_next_call(shared: Shared) -> None:
    """C21: its record has no owner and no token; that its function finishes all the same is beyond anybody."""
    running = {"in_progress_expiration": {"N": str(int(NOW + 30) * 1000)}, "validation": {"S": "0" * 32}}
    await shared.written(status={"S": "INPROGRESS"}, expiration=HOUR, **running)
    with pytest.raises(InProgressError):
        await shared.store.forget(KEY)
    assert await shared.store.forget(KEY, running=True)
    left = await shared.stored()
    assert (left["in_progress_expiration"], left["fencing_token"]) == ({"N": "0"}, {"N": "1"})
    # What Powertools insists on before it takes a record over, in its own words.
    await shared.client.put_item(
        TableName=shared.table_name,
        Item=left,
        ConditionExpression="#status = :inprogress AND attribute_exists(#in_progress_expiry) "
        "AND #in_progress_expiry < :now_in_millis",
        ExpressionAttributeNames={"#status": "status", "#in_progress_expiry": "in_progress_expiration"},
        ExpressionAttributeValues={
            ":inprogress": {"S": "INPROGRESS"},
            ":now_in_millis": {"N": str(int(NOW * 1000))},
        },
    )
    assert isinstance(await shared.store.claim(KEY, fingerprint="ours"), Claimed)


async def test_what_powertools_took_over_is_not_ours_any_more(shared: Shared) -> None:
    """O4: after its put and completion, our late completion is refused and changes nothing."""
    decision = await shared.store.claim(KEY)
    assert isinstance(decision, Claimed)
    await shared.written(status={"S": "COMPLETED"}, expiration=HOUR, data={"S": '"theirs"'})
    before = await shared.stored()
    with pytest.raises(LeaseLostError):
        await shared.store.complete(decision.lease, "ours")
    assert await shared.stored() == before
