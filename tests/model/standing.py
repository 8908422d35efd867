"""What must be true in every state, whatever led there: invariants 14 to 16."""

from collections.abc import Iterator

from aioidempotency._core import protocol
from aioidempotency._core.decisions import Claimed, Mismatch, Replay
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import Claim, Vacant
from tests.model.contenders import Contender
from tests.model.invariants import Terms, require
from tests.model.moves import State
from tests.model.table import Cell, Cells, Shelf, reply
from tests.support.values import replace


def check_leases(terms: Terms, shelf: Shelf, state: State) -> None:
    """Check that those who go by a lease own the record, and that there is one (14), but for those who are shut out."""
    if not terms.agree:
        return
    owners, time = 0, state.time
    for each in state.contenders:
        if each.lease is None or not each.runs or time + each.script.clock > each.lease.expires_at:
            continue
        if (each.lease.owner, each.lease.fencing_token) in state.shut_out:
            continue
        owners += 1
        cell = shelf.at(state.cells, each.lease.location)
        held = cell is not None and cell.running and cell.owner == each.lease.owner
        kept = cell is not None and cell.ends >= each.lease.expires_at
        require(held and kept, 14, f"{each.lease.owner} goes by a lease that the table does not grant")
    require(owners <= 1, 14, "two go by a lease")


def check_one_counts(terms: Terms, contenders: tuple[Contender, ...], now: Cells, time: float) -> None:
    """Check that one record counts at a time, in whichever location (16)."""
    if len(now) == 1:
        return
    stored = [cell for cell in now if cell is not None and not cell.expired(time + terms.ahead)]
    if len(stored) < 2:
        return
    hopes = {owner: token for each in contenders for owner, token in _hoping(each, time)}
    counting = [
        cell.owner for cell in stored if not cell.running or (cell.owner in hopes and cell.token >= hopes[cell.owner])
    ]
    require(len(counting) < 2, 16, f"the records of {' and '.join(counting)} count, both")


def _hoping(contender: Contender, time: float) -> Iterator[tuple[str, int]]:
    """Name the owner that a contender goes by, or may be told to go by, and the least token of its record.

    What it claimed in an earlier try has a smaller one.
    """
    if contender.attempt is None:
        return
    call = contender.call
    claims = call is not None and call.kind == "claim" and not call.too_late(time)
    if contender.lease is not None:
        yield contender.attempt.owner, contender.lease.fencing_token
    elif claims:
        yield contender.attempt.owner, round(contender.attempt.now * 1000)


def check_not_locked(terms: Claim, shelf: Shelf, cells: Cells) -> None:
    """Check what fresh claims are told when all is over (15). `terms` are those of a claim at that time."""
    for fingerprint in (None, "f", "g"):
        due = _due(cells, fingerprint, terms.now)
        for read_first in (False, True):
            fresh = replace(terms, fingerprint=fingerprint, read_first=read_first)
            _check_fresh(protocol.claim(fresh), shelf, cells, due)
        looks = protocol.inspect(replace(terms, fingerprint=fingerprint))
        _check_fresh(looks, shelf, cells, Vacant if due is Claimed else due)


def _check_fresh(procedure: Procedure[object], shelf: Shelf, cells: Cells, due: type) -> None:
    found = type(_play(procedure, shelf, cells))
    require(found is due, 15, f"when all is over, a fresh call is told {found.__name__}, not {due.__name__}")


def _due(cells: Cells, fingerprint: str | None, now: float) -> type:
    """Say what a claim is to be told when no lease can be running any more: what is finished counts first."""
    living = [cell for cell in cells if cell is not None and not cell.expired(now)]
    for cell in sorted(living, key=_weight, reverse=True):
        if cell.protects(fingerprint, now):
            return Mismatch
        if not cell.running:
            return Replay
    return Claimed


def _weight(cell: Cell) -> tuple[bool, int]:
    return not cell.running, cell.token


def _play(procedure: Procedure[object], shelf: Shelf, cells: Cells) -> object:
    """Run a procedure undisturbed."""
    try:
        operation = next(procedure)
        while True:
            answer, cells = shelf.execute(operation, cells)
            operation = procedure.send(reply(answer))
    except StopIteration as end:
        return end.value
