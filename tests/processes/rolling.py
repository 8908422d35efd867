"""A rolling deployment under load: stores of two phases of a move side by side on one table, and what truly happened."""

import asyncio
import random
import secrets
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

from aioidempotency import AsyncIdempotencyStore, Backend, CompositeKey, InProgressError
from aioidempotency.partitioning import Partitioning
from aioidempotency.testing import FakeClock

OLD, PREPARE, CUTOVER, NEW = range(4)
Step = tuple[int, ...]
"""The phases that run at one time."""

ROLLING: tuple[Step, ...] = (
    *((OLD,), (OLD, PREPARE), (PREPARE,), (PREPARE, CUTOVER)),
    *((CUTOVER,), (CUTOVER, NEW), (NEW,)),
)

RETENTION = 1000
STORES, WORKERS, CALLS = 2, 3, 30
"""Stores of each phase, workers of each store, and calls of each worker in one step."""

FRESH = 20
"""How many keys each step adds. Half of its calls are about them, in an order of each worker's own; the others about any key."""


@final
@dataclass
class Ledger:
    """What happened, by key or by phases: of the caller, and of who ran the key."""

    ran: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    author: dict[str, int] = field(default_factory=dict)
    bodies: Counter[int] = field(default_factory=Counter)
    replayed: Counter[Step] = field(default_factory=Counter)
    refused: Counter[Step] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)

    @property
    def run_twice(self) -> list[str]:
        """The keys whose body ran more than once."""
        return [key for key, runs in self.ran.items() if len(runs) > 1]


@final
class Deployment:
    """The deployment of a move. Its clock stands still, but for the waits that a move asks for."""

    def __init__(self, backend: Backend, strategies: Sequence[Partitioning], **options: Any) -> None:
        self.ledger = Ledger()
        self.keys: list[str] = []
        self._backend = backend
        self._strategies = strategies
        self._clock = FakeClock()
        self._options = {"retention": RETENTION, "clock": self._clock, **options}
        self._table = f"rolling-{secrets.token_hex(6)}"
        self._dice = random.Random(1)

    def store(self, phase: int) -> AsyncIdempotencyStore:
        """Open a store of a phase."""
        layout = CompositeKey(partitioning=self._strategies[phase])
        return AsyncIdempotencyStore(self._table, backend=self._backend, layout=layout, **self._options)

    async def run(self, steps: Sequence[Step]) -> None:
        """Let the steps follow each other; stores of a phase that goes on are kept."""
        await self.store(steps[0][0]).create_table()
        up: dict[int, list[AsyncIdempotencyStore]] = {}
        for step in steps:
            await self._wait_for(step)
            up = {phase: up.get(phase) or [self.store(phase) for _ in range(STORES)] for phase in step}
            self.keys += (fresh := [f"{step}-{number}" for number in range(FRESH)])
            async with asyncio.TaskGroup() as workers:
                for phase, stores in up.items():
                    for store in stores * WORKERS:
                        workers.create_task(self._work(phase, store, fresh))

    async def forgotten(self, phase: int) -> list[str]:
        """List the keys whose first result a store of a phase does not find."""
        records = await self.store(phase).get_many(self.keys)
        found = {key: None if record is None else record.result for key, record in zip(self.keys, records, strict=True)}
        return [key for key in self.keys if self.ledger.ran[key] and found[key] != self.ledger.ran[key][0]]

    async def _wait_for(self, step: Step) -> None:
        """Let the retention of all that was finished before the cutover was alone pass, before `new` begins."""
        if step == (CUTOVER,):
            self._clock.advance(10)
        elif step == (CUTOVER, NEW):
            assert await self.forgotten(CUTOVER) == []
            self._clock.advance(RETENTION - 5)
            self.keys = [key for key in self.keys if key.startswith(f"{(CUTOVER,)}")]

    async def _work(self, phase: int, store: AsyncIdempotencyStore, fresh: list[str]) -> None:
        for key in (*self._dice.sample(fresh, CALLS // 2), *self._dice.choices(self.keys, k=CALLS // 2)):
            await self._call(phase, store, key)

    async def _call(self, phase: int, store: AsyncIdempotencyStore, key: str) -> None:
        try:
            async with store.execute(key) as execution:
                if not execution.replayed:
                    execution.complete(await self._body(phase, store, key))
        except InProgressError:
            self.ledger.refused[phase, self.ledger.author.get(key, phase)] += 1
            return
        if execution.replayed:
            self.ledger.replayed[phase, self.ledger.author[key]] += 1
        if execution.result != self.ledger.ran[key][0]:
            self.ledger.differing.append(key)

    async def _body(self, phase: int, store: AsyncIdempotencyStore, key: str) -> str:
        """Run, for as long as a few requests take; the effect is a line in the ledger."""
        result = secrets.token_hex(8)
        self.ledger.ran[key].append(result)
        self.ledger.author[key] = phase
        self.ledger.bodies[phase] += 1
        for _ in range(self._dice.randint(1, 4)):
            await store.get("of nobody")
        return result
