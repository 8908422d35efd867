"""The processes of a run, and their deployment: a process takes over from another one of a neighbouring phase."""

from collections.abc import Callable
from functools import partial
from typing import final

from tests.simulation.loop import VirtualLoop
from tests.simulation.machine import Machine
from tests.simulation.plan import Host, Plan, Script, Stage
from tests.simulation.schemes import puts_elsewhere

MakeMachine = Callable[[Host, Stage], Machine]


@final
class Fleet:
    """All processes, by the machine on which they follow each other; the last one of each takes new calls.

    Attributes:
        pending: Calls and replacements that are still to come.
    """

    def __init__(self, plan: Plan, loop: VirtualLoop, make: MakeMachine) -> None:
        self.pending = 0
        self._plan = plan
        self._loop = loop
        self._make = make
        self._seats: list[list[Machine]] = [[] for _ in plan.hosts]
        self._over: dict[int, float] = {}

    @property
    def all(self) -> list[Machine]:
        """Every process that there was."""
        return [machine for seat in self._seats for machine in seat]

    @property
    def busy(self) -> bool:
        """Whether something may still come of this stage."""
        return self.pending > 0 or any(machine.busy for machine in self.all)

    @property
    def mixed(self) -> bool:
        """Whether processes are still to be replaced, or those that were have not ended all their calls."""
        return self.pending > 0 or any(machine.busy for seat in self._seats for machine in seat[:-1])

    def enter(self, number: int, stage: Stage) -> None:
        """Begin a stage: its calls, and its replacements of processes."""
        for seat, (host, after) in enumerate(zip(stage.hosts, stage.replaced, strict=True)):
            self._later(after, partial(self._replace, seat, host, stage))
        for script in self._plan.scripts:
            if script.stage == number:
                self._later(script.starts, partial(self._call, script))

    def retire(self) -> None:
        """Note that all processes that were replaced have ended."""
        for machine in (machine for seat in self._seats for machine in seat[:-1]):
            if not machine.retired:
                machine.retire()
                self._over[machine.phase] = self._loop.now

    def may_enter(self, stage: Stage) -> float:
        """Say from when on a phase may begin: the longest retention after those whose records it does not look for."""
        others = [ended for phase, ended in self._over.items() if puts_elsewhere(stage.phase, phase)]
        return max((ended + self._plan.promised + 1 for ended in others), default=0.0)

    def _replace(self, seat: int, host: Host, stage: Stage) -> None:
        before = self._seats[seat][-1] if self._seats[seat] else None
        self._seats[seat].append(self._make(host, stage))
        if before is not None and stage.killed[seat]:
            before.die()

    def _call(self, script: Script) -> None:
        self._seats[script.host][-1].make(script)

    def _later(self, after: float, action: Callable[[], None]) -> None:
        """Have something happen; a stage does not end before it has."""

        def happen() -> None:
            self.pending -= 1
            action()

        self.pending += 1
        self._loop.call_later(after, happen) if after else happen()
