"""Real worker processes, killed at any moment, behind a proxy that loses and delays answers."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, final

import pytest
from aiobotocore.session import AioSession

from tests.effects.conftest import items_of, make_table
from tests.processes.deliveries import Setup
from tests.processes.ledger import Story
from tests.processes.office import COPIES, WORKERS, Kill, Office
from tests.support.engines import Engine, client_options
from tests.support.proxy import Fault, FaultProxy

LIMIT = 100.0
LEASE = 4.0
KEYS = {"ministack": 1000, "moto": 200}
LOSING = (Fault.CUT, Fault.STALL, Fault.ERROR_500)


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What goes wrong in one test, from one seed: of each kind, `faults` completions and twice as many claims."""

    keys: Sequence[str]
    kills: Sequence[Kill]
    faults: int
    dice: random.Random

    @classmethod
    def of(cls, size: int, seed: int) -> "Plan":
        """Plan for `size` keys: kills and faults spread over the first two thirds of the work."""
        dice = random.Random(seed)
        moments = sorted(dice.sample(range(size // 10, 3 * size // 2), 3 + size // 200))
        kills = [Kill(moment, dice.randrange(WORKERS)) for moment in moments]
        return cls([f"key-{number}" for number in range(size)], kills, 2 + size // 125, dice)

    def spoil(self, proxy: FaultProxy, completion: str) -> None:
        """Tell the proxy which claims and completions to lose, and which to delay."""
        size = len(self.keys)
        for operation, requests, times in (("PutItem", 2 * size, 2), (completion, 2 * size // 3, 1)):
            for fault in (*LOSING, Fault.DELAY):
                for position in self.dice.sample(range(requests), times * self.faults):
                    proxy.inject(fault, operation=operation, skip=position)


@final
@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at the end: by the office, by the proxy, and by the ledger, which nobody can fool."""

    office: Office
    proxy: FaultProxy
    story: Story
    completion: str
    entities: Mapping[str, Mapping[str, object]]

    def lost_answers(self, operation: str) -> int:
        """Count the writes of an operation that were applied and whose answers were lost."""
        lost = [seen for seen in self.proxy.requests if seen.operation == operation and seen.fault in LOSING]
        return sum(seen.status == HTTPStatus.OK for seen in lost)

    def late(self) -> int:
        """Count the writes that reached the engine late, mostly after another try of the same."""
        return sum(seen.fault is Fault.DELAY and seen.status is not None for seen in self.proxy.requests)

    def met(self) -> Counter[Fault]:
        """Count the faults that met a request."""
        return Counter(seen.fault for seen in self.proxy.requests if seen.fault is not None)

    def kills_inside(self) -> Counter[str]:
        """Count for each key the bodies that a kill cut short."""
        return Counter(line.key for line in self.story.cut_short(self.office.killed))


@pytest.mark.timeout(LIMIT + 20)
async def test_each_key_takes_effect_once_though_workers_die_and_answers_get_lost(
    engine: Engine, tmp_path: Path
) -> None:
    """O1, O2, O3, O6: effects per key are 1; where workers were killed inside the body, kills + 1 at the most."""
    plan = Plan.of(KEYS.get(engine.name, 1000), seed=20261)
    async with asyncio.timeout(LIMIT):
        seen = await _played(plan, engine, tmp_path / "ledger")
    _check_effects(seen, plan)
    _check_answers(seen, plan)
    _check_that_much_went_wrong(seen, plan)


@pytest.mark.timeout(LIMIT + 20)
async def test_each_key_is_counted_once_in_a_transaction_though_workers_die_and_answers_get_lost(
    engine: Engine, session: AioSession, tmp_path: Path
) -> None:
    """X2, X3: exactly one effect for each key, and it is that of the stored result, wherever workers were killed."""
    plan = Plan.of(KEYS.get(engine.name, 1000) // 2, seed=20262)
    given = {name: value for name, value in client_options(engine).items() if not name.startswith("aws_")}
    async with asyncio.timeout(LIMIT), session.create_client("dynamodb", **given) as client:
        seen = await _played(plan, engine, tmp_path / "ledger", client)
    assert sorted(seen.entities) == sorted(plan.keys)
    for key, entity in seen.entities.items():
        assert entity == {"n": 1, "run": seen.office.results[key][0]}, f"{key}: {entity}"
    _check_answers(seen, plan)
    _check_that_much_went_wrong(seen, plan)


async def _played(plan: Plan, engine: Engine, path: Path, client: Any = None) -> Seen:
    entities = None if client is None else await make_table(client, pk="S")
    completion = "UpdateItem" if entities is None else "TransactWriteItems"
    async with FaultProxy(engine.endpoint_url) as proxy:
        table_name = f"test-{secrets.token_hex(6)}"
        setup = Setup(endpoint_url=proxy.url, table_name=table_name, ledger=str(path), lease=LEASE, entities=entities)
        async with setup.store() as store:
            await store.create_table()
        plan.spoil(proxy, completion)
        async with Office.opened(setup, plan.keys, dice=plan.dice) as office:
            await office.work(plan.kills, after_some=proxy.release)
    counted = {} if entities is None else await items_of(client, entities)
    return Seen(office, proxy, Story.read(path), completion, counted)


def _check_that_much_went_wrong(seen: Seen, plan: Plan) -> None:
    """A test without kills, losses, failures and replays would prove nothing."""
    assert len(seen.office.killed) == len(plan.kills)
    assert seen.kills_inside()
    assert seen.met() == Counter(dict.fromkeys((*LOSING, Fault.DELAY), 3 * plan.faults))
    assert seen.lost_answers("PutItem") >= plan.faults // 2
    assert seen.lost_answers(seen.completion) >= plan.faults
    assert seen.late() >= plan.faults
    assert seen.office.outcomes["nothing"] >= len(plan.kills)
    assert seen.office.outcomes["refused"] > 0


def _check_answers(seen: Seen, plan: Plan) -> None:
    """Each key's deliveries were answered alike, with the result of a run that took effect."""
    assert set(seen.office.outcomes) <= {"result", "refused", "unreachable", "nothing", "conflict"}
    assert sorted(seen.office.results) == sorted(plan.keys)
    assert {len(runs) for runs in seen.office.results.values()} == {COPIES}
    effects = seen.story.by_key()
    for key, runs in seen.office.results.items():
        assert len(set(runs)) == 1, f"{key} was answered with {runs}"
        assert runs[0] in {line.run for line in effects[key].of("effect")}
    assert seen.office.replays >= (COPIES - 1) * len(plan.keys)


def _check_effects(seen: Seen, plan: Plan) -> None:
    """Count the effects of each key, from the ledger alone."""
    kills, stories = seen.kills_inside(), seen.story.by_key()
    for key in plan.keys:
        effects = len(stories[key].of("effect"))
        assert 1 <= effects <= kills[key] + 1, f"{key}: {effects} effects, {kills[key]} kills: {stories[key]}"
        assert len(stories[key].of("begin")) <= kills[key] + 1, f"{key}: {stories[key]}"
    assert not seen.story.of("trouble")
