"""One owner at a time, however many ask at once."""

import asyncio
import json
import secrets
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, Claimed, GroupCommit, InProgress, MemoryBackend
from tests.behaviours.contender import contend, patient_backend
from tests.conftest import MakeStore, stores
from tests.support.batched import BatchedBackend
from tests.support.engines import Engine

pytestmark = pytest.mark.backends()  # each engine decides races in its own way

CROWD = 500
PROCESSES = 4
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def make_patient_store(backend_options: dict[str, Any]) -> AsyncIterator[MakeStore]:
    """On every backend: stores that wait for an engine as long as a crowd needs."""
    given = backend_options.get("backend")
    if isinstance(given, MemoryBackend):
        async with stores(backend_options) as make:
            yield make
        return
    grouped = {"group_commit": GroupCommit()} if isinstance(given, BatchedBackend) else {}
    backend = patient_backend(
        given.endpoint_url if isinstance(given, BatchedBackend) else backend_options["endpoint_url"]
    )
    async with stores({"backend": backend, **grouped}) as make:
        yield make
    await backend.aclose()


async def test_of_500_claims_at_once_one_wins(make_patient_store: MakeStore) -> None:
    """O1: concurrent claims of one key: one `Claimed`, the others hear of its owner."""
    store = make_patient_store()
    decisions = await asyncio.gather(*(store.claim("k") for _ in range(CROWD)))
    (lease,) = [decision.lease for decision in decisions if isinstance(decision, Claimed)]
    failures = [decision for decision in decisions if isinstance(decision, InProgress)]
    assert len(failures) == CROWD - 1
    assert {refusal.record.owner for refusal in failures} == {lease.owner}


async def test_of_500_calls_at_once_one_runs(make_patient_store: MakeStore, tmp_path: Path) -> None:
    """O1: concurrent calls with one key, and a body that outlasts the others: one body, the others raise."""
    ledger = tmp_path / "ledger"
    ends = await contend(make_patient_store(), ledger, key="o-1", calls=CROWD, wait=True)
    assert len(ledger.read_text().splitlines()) == 1
    assert ends == {"answered": 1, "refused": CROWD - 1}


async def test_of_500_calls_on_stores_of_their_own_one_runs(make_patient_store: MakeStore, tmp_path: Path) -> None:
    """O1: calls that have nothing in common but the table, and a quick body: the others raise, or replay."""
    ledger = tmp_path / "ledger"
    crowd = (contend(make_patient_store(), ledger, key="o-1", calls=1, wait=False) for _ in range(CROWD))
    ends = sum(await asyncio.gather(*crowd), Counter())
    assert len(ledger.read_text().splitlines()) == 1
    assert ends.total() == CROWD
    assert ends["wrong"] == 0


async def test_in_four_processes_one_call_runs(engine: Engine, tmp_path: Path) -> None:
    """O1: 125 concurrent calls in each of four processes, which share nothing but the table: one body."""
    ledger, table = tmp_path / "ledger", f"races-{secrets.token_hex(6)}"
    backend = patient_backend(engine.endpoint_url)
    await AsyncIdempotencyStore(table, backend=backend).create_table()
    await backend.aclose()

    arguments = (engine.endpoint_url, table, str(ledger), "o-1", str(CROWD // PROCESSES))
    processes = [await start(arguments) for _ in range(PROCESSES)]
    try:
        ends = await run_together(processes)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert len(ledger.read_text().splitlines()) == 1
    assert ends.total() == CROWD
    assert ends["wrong"] == 0
    assert ends["answered"] >= 1
    # In the process of the one body, every other call had ended before it did.
    assert ends["refused"] >= CROWD // PROCESSES - 1


async def start(arguments: tuple[str, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.behaviours.contender",
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def run_together(processes: list[asyncio.subprocess.Process]) -> Counter[str]:
    """Let the processes begin when all are ready, and add up how their calls ended."""
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    outputs = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [process.returncode for process in processes] == [0] * len(processes)
    return sum((Counter(json.loads(output)) for output, _ in outputs), Counter())
