"""What calls cost: the units of a fresh call and of a duplicate, by the sizes of their records.

The rules are those of DynamoDB's developer guide. A write takes one unit for each KB of the item, and an
update for what the item is afterwards; a refused write takes as many as the item that it met asks for.
A strongly consistent read takes one for each 4 KB, and one where there is no item. In a transaction a
write takes twice as many, and so does the check of an item, which counts as a write.
"""

from dataclasses import dataclass
from math import ceil
from typing import Final, final

from aioidempotency._cli.tails import Stream
from aioidempotency._cli.workload import Workload

PARTS: Final = 3_000
"""Parts of a second that one partition takes: 1,000 write units of 3 parts, or 3,000 read units of 1.

Amazon's pages say that reads and writes are limited apart, and elsewhere that a partition takes a linear
combination of both. This is the latter, which is the stricter one.
"""

MONTH: Final = 730 * 3600
"""Seconds in a month, as Amazon's own calculator has it."""

_WRITE_PARTS: Final = 3
_WRITE_BYTES: Final = 1024
_READ_BYTES: Final = 4096


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """What one call takes in one place: write units and read units."""

    write: int = 0
    read: int = 0

    @property
    def parts(self) -> int:
        """The same in parts of a partition's second."""
        return _WRITE_PARTS * self.write + self.read


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What the calls of a workload take.

    Attributes:
        fresh: What a fresh call takes in its record's own place.
        duplicate: What a duplicate takes in the place where it finds the record.
        fresh_elsewhere: What a fresh call takes in each other place.
        duplicate_elsewhere: What a duplicate takes in each other place.
    """

    workload: Workload
    fresh: Units
    duplicate: Units
    fresh_elsewhere: Units
    duplicate_elsewhere: Units

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All requests, as parts. All units of a call in one place arrive together, the worst that they can do."""
        work, others = self.workload, self.workload.places - 1
        return (
            Stream(work.fresh, self.fresh.parts),
            Stream(work.duplicated, self.duplicate.parts),
            Stream(work.fresh * others, self.fresh_elsewhere.parts),
            Stream(work.duplicated * others, self.duplicate_elsewhere.parts),
        )

    @property
    def write_units(self) -> float:
        """Write units a second."""
        work = self.workload
        return work.fresh * self.per_fresh.write + work.duplicated * self.per_duplicate.write

    @property
    def read_units(self) -> float:
        """Read units a second."""
        work = self.workload
        return work.fresh * self.per_fresh.read + work.duplicated * self.per_duplicate.read

    @property
    def per_fresh(self) -> Units:
        """What a fresh call takes in all places."""
        return _sum(self.fresh, self.fresh_elsewhere, self.workload.places - 1)

    @property
    def per_duplicate(self) -> Units:
        """What a duplicate takes in all places."""
        return _sum(self.duplicate, self.duplicate_elsewhere, self.workload.places - 1)


def bill(workload: Workload) -> Bill:
    """Count the units of each kind of call."""
    factor = 1 if workload.places == 1 else 2
    look = 1 if workload.read_first else 0
    running, finished = (ceil(size / _WRITE_BYTES) for size in (workload.running_bytes, workload.finished_bytes))
    found = Units(read=ceil(workload.finished_bytes / _READ_BYTES))
    return Bill(
        workload=workload,
        fresh=Units(write=factor * running + finished, read=look),
        duplicate=found if look else Units(write=factor * finished),
        fresh_elsewhere=Units(write=factor, read=look),
        duplicate_elsewhere=Units(read=1) if look else Units(write=factor),
    )


def _sum(home: Units, elsewhere: Units, others: int) -> Units:
    return Units(write=home.write + others * elsewhere.write, read=home.read + others * elsewhere.read)
