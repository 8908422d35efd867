"""How likely it is that a load of random size passes a limit, computed and not sampled.

Calls that arrive independently of each other make a Poisson number a second, and each brings its
parts of a partition's limit at once: the load of a second is a compound Poisson sum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, fsum, gcd, lgamma, log, log1p, sqrt
from typing import Final, final

NEGLIGIBLE: Final = 1e-15
"""A probability that is taken for 0: what is left of 1 after the rounding of a sum close to 1."""

_LARGE: Final = 1e200
_SPREAD: Final = 10
"""Standard deviations, and steps on top of them, outside which a count is not looked at."""


@final
@dataclass(frozen=True, slots=True)
class Stream:
    """Events that arrive `rate` times a second on average, independently, and take `parts` of a limit each."""

    rate: float
    parts: int


def mean(streams: Sequence[Stream]) -> float:
    """Add up the average load, in parts a second."""
    return fsum(stream.rate * stream.parts for stream in streams)


def share(streams: Sequence[Stream], fraction: float) -> list[Stream]:
    """Take the fraction of the streams that random routing leads to one place: again Poisson, and independent."""
    return [Stream(stream.rate * fraction, stream.parts) for stream in streams]


def passing(streams: Sequence[Stream], limit: int) -> float:
    """Compute the probability that a second's load is above the limit, to within 1e-12."""
    busy = [stream for stream in streams if stream.rate > 0]
    average = mean(busy)
    spread = sqrt(fsum(stream.rate * stream.parts**2 for stream in busy))
    if _surely_passes(average, spread, limit):
        return 1.0
    if not busy or _surely_fits(average, spread, max(stream.parts for stream in busy), limit):
        return 0.0
    return max(0.0, 1.0 - _fitting(busy, limit))


def binomial(trials: int, chance: float) -> Iterator[tuple[int, float]]:
    """Yield the counts of successes that can be expected, the largest first, and their probabilities."""
    if chance == 1:
        yield trials, 1.0
        return
    centre, reach = trials * chance, _SPREAD * (sqrt(trials * chance * (1 - chance)) + 2)
    for successes in range(min(trials, ceil(centre + reach)), max(0, floor(centre - reach)) - 1, -1):
        ways = lgamma(trials + 1) - lgamma(successes + 1) - lgamma(trials - successes + 1)
        yield successes, exp(ways + successes * log(chance) + (trials - successes) * log1p(-chance))


def poisson(rate: float) -> Iterator[tuple[int, float]]:
    """Yield the counts of events that can be expected, the smallest first, and their probabilities."""
    reach = _SPREAD * (sqrt(rate) + 2)
    for events in range(max(0, floor(rate - reach)), ceil(rate + reach)):
        yield events, exp(events * log(rate) - rate - lgamma(events + 1)) if rate else float(events == 0)


def _surely_passes(average: float, spread: float, limit: int) -> bool:
    """Use that the lower tail of a sum of positive parts is no heavier than a normal one's bound."""
    return average > limit and exp(-((average - limit) ** 2) / (2 * spread**2)) < NEGLIGIBLE


def _surely_fits(average: float, spread: float, largest: int, limit: int) -> bool:
    """Use Bennett's bound of the upper tail."""
    if average >= limit:
        return False
    ratio = largest * (limit - average) / spread**2
    return exp(-((spread / largest) ** 2) * ((1 + ratio) * log1p(ratio) - ratio)) < NEGLIGIBLE


def _fitting(streams: Sequence[Stream], limit: int) -> float:
    """Add up the probabilities of all loads up to the limit, by Panjer's recursion.

    It starts at 1 and not at the probability of an empty second, which may be too small for a
    float; what is missing is kept as a logarithm.
    """
    step = gcd(*(stream.parts for stream in streams))
    jumps = [(stream.parts // step, stream.rate * (stream.parts // step)) for stream in streams]
    missing = -fsum(stream.rate for stream in streams)
    weights = [0.0] * max(jump for jump, _ in jumps) + [1.0]  # the zeros are loads below 0
    for load in range(1, limit // step + 1):
        weight = 0.0
        for jump, push in jumps:
            weight += push * weights[-jump]
        weights.append(weight / load)
        if weight > _LARGE:
            weights = [each / _LARGE for each in weights]
            missing += log(_LARGE)
    return fsum(weights) * exp(missing)
