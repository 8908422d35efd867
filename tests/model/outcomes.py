"""Names for what a request came to, so that a test can ask whether each was ever reached."""

from typing import assert_never

from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.freeing import Forgotten
from aioidempotency._core.operations import Put, Transact
from aioidempotency._core.protocol import Completed, Contended, Lost, Released, Renewed
from tests.model.answers import looked_again
from tests.model.calls import FREEING, Request
from tests.model.moves import Move
from tests.model.table import Cell, Cells, Shelf


def remark(move: Move, shelf: Shelf, before: Cells, time: float) -> str:  # noqa: PLR0911 - one for each outcome
    """Name what a request came to; `before` is what was in the table when it arrived."""
    assert move.request is not None
    kind = move.request.call.kind
    match move.outcome:
        case Forgotten(found, fenced):
            what = "shut an owner out" if fenced else "something" if found else "nothing"
            return f"{kind}: forgot {what}" if what != "shut an owner out" else f"{kind}: shut an owner out"
        case InProgress() if kind in FREEING:
            return f"{kind}: in progress"
        case None:
            how = "applied" if move.applied else "refused"
            return f"{kind}: {how} late" if move.actor == "the network" else f"{kind}: {how}, and more is asked"
        case Completed() | Renewed() | Released() as done:
            return _done(done, move, shelf.at(before, move.request.call.location), time)
        case Lost():
            return f"{kind}: lost, {_state(_met(move.request, shelf, before), time)}"
        case Contended():
            return f"{kind}: contended"
        case decision:
            return f"claim: {_decided(decision, move, shelf, before, time)}"


def _done(outcome: Completed | Renewed | Released, move: Move, before: Cell | None, time: float) -> str:
    assert move.request is not None
    match outcome:
        case Completed():
            return _completed(move.request, move.applied, before, time)
        case Renewed():
            return "renew: renewed" if move.applied else "renew: was renewed already"
        case Released():
            return "release: released" if move.applied else "release: nothing was held"
        case _ as never:
            assert_never(never)


def _decided(decision: Decision, move: Move, shelf: Shelf, before: Cells, time: float) -> str:
    assert move.request is not None
    match decision:
        case Claimed(lease):
            late = move.request.call.too_late(time)
            claimed = _claimed(move, shelf, before, lease.expires_at - lease.duration)
            return "too late to be relied upon" if late else claimed
        case Replay():
            return "replayed"
        case InProgress():
            return "gave way, the record had just changed" if looked_again(move.answers) else "in progress"
        case Mismatch():
            return f"mismatch, {_state(_met(move.request, shelf, before), time)}"
        case _ as never:
            assert_never(never)


def _met(request: Request, shelf: Shelf, before: Cells) -> Cell | None:
    """Find what a request met: what is in its own location, or else in another that it looks at."""
    locations = (request.call.location, *request.call.attempt.locations)
    return next((cell for location in locations if (cell := shelf.at(before, location)) is not None), None)


def _claimed(move: Move, shelf: Shelf, before: Cells, now: float) -> str:
    assert move.request is not None
    if not move.applied:
        return "its own write was recognised"
    here, *others = (shelf.at(before, location) for location in move.request.written)
    found = [cell for cell in (here, *others) if cell is not None]
    if not found:
        return "the key was free"
    where = "" if here is not None else " in another location"
    if len(found) > 1:
        where = " in several locations"
    if all(cell.running for cell in found):
        return f"took over{where}, {_state(found[0], now)}"
    return f"took over{where} a finished record that had expired"


def _completed(request: Request, applied: bool, before: Cell | None, time: float) -> str:
    if not applied:
        return "complete: its own write was recognised"
    if isinstance(request.operation, Put | Transact):
        return "complete: put again, the record was gone"
    late = before is not None and time > before.ends
    return "complete: late, and nobody had taken over" if late else "complete: completed"


def _state(cell: Cell | None, time: float) -> str:
    """Name what is in the table."""
    if cell is None:
        return "the record was gone"
    if cell.expired(time):
        return "the record had expired"
    if not cell.running:
        return "the record was finished"
    return "the lease had lapsed" if time > cell.ends else "the record was running"
