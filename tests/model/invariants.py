"""What must be true, whatever happens. Each is checked in the table, not by the library's words.

The table, at every write and every deletion:

1. A running record changes its owner, or goes away, only if its owner released it or it was vacant by
   the clock of whoever took it over, as that clock was when the attempt began.
2. A renewal, a completion or a release changes nothing that is another's, whenever it arrives.
3. A finished record is not changed or deleted until it has expired.
4. The fencing token grows with every claim of one record, and stays otherwise. It is never behind the
   claimant's clock, so it also grows from a record to the next as far as clocks and delays allow.
5. A record that has not expired keeps its fingerprint: no other request takes it over, lapsed or not.
6. While a record runs, its lease is never made shorter, and it does not expire before its lease ends.
7. With clocks that differ by `clock_skew` at the most, no running record changes hands or is deleted
   before its lease is over by its owner's clock.

What contenders were told, at that moment:

8. Claimed: the table has a running record with this owner, token and end of the lease.
9. Replay: the table has that result, finished and unexpired, for a request with the same fingerprint.
10. InProgress or Mismatch: the table has a record that says so, and it is not the contender's own:
    a write whose answer was lost is recognised. Or the record changed while the contender looked.
11. Completed: the table has this contender's result. No other result was told while it lives.
12. Lost: the table has neither a result of this contender nor a running record of its own.
13. Renewed: lease and record end no earlier than the contender was told. Released: it holds nothing.

In every state:

14. With clocks that differ by `clock_skew` at the most, whoever goes by a lease that is not over by
    its own clock is the owner in the table, for at least that long. So there is one at a time.
15. No key stays locked: when all stop, and every lease and `clock_skew` have passed, a fresh claim is
    told Claimed, Replay or Mismatch, as the record says; and a look at the record says the same.

There are limits, and `Limit` names them; `test_limits` shows the shortest way to each.
"""

from dataclasses import replace
from enum import StrEnum
from typing import NamedTuple, assert_never

from aioidempotency._core import protocol
from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.operations import Applied, Found, Get, Refused
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim, Completed, Lost, Released, Renewed, Vacant
from tests.model.contenders import Answer, Call, Contender, Outcome, result_of
from tests.model.table import Cell, Shelf


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


Promise = tuple[str, int]
"""A result that a contender was told to be stored, and when that record expires."""


def check_write(terms: Terms, call: Call, before: Cell | None, after: Cell | None, time: float) -> None:
    """Check what a request has changed (1 to 7)."""
    owner = call.attempt.owner
    if call.kind == "claim":
        _require(after is not None and after.running and after.owner == owner, 8, "a claim wrote no claim")
        if before is not None:
            _check_take_over(terms, call.attempt, before, after)
    else:
        _require(before is None or before.owner == owner, 2, f"the record of {_whose(before)} was changed")
        _require(before is None or before.running, 3, "a finished record was changed")
        _require(before is not None or call.kind == "complete", 2, "a record came from nowhere")
    if after is not None:
        _check_kept(terms, call, before, after)
    if before is not None and before.owner != owner:
        _check_in_time(terms, before, time)


def check_deletion(terms: Terms, before: Cell, time: float) -> None:
    """Check a deletion by the table's TTL (7)."""
    _check_in_time(terms, before, time)


def _check_take_over(terms: Terms, attempt: Claim, before: Cell, after: Cell | None) -> None:
    expired = before.expired(attempt.now)
    _require(before.running or expired, 3, "a finished record was taken over before it had expired")
    _require(before.vacant(attempt.now, clock_skew=terms.clock_skew), 1, "a record was taken over that was not vacant")
    _require(after is not None and after.token > before.token, 4, "the fencing token did not grow")
    _require(not before.protects(attempt.fingerprint, attempt.now), 5, "another request took the record over")


def _check_kept(terms: Terms, call: Call, before: Cell | None, after: Cell) -> None:
    """Check what a record that was written must keep of the one before, and of itself."""
    if after.running:
        _require(after.expiration + 1 > after.ends + terms.clock_skew, 6, "the record expires before its lease ends")
    if call.kind == "claim":
        _require(after.token >= round(call.now * 1000), 4, "the fencing token is behind the clock")
    if call.kind == "claim" or before is None:
        return
    _require(after.owner == before.owner and after.token == before.token, 4, "an owner or a token was changed")
    _require(after.fingerprint == before.fingerprint, 5, "the fingerprint was changed")
    _require(not after.running or after.ends >= before.ends, 6, "a lease was made shorter")


def _check_in_time(terms: Terms, before: Cell, time: float) -> None:
    """Check that a record whose owner's clock may be any of these was vacant by all of them."""
    over = all(time + clock > before.ends for clock in terms.clocks)
    _require(
        over or not before.running or not terms.agree, 7, f"{before.owner} lost the record before its lease was over"
    )


