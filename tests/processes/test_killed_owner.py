"""One owner process is killed, stopped or told to end inside its body; another one takes over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM
from typing import Any, final

import pytest
from aiobotocore.session import AioSession

from aioidempotency import AsyncIdempotencyStore, InProgressError, Record, Status
from tests.effects.conftest import items_of, make_table
from tests.processes.crew import END_LIMIT, Answer, Worker, working
from tests.processes.deliveries import NAMESPACE, RETENTION, Delivery, Handle, Receipt, Setup, handler
from tests.processes.ledger import Ledger, Story
from tests.support.engines import Engine, client_options
from tests.support.proxy import Fault, FaultProxy
from tests.support.values import replace

LEASE = 1.0
SKEW = 0.3
PATIENCE = 20.0
SLACK = 10.0
"""Seconds that a take-over may be late on a busy machine: far from the retention, which is an hour."""

KEY = "invoice-42"
FIRST = Delivery(number=1, key=KEY, run="first", gated=True)
SECOND = Delivery(number=2, key=KEY, run="second")
THIRD = Delivery(number=3, key=KEY, run="third")
TAKEN_OVER = [("begin", "first"), ("begin", "second"), ("effect", "second"), ("end", "second")]
"""What the ledger says where the first owner's body was cut short."""


@final
@dataclass(frozen=True, slots=True)
class Scene:
    """An owner process that stands inside its body, and what the test itself needs to contend with it."""

    owner: Worker
    answer: asyncio.Future[Answer | None]
    store: AsyncIdempotencyStore
    ledger: Ledger
    path: Path
    proxy: FaultProxy
    entities: str | None

    def handle(self, *, patience: float | None = None) -> Handle:
        """Have the function as this process calls it."""
        return handler(self.store, self.ledger, patience=patience, entities=self.entities)

    async def record(self) -> Record:
        """Read the key's record."""
        found = await self.store.get(KEY, namespace=NAMESPACE)
        assert found is not None
        return found

    async def last_words(self) -> Answer | None:
        """Have the owner's answer to the first delivery."""
        async with asyncio.timeout(END_LIMIT):
            return await self.answer

    def told(self) -> list[tuple[str, str]]:
        """Tell what happened, as the ledger has it."""
        return [(line.kind, line.run or line.note) for line in Story.read(self.path).lines]

    def taken_over_at(self) -> float:
        """Find when the second run began."""
        return next(line.at for line in Story.read(self.path).of("begin") if line.run == SECOND.run)


@pytest.fixture
async def setup(engine: Engine, tmp_path: Path) -> Setup:
    """A fresh table on each engine."""
    made = Setup(
        endpoint_url=engine.endpoint_url,
        table_name=f"test-{token_hex(6)}",
        ledger=str(tmp_path / "ledger"),
        lease=60.0,
        own_lease=LEASE,
        clock_skew=SKEW,
        answer_limit=5.0,
    )
    async with made.store() as store:
        await store.create_table()
    return made


@asynccontextmanager
async def begun(setup: Setup, *, heartbeat: bool = True) -> AsyncIterator[Scene]:
    """An owner that has claimed the key and stands inside its body; it alone goes through the proxy."""
    path = Path(setup.ledger)
    async with FaultProxy(setup.endpoint_url) as proxy, setup.store() as store:
        with Ledger(path) as ledger:
            async with working(replace(setup, endpoint_url=proxy.url, heartbeat=heartbeat)) as owner:
                answer = owner.deliver(FIRST)
                await owner.began(FIRST)
                yield Scene(owner, answer, store, ledger, path, proxy, setup.entities)


@pytest.mark.parametrize(("lease", "renewals"), [(LEASE, 0), (1.5 * LEASE, 2)], ids=["plain", "with heartbeats"])
async def test_a_killed_owner_frees_its_key_after_the_lease(setup: Setup, lease: float, renewals: int) -> None:
    """O6, O13: refused for the rest of the lease, then taken over; not after the retention."""
    async with begun(replace(setup, own_lease=lease), heartbeat=renewals > 0) as scene:
        await scene.proxy.wait_for("UpdateItem", renewals)
        assert await scene.owner.end(SIGKILL) == -SIGKILL
        left = await scene.record()
        ends = left.lease_ends_at
        assert ends is not None
        # A busy machine gets here when the lease is over: this store's clock stands at its end.
        async with setup.store(clock=lambda: ends) as at_the_end:
            with pytest.raises(InProgressError) as refused:
                await handler(at_the_end, scene.ledger)(SECOND)
        assert await scene.handle(patience=PATIENCE)(SECOND) == Receipt(KEY, SECOND.run)
        taken_over = await scene.record()
        assert await scene.handle()(THIRD) == Receipt(KEY, SECOND.run)
    assert 0 < refused.value.retry_after <= lease + SKEW
    _check_taken_over_in_time(scene, left)
    assert _was_renewed(left, lease) == (renewals > 0)
    assert (taken_over.status, taken_over.fencing_token > left.fencing_token) == (Status.COMPLETED, True)
    assert scene.told() == TAKEN_OVER


