"""What must be true, whatever happens. Each is checked in the table, not by the library's words.

A key has one record, in whichever of its locations it is. What is said of "the record" is checked in every
location that a request changes, and of what a contender was told, in the places that it looks at.

The table, at every write and every deletion (`changes`):

1. A running record changes its owner, or goes away, only if its owner released it or took it back, or it
   was vacant by the clock of whoever took it over, as that was when the attempt began, and had not
   changed since the attempt first looked. A late copy of a claim that was taken back protects nobody from
   the attempt that made it.
2. A renewal, a completion or a release changes nothing that is another's, whenever it arrives.
3. A finished record is not changed or deleted until it has expired, or `forget` is called.
4. The fencing token grows with every claim of one record, also from one location to another, and stays
   otherwise. It is never behind the claimant's clock, so it also grows from a record to the next as far
   as clocks and delays allow.
5. A record that has not expired keeps its fingerprint: no other request takes it over, lapsed or not.
6. While a record runs, its lease is never made shorter, and it does not expire before its lease ends.
7. With clocks that differ by `clock_skew` at the most, no running record changes hands or is deleted
   before its lease is over by its owner's clock.

What contenders were told, at that moment (`answers`):

8. Claimed: the table has a running record with this owner, token and end of the lease.
9. Replay: the table has that result, finished and unexpired, for a request with the same fingerprint.
10. InProgress or Mismatch: the table has a record that says so, and it is not the contender's own:
    a write whose answer was lost is recognised. Or the record changed while the contender looked.
11. Completed: the table has this contender's result. No other result was told while it lives.
12. Lost: the table has neither a result of this contender nor a running record of its own; in another
    location there may be one that has expired. A renewal is lost without a request where claims will not
    look at its location for longer, and so is a completion where they do not look any more.
13. Renewed: lease and record end no earlier than the contender was told. Released: it holds nothing.

In every state (`standing`):

14. With clocks that differ by `clock_skew` at the most, whoever goes by a lease that is not over by
    its own clock is the owner in the table, for at least that long. There is one at a time.
15. No key stays locked: when all stop, and every lease and `clock_skew` have passed, a fresh claim by
    any of the routes is told Claimed, Replay or Mismatch, as the record says; and a look at the record
    says the same.

And over several locations:

16. One record counts at a time. It counts while it is finished and has not expired by any clock; and
    while it runs, and someone may go by it: its owner has a lease, or waits for the answer to its claim.
    So an old owner whose record was taken over from another location is fenced off: it can neither finish
    nor renew a record. Beside the one may be what has expired, and what its owner has given up: a claim
    that was taken back, whose owner crashed, or whose answer came too late to be relied upon.
17. What is completed is found: until it has expired by some clock, every claim by any of the routes is
    told Replay of it, or Mismatch if it is another request. Only a claim whose answer came too late to be
    relied upon may have looked in too few locations.

And where keys are freed:

18. An owner from whom a running record was taken writes nothing to the key any more, whatever it asks and
    whenever that arrives, whoever claims and gives back in between: until the table deletes an expired record
    that keeps it out, or a claim takes such a record over. One that was told of its claim too late, or not
    yet, may claim anew.
19. What is left of a record keeps its old owner out: it has another owner, a larger token, no fingerprint and
    a lease that is over by every clock; it expires no earlier, and is not deleted before. Nothing else is freed
    than what is finished, or over, or is to be shut out. Who is told that the key is free finds nothing in the
    table that answers or holds up a call, but what was written while it looked.

There are limits, and `Limit` names them; `test_limits` shows the shortest way to each.
"""

from enum import StrEnum
from typing import NamedTuple


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Limit(StrEnum):
    """What an invariant leaves out, because it is rare, and nothing runs twice by it before a lease is over."""

    RELEASED_BEFORE_A_COPY = "13: a late copy of its own claim may bring back a record that was released"


class Terms(NamedTuple):
    """What the invariants depend on: the skew that is allowed, the clocks, and what is left out."""

    clock_skew: float
    clocks: tuple[float, ...]
    limits: frozenset[Limit]

    @property
    def agree(self) -> bool:
        """Whether no two clocks differ by more than is allowed."""
        return max(self.clocks) - min(self.clocks) <= self.clock_skew

    @property
    def ahead(self) -> float:
        """How far the fastest clock is ahead of the table's."""
        return max(self.clocks)


class Promise(NamedTuple):
    """A result that a contender was told to be stored, for which request, and when that record expires."""

    data: str
    fingerprint: str | None
    expiration: int

    def good(self, terms: Terms, time: float) -> bool:
        """Say whether it has expired by no clock."""
        return time + terms.ahead < self.expiration + 1


def require(holds: bool, number: int, trouble: str) -> None:
    """Insist on an invariant."""
    if not holds:
        raise BrokenError(f"invariant {number}: {trouble}")
