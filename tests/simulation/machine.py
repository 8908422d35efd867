"""One simulated process: its store, its calls, and what happens to it."""

import asyncio
from contextvars import Context, copy_context
from typing import final

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.events import CompletionFailed, Event
from tests.simulation.calls import CALL, EPOCH, Call
from tests.simulation.link import Link
from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.monitor import Monitor
from tests.simulation.network import Network
from tests.simulation.plan import Host, Plan, Script, Span, Stage
from tests.simulation.schemes import CLOCK_SKEW
from tests.simulation.workload import Workload
from tests.support.values import replace


@final
class Machine:
    """A process from its start on. Instants in `host` count from then."""

    def __init__(
        self, host: Host, stage: Stage, *, loop: VirtualLoop, network: Network, plan: Plan, monitor: Monitor
    ) -> None:
        self.host = _from(host, loop.now)
        self.phase = stage.phase
        self.link = Link(network, self.host, plan.weather, self._stop_for, monitor)
        self.calls: dict[str, Call] = {}
        self.dead = self.retired = False
        self._loop = loop
        self._monitor = monitor
        self._process = Process()
        self._asleep_until = 0.0
        self._tasks: dict[str, asyncio.Task[None]] = {}
        store = AsyncIdempotencyStore(
            "table",
            namespace="sim",
            layout=plan.scheme.layouts[stage.phase],
            verify_layout=plan.scheme.verified,
            backend=self.link,
            lease=plan.lease,
            retention=plan.retention_of(stage),
            clock_skew=CLOCK_SKEW,
            clock=lambda: EPOCH + loop.now + host.off(loop.now),
            on_event=self._hear,
        )
        store._parts.records.asleep = lambda: self._process.slept  # a white-box test: the kernel's clocks cannot be set
        self._workload = Workload(store, monitor, self._join)
        self._schedule()

    @property
    def busy(self) -> bool:
        """Whether a call of this process may still come to something."""
        return not self.dead and any(call.ended is None for call in self.calls.values())

    def make(self, script: Script) -> None:
        """Make a call, now."""
        call = self._join(script)
        context = copy_context()
        context.run(PROCESS.set, self._process)
        context.run(CALL.set, call)
        self._loop.call_soon(self._begin, call, context=context)
        if script.cancelled_after is not None:
            self._loop.call_later(script.cancelled_after, self._cancel, call, context=context)

    def _join(self, script: Script) -> Call:
        call = self.calls[script.name] = self._monitor.history.calls[script.name] = Call(script, self.host)
        return call

    def _hear(self, event: Event) -> None:
        """Take in what the store reports of a call."""
        call = CALL.get()
        if isinstance(event, CompletionFailed) and call is not None and event.key == call.key:
            self._monitor.gives_up(call, event.cause)

    def die(self) -> None:
        """End at once, as a killed process does."""
        if self.dead:
            return
        self._happens("dies")
        self.dead = True
        self._monitor.history.over.add(self.host.name)
        self._loop.stop_process(self._process)
        for call in self.calls.values():
            if call.body_began is not None:
                self._monitor.body_ends(call, "died")

    def retire(self) -> None:
        """Note that the process has ended: it was replaced, and its calls have ended."""
        self.retired = self.dead = True
        self._monitor.history.over.add(self.host.name)

    async def bury(self) -> None:
        """End what is left of the process, unseen and cut off from the table."""
        self.link.severed = True
        self._loop.resume_process(self._process)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._workload.store.aclose()

    def _schedule(self) -> None:
        """Plan what happens to the process."""
        for begins, ends in self.host.stopped:
            self._loop.call_at(begins, self._stop)
            self._loop.call_at(ends, self._resume)
        for begins, ends in self.host.asleep:
            self._loop.call_at(begins, self._sleep, ends)
        for begins, seconds in self.host.leaps:
            self._loop.call_at(begins, self._happens, f"has its clock set by {seconds} s", "clock leaps")
        if self.host.dies is not None:
            self._loop.call_at(self.host.dies, self.die)

    def _begin(self, call: Call) -> None:
        if not self.link.severed:
            self._tasks[call.name] = self._loop.create_task(self._workload.make(call))

    def _cancel(self, call: Call) -> None:
        task = self._tasks.get(call.name)
        if task is not None and not task.done() and call.started is not None:
            self._monitor.say(f"{call.name} is cancelled")
            self._monitor.count("cancelled")
            call.cancels += 1
            for each in (call, call.second):
                if each is not None and each.ended is None:
                    each.cancelled_at = self._loop.now
            task.cancel()

    def _stop_for(self, seconds: float) -> None:
        if not self.dead:
            self.host.stopped.append((self._loop.now, self._loop.now + seconds))
            self._stop()
            self._loop.call_later(seconds, self._resume, context=Context())

    def _stop(self) -> None:
        if not self.dead:
            self._happens("stops")
            self._loop.stop_process(self._process)

    def _resume(self) -> None:
        if not self.dead and self._loop.now >= self._asleep_until:
            self._happens("resumes")
            self._loop.resume_process(self._process)

    def _sleep(self, until: float) -> None:
        """Have the machine sleep: its wall clock goes on, and the clock of its loop stands still."""
        if self.dead:
            return
        self._happens("falls asleep", "machine sleeps")
        self.host.stopped.append((self._loop.now, until))
        self._asleep_until = until
        self._loop.put_to_sleep(self._process, until - self._loop.now)
        self._loop.call_at(until, self._resume, context=Context())

    def _happens(self, what: str, counted: str | None = None) -> None:
        if not self.dead:
            self._monitor.say(f"{self.host.name} {what}")
            self._monitor.count(counted or f"process {what}")


def _from(host: Host, start: float) -> Host:
    """Take what happens to a process as from the start of the run."""
    return replace(
        host,
        dies=None if host.dies is None else start + host.dies,
        stopped=[(start + begins, start + ends) for begins, ends in host.stopped],
        cut_off=_later(host.cut_off, start),
        asleep=_later(host.asleep, start),
        denied=_later(host.denied, start),
    )


def _later(spans: tuple[Span, ...], start: float) -> tuple[Span, ...]:
    return tuple((start + begins, start + ends) for begins, ends in spans)
