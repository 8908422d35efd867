"""A live move from one strategy to another."""

from dataclasses import dataclass, replace
from typing import Literal, final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import MOST_LOCATIONS, Partitioning, Terms
from aioidempotency.partitioning.windows import confusable

Phase = Literal["prepare", "cutover"]


@final
@dataclass(frozen=True, slots=True)
class Reshard:
    """Moves live records from `old` to `new` in rolling deployments, without running a key twice.

    Deploy `Reshard(old, new, "prepare")` to all nodes, then `Reshard(old, new, "cutover")` to all, wait
    for one retention, and deploy `new`. New records are put where `old` says, from the cutover on where
    `new` says; each claim looks at the locations of both, in one transaction. So nodes of two neighbouring
    phases exclude each other; those that are further apart do not, and are refused where the table
    knows its layout.
    """

    old: Partitioning
    new: Partitioning
    phase: Phase = "prepare"

    def __post_init__(self) -> None:
        if self.phase not in ("prepare", "cutover"):
            raise PartitioningError(f"Reshard has the phases 'prepare' and 'cutover': not {self.phase!r}")
        for each in (self.old, self.new):
            if isinstance(each, Reshard):
                raise PartitioningError(
                    "Reshard moves from one strategy to one other; finish one move, then begin another"
                )
        if self.old == self.new:
            raise PartitioningError("Reshard moves from one strategy to another, and both are the same; use it alone")
        if confusable(self.old, self.new):
            raise PartitioningError(
                "Reshard moves between windows of two lengths that have the same names, so nobody could tell when one "
                "ends: give one of them a prefix= of its own"
            )

    @property
    def answer_within(self) -> float:
        """The shorter one of both."""
        return min(self.old.answer_within, self.new.answer_within)

    @property
    def most_locations(self) -> int:
        """Those of both together."""
        return self.old.most_locations + self.new.most_locations

    @property
    def longest_retention(self) -> float:
        """The shorter one of both."""
        return min(self.old.longest_retention, self.new.longest_retention)

    def home(self, key: str, now: float) -> str:
        """Answer as the old strategy does, from the cutover on as the new one does."""
        return (self.old if self.phase == "prepare" else self.new).home(key, now)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Answer with all other partitions of both."""
        both = (self.old, self.new) if self.phase == "prepare" else (self.new, self.old)
        partitions = dict.fromkeys(
            partition for each in both for partition in (each.home(key, now), *each.elsewhere(key, now))
        )
        home = self.home(key, now)
        return tuple(partition for partition in partitions if partition != home)

    def searched_until(self, partition: str) -> float:
        """The earlier one of both, so that nodes of the outer phases still look there."""
        return min(self.old.searched_until(partition), self.new.searched_until(partition))

    def partitions(self, now: float) -> tuple[str, ...] | None:
        """Answer with all partitions of both."""
        old, new = self.old.partitions(now), self.new.partitions(now)
        return None if old is None or new is None else tuple(dict.fromkeys((*old, *new)))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON's terms."""
        old, new = self.old.description(), self.new.description()
        return {"strategy": "Reshard", "old": old, "new": new, "phase": self.phase}

    def bound(self, terms: Terms) -> "Reshard":
        """Take a store's settings in, for both.

        Raises:
            PartitioningError: One of them does not take the settings, or there are too many locations.
        """
        made = replace(self, old=self.old.bound(terms), new=self.new.bound(terms))
        if made.most_locations > MOST_LOCATIONS:
            raise PartitioningError(
                f"Reshard has to look at {made.most_locations} locations, and one transaction takes {MOST_LOCATIONS}: "
                "move in two steps, by way of HashBuckets"
            )
        return made
