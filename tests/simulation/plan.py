"""What a run is, before it begins: machines, clocks, calls, and the weather on the network."""

from dataclasses import dataclass
from math import inf
from typing import Literal, final

from tests.simulation import schemes
from tests.simulation.schemes import Scheme

Trouble = Literal["fine", "throttled", "dropped", "late", "reply lost", "cut after applying", "copied"]
TROUBLES: tuple[Trouble, ...] = ("throttled", "dropped", "late", "reply lost", "cut after applying", "copied")

Manner = Literal["execute", "decorated", "run", "by hand", "at once", "forget", "pair"]
MANNERS: tuple[Manner, ...] = ("execute", "decorated", "run", "by hand")

Ending = Literal["value", "unstorable", "fails", "declines"]
Effect = Literal["applied", "refused"]
"""What a call writes together with its result: something, or something that the store refuses."""

Span = tuple[float, float]
"""When something begins, and when it ends."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One call: who makes it, when, and what its body does. `starts` counts from the start of its stage.

    One that frees its key has no body; `shuts_out` says whether a running owner loses it. Without a `retention`, that of
    its store counts. A pair holds the block of its `second` as well, and leaves its own first.
    """

    name: str
    host: int
    stage: int
    key: str
    payload: str | None
    starts: float
    manner: Manner
    lease: float
    heartbeat: bool
    patience: float | None
    on_error: Literal["release", "hold"]
    read_first: bool
    pauses: tuple[float, ...]
    ending: Ending
    cancelled_after: float | None
    renewals_fail: bool
    effect: Effect | None = None
    shuts_out: bool = False
    retention: float | None = None
    second: "Script | None" = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One process: how far its clock is off, and what happens to it.

    Attributes:
        hesitates: Before which of its requests it is stopped as well, and for how many seconds.
        leaps: When somebody sets its machine's wall clock, and by how many seconds. These count from the start of the run.
        asleep: When its machine sleeps. While it does, the process is stopped, and so is the clock of its loop.
        denied: When its credentials may not update records.
    """

    name: str
    offset: float
    dies: float | None
    stopped: list[Span]
    cut_off: tuple[Span, ...]
    hesitates: tuple[int, float] | None = None
    leaps: tuple[tuple[float, float], ...] = ()
    asleep: tuple[Span, ...] = ()
    denied: tuple[Span, ...] = ()

    def off(self, now: float) -> float:
        """By how many seconds its clock is off at an instant of the run."""
        return self.offset + sum(seconds for begins, seconds in self.leaps if begins <= now)

    def set_back(self, first: float, last: float) -> float:
        """By how many seconds its clock was set back from one instant of the run to another."""
        return sum(-seconds for begins, seconds in self.leaps if first < begins <= last and seconds < 0)

    def offs(self, first: float, last: float) -> list[float]:
        """By how many seconds its clock is off from one instant of the run to another: each value."""
        return [self.off(first), *(self.off(begins) for begins, _ in self.leaps if first < begins <= last)]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How likely each trouble is for one request. A client gives a try up after `patience` seconds.

    `lingering` says that whatever is late is so for leases.
    """

    trouble: float
    kinds: tuple[Trouble, ...]
    slow: float
    forgetful: float
    tries: int
    patience: float
    limit: float
    lingering: bool = False


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a run in which processes are replaced by ones of another phase. Instants count from its start.

    Attributes:
        phase: Which of the scheme's layouts the new processes have.
        hosts: The new processes.
        replaced: When each of them takes over from the one before.
        killed: Whether that one is killed, or may end its calls.
        retention: How long results of the new processes answer. None for as long as those of the run.
    """

    phase: int
    hosts: tuple[Host, ...]
    replaced: tuple[float, ...]
    killed: tuple[bool, ...]
    retention: float | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. Durations and instants are seconds from its start."""

    seed: int
    lease: float
    retention: float
    apart: bool
    reaped: bool
    scheme: Scheme
    stages: tuple[Stage, ...]
    scripts: tuple[Script, ...]
    weather: Weather

    def retention_of(self, stage: Stage) -> float:
        """How long results answer that processes of a stage store."""
        return self.retention if stage.retention is None else stage.retention

    @property
    def promised(self) -> float:
        """The longest that any result answers."""
        return max(self.retention, *(script.retention or 0.0 for script in self.scripts))

    @property
    def retentions_differ(self) -> bool:
        """Whether calls or deployments have other retentions than the run."""
        return self.promised > self.retention or any(stage.retention is not None for stage in self.stages)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The first processes; those that replace them run on the same machines."""
        return self.stages[0].hosts

    @property
    def reach(self) -> float:
        """How many seconds back claims look where there are windows."""
        return schemes.reach(self.retention, self.lease)

    @property
    def too_slow(self) -> bool:
        """Whether answers may come too late for windows that pass, again and again."""
        return self.scheme.window is not None and self.weather.slow > 0

    @property
    def claims_may_lapse(self) -> bool:
        """Whether claims may be answered when their lease is over and their record deleted, again and again."""
        return self.weather.slow > 0 and self.reaped and (self.apart or self.retention < self.lease)

    @property
    def earliest(self) -> float:
        """By how many seconds the slowest clock is ever off, the true one among them."""
        return min(0.0, *(off for host in self.hosts for off in host.offs(0.0, inf)))

    @property
    def latest(self) -> float:
        """By how many seconds the fastest clock is ever off, the true one among them."""
        return max(0.0, *(off for host in self.hosts for off in host.offs(0.0, inf)))

    @property
    def spread(self) -> float:
        """The largest difference between two clocks, the true one among them."""
        return self.latest - self.earliest

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys, in the order in which they are first named."""
        named = (each for script in self.scripts for each in (script, script.second) if each is not None)
        return tuple({each.key: None for each in named})
