"""What the plan is for: the calls of one busy second, and how large their records are."""

import math
from dataclasses import dataclass
from typing import Final, final

from aioidempotency._attributes import LARGEST_ITEM
from aioidempotency._core import model
from aioidempotency._core.model import AttributeNames, Lease, SerializedResult
from aioidempotency._core.protocol import Claim, first_put
from aioidempotency._keys import LONGEST_NAMESPACE, digest, record_key
from aioidempotency.partitioning import CompositeKey, HashBuckets, Static, Terms
from aioidempotency.partitioning.strategy import MOST_LOCATIONS

MOST_BUCKETS: Final = 10_000
"""How many buckets a plan goes up to."""

_NOW: Final = 1_800_000_000.25
"""Epoch seconds; all instants of the years 2001 to 2286 make records of one size."""


class PlanError(Exception):
    """There is no plan for what was asked; the message names the option and the remedy."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """The calls of one busy second.

    Attributes:
        calls_per_second: All calls, duplicates among them.
        duplicates: The share of duplicates among all calls, 0 to 1.
        result_bytes: A result as it is stored: its JSON, compressed where the store compresses it.
        namespace_bytes: The part of the key before its digest.
        fingerprint: Whether records have one.
        read_first: Whether the store reads before it claims.
        places: In how many places a record may be.

    Raises:
        PlanError: A number is out of bounds, or the record would be larger than an item may be.
    """

    calls_per_second: float
    duplicates: float = 0.0
    result_bytes: int
    namespace_bytes: int = 30
    fingerprint: bool = False
    read_first: bool = False
    places: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.calls_per_second) and self.calls_per_second > 0):
            raise PlanError(f"--calls-per-second takes a number above 0: not {self.calls_per_second:g}")
        if not 0 <= self.duplicates <= 1:
            raise PlanError(f"--duplicates takes a share of all calls, 0 to 1: not {self.duplicates:g}; 0.2 means 20 %")
        check_bounds("--result-bytes", self.result_bytes, least=0)
        check_bounds("--namespace-bytes", self.namespace_bytes, least=1, most=LONGEST_NAMESPACE)
        check_bounds("--places", self.places, least=1, most=MOST_LOCATIONS)
        if self.finished_bytes > LARGEST_ITEM:
            most = self.result_bytes - (self.finished_bytes - LARGEST_ITEM)
            raise PlanError(
                f"--result-bytes takes {most} at the most: not {self.result_bytes}, since the item would be larger than "
                f"the {LARGEST_ITEM} bytes that DynamoDB takes; store a reference to the result"
            )

    @property
    def fresh(self) -> float:
        """Fresh calls a second."""
        return self.calls_per_second - self.duplicated

    @property
    def duplicated(self) -> float:
        """Duplicates a second."""
        return self.calls_per_second * self.duplicates

    @property
    def running_bytes(self) -> int:
        """The size of the item that a claim writes."""
        return model.size(model.running(self._lease()))

    @property
    def finished_bytes(self) -> int:
        """The size of the item that a completion leaves, by DynamoDB's rules."""
        lease, result = self._lease(), SerializedResult("0" * self.result_bytes)
        return model.size(model.finished(lease, result, expiration=lease.expiration))

    def _lease(self) -> Lease:
        """Claim a key as a store would, in the bucket with the longest name."""
        layout = CompositeKey(partitioning=Static(f"{HashBuckets(1).prefix}#{MOST_BUCKETS - 1}"))
        route = layout.route(layout.table("plan", AttributeNames()), record_key("key", "", "n" * self.namespace_bytes))
        terms = Terms()
        attempt = Claim(
            route=route,
            owner="0" * 32,
            now=_NOW,
            lease=terms.lease,
            retention=terms.retention,
            clock_skew=terms.clock_skew,
            fingerprint=digest("payload") if self.fingerprint else None,
        )
        return first_put(attempt)[0]


def check_bounds(option: str, value: float, *, least: float, most: float = math.inf) -> None:
    """Refuse a number out of its bounds.

    Raises:
        PlanError: It is.
    """
    if not least <= value <= most:
        bounds = f"{least} or more" if most == math.inf else f"{least} to {most}"
        raise PlanError(f"{option} takes {bounds}: not {value}")
