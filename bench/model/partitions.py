"""The partitions of a table, and the limit of each: what makes a hot partition hot.

A table's space is (hash of the partition value, partition value, sort value), as bytes that compare in
that order; a partition is a range of it. Time comes in as an argument, in seconds.

Each partition has two buckets, for write and for read units. A request that needs a partition which
lacks units is refused as a whole, and takes nothing from the others.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, final

from bench.model.limits import READ_UNITS, WRITE_UNITS, Bucket, Limits, bucket

_REMEMBERED: Final = 1000
"""Requests that a split looks back on: about a second of one partition's traffic."""

_PAUSE: Final = 1.0
"""Seconds without a refusal after which a partition is no longer saturated."""

Point = bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a request needs at one point of a table."""

    table: "Partitions"
    point: Point
    writes: float = 0.0
    reads: float = 0.0


@final
@dataclass(slots=True)
class Counts:
    """What happened in a partition since the last reset."""

    consumed_writes: float = 0.0
    consumed_reads: float = 0.0
    throttled_writes: int = 0
    throttled_reads: int = 0


@final
@dataclass(slots=True, eq=False)
class Partition:
    """One range of a table's space, from its start to the start of the next one."""

    start: Point
    writes: Bucket
    reads: Bucket
    counts: Counts = field(default_factory=Counts)
    recent: deque[Point] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    saturated_since: float | None = None
    refused_at: float = 0.0

    def lacks(self, writes: float, reads: float, now: float) -> bool:
        """Tell whether one of its buckets cannot give this."""
        lacks_writes = bool(writes) and not self.writes.has(writes, now)
        return (bool(reads) and not self.reads.has(reads, now)) or lacks_writes

    def charge(self, writes: float, reads: float) -> None:
        """Take what was found to be there."""
        self.counts.consumed_writes += writes
        self.counts.consumed_reads += reads
        self.writes.take(writes)
        self.reads.take(reads)

    def refuse(self, demand: Demand, now: float) -> None:
        """Count a refusal, and how long they have been coming."""
        self.counts.throttled_writes += demand.writes > 0
        self.counts.throttled_reads += demand.reads > 0
        if self.saturated_since is None or now - self.refused_at > _PAUSE:
            self.saturated_since = now
        self.refused_at = now

    def halving_point(self) -> Point | None:
        """Find the point that halves the recent traffic; None where all of it goes to one item."""
        ordered = sorted(self.recent)
        half = len(ordered) // 2
        places = (bisect_left(ordered, ordered[half]), bisect_right(ordered, ordered[half]))
        found = min((each for each in places if 0 < each < len(ordered)), key=lambda each: abs(each - half), default=0)
        return ordered[found] if found else None


@final
class Partitions:
    """All partitions of one table; without limits there is one, and it only counts."""

    def __init__(self, limits: Limits | None, now: float) -> None:
        self._split_after = limits.split_after if limits else None
        self.splits = 0
        self.past = Counts()
        """What was counted in partitions that have been split since."""
        size = limits.partitions if limits else 1
        self._starts = [b"", *((number * 2**64 // size).to_bytes(8) for number in range(1, size))]
        self._partitions = [
            Partition(start, bucket(WRITE_UNITS, limits, now), bucket(READ_UNITS, limits, now))
            for start in self._starts
        ]

    def at(self, point: Point) -> Partition:
        """Find the partition that a point is in."""
        found = self._partitions[bisect_right(self._starts, point) - 1]
        if self._split_after is not None:
            found.recent.append(point)
        return found

    def start_of(self, point: Point) -> Point:
        """Find where the partition of a point starts."""
        return self._starts[bisect_right(self._starts, point) - 1]

    def split_if_due(self, partition: Partition, now: float) -> None:
        """Split a partition that has been saturated for long enough."""
        since = partition.saturated_since
        if self._split_after is None or since is None or now - since < self._split_after:
            return
        # Where one item has all the traffic no split helps: ask again later.
        partition.saturated_since = now
        point = partition.halving_point()
        if point is not None:
            self._split(partition, point)

    def _split(self, partition: Partition, point: Point) -> None:
        index = self._partitions.index(partition)
        starts = (partition.start, point)
        halves = [Partition(start, partition.writes.twin(), partition.reads.twin()) for start in starts]
        self._partitions[index : index + 1] = halves
        self._starts.insert(index + 1, point)
        _add(self.past, partition.counts)
        self.splits += 1

    def reset(self) -> None:
        """Forget what was counted; partitions and buckets stay as they are."""
        self.past, self.splits = Counts(), 0
        for each in self._partitions:
            each.counts = Counts()

    def report(self, points: Sequence[Point]) -> list[tuple[Partition, int]]:
        """Give each partition with the number of its items; `points` are those of all items, in order."""
        bounds = [bisect_left(points, start) for start in self._starts]
        return list(
            zip(self._partitions, (after - before for before, after in _pairs(bounds, len(points))), strict=True)
        )


def admit(demands: Sequence[Demand], now: float) -> Sequence[int]:
    """Charge all demands, or none: then the indexes of those whose partition lacks units are returned."""
    places = [demand.table.at(demand.point) for demand in demands]
    needs: dict[Partition, tuple[float, float]] = {}
    for demand, partition in zip(demands, places, strict=True):
        writes, reads = needs.get(partition, (0.0, 0.0))
        needs[partition] = writes + demand.writes, reads + demand.reads
    busy = {each for each, (writes, reads) in needs.items() if each.lacks(writes, reads, now)}
    if busy:
        return _refuse(demands, places, busy, now)
    for each, (writes, reads) in needs.items():
        each.charge(writes, reads)
    return ()


def _refuse(demands: Sequence[Demand], places: Sequence[Partition], busy: set[Partition], now: float) -> Sequence[int]:
    refused = [index for index, partition in enumerate(places) if partition in busy]
    for index in refused:
        places[index].refuse(demands[index], now)
    tables = {places[index]: demands[index].table for index in refused}
    for partition, table in tables.items():
        table.split_if_due(partition, now)
    return refused


def _pairs(bounds: Sequence[int], end: int) -> list[tuple[int, int]]:
    return list(zip(bounds, [*bounds[1:], end], strict=True))


def _add(total: Counts, more: Counts) -> None:
    total.consumed_writes += more.consumed_writes
    total.consumed_reads += more.consumed_reads
    total.throttled_writes += more.throttled_writes
    total.throttled_reads += more.throttled_reads
