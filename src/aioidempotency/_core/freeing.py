"""Forgetting a key, so that the next call runs.

1. A finished record is deleted when unchanged, and so is the record of a lapsed lease. With the duty to keep an old
   owner out, a vacant record takes the place of either.
2. A running record is never deleted. The owner would find no record, complete as after a deletion by the table's TTL, and
   so be back. A vacant record takes the place: another owner, the next fencing token, and a lease that is over by
   every clock, so that the next claim takes over at once.
3. Only the owners found by the first look are touched. A later claim is the next call, and has to run.
4. A vacant record stays until a claim takes over and carries the duty on, or until the record expires: no earlier than
   the old record, nor than a lease that could begin now.
"""

from math import ceil, floor
from typing import final

from msgspec import Struct

from aioidempotency._core import model, placements
from aioidempotency._core.conditions import Unchanged
from aioidempotency._core.decisions import InProgress
from aioidempotency._core.model import Record, Status
from aioidempotency._core.operations import Applied, Delete, Put, Transact
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import (
    ATTEMPTS,
    Claim,
    Contended,
    FoundRecord,
    expiration_of,
    judge,
    judge_all,
    parse_found,
    refusal_in,
)


@final
class Forgotten(Struct, frozen=True):
    """The next call of the key runs.

    Attributes:
        found: Whether any record was forgotten.
        fenced: Whether a running owner was shut out.
        fencing_token: The largest fencing token forgotten.
    """

    found: bool = False
    fenced: bool = False
    fencing_token: int = 0


def forget(attempt: Claim, *, running: bool) -> Procedure[Forgotten | InProgress | Contended]:
    """Free a key. `running` shuts a running owner out; without `running`, such a key is in progress.

    `attempt.owner` will own the vacant record, and `attempt.label` says who freed the key.
    """
    locations = attempt.locations
    owners: set[str | None] | None = None
    largest = 0
    tries_left = ATTEMPTS
    while True:
        there = parse_found(locations, (yield from placements.look(locations)))
        found = tuple(each for each in there if _counts(each.record, attempt, running=running))
        # Without this bound, a caller could shut out the very call that it has made way for.
        if owners is None:
            owners = {each.record.owner for each in found}
        found = tuple(each for each in found if each.record.owner in owners)
        largest = max([largest, *(each.record.fencing_token for each in found)])
        if not found:
            # An earlier try may have been applied, and the answer lost: then our vacant record is there.
            fenced = any(each.record.owner == attempt.owner for each in there)
            return Forgotten(found=bool(owners), fenced=fenced, fencing_token=largest)
        verdict = judge_all(found, attempt)
        if isinstance(verdict, InProgress) and not running:
            return verdict
        freed = [_freed(each, attempt, running=running) for each in found]
        first, *others = [each for each in freed if each is not None]
        operation = Transact((first, *others)) if others else first
        reply = yield operation
        if isinstance(reply, Applied):
            fenced = running and any(_runs(each.record) for each in found)
            return Forgotten(found=True, fenced=fenced, fencing_token=largest)
        refusal_in(operation, reply)
        tries_left -= 1
        if not tries_left:
            return Contended()


def _counts(record: Record, attempt: Claim, *, running: bool) -> bool:
    """Tell whether a record needs freeing: because of its answer, its lease, or an owner to shut out."""
    if record.vacant:
        return False
    return floor(attempt.now) <= record.expiration or (running and _runs(record))


def _freed(found: FoundRecord, attempt: Claim, *, running: bool) -> Put | Delete | None:
    """Free one location, if unchanged; None for a late copy of a claim, running beside a finished record."""
    location, item, record, _ = found
    # A caller who wants an owner out does not depend on clocks: the owner goes, whether or not its lease is over.
    shut_out = running and _runs(record)
    if not shut_out and isinstance(judge(record, attempt), InProgress):
        return None
    freed_by = (attempt.label or "") if shut_out else record.freed_by
    if freed_by is None:
        return Delete(location, Unchanged(item))
    until = expiration_of(attempt.route, location, attempt.now + attempt.lease + attempt.clock_skew)
    left = model.vacant(
        location,
        owner=attempt.owner,
        fencing_token=record.fencing_token + 1,
        expiration=max(ceil(record.expiration), until),
        freed_by=freed_by,
    )
    return Put(location, left, Unchanged(item))


def _runs(record: Record) -> bool:
    return record.status is Status.INPROGRESS