async def test_a_killed_owners_late_completion_changes_nothing(setup: Setup) -> None:
    """O4, O6: killed between effect and completion, the effect comes once more, and one result remains."""
    async with begun(setup, heartbeat=False) as scene:
        scene.proxy.inject(Fault.DELAY, operation="UpdateItem", times=10)
        scene.owner.open_gate()
        await scene.proxy.wait_until_held()
        assert await scene.owner.end(SIGKILL) == -SIGKILL
        await scene.handle(patience=PATIENCE)(SECOND)
        taken_over = await scene.record()
        scene.proxy.release()
        await scene.proxy.wait_for("UpdateItem")
        assert await scene.record() == taken_over
        assert await scene.handle()(THIRD) == Receipt(KEY, SECOND.run)
    assert [kind for kind, _ in scene.told()].count("effect") == 2


@pytest.fixture
async def client(engine: Engine, session: AioSession) -> AsyncIterator[Any]:
    """A client that reaches the engine past everything."""
    given = {name: value for name, value in client_options(engine).items() if not name.startswith("aws_")}
    async with session.create_client("dynamodb", **given) as made:
        yield made


async def test_what_a_killed_owner_had_collected_is_never_written(setup: Setup, client: Any) -> None:
    """X2, O6: killed between body and commit: no effect and no result; the next owner's are the only ones."""
    entities = await make_table(client, pk="S")
    async with begun(replace(setup, entities=entities)) as scene:
        assert await scene.owner.end(SIGKILL) == -SIGKILL
        assert await items_of(client, entities) == {}
        await scene.handle(patience=PATIENCE)(SECOND)
        assert await scene.handle()(THIRD) == Receipt(KEY, SECOND.run)
    assert await items_of(client, entities) == {KEY: {"n": 1, "run": SECOND.run}}


@pytest.mark.parametrize("arrives", ["before the take-over", "after it"])
async def test_a_killed_owners_transaction_that_is_on_its_way_is_whole(setup: Setup, client: Any, arrives: str) -> None:
    """X2, X3: it comes in time and is the one effect, with its result; or too late, and changes nothing."""
    entities = await make_table(client, pk="S")
    async with begun(replace(setup, entities=entities), heartbeat=False) as scene:
        scene.proxy.inject(Fault.DELAY, operation="TransactWriteItems", times=10)
        scene.owner.open_gate()
        await scene.proxy.wait_until_held()
        assert await scene.owner.end(SIGKILL) == -SIGKILL
        if arrives == "after it":
            await scene.handle(patience=PATIENCE)(SECOND)
        scene.proxy.release()
        await scene.proxy.wait_for("TransactWriteItems")
        run = SECOND.run if arrives == "after it" else FIRST.run
        assert await scene.handle()(THIRD) == Receipt(KEY, run)
    assert await items_of(client, entities) == {KEY: {"n": 1, "run": run}}


async def test_a_stopped_owner_is_cancelled_when_it_goes_on(setup: Setup) -> None:
    """O4, O8: stopped for longer than its lease, an owner with a heartbeat finds out and ends its body."""
    async with begun(setup) as scene:
        scene.owner.send(SIGSTOP)
        await scene.handle(patience=PATIENCE)(SECOND)
        taken_over = await scene.record()
        scene.owner.send(SIGCONT)
        assert await scene.last_words() == {"number": FIRST.number, "outcome": "lost"}
        assert await scene.record() == taken_over
        assert await scene.handle()(THIRD) == Receipt(KEY, SECOND.run)
    assert scene.told() == [*TAKEN_OVER, ("trouble", "LeaseLost")]


async def test_a_stopped_owners_completion_changes_nothing(setup: Setup) -> None:
    """O4: without a heartbeat the body goes on, too late; its completion is refused, and its caller told."""
    async with begun(setup, heartbeat=False) as scene:
        scene.owner.send(SIGSTOP)
        await scene.handle(patience=PATIENCE)(SECOND)
        taken_over = await scene.record()
        scene.owner.send(SIGCONT)
        scene.owner.open_gate()
        assert await scene.last_words() == {"number": FIRST.number, "outcome": "lost"}
        assert await scene.record() == taken_over
        assert await scene.handle()(THIRD) == Receipt(KEY, SECOND.run)
    assert scene.told() == [*TAKEN_OVER, ("effect", "first"), ("trouble", "LeaseLost")]


async def test_an_owner_that_is_told_to_end_frees_its_key_at_once(setup: Setup) -> None:
    """O5: SIGTERM cancels the body, and the next call need not wait for the lease."""
    async with begun(replace(setup, own_lease=600.0)) as scene:
        left = await scene.record()
        assert await scene.owner.end(SIGTERM) == 0
        assert await scene.handle()(SECOND) == Receipt(KEY, SECOND.run)
        assert (await scene.record()).fencing_token > left.fencing_token
    assert scene.told() == TAKEN_OVER


def _check_taken_over_in_time(scene: Scene, left: Record) -> None:
    """Not before the dead owner's lease was over, and long before its record expires."""
    assert left.lease_ends_at is not None
    over = left.lease_ends_at + SKEW
    assert over <= scene.taken_over_at() < over + SLACK
    assert left.expiration > over + RETENTION / 2


def _was_renewed(record: Record, lease: float) -> bool:
    """Compare the lease's end with its first one: the token of a first claim is its time."""
    assert record.lease_ends_at is not None
    return record.lease_ends_at > record.fencing_token / 1000 + lease
