"""A live move from one strategy to another.

Nodes of two neighbouring phases exclude each other, because every claim of either phase covers the locations of both
strategies in one transaction. The simulation finds a second execution as soon as a move skips a phase.
"""

from dataclasses import dataclass, replace
from typing import Literal, final

from aioidempotency.exceptions import PartitioningError
from aioidempotency.partitioning.strategy import MOST_LOCATIONS, Partitioning, Settled, Terms
from aioidempotency.partitioning.windows import confusable

Phase = Literal["prepare", "cutover"]


@final
@dataclass(frozen=True, slots=True)
class Reshard:
    """Moves live records from `old` to `new` during rolling deployments, without a second execution of a key.

    ```python
    from aioidempotency import AsyncIdempotencyStore, CompositeKey, HashBuckets, Reshard

    move = Reshard(HashBuckets(32), HashBuckets(128), "prepare")  # then "cutover", then HashBuckets(128) alone
    store = AsyncIdempotencyStore("idempotency", layout=CompositeKey(partitioning=move))
    ```

    Deploy `Reshard(old, new, "prepare")` to all nodes, then `Reshard(old, new, "cutover")` to all nodes. Wait for
    the longest retention of any call, and deploy `new`. The table knows that retention, and refuses `new` until then.
    New records follow `old`, and from the cutover on `new`. Each claim looks at the locations of both strategies, in
    one transaction. So nodes of neighbouring phases exclude each other. Nodes of distant phases do not; the table's
    layout item makes a store refuse such a phase.

    Raises:
        PartitioningError: The phase is unknown, or the strategies cannot be moved between.
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
            if not isinstance(each, Settled):
                raise PartitioningError(
                    f"Reshard takes two strategies, such as HashBuckets(32) and HashBuckets(128): {each!r} is no strategy"
                )
        if self.old == self.new:
            raise PartitioningError("Reshard moves from one strategy to another, and both are the same; use it alone")
        if confusable(self.old, self.new):
            raise PartitioningError(
                "Reshard moves between windows of two lengths with the same names, so nobody could tell when a window "
                "ends: give one of the two a prefix= of its own"
            )

    @property
    def answer_within(self) -> float:
        """The shorter of the two."""
        return min(self.old.answer_within, self.new.answer_within)

    @property
    def most_locations(self) -> int:
        """The locations of both strategies."""
        return self.old.most_locations + self.new.most_locations

    @property
    def longest_retention(self) -> float:
        """The shorter of the two."""
        return min(self.old.longest_retention, self.new.longest_retention)

    def home(self, key: str, now: float) -> str:
        """Name the partition by the old strategy, and from the cutover on by the new strategy."""
        return (self.old if self.phase == "prepare" else self.new).home(key, now)

    def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
        """Name all other partitions of both strategies."""
        both = (self.old, self.new) if self.phase == "prepare" else (self.new, self.old)
        # Without duplicates, because DynamoDB refuses two actions on one item. With one partition for both
        # strategies, a claim stays a plain write.
        partitions = dict.fromkeys(
            partition for each in both for partition in (each.home(key, now), *each.elsewhere(key, now))
        )
        home = self.home(key, now)
        return tuple(partition for partition in partitions if partition != home)

    def searched_until(self, partition: str) -> float:
        """The earlier of the two: nodes of the outer phases must look there, too."""
        return min(self.old.searched_until(partition), self.new.searched_until(partition))

    def partitions(self, now: float) -> tuple[str, ...] | None:
        """Name all partitions of both strategies."""
        old, new = self.old.partitions(now), self.new.partitions(now)
        return None if old is None or new is None else tuple(dict.fromkeys((*old, *new)))

    def description(self) -> dict[str, object]:
        """Describe the strategy in JSON."""
        old, new = self.old.description(), self.new.description()
        return {"strategy": "Reshard", "old": old, "new": new, "phase": self.phase}

    def bound(self, terms: Terms) -> "Reshard":
        """Apply a store's settings to both strategies.

        Raises:
            PartitioningError: One strategy does not work with the settings, or there are too many locations.
        """
        # Checked at the store's construction, because the number of windows depends on the store's retention.
        made = replace(self, old=self.old.bound(terms), new=self.new.bound(terms))
        if made.most_locations > MOST_LOCATIONS:
            raise PartitioningError(
                f"Reshard has to look at {made.most_locations} locations, and one transaction takes {MOST_LOCATIONS}: "
                "move in two steps, by way of HashBuckets"
            )
        return made
