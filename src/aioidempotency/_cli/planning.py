"""The plan: one answer to a workload, with the numbers that it rests on."""

import math
from dataclasses import dataclass, replace
from random import Random
from statistics import median
from typing import Final, final

from aioidempotency._cli import capacity, tails
from aioidempotency._cli.billing import MONTH, PARTS, Bill, Units, bill
from aioidempotency._cli.simulation import hottest_loads
from aioidempotency._cli.workload import MOST_BUCKETS, PlanError, Workload, check_bounds

SUREST: Final = 0.999999
"""The largest probability that can be asked for: the arithmetic is good for it with 10,000 buckets."""

MOST_PARTITIONS: Final = 100_000

DEFAULT: Final = 32
"""Buckets of a CompositeKey that is told nothing."""

MOST_TRIED: Final = 1 << (MOST_BUCKETS.bit_length() - 1)
"""The largest power of two that a plan goes up to."""

_DRAWS: Final = 200_000
"""About so many random draws are spent on each row; the seconds that they give are bounded, too."""

_FEWEST_SECONDS: Final = 25
_MOST_SECONDS: Final = 400


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a plan is asked to hold, and at what prices.

    Attributes:
        probability: How likely no partition passes its limit in a second.
        partitions: How many the table has before it splits; None for what an on-demand table has whose peak was this.
        write_price: Dollars for a million write request units.
        read_price: Dollars for a million read request units.
        seed: The seed of the simulation.

    Raises:
        PlanError: A number is out of bounds.
    """

    probability: float = 0.99
    partitions: int | None = None
    write_price: float = 0.625
    read_price: float = 0.125
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.probability <= SUREST:
            raise PlanError(f"--probability takes a number above 0 and up to {SUREST}: not {self.probability:g}")
        if self.partitions is not None:
            check_bounds("--partitions", self.partitions, least=1, most=MOST_PARTITIONS)
        for option, price in ("--write-price", self.write_price), ("--read-price", self.read_price):
            if not (math.isfinite(price) and price >= 0):
                raise PlanError(f"{option} takes dollars for a million units, 0 or more: not {price:g}")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a number of buckets does.

    Attributes:
        alone: The probability that no bucket passes, once each has a partition to itself.
        together: That no partition passes before any has split: at least.
        together_at_most: Likewise: at most.
        hottest: The load of the hottest partition before any has split, 1 for its limit: the median of the simulation.
        simulated: The share of the simulated seconds in which no partition passed.
        seconds: How many seconds were simulated.
    """

    buckets: int
    alone: float
    together: float
    together_at_most: float
    hottest: float
    simulated: float
    seconds: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The answer.

    Attributes:
        buckets: How many to take: the power of two that is enough before and after splits, where there is one.
        enough_alone: The smallest number that is enough once each bucket has a partition to itself.
        enough_together: The smallest power of two that is enough before any partition has split; None where none is.
        default_is_enough: Whether 32 buckets are, before and after splits.
        write_units: Write units a second.
        read_units: Read units a second.
        fresh: What a fresh call takes.
        duplicate: What a duplicate takes.
        running_bytes: The size of a running record's item.
        finished_bytes: The size of a finished record's item.
        static: The share of this load that one partition value takes, on average.
        write_cost: Dollars for a month of 730 hours at this rate.
        read_cost: Likewise.
    """

    workload: Workload
    terms: Terms
    partitions: int
    buckets: int
    enough_alone: int
    enough_together: int | None
    default_is_enough: bool
    write_units: float
    read_units: float
    fresh: Units
    duplicate: Units
    running_bytes: int
    finished_bytes: int
    static: float
    write_cost: float
    read_cost: float
    rows: tuple[Row, ...]

    @property
    def name(self) -> str:
        """What to take, in words or as a strategy."""
        return f"HashBuckets({self.buckets})" if self.workload.places == 1 else f"{self.buckets:,} buckets"

    @property
    def cost(self) -> float:
        """Dollars a month, requests alone."""
        return self.write_cost + self.read_cost


def make_plan(workload: Workload, terms: Terms) -> Plan:
    """Answer.

    Raises:
        PlanError: More than 10,000 buckets are needed.
    """
    billed = bill(workload)
    partitions = terms.partitions or capacity.partitions_for(billed)
    enough_alone = capacity.smallest(billed, terms.probability)
    enough_together = _enough_together(billed, partitions, terms.probability)
    buckets = max(_power_of_two(enough_alone), enough_together or 1)
    shown = _shown(enough_alone, buckets, searched=enough_together is None)
    return Plan(
        workload=workload,
        terms=terms,
        partitions=partitions,
        buckets=buckets,
        enough_alone=enough_alone,
        enough_together=enough_together,
        default_is_enough=enough_alone <= DEFAULT and _holds(billed, DEFAULT, partitions, terms.probability),
        write_units=billed.write_units,
        read_units=billed.read_units,
        fresh=billed.per_fresh,
        duplicate=billed.per_duplicate,
        running_bytes=workload.running_bytes,
        finished_bytes=workload.finished_bytes,
        static=min(1.0, PARTS / tails.mean(bill(replace(workload, places=1)).streams)),
        write_cost=billed.write_units * MONTH * terms.write_price / 1e6,
        read_cost=billed.read_units * MONTH * terms.read_price / 1e6,
        rows=tuple(_row(billed, number, partitions, Random(terms.seed)) for number in shown),  # noqa: S311 - no secret
    )


def _enough_together(billed: Bill, partitions: int, probability: float) -> int | None:
    """Try the powers of two: between them more buckets may do a little worse, as they lie less evenly."""
    powers = (1 << exponent for exponent in range(MOST_TRIED.bit_length()))
    return next((number for number in powers if _holds(billed, number, partitions, probability)), None)


def _holds(billed: Bill, buckets: int, partitions: int, probability: float) -> bool:
    return capacity.together(billed, buckets, partitions).low >= probability


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _shown(enough_alone: int, buckets: int, *, searched: bool) -> list[int]:
    """Choose the rows: the smallest number that is enough, and powers of two to beyond the chosen one, or to the end."""
    first = max(1, _power_of_two(enough_alone) // 4)
    last = max(2 * buckets, MOST_TRIED * searched)
    powers = {1 << exponent for exponent in range(first.bit_length() - 1, last.bit_length())}
    return sorted(powers | {enough_alone})


def _row(billed: Bill, buckets: int, partitions: int, chance: Random) -> Row:
    draws = buckets + 2 * min(buckets, partitions)
    seconds = min(_MOST_SECONDS, max(_FEWEST_SECONDS, _DRAWS // draws))
    loads = hottest_loads(billed.streams, buckets=buckets, partitions=partitions, seconds=seconds, chance=chance)
    together = capacity.together(billed, buckets, partitions)
    return Row(
        buckets=buckets,
        alone=capacity.alone(billed, buckets),
        together=together.low,
        together_at_most=together.high,
        hottest=median(loads) / PARTS,
        simulated=sum(load <= PARTS for load in loads) / seconds,
        seconds=seconds,
    )
