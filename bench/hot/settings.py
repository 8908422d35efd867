"""What is measured, and how: the placements, the loads, and the limits of the partitions."""

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

PLACEMENTS: Final[dict[str, Callable[[str], Partitioning]]] = {
    STATIC: Static,
    BUCKETS: lambda prefix: HashBuckets(32, prefix),
    # A window as long as the retention: a claim looks at two locations, in the window of now and in the one before.
    WINDOWS: lambda prefix: TimeBuckets(3600, 32, prefix, retention=3600),
    RANDOM: lambda prefix: RandomBuckets(32, 2, prefix),
    NO_LIMITS: lambda prefix: HashBuckets(32, prefix),
}
"""Each takes the prefix of its partition values. The last has 32 buckets whose partitions never meet a limit."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one run.

    Attributes:
        loads: Calls a second.
        warm_up: Seconds before the measured ones, in which full partitions spend their saved units.
        window: Seconds that are measured.
        patience: Seconds after the measured ones in which an answer still counts.
        scale: Multiplies what a partition gives in a second.
        attempts: How often botocore sends a request: once, so that every throttled request is seen.
        late_limit_ms: How late the latest of 99 % of a measurement's calls may begin. Where it is more, the machine
            was busy with something else, and the measurement is made again.
        tries: How often a measurement is made at the most.
    """

    loads: tuple[int, ...] = (5, 20, 80)
    rounds: int = 3
    warm_up: int = 1
    window: int = 3
    patience: float = 0.4
    scale: float = 0.01
    attempts: int = 1
    late_limit_ms: float = 150.0
    tries: int = 3

    @property
    def partition_limit(self) -> float:
        """New calls a second that one partition takes: a claim and a completion are two units."""
        return 1000 * self.scale / 2


QUICK: Final = Settings(loads=(5, 40), rounds=1, window=1, tries=1)
"""Half a minute: to see that it works, not to be published."""
