"""How many buckets carry a load: balls into bins, with a limit on every bin.

1. Calls arrive independently of each other, and the hash sends each to a bucket at random. So the
   buckets' seconds are independent compound Poisson sums, each of an equal share of the load.
2. Once DynamoDB has split what was hot, each bucket has a partition to itself, at the least. Then the
   limit holds while every bucket alone is under it. This needs the fewest buckets, and does not depend
   on how many partitions there are.
3. Before that, the buckets lie on the partitions that the table has, as DynamoDB's hash puts them:
   some partitions get several. More buckets even that out.

What is not computed exactly is bounded from below and from above. The bounds are for one place: with
several, the places of a call are counted as if each belonged to a call of its own.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import ceil, exp, log1p
from typing import Final, final

from aioidempotency._cli import tails
from aioidempotency._cli.billing import PARTS, Bill
from aioidempotency._cli.workload import MOST_BUCKETS, PlanError

NEW_TABLE: Final = 4
"""Partitions of a new on-demand table: it takes 4,000 write units a second."""

HEADROOM: Final = 2
"""An on-demand table takes up to twice its last peak, so it has twice the partitions that the peak needs."""

_KNOTS: Final = 64
"""For so many numbers of buckets on a partition the probability is computed; others lie between two of them."""

_HOPELESS: Final = 20
"""So many partitions that pass on average leave a probability of 2e-9 that none does."""


@final
@dataclass(frozen=True, slots=True)
class Between:
    """A probability that is at least `low` and at most `high`."""

    low: float
    high: float


def partitions_for(bill: Bill) -> int:
    """Count the partitions of an on-demand table whose peak was this load, or that is new."""
    return max(NEW_TABLE, ceil(HEADROOM * tails.mean(bill.streams) / PARTS))


def alone(bill: Bill, buckets: int) -> float:
    """Compute the probability that in one second no bucket, alone on its partition, passes the limit."""
    passing = tails.passing(tails.share(bill.streams, 1 / buckets), PARTS)
    return 0.0 if passing == 1 else exp(buckets * log1p(-passing))


@lru_cache(maxsize=64)  # a plan asks for the same numbers again, to show them
def together(bill: Bill, buckets: int, partitions: int) -> Between:
    """Bound the probability that in one second no partition passes, before any has split.

    The lower bound is the union bound over the partitions. The upper one is the product: a partition
    with few buckets leaves more for the others, so all are lucky less often than if each drew for
    itself (the numbers of a multinomial draw are negatively associated).
    """
    low, high = _passing_somewhere(bill, buckets, partitions)
    product = 0.0 if low >= 1 else exp(partitions * log1p(-low))
    return Between(max(0.0, 1 - partitions * high), min(product, alone(bill, buckets)))


def smallest(bill: Bill, probability: float) -> int:
    """Find the smallest number of buckets whose every bucket stays under the limit with that probability.

    Raises:
        PlanError: It is more than 10,000.
    """
    if alone(bill, MOST_BUCKETS) < probability:
        raise PlanError(
            f"--calls-per-second {bill.workload.calls_per_second:g} needs more than {MOST_BUCKETS:,} buckets; "
            "spread the calls over several tables, or take SimpleKey, which needs none"
        )
    low, high = 0, MOST_BUCKETS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if alone(bill, middle) >= probability else (middle, high)
    return high


def _passing_somewhere(bill: Bill, buckets: int, partitions: int) -> tuple[float, float]:
    """Bound the probability that one given partition passes, whatever number of buckets it holds.

    It grows with that number; so of a run of numbers, the largest bounds it from above, and the largest
    of the next run from below.
    """
    likely = [(held, mass) for held, mass in tails.binomial(buckets, 1 / partitions) if mass > tails.NEGLIGIBLE]
    step = ceil(len(likely) / _KNOTS)
    runs = [likely[start : start + step] for start in range(0, len(likely), step)]
    low = high = mass = 0.0
    for run in runs:
        passing = tails.passing(tails.share(bill.streams, run[0][0] / buckets), PARTS)
        low += mass * passing if step > 1 else 0.0
        mass = sum(each for _, each in run)
        high += mass * passing
        if passing < tails.NEGLIGIBLE or partitions * low > _HOPELESS:
            break
    return (high if step == 1 else low), min(1.0, high)
