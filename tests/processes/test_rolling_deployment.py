"""A live move between layouts on a real engine, phase by phase and under load."""

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from aioidempotency import DynamoDBBackend, HashBuckets, Reshard, Static
from aioidempotency.partitioning import Partitioning
from tests.behaviours.contender import patient_backend
from tests.processes.rolling import CALLS, CUTOVER, NEW, OLD, ROLLING, STORES, WORKERS, Deployment
from tests.support.engines import Engine

MOVES: dict[str, tuple[Partitioning, Partitioning]] = {
    "static to 32": (Static("all"), HashBuckets(32)),
    "32 to 64": (HashBuckets(32), HashBuckets(64)),
}


def phases(old: Partitioning, new: Partitioning) -> tuple[Partitioning, ...]:
    return old, Reshard(old, new, "prepare"), Reshard(old, new, "cutover"), new


@pytest.fixture
async def backend(ministack: Engine) -> AsyncIterator[DynamoDBBackend]:
    """An engine that takes transactions side by side, waited for as long as the load needs."""
    made = patient_backend(ministack.endpoint_url)
    yield made
    await made.aclose()


@pytest.mark.parametrize("move", MOVES)
async def test_a_move_under_load_runs_no_key_twice_and_loses_no_result(move: str, backend: DynamoDBBackend) -> None:
    """P4: old, prepare, cutover and new follow each other, with every two neighbours at work on the same keys."""
    deployment = Deployment(backend, phases(*MOVES[move]))
    await deployment.run(ROLLING)
    ledger = deployment.ledger
    assert ledger.run_twice == []
    assert ledger.differing == []
    assert await deployment.forgotten(NEW) == []

    for one, other in pairwise(range(4)):
        met = ledger.refused[one, other] + ledger.refused[other, one]
        assert met >= 5, "few calls met one that ran in the neighbouring phase"
        assert ledger.replayed[one, other] > 0, "no call found what the next phase had finished"
        assert ledger.replayed[other, one] > 0, "no call found what the phase before had finished"
    calls = ledger.bodies.total() + ledger.replayed.total() + ledger.refused.total()
    assert calls == sum(len(step) for step in ROLLING) * STORES * WORKERS * CALLS


async def test_phases_that_are_not_neighbours_run_keys_twice(backend: DynamoDBBackend) -> None:
    """P4: what the stages are for, and that the test above would see it: the old phase beside the cutover."""
    deployment = Deployment(backend, phases(*MOVES["32 to 64"]), verify_layout=False)
    await deployment.run(((OLD,), (OLD, CUTOVER)))
    assert deployment.ledger.run_twice != []
