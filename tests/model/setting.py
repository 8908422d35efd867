"""The setting of an exploration: who contends on which terms, what may go wrong, and for how long."""

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, final

from aioidempotency._core.model import Item, Locations, Route
from aioidempotency._core.protocol import Claim
from tests.model.calls import Script
from tests.model.invariants import Limit, Terms
from tests.model.routes import places_of
from tests.model.table import PLACE

START = 1000.0
"""The time at which everything begins."""


class Faults(NamedTuple):
    """How many of each fault may still happen: crashes, lost answers, copies of requests, giving up."""

    crash: int = 0
    lost: int = 0
    copy: int = 0
    give_up: int = 0

    def less(self, fault: Literal["crash", "lost", "copy", "give_up"]) -> "Faults":
        """Take one away."""
        return self._replace(**{fault: getattr(self, fault) - 1})


NO_FAULTS = Faults()


@final
@dataclass(frozen=True, kw_only=True)
class Configuration:
    """What is explored. Contenders with equal scripts are interchangeable: they begin in order.

    Attributes:
        horizon: The seconds that are explored.
        start: What is there at the beginning, in whichever of the locations its key says.
        refusals_bring_items: Whether a refused write says what was there; not every store does.
        arrives_within: Seconds after its call began in which a request that was left on its way arrives, or never.
        ends_within: Seconds in which a call that is no claim ends, or never.
        limits: What the invariants leave out.
    """

    scripts: tuple[Script, ...]
    faults: Faults = NO_FAULTS
    lease: float = 2.0
    clock_skew: float = 1.0
    retention: float = 6.0
    horizon: float = 6.0
    start: tuple[Item, ...] = ()
    refusals_bring_items: bool = True
    arrives_within: float = inf
    ends_within: float = inf
    limits: frozenset[Limit] = frozenset()

    @property
    def terms(self) -> Terms:
        """What the invariants depend on. The table has a clock, too: it is right."""
        return Terms(self.clock_skew, tuple({0.0, *(script.clock for script in self.scripts)}), self.limits)

    @property
    def routes(self) -> tuple[Route, ...]:
        """By which routes the record is looked for."""
        return tuple(dict.fromkeys(script.route for script in self.scripts))

    @property
    def over(self) -> float:
        """Seconds after which everything is over: every lease, by every clock, and the skew."""
        return self.terms.ahead + self.lease + self.clock_skew + 0.5

    @property
    def locations(self) -> Locations:
        """Every location that is looked at, as far as the exploration goes, and when all is over."""
        seconds = [START + second for second in range(int(self.horizon) + 1)]
        delays = (*sorted(self.terms.clocks), self.over)
        return places_of(self.routes, [second + delay for second in seconds for delay in delays])

    def attempt(self, owner: str, now: float, route: Route = PLACE) -> Claim:
        """Make a claim on these terms."""
        return Claim(
            route=route, owner=owner, now=now, lease=self.lease, retention=self.retention, clock_skew=self.clock_skew
        )
