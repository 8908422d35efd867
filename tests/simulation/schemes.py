"""How the records of a run lie: in one location, in one of several, in windows of time; or moved meanwhile."""

import random
import re
from dataclasses import dataclass
from typing import final

from aioidempotency import CompositeKey, HashBuckets, RandomBuckets, Reshard, SimpleKey, Static, TimeBuckets
from aioidempotency.partitioning import KeySchema, Partitioning

CLOCK_SKEW = 0.2

OLD, PREPARE, CUTOVER, NEW = range(4)

FORWARD = ((OLD, PREPARE, CUTOVER, NEW), (PREPARE, CUTOVER, NEW), (OLD, PREPARE, CUTOVER), (CUTOVER, NEW))
ASTRAY = (
    (PREPARE, CUTOVER, PREPARE, CUTOVER, NEW),
    (OLD, PREPARE, OLD, PREPARE, CUTOVER),
    (PREPARE, CUTOVER, PREPARE, OLD),
    (CUTOVER, NEW, CUTOVER, PREPARE),
)
"""Moves with a way back. The table's word is not taken back by itself, so nobody asks it there."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How records lie in one run.

    Attributes:
        name: What it is counted as.
        layouts: The one layout; or those of the four phases of a move.
        phases: Which of them the processes of each stage have.
        verified: Whether stores hold their layout against the table's.
        window: Seconds of one window, where there are windows: claims are not relied upon for longer than
            the library says then.
    """

    name: str
    layouts: tuple[KeySchema, ...] = (SimpleKey(),)
    phases: tuple[int, ...] = (0,)
    verified: bool = False
    window: float | None = None

    def searched_until(self, partition: str, reach: float) -> float:
        """Epoch seconds until which every claim looks into a partition: until records that live as long have expired."""
        found = re.fullmatch(r"window#(\d+)#\d+", partition)
        if found is None or self.window is None:
            return float("inf")
        return (int(found[1]) + 1) * self.window + reach - 1


def reach(retention: float, lease: float) -> float:
    """How many seconds back claims look."""
    return max(retention, lease + CLOCK_SKEW + 1)


def draw(dice: random.Random, lease: float) -> Scheme:
    """Draw a scheme; one location is the most frequent."""
    match dice.choices(("one location", "random buckets", "windows", "a move"), (52, 10, 19, 19))[0]:
        case "random buckets":
            buckets = dice.choice((2, 3))
            return _settled(dice, "random buckets", RandomBuckets(buckets, choices=dice.choice((2, buckets))))
        case "windows":
            window = round(dice.uniform(0.6, 3.0) * lease, 1)
            return _settled(dice, "windows", _windows(dice, window), window=window)
        case "a move":
            return _move(dice, lease)
        case _:
            return Scheme(name="one location")


def _settled(dice: random.Random, name: str, strategy: Partitioning, *, window: float | None = None) -> Scheme:
    layout = CompositeKey(partitioning=strategy)
    return Scheme(name=name, layouts=(layout,), verified=dice.random() < 0.6, window=window)


def _windows(dice: random.Random, window: float) -> TimeBuckets:
    return TimeBuckets(window=window, buckets=dice.choice((1, 3)), prefix="window")


def _move(dice: random.Random, lease: float) -> Scheme:
    """Draw a move of live records; in one of five, one of both strategies has windows."""
    window = round(dice.uniform(0.8, 3.0) * lease, 1) if dice.random() < 0.2 else None
    old: Partitioning = dice.choice((Static("all"), HashBuckets(2), RandomBuckets(2)))
    new: Partitioning = dice.choice((HashBuckets(3), HashBuckets(5), HashBuckets(4, prefix="other")))
    if window is not None:
        old, new = dice.choice(((old, _windows(dice, window)), (_windows(dice, window), new)))
    strategies = (old, Reshard(old, new, phase="prepare"), Reshard(old, new, phase="cutover"), new)
    astray = dice.random() < 0.25
    return Scheme(
        name="a move astray" if astray else "a move",
        layouts=tuple(CompositeKey(partitioning=each) for each in strategies),
        phases=dice.choice(ASTRAY if astray else FORWARD),
        verified=not astray and dice.random() < 0.7,
        window=window,
    )


def puts_elsewhere(phase: int, other: int) -> bool:
    """Whether records of another phase may be where this one does not look."""
    return (phase == NEW and other <= PREPARE) or (phase == OLD and other >= CUTOVER)
