"""An event loop in which time is a number, simultaneous timers go off in drawn order, and processes can stop.

Nothing is ever waited for: when nothing is ready, time jumps to the next timer. What runs in the
context of a `Process` is held while that process does not run, in the order in which it came.

A process whose machine sleeps has a clock that stands still meanwhile, as `CLOCK_MONOTONIC` does: `time()` and all
timers of the process are late by what it has slept. `now` is the time of the world, which never stands still.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from math import inf, nextafter
from typing import Any, final

MOST_ROUNDS = 200_000
"""Rounds of the loop after which a run is taken for one that never ends."""


@final
class Process:
    """One simulated process: whether its callbacks run, and for how many seconds its machine has slept."""

    def __init__(self) -> None:
        self.running = True
        self.slept = 0.0
        self.held: list[asyncio.Handle] = []


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""The process that the current callback belongs to; None for the world around them."""

Timer = tuple[float, float, int, asyncio.TimerHandle, Process | None, float]
"""When it goes off in the world, what orders equal ones, and how long its process had slept when that was computed."""


@final
class VirtualLoop(asyncio.BaseEventLoop):
    """Runs callbacks in the order asked for, as any loop does; which of two equal timers is first is drawn."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__()
        self._dice = dice
        self._now = 0.0
        self._soon: deque[tuple[asyncio.Handle, Process | None]] = deque()
        self._later: list[Timer] = []
        self._serial = itertools.count()
        self._rounds = 0

    def time(self) -> float:
        """Read the clock of the running process, in seconds from the start of the run."""
        return self._now - _slept(PROCESS.get())

    @property
    def now(self) -> float:
        """The time of the world, in seconds from the start of the run."""
        return self._now

    def call_soon(  # type: ignore[override] # typeshed's type variables add nothing here
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Have a callback run in the next round."""
        context = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        self._soon.append((handle, context.get(PROCESS)))
        return handle

    def call_at(  # type: ignore[override] # typeshed's type variables add nothing here
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Have a callback run at a time by the clock of the process that asks."""
        context = copy_context() if context is None else context
        process = context.get(PROCESS)
        when = _in_world(when, PROCESS.get())
        handle = asyncio.TimerHandle(when - _slept(process), callback, args, self, context)
        timer = (when, self._dice.random(), next(self._serial), handle, process, _slept(process))
        heapq.heappush(self._later, timer)
        return handle

    def stop_process(self, process: Process) -> None:
        """Hold all that the process would do from now on."""
        process.running = False

    def resume_process(self, process: Process) -> None:
        """Let a process go on where it was stopped."""
        process.running = True
        self._soon.extend((handle, process) for handle in process.held)
        process.held.clear()

    def put_to_sleep(self, process: Process, seconds: float) -> None:
        """Stop a process, and its clock as well. Whoever calls this resumes it when the seconds have passed."""
        process.slept += seconds
        self.stop_process(process)

    def _run_once(self) -> None:
        self._rounds += 1
        if self._rounds > MOST_ROUNDS:
            raise RuntimeError(f"not at rest after {MOST_ROUNDS} rounds, at {self._now:.3f} s")
        self._ring()
        for _ in range(len(self._soon)):
            handle, process = self._soon.popleft()
            if process is not None and not process.running:
                process.held.append(handle)
            elif not handle.cancelled():
                handle._run()

    def _ring(self) -> None:
        """Make the timers that are due ready; where nothing else is ready, jump to the next one."""
        while self._later and (self._later[0][0] <= self._now or not self._soon):
            when, order, serial, handle, process, slept = heapq.heappop(self._later)
            if _slept(process) > slept:  # its clock has stood still meanwhile
                when = _in_world(handle.when(), process)
                heapq.heappush(self._later, (when, order, serial, handle, process, _slept(process)))
            elif not handle.cancelled():
                self._now = max(self._now, when)
                self._soon.append((handle, process))
        if not self._soon:
            raise RuntimeError(f"nothing is left to happen at {self._now:.3f} s")


def now() -> float:
    """Read the time of the world, whoever asks."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop.now


def _in_world(when: float, process: Process | None) -> float:
    """Say when a process's clock will read `when`: not a rounding error before it does."""
    slept = _slept(process)
    world = when + slept
    while world - slept < when:
        world = nextafter(world, inf)
    return world


def _slept(process: Process | None) -> float:
    return 0.0 if process is None else process.slept
