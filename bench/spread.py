"""A figure over the rounds of a benchmark."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, and how far they lie apart."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Put the values of the rounds together."""
    return Spread(statistics.median(values), min(values), max(values))