def check_told(terms: Terms, call: Call, answers: tuple[Answer, ...], outcome: Outcome, now: Cell | None) -> None:
    """Check what a contender was told against the table as it is now, and the answers so far (8 to 13)."""
    mine = now is not None and now.owner == call.attempt.owner
    running = now is not None and now.running
    match outcome:
        case Claimed(lease):
            _require(now is not None and mine and running and lease.owner == now.owner, 8, "the table says otherwise")
            said = lease.fencing_token, lease.expires_at, lease.expiration
            _require(now is not None and said == (now.token, now.ends, now.expiration), 8, "the table says otherwise")
        case Replay() | InProgress() | Mismatch():
            _check_refused(terms, call.attempt, answers, outcome, now)
        case Completed(record):
            _require(mine and not running, 11, "the table has no such result")
            _require(now is not None and record.data == now.data == result_of(now.owner), 11, "it is another's result")
        case Lost():
            _require(not mine, 12, "the record is the contender's own")
        case Renewed(lease):
            kept = now is not None and mine and running and lease.expires_at <= now.ends
            _require(kept, 13, "the table's lease ends earlier")
            _require(now is not None and lease.expiration <= now.expiration, 13, "the record expires earlier")
        case Released():
            late = Limit.RELEASED_BEFORE_A_COPY in terms.limits
            _require(late or not (mine and running), 13, "the contender still holds the record")
        case _ as never:
            assert_never(never)


def _check_refused(
    terms: Terms,
    attempt: Claim,
    answers: tuple[Answer, ...],
    refusal: Replay | InProgress | Mismatch,
    now: Cell | None,
) -> None:
    own = now is not None and now.running and now.owner == attempt.owner
    _require(not own, 10, "its own write was not recognised")
    match refusal:
        case Replay(record):
            _require(now is not None and not now.running and now.data == record.data, 9, "that result is not stored")
            _require(now is not None and not now.expired(attempt.now), 9, "the result has expired")
            _require(
                now is not None and not now.protects(attempt.fingerprint, attempt.now), 9, "it answers another request"
            )
        case Mismatch():
            _require(now is not None and now.protects(attempt.fingerprint, attempt.now), 10, "nothing mismatches")
        case InProgress():
            running = now is not None and now.running and not now.vacant(attempt.now, clock_skew=terms.clock_skew)
            _require(running or looked_again(answers), 10, "nothing is in progress")


def looked_again(answers: tuple[Answer, ...]) -> bool:
    """Say whether a claim found that the record had changed since it first looked."""
    looks = [kind for index, (kind, _) in enumerate(answers) if kind == "refused" or index == 0]
    return len(looks) > 1


def promised(terms: Terms, earlier: Promise | None, now: Cell | None, time: float) -> Promise:
    """Make a promise of this result; no other may have been made that is still good (11)."""
    assert now is not None
    assert now.data is not None
    if earlier is not None:
        over = time + max(terms.clocks) >= earlier[1] + 1
        _require(over or now.data == earlier[0], 11, f"{earlier[0]} was promised before, and has not expired")
    return now.data, now.expiration


def check_leases(terms: Terms, contenders: tuple[Contender, ...], now: Cell | None, time: float) -> None:
    """Check that those who go by a lease own the record (14)."""
    if not terms.agree:
        return
    for each in contenders:
        if each.lease is None or not each.runs or time + each.script.clock > each.lease.expires_at:
            continue
        held = now is not None and now.running and now.owner == each.lease.owner
        kept = now is not None and now.ends >= each.lease.expires_at
        _require(held and kept, 14, f"{each.lease.owner} goes by a lease that the table does not grant")


def check_not_locked(terms: Claim, shelf: Shelf, cell: Cell | None) -> None:
    """Check what fresh claims are told when all is over (15). `terms` are those of a claim at that time."""
    for fingerprint in (None, "f", "g"):
        due = _due(cell, fingerprint, terms.now)
        for read_first in (False, True):
            fresh = replace(terms, fingerprint=fingerprint, read_first=read_first)
            _check_fresh(protocol.claim(fresh), shelf, cell, due)
        looks = protocol.inspect(replace(terms, fingerprint=fingerprint))
        _check_fresh(looks, shelf, cell, Vacant if due is Claimed else due)


def _check_fresh(procedure: Procedure[object], shelf: Shelf, cell: Cell | None, due: type) -> None:
    found = type(_play(procedure, shelf, cell))
    _require(found is due, 15, f"when all is over, a fresh call is told {found.__name__}, not {due.__name__}")


def _due(cell: Cell | None, fingerprint: str | None, now: float) -> type:
    """Say what a claim is to be told when no lease can be running any more."""
    if cell is None or cell.expired(now):
        return Claimed
    if cell.protects(fingerprint, now):
        return Mismatch
    return Claimed if cell.running else Replay


def _play(procedure: Procedure[object], shelf: Shelf, cell: Cell | None) -> object:
    """Run a procedure undisturbed."""
    try:
        operation = next(procedure)
        while True:
            applied, cell = shelf.execute(operation, cell)
            item = None if cell is None else cell.item
            reads = isinstance(operation, Get)
            operation = procedure.send(Applied() if applied else Found(item) if reads else Refused(item))
    except StopIteration as end:
        return end.value


def _require(holds: bool, number: int, trouble: str) -> None:
    if not holds:
        raise BrokenError(f"invariant {number}: {trouble}")


def _whose(cell: Cell | None) -> str:
    return "nobody" if cell is None else cell.owner
