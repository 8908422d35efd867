"""What is measured, and how: the placements, the loads, and the server's options."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from aioidempotency import HashBuckets, RandomBuckets, Static, TimeBuckets
from aioidempotency.partitioning import Partitioning

NO_LIMITS: Final = "no limits"
STATIC: Final = "Static"
BUCKETS: Final = "HashBuckets(32)"
WINDOWS: Final = "TimeBuckets(3600, 32)"
RANDOM: Final = "RandomBuckets(32, 2)"
STREAMS: Final = ("uniform", "skewed")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One of the placements that are compared.

    Attributes:
        made: Takes the prefix of its partition values.
        work: What a call of it costs the client, where one with a single place costs 1.
        limited: Whether the server has limits.
    """

    name: str
    made: Callable[[str], Partitioning]
    work: float = 1.0
    limited: bool = True


def _hashed(buckets: int) -> Placement:
    return Placement(name=f"HashBuckets({buckets})", made=lambda prefix: HashBuckets(buckets, prefix))


PLACEMENTS: Final = (
    Placement(name=STATIC, made=Static),
    *map(_hashed, (4, 16, 32, 64)),
    # A window as long as the retention: a claim looks at two places, the window of now and the one before.
    Placement(name=WINDOWS, made=lambda prefix: TimeBuckets(3600, 32, prefix, retention=3600), work=1.5),
    Placement(name=RANDOM, made=lambda prefix: RandomBuckets(32, 2, prefix), work=1.5),
    Placement(name=NO_LIMITS, made=lambda prefix: HashBuckets(32, prefix), limited=False),
)
"""The last one is `HashBuckets(32)` on a server without limits: what the client and the server could do."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one run.

    Attributes:
        at_once: Calls a second that the client process is given at the most; several measurements share it.
        attempts: How often botocore sends a request: once, so that throttling is seen as that.
        warm_up: Seconds before the measured ones, in which full partitions spend what they have saved.
        window: Seconds that are measured.
        patience: Seconds after the measured ones in which calls are still waited for.
        late_limit_ms: How late the latest of 99 % of a measurement's calls may begin. Where it is more, the machine
            was busy with something else: what was played together is measured again, in halves.
        repeats: How often that may be done for one stream in one round, and for each line over time.
    """

    loads: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
    rounds: int = 3
    at_once: int = 320
    attempts: int = 1
    warm_up: int = 2
    window: int = 3
    patience: float = 1.2
    late_limit_ms: float = 250.0
    repeats: int = 8
    partitions: int = 64
    scale: float = 0.02
    burst: float = 1.0
    split_load: int = 80
    split_after: float = 4.0
    split_seconds: int = 30
    ceiling_seconds: float = 2.0

    @property
    def limits(self) -> dict[str, float]:
        """The options of a server with limits."""
        return {"partitions": self.partitions, "scale": self.scale, "burst": self.burst}

    @property
    def partition_limit(self) -> float:
        """New calls a second that one partition takes: a claim and a completion are two units."""
        return 1000 * self.scale / 2


QUICK: Final = Settings(
    loads=(10, 80, 160), rounds=1, warm_up=1, window=2, patience=0.5, split_after=2, split_seconds=10, ceiling_seconds=1
)
"""About a minute: to see that it works, not to be published."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One placement under one load."""

    placement: Placement
    offered: int

    @property
    def work(self) -> float:
        """What it costs the client, in calls a second."""
        return self.offered * self.placement.work

    def __str__(self) -> str:
        return f"{self.placement.name} at {self.offered}"


def batches(settings: Settings, turn: int) -> list[list[Measurement]]:
    """Put measurements together that one client can play at the same time; each turn mixes them otherwise."""
    order = [*PLACEMENTS[turn % len(PLACEMENTS) :], *PLACEMENTS[: turn % len(PLACEMENTS)]]
    made: list[list[Measurement]] = [[]]
    for offered in settings.loads:
        for placement in order:
            measurement = Measurement(placement=placement, offered=offered)
            if sum(each.work for each in made[-1]) + measurement.work > settings.at_once:
                made.append([])
            made[-1].append(measurement)
    return made
