"""One run: processes with stores of their own on one table, from a seed to a verdict."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import final
from unittest import mock

from aioidempotency import AsyncIdempotencyStore, InProgressError, StoreError, _backoff, _call, events
from aioidempotency._core.operations import Operation, Reply
from aioidempotency.partitioning import table_layout
from aioidempotency.partitioning.table_layout import Fits, WantedLayout
from tests.simulation.calls import CALL, EPOCH
from tests.simulation.drawing import make_plan
from tests.simulation.fleet import Fleet
from tests.simulation.freeing_rules import plain
from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.monitor import Monitor
from tests.simulation.network import Network
from tests.simulation.plan import Host, Plan, Script, Stage
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.table import WatchedTable, Write
from tests.support.values import replace

LONGEST_WAIT = 400.0
"""Seconds that a deployment waits for a retention; where it would have to wait for longer, the run ends."""


@final
@dataclass(frozen=True, slots=True)
class Run:
    """What one seed came to: the rules that were broken, in order, and how it went."""

    seed: int
    broken: tuple[str, ...]
    trace: tuple[str, ...]
    counts: Counter[str]

    def __str__(self) -> str:
        replay = (
            f"AIOIDEMPOTENCY_FIRST_SEED={self.seed} AIOIDEMPOTENCY_SEEDS=1 pytest tests/simulation/test_simulation.py"
        )
        return "\n".join((f"seed {self.seed} broke a rule:", *self.broken, "", *self.trace, "", f"replay it: {replay}"))


def simulate(seed: int) -> Run:
    """Run one seed."""
    plan = make_plan(seed)
    loop = VirtualLoop(random.Random(f"{seed}/order"))
    world = World(plan, loop)
    loop.set_exception_handler(lambda _, context: world.monitor.breaks(f"left to the event loop: {context['message']}"))
    try:
        with _drawn(random.Random(f"{seed}/library")):
            loop.run_until_complete(world.live())
    finally:
        loop.close()
    monitor = world.monitor
    return Run(seed, tuple(monitor.broken), tuple(monitor.trace), monitor.counts)


@contextmanager
def _drawn(dice: random.Random) -> Iterator[None]:
    """Have the library draw its owners and its jitter from the seed, and log nothing: the trace says more."""

    def owner(size: int) -> bytes:
        drawn, call = dice.getrandbits(8 * size).to_bytes(size), CALL.get()
        if call is not None:
            call.owner = drawn.hex()
        return drawn

    with (
        mock.patch.object(_call, "os", SimpleNamespace(urandom=owner)),
        mock.patch.object(_backoff, "random", dice),
        mock.patch.object(events.LOGGER, "disabled", new=True),
    ):
        yield


@final
class World:
    """All processes of a run, and its end: after a lease, every key can be had again."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.monitor = Monitor(plan, lambda: loop.now)
        self._plan = plan
        self._loop = loop
        self._table = WatchedTable(lambda: loop.now, self._changed, self.monitor.applied)
        self._network = Network(
            self._table,
            plan.weather,
            random.Random(f"{plan.seed}/network"),
            count=self.monitor.count,
            trace=self.monitor.say,
        )
        self._fleet = Fleet(plan, loop, self._machine)

    async def live(self) -> None:
        """Play the whole run."""
        last = await self._stages()
        await self._until(lambda: self._network.under_way > 0, "a request never arrives")
        self.monitor.settle()
        self._network.calm = True
        await asyncio.sleep(max(script.lease for script in self._plan.scripts) + self._plan.spread + 2 * CLOCK_SKEW)
        probe = self._machine(Host(name="probe", offset=0.0, dies=None, stopped=[], cut_off=()), last)
        await self._probe(probe)
        self.monitor.watching = False
        for machine in (*self._fleet.all, probe):
            await machine.bury()

    async def _stages(self) -> Stage:
        """Play the stages, and answer with the last one."""
        stages = self._plan.stages
        self.monitor.count(f"scheme: {self._plan.scheme.name}")
        if self._plan.retentions_differ and self._plan.scheme.verified:
            self.monitor.count("a move with different retentions")
        self._fleet.enter(0, stages[0])
        for number, (before, stage) in enumerate(pairwise(stages), 1):
            await self._until(lambda: self._fleet.mixed, "a process is never replaced")
            self._fleet.retire()
            if not await self._may_enter(before, stage):
                stages = stages[:number]
                break
            self.monitor.say(f"--- phase {before.phase} is followed by {stage.phase}")
            self.monitor.count(f"phase {before.phase} beside {stage.phase}")
            self._fleet.enter(number, stage)
        await self._until(lambda: self._fleet.busy, "a call never ends")
        return stages[-1]

    async def _may_enter(self, before: Stage, stage: Stage) -> bool:
        """Wait for as long as a deployment has to; do not, where that is too long for a run.

        A verified layout says itself for how long, and nobody else does.
        """
        begins = self._fleet.may_enter(stage)
        if self._plan.scheme.verified:
            await self._store(before).verify_layout()
            begins = await self._opens_at(before, stage)
        if begins > self._loop.now + LONGEST_WAIT:
            return False
        await self._until(lambda: self._loop.now < begins, "it is never time", limit=LONGEST_WAIT + 2)
        return True

    async def _opens_at(self, before: Stage, stage: Stage) -> float:
        """Begin the wait anew, as an operator does when the phase before has ended; ask from when on a stage may open."""
        now = EPOCH + self._loop.now
        moving = table_layout.move(replace(self._wanted(before), promises=False), now=now)
        moved = await self._store(before)._parts.records.run_unverified(moving)
        assert isinstance(moved, Fits)
        verdict = table_layout.judge(moved.layout, self._wanted(stage), now=now)
        if isinstance(verdict, Fits) or verdict.until is None:
            return 0.0
        return verdict.until - EPOCH - self._plan.earliest

    def _wanted(self, stage: Stage) -> WantedLayout:
        wanted = self._store(stage)._parts.settings.wanted_layout(self._plan.retention_of(stage))
        assert wanted is not None
        return wanted

    def _store(self, stage: Stage) -> AsyncIdempotencyStore:
        """Open the deployment's own store, which has a line to the table."""
        return AsyncIdempotencyStore(
            "table",
            namespace="sim",
            layout=self._plan.scheme.layouts[stage.phase],
            lease=self._plan.lease,
            retention=self._plan.retention_of(stage),
            clock_skew=CLOCK_SKEW,
            backend=Line(self._table),
            clock=lambda: EPOCH + self._loop.now,
        )

    def _changed(self, write: Write) -> None:
        self.monitor.wrote(write)
        self._network.disturb(plain(write) or write)

    async def _until(self, going_on: Callable[[], bool], complaint: str, *, limit: float | None = None) -> None:
        """Let time pass while something goes on, reaping the table meanwhile."""
        gives_up = self._loop.now + (30 * self._plan.lease if limit is None else limit)
        while going_on():
            if self._loop.now > gives_up:
                self.monitor.breaks(complaint)
                return
            await asyncio.sleep(1.0)
            if self._plan.reaped:
                self._table.reap(EPOCH + self._loop.now - 1)

    async def _probe(self, probe: Machine) -> None:
        """Claim every key: none is locked past its lease."""
        for key in self._plan.keys:
            probe.make(_probing(self._plan.scripts[0], key, self._loop.now))
        await self._until(lambda: probe.busy, "a probe never ends")
        for call in probe.calls.values():
            contended = isinstance(call.outcome, StoreError) and call.outcome.contended
            if contended or isinstance(call.outcome, InProgressError):
                self.monitor.breaks(f"{call.script.key} is locked past its lease")

    def _machine(self, host: Host, stage: Stage) -> Machine:
        return Machine(host, stage, loop=self._loop, network=self._network, plan=self._plan, monitor=self.monitor)


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A backend without a network."""

    table: WatchedTable

    async def execute(self, operation: Operation) -> Reply:
        """Execute one operation."""
        return await self.table.execute(operation, "the deployment")


def _probing(script: Script, key: str, starts: float) -> Script:
    """Make the call that finds out whether a key can be had."""
    return replace(
        script,
        name=f"probe of {key}",
        key=key,
        payload=None,
        starts=starts,
        manner="by hand",
        heartbeat=False,
        patience=None,
        pauses=(),
        effect=None,
        ending="value",
        cancelled_after=None,
        renewals_fail=False,
    )
