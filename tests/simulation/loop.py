"""An event loop in which time is a number, simultaneous timers go off in drawn order, and processes can stop.

Nothing is ever waited for: when nothing is ready, time jumps to the next timer. What runs in the
context of a `Process` is held while that process does not run, in the order in which it came.
"""

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar, copy_context
from typing import Any, final

MOST_ROUNDS = 200_000
"""Rounds of the loop after which a run is taken for one that never ends."""


@final
class Process:
    """One simulated process: whether its callbacks run."""

    def __init__(self) -> None:
        self.running = True
        self.held: list[asyncio.Handle] = []


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""The process that the current callback belongs to; None for the world around them."""

Timer = tuple[float, float, int, asyncio.TimerHandle, Process | None]


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
        """Read the virtual time, in seconds from the start of the run."""
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
        """Have a callback run at a virtual time."""
        context = copy_context() if context is None else context
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        timer = (when, self._dice.random(), next(self._serial), handle, context.get(PROCESS))
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
            when, _, _, handle, process = heapq.heappop(self._later)
            if not handle.cancelled():
                self._now = max(self._now, when)
                self._soon.append((handle, process))
        if not self._soon:
            raise RuntimeError(f"nothing is left to happen at {self._now:.3f} s")
