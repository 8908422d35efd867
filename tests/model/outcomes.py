"""Names for what a request came to, so that a test can ask whether each was ever reached."""

from typing import assert_never

from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.operations import Put
from aioidempotency._core.protocol import Completed, Lost, Released, Renewed
from tests.model.contenders import Request
from tests.model.invariants import looked_again
from tests.model.moves import Move
from tests.model.table import Cell


def remark(move: Move, before: Cell | None, time: float) -> str:
    """Name what a request came to; `before` was in the table when it arrived."""
    assert move.request is not None
    kind = move.request.call.kind
    match move.outcome:
        case None:
            return _unanswered(move, kind)
        case Completed():
            return _completed(move.request, move.applied, before, time)
        case Renewed():
            return "renew: renewed" if move.applied else "renew: was renewed already"
        case Released():
            return "release: released" if move.applied else "release: nothing was held"
        case Lost():
            return f"{kind}: lost, {_state(before, time)}"
        case decision:
            return f"claim: {_decided(decision, move, before, time)}"


def _decided(decision: Decision, move: Move, before: Cell | None, time: float) -> str:
    match decision:
        case Claimed(lease):
            return _claimed(move.applied, before, lease.expires_at - lease.duration)
        case Replay():
            return "replayed"
        case InProgress():
            return "gave way, the record had just changed" if looked_again(move.answers) else "in progress"
        case Mismatch():
            return f"mismatch, {_state(before, time)}"
        case _ as never:
            assert_never(never)


def _unanswered(move: Move, kind: str) -> str:
    how = "applied" if move.applied else "refused"
    return f"{kind}: {how} late" if move.actor == "the network" else f"{kind}: {how}, and more is asked"


def _claimed(applied: bool, before: Cell | None, now: float) -> str:
    if not applied:
        return "its own write was recognised"
    if before is None:
        return "the key was free"
    if before.running:
        return f"took over, {_state(before, now)}"
    return "took over a finished record that had expired"


def _completed(request: Request, applied: bool, before: Cell | None, time: float) -> str:
    if not applied:
        return "complete: its own write was recognised"
    if isinstance(request.operation, Put):
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
