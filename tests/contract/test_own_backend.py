"""A backend of one's own: the examples of the documentation are held to the contract that they explain."""

import ast
import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from markdown_it import MarkdownIt

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    CompositeKey,
    ConfigurationError,
    InProgress,
    LeaseLostError,
    Mismatch,
    RandomBuckets,
    Replay,
    StoreError,
    backends,
)
from aioidempotency.backends import (
    Absent,
    Applied,
    Backend,
    Check,
    Condition,
    ConditionFailed,
    Delete,
    Found,
    Get,
    GetAll,
    HeldBy,
    Item,
    Location,
    Put,
    Table,
    Transact,
    Unchanged,
    Update,
    Write,
)
from aioidempotency.testing import FakeClock
from tests.contract.test_backend_contract import FOREIGN, stored, write
from tests.support.records import record

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "backends.md"
PLACE = Location(table=Table("orders", "id", None, AttributeNames()), partition="shop#1")
RIVALS = 20


class Open(Protocol):
    """Makes a backend; each one is another process, and all reach the same records."""

    def __call__(self) -> Backend: ...


def python_blocks(text: str) -> list[str]:
    return [token.content for token in MarkdownIt().parse(text) if token.type == "fence" and token.info == "python"]


def names_of(block: str) -> dict[str, Any]:
    """Run a block as `python -m asyncio` does, and tell what it has defined."""
    names: dict[str, Any] = {"__name__": "example"}
    running = eval(compile(block, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(running):
        asyncio.run(running)
    return names


@pytest.fixture(params=["page", "docstring"])
def open_backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """The backend on SQLite of the page, and the one on a dictionary of `Backend`."""
    if request.param == "page":
        made: list[Any] = []
        sqlite_backend = names_of(python_blocks(PAGE.read_text(encoding="utf-8"))[0])["SQLiteBackend"]

        def open_file() -> Backend:
            made.append(sqlite_backend(str(tmp_path / "records.db")))
            backend: Backend = made[-1]
            return backend

        yield open_file
        for each in made:
            asyncio.run(each.aclose())
    else:
        (block,) = python_blocks(inspect.getdoc(Backend) or "")
        backend: Backend = names_of(block)["DictBackend"]()
        yield lambda: backend


@pytest.fixture
def clock() -> FakeClock:
    """The clock of all processes of a test."""
    return FakeClock()


def made(open_backend: Open, clock: FakeClock, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore("orders", backend=open_backend(), clock=clock, **options)


def test_the_example_of_the_protocol_runs() -> None:
    """It is whole: two calls, one execution."""
    (block,) = python_blocks(inspect.getdoc(Backend) or "")
    assert "store" in names_of(block)


async def test_a_key_is_claimed_completed_and_replayed(open_backend: Open, clock: FakeClock) -> None:
    """C1, by a store of another process too, with the result as it was stored."""
    one, other = made(open_backend, clock), made(open_backend, clock)
    claimed = await one.claim("order-1", fingerprint="a")
    assert isinstance(claimed, Claimed)
    assert isinstance(await other.claim("order-1", fingerprint="a"), InProgress)
    lease = await one.renew(claimed.lease)
    await one.complete(lease, {"total": "é"})
    replay = await other.claim("order-1", fingerprint="a")
    assert isinstance(replay, Replay)
    assert replay.result == {"total": "é"}
    assert isinstance(await other.claim("order-2"), Claimed)


async def test_a_key_of_another_payload_is_a_mismatch(open_backend: Open, clock: FakeClock) -> None:
    """While it runs, and when it is finished."""
    store = made(open_backend, clock)
    claimed = await store.claim("order-1", fingerprint="a")
    assert isinstance(claimed, Claimed)
    assert isinstance(await store.claim("order-1", fingerprint="b"), Mismatch)
    await store.complete(claimed.lease, 1)
    assert isinstance(await store.claim("order-1", fingerprint="b"), Mismatch)


async def test_a_lease_that_is_over_is_taken_over_and_its_owner_refused(open_backend: Open, clock: FakeClock) -> None:
    """O4, O7: neither renewal, nor completion, nor release of the first owner changes anything."""
    one, other = made(open_backend, clock), made(open_backend, clock)
    first = await one.claim("order-1")
    clock.advance(62)
    second = await other.claim("order-1")
    assert isinstance(first, Claimed)
    assert isinstance(second, Claimed)
    assert second.lease.fencing_token > first.lease.fencing_token
    for late in (one.renew(first.lease), one.complete(first.lease, 1), one.release(first.lease)):
        with pytest.raises(LeaseLostError):
            await late
    record = await other.get("order-1")
    assert record is not None
    assert record.owner == second.lease.owner
    await other.complete(second.lease, 2)


async def test_a_key_that_is_released_runs_again(open_backend: Open, clock: FakeClock) -> None:
    """An error frees the key."""
    one, other = made(open_backend, clock), made(open_backend, clock)
    with pytest.raises(ZeroDivisionError):
        async with one.execute("order-1"):
            raise ZeroDivisionError
    assert await other.get("order-1") is None
    assert isinstance(await other.claim("order-1"), Claimed)


async def test_a_claim_that_is_cancelled_leaves_the_key_free(open_backend: Open, clock: FakeClock) -> None:
    """O5: its release does not overtake it, however far it has come."""
    one, other = made(open_backend, clock), made(open_backend, clock)
    cancelled = 0
    for steps in range(8):
        claiming = asyncio.create_task(one.claim(f"order-{steps}"))
        for _ in range(steps):
            await asyncio.sleep(0)
        claiming.cancel()
        await asyncio.wait([claiming])
        if claiming.cancelled():
            cancelled += 1
            assert isinstance(await other.claim(f"order-{steps}"), Claimed)
    assert cancelled


async def test_of_concurrent_claims_one_wins(open_backend: Open, clock: FakeClock) -> None:
    """O1: from several processes."""
    stores = [made(open_backend, clock) for _ in range(4)]
    decisions = await asyncio.gather(*(stores[number % 4].claim("order-1") for number in range(RIVALS)))
    assert sum(isinstance(each, Claimed) for each in decisions) == 1
    assert sum(isinstance(each, InProgress) for each in decisions) == RIVALS - 1


async def test_records_of_a_composite_layout_are_told_apart(open_backend: Open, clock: FakeClock) -> None:
    """The layout item, and each record by its partition and its sort key."""
    store = made(open_backend, clock, layout=CompositeKey())
    claimed = await store.claim("order-1")
    assert isinstance(claimed, Claimed)
    await store.complete(claimed.lease, 1)
    assert isinstance(await store.claim("order-2"), Claimed)
    assert isinstance(await made(open_backend, clock, layout=CompositeKey()).claim("order-1"), Replay)


@pytest.mark.parametrize("kind", ["put", "update", "delete"])
async def test_a_refused_write_brings_the_item_and_changes_nothing(open_backend: Open, kind: str) -> None:
    """Of a wrong owner, of another end of the lease, of a record that has changed; every type of attribute."""
    backend = open_backend()
    item = {**record(PLACE), **FOREIGN}
    assert await backend.execute(Put(PLACE, item, Absent())) == Applied()
    moved = Unchanged(record(PLACE, in_progress_expiration={"N": "1500001"}))
    for condition in (Absent(), HeldBy("another"), HeldBy("me", 1), moved):
        assert await backend.execute(write(kind, PLACE, condition)) == ConditionFailed(item)
        assert await stored(backend, PLACE) == item


@pytest.mark.parametrize("kind", ["put", "update", "delete"])
@pytest.mark.parametrize("condition", [HeldBy("me"), Unchanged(record(PLACE))])
async def test_a_write_on_a_missing_item_is_refused(open_backend: Open, kind: str, condition: Condition) -> None:
    """O4: what was deleted is not revived."""
    backend = open_backend()
    assert await backend.execute(Get(PLACE)) == Found(None)
    assert await backend.execute(write(kind, PLACE, condition)) == ConditionFailed(None)
    assert await backend.execute(Get(PLACE)) == Found(None)


@pytest.mark.parametrize(
    ("applied", "left"),
    [
        (Put(PLACE, record(PLACE, owner={"S": "next"}), Unchanged(record(PLACE))), record(PLACE, owner={"S": "next"})),
        (Update(PLACE, {"data": {"S": "1"}}, HeldBy("me")), {**record(PLACE, data={"S": "1"}), **FOREIGN}),
        (Update(PLACE, {"data": {"S": "1"}}, HeldBy("me", 1_500_000)), {**record(PLACE, data={"S": "1"}), **FOREIGN}),
        (Delete(PLACE, HeldBy("me")), None),
        (Delete(PLACE, Unchanged(record(PLACE))), None),
    ],
)
async def test_a_write_that_is_applied_leaves_what_it_says(
    open_backend: Open, applied: Write, left: Item | None
) -> None:
    """A put replaces the whole item, an update leaves the other attributes."""
    backend = open_backend()
    await backend.execute(Put(PLACE, {**record(PLACE), **FOREIGN}, Absent()))
    assert await backend.execute(applied) == Applied()
    assert await stored(backend, PLACE) == left


@pytest.mark.parametrize("operation", [Transact((Check(PLACE, Absent()),)), GetAll((PLACE,))])
async def test_an_operation_that_is_not_known_is_a_wrong_setting(open_backend: Open, operation: Any) -> None:
    """It does not fail open."""
    with pytest.raises(ConfigurationError, match="one location for each key"):
        await open_backend().execute(operation)


async def test_a_layout_with_several_places_is_refused_at_the_first_call(open_backend: Open, clock: FakeClock) -> None:
    """With the reason."""
    layout = CompositeKey(partitioning=RandomBuckets(4, choices=2))
    store = made(open_backend, clock, layout=layout, fail_open=True)
    with pytest.raises(ConfigurationError, match="one location for each key"):
        await store.claim("order-1")


@pytest.mark.parametrize("open_backend", ["page"], indirect=True)
async def test_a_file_that_cannot_be_used_is_told_without_data(
    open_backend: Open, tmp_path: Path, clock: FakeClock
) -> None:
    """A path that is wrong is a setting; a file that is broken is a store that does not answer."""
    (tmp_path / "records.db").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        await made(open_backend, clock).claim("order-1")
    (tmp_path / "records.db").rmdir()
    (tmp_path / "records.db").write_bytes(b"canary" * 1000)
    with pytest.raises(StoreError, match="SQLite raised DatabaseError") as failed:
        await made(open_backend, clock).claim("order-1")
    assert "canary" not in str(failed.value)


def test_what_a_backend_needs_is_exported() -> None:
    """The public names, each with a docstring where it is a class or a function."""
    assert sorted(backends.__all__) == sorted(NAMES.split())
    for name in backends.__all__:
        exported = getattr(backends, name)
        assert not inspect.isclass(exported) or inspect.getdoc(exported), name
        assert not inspect.isfunction(exported) or inspect.getdoc(exported), name


def test_every_name_of_the_examples_can_be_imported() -> None:
    """From public modules alone: nobody needs one with an underscore."""
    texts = [*python_blocks(PAGE.read_text(encoding="utf-8")), *python_blocks(inspect.getdoc(Backend) or "")]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    modules = {str(node.module) for node in nodes if str(node.module).startswith("aioidempotency")}
    assert modules == {"aioidempotency", "aioidempotency.backends", "aioidempotency.testing"}


NAMES = """
    Absent Applied AttributeValue Backend Check Closes Condition CreatesTables TransactionFailed Delete DescribesKeys Effect
    Found FoundAll Get GetAll HeldBy Item Location Operation Put Query Reason ConditionFailed Refused Reply Role Table Transact
    Unchanged Update Write holds requirements
"""
