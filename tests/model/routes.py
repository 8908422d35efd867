"""Where contenders look for the record of one key: the library's own strategies, by its own layouts."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import final

from aioidempotency._core.model import AttributeNames, Location, Locations, Route
from aioidempotency.partitioning import CompositeKey, Partitioning, RandomBuckets, Reshard, Static, Terms, TimeBuckets
from aioidempotency.partitioning.reshard import Phase
from aioidempotency.partitioning.windows import Windows
from tests.support.values import replace

KEY = "shop#1234"
_LAYOUT = CompositeKey()
_TABLE = _LAYOUT.table("records", AttributeNames())


@final
@dataclass(frozen=True, slots=True)
class Within:
    """A route whose answers count for fewer seconds than the library's, so that a short exploration gets there.

    It remembers the locations of each instant: they are asked for in every state.
    """

    route: Route
    answer_within: float
    _named: dict[float, Locations] = field(default_factory=dict, compare=False, repr=False)

    @property
    def key(self) -> str:
        """The key."""
        return self.route.key

    def locations(self, now: float) -> Locations:
        """Name the places that the route names."""
        if now not in self._named:
            self._named[now] = self.route.locations(now)
        return self._named[now]

    def searched_until(self, location: Location) -> float:
        """Answer as the route does."""
        return self.route.searched_until(location)


def route(partitioning: Partitioning, answer_within: float = inf) -> Route:
    """Have the route that a store with a sort key takes."""
    return Within(CompositeKey(partitioning=partitioning).route(_TABLE, KEY), answer_within)


OLD, NEW = route(Static("old")), route(Static("new"))
PREPARE = route(Reshard(Static("old"), Static("new"), "prepare"))
CUTOVER = route(Reshard(Static("old"), Static("new"), "cutover"))
RANDOM = route(RandomBuckets(2))
"""Its home at a whole second and a quarter of a second later is often not the same: a draw, by the instant."""


def windows(retention: float) -> Windows:
    """Have windows of 3 s, for leases of 2 s and clocks that differ by 1 s; an answer counts for 1 s."""
    bound = TimeBuckets(3, buckets=1).bound(Terms(retention=retention, lease=2.0, clock_skew=1.0))
    return replace(bound, ahead=1.0 + IN_TIME, within=IN_TIME)


IN_TIME = 1.0
PHASES: tuple[Phase, Phase] = ("prepare", "cutover")

WINDOWS = route(windows(retention=6.0), IN_TIME)
"""The second window begins 2 s after the start, the third one 5 s after it."""

SHORT_WINDOWS = route(windows(retention=1.0), IN_TIME)
"""Claims look back for 4 s, as far as a lease needs."""

TO_WINDOWS_PREPARE, TO_WINDOWS_CUTOVER = (
    route(Reshard(Static("old"), windows(retention=6.0), phase), IN_TIME) for phase in PHASES
)


def places_of(routes: Iterable[Route], instants: Iterable[float]) -> Locations:
    """Name every location that a claim looks at in any of these instants, each once."""
    asked = list(routes)
    return tuple(dict.fromkeys(location for now in instants for each in asked for location in each.locations(now)))
