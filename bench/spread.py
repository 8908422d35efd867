"""A figure over the rounds of a benchmark, and percentiles inside one."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of the rounds, the least and the most; in a file a list of these three."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Put the values of the rounds together."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Sequence[float], share: float) -> float:
    """Find the smallest of the values that so many of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]
