"""One run: processes with stores of their own on one table, from a seed to a verdict."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import final
from unittest import mock

from aioidempotency import AsyncIdempotencyStore, InProgressError, _execution, _settings, events
from tests.simulation.calls import CALL, EPOCH, Call
from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.monitor import Monitor
from tests.simulation.network import Link, Network
from tests.simulation.plan import CLOCK_SKEW, Host, Plan, Script, make_plan
from tests.simulation.table import WatchedTable, Write
from tests.simulation.workload import Workload


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

    def owner(_: int) -> str:
        drawn, call = f"{dice.getrandbits(128):032x}", CALL.get()
        if call is not None:
            call.owner = drawn
        return drawn

    with (
        mock.patch.object(_settings, "secrets", SimpleNamespace(token_hex=owner)),
        mock.patch.object(_execution, "random", dice),
        mock.patch.object(events.LOGGER, "disabled", new=True),
    ):
        yield


@final
class Machine:
    """One simulated process: its store, its calls, and what happens to it."""

    def __init__(self, host: Host, loop: VirtualLoop, network: Network, plan: Plan, monitor: Monitor) -> None:
        self.host = host
        self.link = Link(network, host, plan.weather)
        self.calls: dict[str, Call] = {}
        self.dead = False
        self._loop = loop
        self._monitor = monitor
        self._process = Process()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._workload = Workload(
            AsyncIdempotencyStore(
                "table",
                namespace="sim",
                backend=self.link,
                lease=plan.lease,
                retention=plan.retention,
                clock_skew=CLOCK_SKEW,
                clock=lambda: EPOCH + loop.time() + host.offset,
            ),
            monitor,
        )

    @property
    def busy(self) -> bool:
        """Whether a call of this process may still come to something."""
        return not self.dead and any(call.ended is None for call in self.calls.values())

    def schedule(self) -> None:
        """Plan what happens to the process."""
        for begins, ends in self.host.stopped:
            self._loop.call_at(begins, self._stop)
            self._loop.call_at(ends, self._resume)
        if self.host.dies is not None:
            self._loop.call_at(self.host.dies, self._die)

    def add(self, script: Script) -> None:
        """Plan a call."""
        call = self.calls[script.name] = Call(script, self.host)
        self._monitor.history.calls[script.name] = call
        context = copy_context()
        context.run(PROCESS.set, self._process)
        context.run(CALL.set, call)
        self._loop.call_at(script.starts, self._begin, call, context=context)
        if script.cancelled_after is not None:
            self._loop.call_at(script.starts + script.cancelled_after, self._cancel, call, context=context)

    async def bury(self) -> None:
        """End what is left of the process, unseen and cut off from the table."""
        self.link.severed = True
        self._loop.resume_process(self._process)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._workload.store.aclose()

    def _begin(self, call: Call) -> None:
        if not self.link.severed:
            self._tasks[call.name] = self._loop.create_task(self._workload.make(call))

    def _cancel(self, call: Call) -> None:
        task = self._tasks.get(call.name)
        if task is not None and not task.done() and call.started is not None:
            self._monitor.say(f"{call.name} is cancelled")
            self._monitor.count("cancelled")
            call.cancelled_at = self._loop.time()
            task.cancel()

    def _stop(self) -> None:
        if not self.dead:
            self._happens("stops")
            self._loop.stop_process(self._process)

    def _resume(self) -> None:
        if not self.dead:
            self._happens("resumes")
            self._loop.resume_process(self._process)

    def _die(self) -> None:
        self._happens("dies")
        self.dead = True
        self._loop.stop_process(self._process)
        for call in self.calls.values():
            if call.body_began is not None:
                self._monitor.body_ends(call, "died")

    def _happens(self, what: str) -> None:
        self._monitor.say(f"{self.host.name} {what}")
        self._monitor.count(f"process {what}")


@final
class World:
    """All processes of a run, and its end: after a lease, every key can be had again."""

    def __init__(self, plan: Plan, loop: VirtualLoop) -> None:
        self.monitor = Monitor(plan, loop.time)
        self._plan = plan
        self._loop = loop
        self._table = WatchedTable(loop.time, self._changed)
        self._network = Network(
            self._table,
            plan.weather,
            random.Random(f"{plan.seed}/network"),
            count=self.monitor.count,
            trace=self.monitor.say,
        )
        self._machines = [self._machine(host) for host in plan.hosts]

    async def live(self) -> None:
        """Play the whole run."""
        for machine in self._machines:
            machine.schedule()
        for script in self._plan.scripts:
            self._machines[script.host].add(script)
        await self._until(lambda: any(machine.busy for machine in self._machines), "a call never ends")
        await self._until(lambda: self._network.under_way > 0, "a request never arrives")
        self.monitor.settle()
        self._network.calm = True
        await asyncio.sleep(max(script.lease for script in self._plan.scripts) + self._plan.spread + 2 * CLOCK_SKEW)
        await self._probe()
        await self._end()

    def _changed(self, write: Write) -> None:
        self.monitor.wrote(write)
        if write.after is None:
            self._network.disturb(write.key)

    async def _until(self, going_on: Callable[[], bool], complaint: str) -> None:
        """Let time pass while something goes on, reaping the table meanwhile."""
        gives_up = self._loop.time() + 30 * self._plan.lease
        while going_on():
            if self._loop.time() > gives_up:
                self.monitor.breaks(complaint)
                return
            await asyncio.sleep(1.0)
            if self._plan.reaped:
                self._table.reap(EPOCH + self._loop.time() - 1)

    async def _probe(self) -> None:
        """Claim every key: none is locked past its lease."""
        machine = self._machine(Host(name="probe", offset=0.0, dies=None, stopped=(), cut_off=()))
        for key, script in {script.key: script for script in self._plan.scripts}.items():
            machine.add(_probing(script, f"probe of {key}", self._loop.time()))
        await self._until(lambda: machine.busy, "a probe never ends")
        for call in machine.calls.values():
            if isinstance(call.outcome, InProgressError):
                self.monitor.breaks(f"{call.script.key} is locked past its lease")

    async def _end(self) -> None:
        self.monitor.watching = False
        for machine in self._machines:
            await machine.bury()

    def _machine(self, host: Host) -> Machine:
        return Machine(host, self._loop, self._network, self._plan, self.monitor)


def _probing(script: Script, name: str, starts: float) -> Script:
    """Make the call that finds out whether a key can be had."""
    return replace(
        script,
        name=name,
        payload=None,
        starts=starts,
        manner="by hand",
        heartbeat=False,
        patience=None,
        pauses=(),
        ending="value",
        cancelled_after=None,
        renewals_fail=False,
    )
