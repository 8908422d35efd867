"""`aioidempotency heat`: live records in each partition value, counted on a real table."""

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore, Claimed, HashBuckets, RandomBuckets, Reshard, Static, TimeBuckets
from tests.cli.conftest import Command, OpenStore, created, run
from tests.support.engines import Engine, client_options

KEYS = 60
ROOT = Path(__file__).parents[2]


async def filled(store: AsyncIdempotencyStore, **options: float) -> Counter[str]:
    """Claim keys; count their records in each partition value."""
    async with store:
        await store.create_table()
        decisions = await asyncio.gather(*(store.claim(key, **options) for key in range(KEYS)))  # type: ignore[arg-type]
    return Counter(each.lease.location.partition for each in decisions if isinstance(each, Claimed))


@pytest.mark.parametrize("strategy", [HashBuckets(8), RandomBuckets(8), TimeBuckets(600, buckets=2), Static("one")])
async def test_every_record_is_counted_where_it_is(command: Command, open_store: OpenStore, strategy: object) -> None:
    """The table says by which strategy; its layout item is no record."""
    placed = await filled(open_store(strategy))
    found = json.loads((await run(command, "heat", "--json")).stdout)
    assert found["total"] == KEYS
    assert {name: count for name, count in found["records"].items() if count} == dict(placed)
    assert list(found["records"].values()) == sorted(found["records"].values(), reverse=True)
    assert found["hottest"] == round(max(placed.values()) * len(found["records"]) / KEYS, 3)


async def test_both_sides_of_a_move_are_counted(command: Command, open_store: OpenStore) -> None:
    """P4: one sees the old locations grow empty."""
    await created(open_store(Static("old")))
    placed = await filled(open_store(Reshard(Static("old"), HashBuckets(4), "prepare")))
    assert placed == {"old": KEYS}
    found = json.loads((await run(command, "heat", "--json")).stdout)
    assert found["records"] == {"old": KEYS, **{f"idempotency#{bucket}": 0 for bucket in range(4)}}


async def test_what_has_expired_is_not_counted(
    command: Command, open_store: OpenStore, ministack: Engine, session: AioSession, table_name: str
) -> None:
    """TTL deletes late; the command goes by the real clock, and here TTL is off."""
    async with open_store(HashBuckets(4)) as store:
        await store.create_table()
        await store.claim("future")
    async with session.create_client("dynamodb", **client_options(ministack)) as client:
        off = {"Enabled": False, "AttributeName": "expiration"}
        await client.update_time_to_live(TableName=table_name, TimeToLiveSpecification=off)
    async with open_store(HashBuckets(4), clock=lambda: 1_000.0) as store:
        await store.claim("past")
    assert json.loads((await run(command, "heat", "--json")).stdout)["total"] == 1


async def test_the_counts_are_drawn(command: Command, open_store: OpenStore) -> None:
    """A bar for each partition value, the fullest first, and how uneven they are."""
    placed = await filled(open_store(HashBuckets(4)))
    drawn = (await run(command, "heat")).stdout
    assert f"{KEYS} live records in 4 partition values: HashBuckets(n=4, prefix='idempotency')" in drawn
    fullest, count = placed.most_common(1)[0]
    bars = [line for line in drawn.splitlines() if line.startswith("idempotency#")]
    assert bars[0].split()[0] == fullest
    assert bars[0].split()[-1] == str(count)
    assert bars[0].count("━") == 40
    assert f"{max(placed.values()) / 15:.2f} times the mean of 15.0" in drawn


async def test_the_page_shows_what_the_command_prints(command: Command, open_store: OpenStore) -> None:
    """U2: the keys are fixed, so are their partition values."""
    async with open_store(HashBuckets(8)) as store:
        await store.create_table()
        await store.claim_many(f"order-{number}" for number in range(600))
    drawn = [line.rstrip() for line in (await run(command, "heat")).stdout.strip().splitlines()]
    page = (ROOT / "docs" / "pages" / "where-records-live.md").read_text(encoding="utf-8")
    assert "\n".join(drawn) in page


async def test_many_partition_values_are_cut_short(command: Command, open_store: OpenStore) -> None:
    """The fullest are shown."""
    await filled(open_store(HashBuckets(100)))
    drawn = (await run(command, "heat")).stdout
    assert len([line for line in drawn.splitlines() if line.startswith("idempotency#")]) == 64
    assert "and 36 more, none of them fuller" in drawn


async def test_an_empty_table_is_told_so(command: Command, open_store: OpenStore) -> None:
    """Without bars."""
    await created(open_store(HashBuckets(4)))
    assert (await run(command, "heat")).stdout.startswith("0 live records in 4 partition values")


async def test_a_layout_can_be_given(command: Command, open_store: OpenStore) -> None:
    """For a table that says nothing, or to look elsewhere."""
    await created(open_store(HashBuckets(4), verify_layout=False))
    refused = await run(command, "heat")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert 'as in --layout "HashBuckets(32)"' in refused.stderr
    given = await run(command, "heat", "--json", "--layout", "HashBuckets(3)")
    assert len(json.loads(given.stdout)["records"]) == 3
