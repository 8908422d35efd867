"""What requests and the table's TTL may change: invariants 1 to 7, 18 and 19."""

from aioidempotency._core.model import Location
from aioidempotency._core.protocol import Claim
from tests.model.calls import FREEING, Call
from tests.model.invariants import Terms, require
from tests.model.moves import Move, State
from tests.model.table import Answer, Cell, Cells, Shelf


def check_write(terms: Terms, shelf: Shelf, move: Move, state: State) -> None:
    """Check what a request has changed, in each location; the first one is its record's (1 to 7)."""
    assert move.request is not None
    request, after = move.request, move.state.cells
    before, time, shut_out = state.cells, state.time, state.shut_out
    _check_out(shelf, request.call, request.written[0], after, shut_out)
    if request.call.kind in FREEING:
        for location in request.written:
            _check_freed(terms, request.call, shelf.at(before, location), shelf.at(after, location))
        return
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
        if found is not None and found.running and found.owner != attempt.owner and not found.left:
            require(entry is not None and entry[0] is found, 1, f"{found.owner} had just taken the record over")


def check_deletion(terms: Terms, before: Cells, after: Cells, time: float) -> None:
    """Check a deletion by the table's TTL (7)."""
    for gone, left in zip(before, after, strict=True):
        if gone is not None and left is None:
            _check_in_time(terms, gone, time)


def shut_out_by(move: Move, before: Cells, earlier: frozenset[tuple[str, int]]) -> frozenset[tuple[str, int]]:
    """Say who is shut out after a move, and who is not any more because what kept it out has expired."""
    after = move.state.cells
    gone = [cell for cell, left in zip(before, after, strict=True) if cell is not None and cell is not left]
    if move.request is None:
        return frozenset() if any(cell.freed for cell in gone) else earlier
    call = move.request.call
    if call.kind == "shut out":
        return earlier | {(cell.owner, cell.token) for cell in gone if cell.running}
    if call.kind == "claim":
        earlier = frozenset(each for each in earlier if each[0] != call.attempt.owner)
    if call.kind == "claim" and any(cell.freed and cell.expired(call.attempt.now) for cell in gone):
        return frozenset()
    return earlier


def _check_out(
    shelf: Shelf, call: Call, location: Location, after: Cells, shut_out: frozenset[tuple[str, int]]
) -> None:
    """Check that nobody writes who was shut out, but by a claim that is made anew (18)."""
    record, owner = shelf.at(after, location), call.attempt.owner
    for other, token in shut_out:
        anew = call.kind == "claim" and record is not None and record.token > token
        require(other != owner or anew, 18, f"{owner} was shut out, and is back")


def _check_freed(terms: Terms, call: Call, before: Cell | None, after: Cell | None) -> None:
    """Check what became of what was in one location, by who frees the key (19)."""
    require(before is not None and not before.left, 19, "nothing was there to be freed")
    if before is None:
        return
    over = not before.running or before.vacant(call.attempt.now, clock_skew=terms.clock_skew)
    require(over or call.kind == "shut out", 19, f"{before.owner} was running")
    if call.kind == "shut out" and before.running:
        require(after is not None, 19, "nothing keeps the owner out")
    require(after is not None or not before.freed, 19, "nothing keeps an earlier owner out")
    if after is not None:
        _check_left(before, after)


def _check_left(before: Cell, after: Cell) -> None:
    """Check what is left of a record (19)."""
    require(after.left and after.owner != before.owner, 19, "what is left is somebody's")
    require(after.token > before.token, 19, "the fencing token did not grow")
    require(after.fingerprint is None, 19, "what is left is for one request only")
    require(after.expiration >= before.expiration, 19, "what keeps the owner out expires earlier")


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
    if after.running and not after.left:
        require(after.expiration + 1 > after.ends + terms.clock_skew, 6, "the record expires before its lease ends")
    if call.kind == "claim":
        require(after.token >= round(call.now * 1000), 4, "the fencing token is behind the clock")
    if call.kind == "claim" or before is None:
        return
    if after.left:
        require(call.kind in {"release", "take back"} and before.freed, 19, "a record was left without need")
        _check_left(before, after)
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
