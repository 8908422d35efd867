"""What contenders may be told: invariants 8 to 13, and 17."""

from typing import assert_never

from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.protocol import Claim, Completed, Contended, Lost, Released, Renewed
from tests.model.calls import FREEING, Call, Outcome, result_of
from tests.model.invariants import Limit, Promise, Terms, require
from tests.model.moves import Move
from tests.model.table import REFUSALS, Answer, Cell, Cells, Shelf


def check_told(terms: Terms, shelf: Shelf, move: Move, outcome: Outcome, time: float) -> None:
    """Check what a contender was told against the table as it is now, and the answers so far (8 to 13)."""
    assert move.request is not None
    call, now = move.request.call, move.state.cells
    mine = [cell for cell in now if cell is not None and cell.owner == call.attempt.owner]
    here = shelf.at(now, call.location)
    held = [cell for cell in mine if cell is here or not cell.expired(time + call.clock)]
    running = any(cell.running for cell in held)
    match outcome:
        case Claimed(lease):
            cell = shelf.at(now, lease.location)
            require(cell is not None and cell.running and cell.owner == lease.owner, 8, "the table says otherwise")
            said = lease.fencing_token, lease.expires_at, lease.expiration
            kept = cell is not None and said == (cell.token, cell.ends, cell.expiration)
            require(kept, 8, "the table says otherwise")
        case Replay() | InProgress() | Mismatch():
            # A late copy of an earlier try is no write of this one.
            written = any(cell.running and cell.token >= round(call.attempt.now * 1000) for cell in held)
            require(not written, 10, "its own write was not recognised")
            if call.kind in FREEING:
                require(call.kind == "forget" or looked_again(move.answers), 19, "it was not shut out")
            seen = [cell for location in call.attempt.locations if (cell := shelf.at(now, location)) is not None]
            _check_refused(terms, call.attempt, move.answers, outcome, seen)
        case Completed(record):
            finished = [cell.data for cell in mine if not cell.running]
            require(bool(finished), 11, "the table has no such result")
            right = record.data in finished and record.data == result_of(call.attempt.owner)
            require(right, 11, "it is another's result")
        case Lost():
            require(not held, 12, "the record is the contender's own")
        case Renewed(lease):
            cell = shelf.at(now, lease.location)
            kept = cell in mine and cell is not None and cell.running and lease.expires_at <= cell.ends
            require(kept, 13, "the table's lease ends earlier")
            require(cell is not None and lease.expiration <= cell.expiration, 13, "the record expires earlier")
        case Forgotten():
            looks = [entries for kind, entries in move.answers if kind not in {*REFUSALS, "applied"}]
            first = {(each[0].owner, each[0].token) for each in looks[0] if each is not None and each[0] is not None}
            _check_free(call, [cell for cell in now if cell is not None and (cell.owner, cell.token) in first])
        case Released():
            late = Limit.RELEASED_BEFORE_A_COPY in terms.limits
            require(late or not running, 13, "the contender still holds the record")
        case Contended():
            return  # a caller takes that for no answer, as when the store does not answer
        case _ as never:
            assert_never(never)


def _check_refused(
    terms: Terms,
    attempt: Claim,
    answers: tuple[Answer, ...],
    refusal: Replay | InProgress | Mismatch,
    seen: list[Cell],
) -> None:
    """Check why a claim was refused; `seen` is what is in the places that it looks at."""
    finished = [cell for cell in seen if not cell.running and not cell.expired(attempt.now)]
    answering = [cell.data for cell in finished if not cell.protects(attempt.fingerprint, attempt.now)]
    match refusal:
        case Replay(record):
            stored = [cell.data for cell in seen if not cell.running]
            require(record.data in stored, 9, "that result is not stored")
            require(record.data in [cell.data for cell in finished], 9, "the result has expired")
            require(record.data in answering, 9, "it answers another request")
        case Mismatch():
            protected = any(cell.protects(attempt.fingerprint, attempt.now) for cell in seen)
            require(protected and not answering, 10, "nothing mismatches")
        case InProgress():
            running = any(cell.running and not cell.vacant(attempt.now, clock_skew=terms.clock_skew) for cell in seen)
            require((running or looked_again(answers)) and not finished, 10, "nothing is in progress")


def _check_free(call: Call, theirs: list[Cell]) -> None:
    """Check that nothing of those who were there first answers, nor holds up a call, but a late copy of a claim (19)."""
    for cell in theirs:
        holds = not cell.left and not cell.expired(call.attempt.now)
        copy = cell.running and call.kind == "forget"
        require(not holds or copy, 19, "the key is not free")


def looked_again(answers: tuple[Answer, ...]) -> bool:
    """Say whether a claim found that the record had changed since it first looked."""
    looks = [kind for index, (kind, _) in enumerate(answers) if kind in REFUSALS or index == 0]
    return len(looks) > 1


def promised(terms: Terms, earlier: Promise | None, call: Call, now: Cells, time: float) -> Promise:
    """Make a promise of a completed result; no other may have been made that is still good (11)."""
    owner, data = call.attempt.owner, result_of(call.attempt.owner)
    cell = next(cell for cell in now if cell is not None and cell.owner == owner and cell.data == data)
    if earlier is not None:
        kept = not earlier.good(terms, time) or data == earlier.data
        require(kept, 11, f"{earlier.data} was promised before, and has not expired")
    return Promise(data, cell.fingerprint, cell.expiration)


def check_found(terms: Terms, promise: Promise | None, move: Move, outcome: Outcome, time: float) -> None:
    """Check that a claim was told of what was completed before (17)."""
    assert move.request is not None
    call = move.request.call
    if promise is None or call.kind != "claim" or not promise.good(terms, time):
        return
    if isinstance(outcome, Replay):
        require(outcome.record.data == promise.data, 17, "another result was found than was completed")
        return
    other = None not in (promise.fingerprint, call.attempt.fingerprint)
    mismatch = isinstance(outcome, Mismatch) and other and promise.fingerprint != call.attempt.fingerprint
    late = call.too_late(time)
    require(mismatch or late, 17, f"{promise.data} was completed, and was not found")
