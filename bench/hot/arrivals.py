"""When calls begin, and with which keys: drawn beforehand, so that all placements get the same.

A schedule is an open loop: a call begins at its time, whatever became of the earlier ones.
"""

import random
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import final

DUPLICATES = 0.5
"""Share of the skewed stream's calls that repeat a key."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One call: seconds after the start, and its key."""

    at: float
    key: str


def schedule(stream: str, offered: int, seconds: int, seed: str) -> list[Arrival]:
    """Draw `offered` calls for each second, at independent instants of it.

    In the "uniform" stream every key is new. In the "skewed" one every second call on average repeats
    an earlier key, and the k-th key of all is drawn with a probability proportional to 1 / k.
    """
    dice = random.Random(f"{seed} {stream} {offered}")  # noqa: S311 - a schedule, no secret
    instants = sorted(second + dice.random() for second in range(seconds) for _ in range(offered))
    numbers = _repeating(dice, len(instants)) if stream == "skewed" else iter(range(len(instants)))
    return [Arrival(at=at, key=f"{seed}-{number}") for at, number in zip(instants, numbers, strict=True)]


def _repeating(dice: random.Random, count: int) -> Iterator[int]:
    """Number keys by their first calls; the earlier a key came, the more often it comes again."""
    weights = list(accumulate(1 / rank for rank in range(1, count + 1)))
    known = 0
    for _ in range(count):
        if known and dice.random() < DUPLICATES:
            yield bisect_left(weights, dice.uniform(0, weights[known - 1]))
        else:
            yield known
            known += 1
