"""What a load costs on DynamoDB, and how many buckets carry it.

**The limit.** A partition takes 1,000 write units or 3,000 read units a second, and a mixture of both in
proportion. So a load is counted in parts of a second: a write unit takes 3 of 3,000, a read unit 1.

**The load of a partition** is random: calls arrive independently (their number in a second is Poisson), the
hash of a key chooses the bucket, and DynamoDB's own hash chooses the partition of each bucket.

**The rule.** Let K(t) be the logarithm of the mean of exp(t * load). Chernoff's bound says that a partition
has more than x parts with a probability of exp(K(t) - t * x) at the most, for every t above 0. So, with the
probability p, none of m partitions has more than (K(t) + log(m / (1 - p))) / t; the best t gives the
smallest such load. Take the smallest power of two for which this load is within the limit.
`tests/cli/test_planning.py` compares the rule with exact sums and with drawn tables.
"""

from dataclasses import dataclass
from math import ceil, exp, expm1, log, log1p
from typing import Final, NamedTuple, final

from aioidempotency._attributes import LARGEST_ITEM
from aioidempotency._cli.failure import CommandError
from aioidempotency._core import model
from aioidempotency._core.model import AttributeNames, SerializedResult
from aioidempotency._core.protocol import Claim, first_put
from aioidempotency._keys import digest, record_key
from aioidempotency.partitioning import CompositeKey, HashBuckets, Static, Terms

LIMIT: Final = 3_000
"""Parts of a second of one partition."""

NEW_TABLE: Final = 4
"""Partitions of a new on-demand table: it takes 4,000 write units a second."""

MOST_BUCKETS: Final = 65_536


class Units(NamedTuple):
    """Write units and read units."""

    write: int
    read: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The calls of one busy second, in the terms of the command's options."""

    calls_per_second: float
    result_bytes: int
    duplicates: float = 0.0
    namespace_bytes: int = 30
    fingerprint: bool = False
    read_first: bool = False
    locations: int = 1

    def sizes(self) -> tuple[int, int]:
        """Measure the items of a running and of a finished record, in the bucket with the longest name."""
        layout = CompositeKey(partitioning=Static(f"{HashBuckets(1).prefix}#{MOST_BUCKETS - 1}"))
        key, terms = record_key("key", "", "n" * self.namespace_bytes), Terms()
        claim = Claim(
            route=layout.route(layout.table("plan", AttributeNames()), key),
            owner="0" * 32,
            now=1_800_000_000.25,  # all instants of the years 2001 to 2286 make records of one size
            lease=terms.lease,
            retention=terms.retention,
            clock_skew=terms.clock_skew,
            fingerprint=digest("payload") if self.fingerprint else None,
            label="0" * 24,  # the usual length of a host's name and a process id
        )
        lease = first_put(claim)[0]
        finished = model.finished(lease, SerializedResult("0" * self.result_bytes), expiration=lease.expiration)
        return model.size(model.running(lease)), model.size(finished)

    def calls(self) -> list[tuple[float, Units]]:
        """Count the fresh calls and the duplicates of a second, with the units of each in all locations together.

        A write takes one unit for each KB of the item; a refused one as many as the item that refused it. A
        consistent read takes one for each 4 KB, and one where there is no item. In a transaction a write takes
        twice as many, and the check of another location counts as a write.
        """
        running, finished = self.sizes()
        factor, others = 1 if self.locations == 1 else 2, self.locations - 1
        claim, completion = factor * (ceil(running / 1024) + others), ceil(finished / 1024)
        fresh = Units(claim + completion, self.locations * self.read_first)
        refused = Units(factor * (ceil(finished / 1024) + others), 0)
        found = Units(0, ceil(finished / 4096) + others)
        repeated = self.calls_per_second * self.duplicates
        return [(self.calls_per_second - repeated, fresh), (repeated, found if self.read_first else refused)]

    def hottest(self, buckets: int, partitions: int, probability: float) -> float:
        """Bound the load of the hottest partition in a second, with this probability; 1 is its limit."""
        # All units of a call count in one second and one bucket, the worst that they can do.
        arrivals = [(rate, 3 * units.write + units.read) for rate, units in self.calls()]

        def bound(log_t: float) -> float:
            t = exp(log_t)
            bucket = sum(rate * expm1(t * parts) for rate, parts in arrivals) / buckets
            # Each bucket is on the partition with the probability 1 / partitions. So K(t) has for each the term
            # log(1 + (exp(bucket) - 1) / partitions), which overflows unless it is written in another way.
            k = buckets * (bucket + log1p((1 - 1 / partitions) * expm1(-bucket)))
            return (k + log(partitions / (1 - probability))) / t / LIMIT

        low, high = -20.0, log(30 / max(parts for _, parts in arrivals))
        for _ in range(70):  # the bound falls to its smallest value, and rises from there
            left, right = low + (high - low) / 3, high - (high - low) / 3
            low, high = (low, right) if bound(left) < bound(right) else (left, high)
        return bound(low)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many buckets to take, and what the load costs.

    Attributes:
        hottest: The load of the hottest partition for each number of buckets, 1 for its limit.
        cost: Dollars for the requests of a month of 730 hours.
    """

    load: Load
    probability: float
    partitions: int
    buckets: int
    hottest: dict[int, float]
    write_units: float
    read_units: float
    fresh: Units
    duplicate: Units
    running_bytes: int
    finished_bytes: int
    cost: float

    @property
    def strategy(self) -> str:
        """What to take, in words."""
        return f"HashBuckets({self.buckets})" if self.load.locations == 1 else f"{self.buckets:,} buckets"


def make_plan(
    load: Load,
    *,
    probability: float = 0.99,
    partitions: int | None = None,
    write_price: float = 0.625,
    read_price: float = 0.125,
) -> Plan:
    """Plan for a load. Prices are dollars for a million units.

    Without `partitions`, the table has those of a new one, or enough for twice the load: an on-demand table
    takes up to twice its last peak.

    Raises:
        CommandError: A record does not fit into an item, or no number of buckets is enough.
    """
    running, finished = load.sizes()
    if finished > LARGEST_ITEM:
        raise CommandError(
            f"--result-bytes {load.result_bytes} does not fit into an item of DynamoDB: give up to "
            f"{load.result_bytes - (finished - LARGEST_ITEM)}, and store a reference to a larger result"
        )
    write_units = sum(rate * units.write for rate, units in load.calls())
    read_units = sum(rate * units.read for rate, units in load.calls())
    partitions = partitions or max(NEW_TABLE, ceil(2 * (3 * write_units + read_units) / LIMIT))
    hottest = {1 << n: load.hottest(1 << n, partitions, probability) for n in range(MOST_BUCKETS.bit_length())}
    enough = [buckets for buckets, share in hottest.items() if share <= 1]
    if not enough:
        raise CommandError(
            f"no number of buckets is enough for this load on {partitions:,} partitions: warm the table up and give more "
            "--partitions, spread the calls over several tables, or use a table without a sort key, which needs none"
        )
    return Plan(
        load=load,
        probability=probability,
        partitions=partitions,
        buckets=enough[0],
        hottest={buckets: hottest[buckets] for buckets in hottest if enough[0] / 64 <= buckets <= enough[0] * 2},
        write_units=write_units,
        read_units=read_units,
        fresh=load.calls()[0][1],
        duplicate=load.calls()[1][1],
        running_bytes=running,
        finished_bytes=finished,
        cost=(write_units * write_price + read_units * read_price) * 730 * 3600 / 1e6,
    )
