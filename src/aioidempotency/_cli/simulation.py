"""Seconds of a table before it has split, drawn by chance: the check of what `capacity` computes."""

from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import final

from aioidempotency._cli.tails import Stream, poisson


def hottest_loads(
    streams: Sequence[Stream], *, buckets: int, partitions: int, seconds: int, chance: Random
) -> list[int]:
    """Draw the load of the hottest partition, in parts, in so many seconds.

    Each second has a table of its own: its buckets are thrown over the partitions, and then the requests
    of every partition are drawn, stream by stream.
    """
    loads = [_Load(stream, buckets, chance) for stream in streams if stream.rate > 0]
    thrown = (Counter(chance.choices(range(partitions), k=buckets)) for _ in range(seconds))
    return [max(sum(load.draw(held) for load in loads) for held in each.values()) for each in thrown]


@final
class _Load:
    """The load that one stream brings to a partition in a second, drawn from a table for each number of buckets."""

    def __init__(self, stream: Stream, buckets: int, chance: Random) -> None:
        self._stream, self._buckets, self._chance = stream, buckets, chance
        self._tables: dict[int, tuple[int, list[float]]] = {}

    def draw(self, held: int) -> int:
        """Draw for a partition that holds so many buckets."""
        if held not in self._tables:
            counts, probabilities = zip(*poisson(self._stream.rate * held / self._buckets), strict=True)
            self._tables[held] = counts[0], list(accumulate(probabilities))
        fewest, cumulated = self._tables[held]
        return self._stream.parts * (fewest + bisect(cumulated, self._chance.random(), hi=len(cumulated) - 1))
