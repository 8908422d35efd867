"""What requests and the table's TTL may change: invariants 1 to 7."""

from aioidempotency._core.protocol import Claim
from tests.model.calls import Call
from tests.model.invariants import Terms, require
from tests.model.moves import Move
from tests.model.table import Answer, Cell, Cells, Shelf


def check_write(terms: Terms, shelf: Shelf, move: Move, before: Cells, time: float) -> None:
    """Check what a request has changed, in each location; the first one is its record's (1 to 7)."""
    assert move.request is not None
    request, after = move.request, move.state.cells
    if request.call.kind == "claim":
        _check_seen(shelf, request.call.attempt, move.answers, before)
    record = shelf.at(after, request.written[0])
    for location in request.written:
        _check_change(terms, request.call, shelf.at(before, location), record, time)
    if record is not None:
        _check_kept(terms, request.call, shelf.at(before, request.written[0]), record)


def _check_seen(shelf: Shelf, attempt: Claim, answers: tuple[Answer, ...], before: Cells) -> None:
    """Check that each running record that was taken over had not changed since the attempt first looked (1)."""
    first = next((entries for _, entries in answers[:-1] if any(entry and entry[0] for entry in entries)), ())
    for location, entry in zip(attempt.locations, first, strict=False):
        found = shelf.at(before, location)
        if found is not None and found.running and found.owner != attempt.owner:
            require(entry is not None and entry[0] is found, 1, f"{found.owner} had just taken the record over")


def check_deletion(terms: Terms, before: Cells, after: Cells, time: float) -> None:
    """Check a deletion by the table's TTL (7)."""
    for gone, left in zip(before, after, strict=True):
        if gone is not None and left is None:
            _check_in_time(terms, gone, time)


def _check_change(terms: Terms, call: Call, before: Cell | None, record: Cell | None, time: float) -> None:
    """Check what became of what was in one location; `record` is what the request has written."""
    owner = call.attempt.owner
    if call.kind == "claim":
        require(record is not None and record.running and record.owner == owner, 8, "a claim wrote no claim")
        if before is not None:
            _check_take_over(terms, call.attempt, before, record)
    else:
        require(before is None or before.owner == owner, 2, f"the record of {_whose(before)} was changed")
        require(before is None or before.running, 3, "a finished record was changed")
        require(before is not None or call.kind == "complete", 2, "a record came from nowhere")
    if before is not None and before.owner != owner:
        _check_in_time(terms, before, time)


def _check_take_over(terms: Terms, attempt: Claim, before: Cell, after: Cell | None) -> None:
    expired = before.expired(attempt.now)
    require(before.running or expired, 3, "a finished record was taken over before it had expired")
    # A late copy of a claim that this attempt has taken back protects nobody.
    ours = before.owner == attempt.owner
    vacant = ours or before.vacant(attempt.now, clock_skew=terms.clock_skew)
    require(vacant, 1, "a record was taken over that was not vacant")
    require(after is not None and after.token > before.token, 4, "the fencing token did not grow")
    require(not before.protects(attempt.fingerprint, attempt.now), 5, "another request took the record over")


def _check_kept(terms: Terms, call: Call, before: Cell | None, after: Cell) -> None:
    """Check what a record that was written must keep of the one before, and of itself."""
    if after.running:
        require(after.expiration + 1 > after.ends + terms.clock_skew, 6, "the record expires before its lease ends")
    if call.kind == "claim":
        require(after.token >= round(call.now * 1000), 4, "the fencing token is behind the clock")
    if call.kind == "claim" or before is None:
        return
    require(after.owner == before.owner and after.token == before.token, 4, "an owner or a token was changed")
    require(after.fingerprint == before.fingerprint, 5, "the fingerprint was changed")
    require(not after.running or after.ends >= before.ends, 6, "a lease was made shorter")


def _check_in_time(terms: Terms, before: Cell, time: float) -> None:
    """Check that a record whose owner's clock may be any of these was vacant by all of them."""
    over = all(time + clock > before.ends for clock in terms.clocks)
    require(
        over or not before.running or not terms.agree, 7, f"{before.owner} lost the record before its lease was over"
    )


def _whose(cell: Cell | None) -> str:
    return "nobody" if cell is None else cell.owner
