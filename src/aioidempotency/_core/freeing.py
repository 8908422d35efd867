"""Forgetting a key, so that its next call runs.

1. A finished record, and one whose lease is over, is deleted when unchanged. A finished record that keeps an old owner
   out leaves a vacant record in its place.
2. A running record is never deleted. Its owner would find no record, put its own as if the table's TTL had removed it,
   and so be back. A vacant record takes its place: another owner, the next fencing token, and a lease that is over
   by every clock, so that the next claim takes over at once.
3. Only owners that the first look found are touched. Whoever claims after that is the next call, which `forget` is
   there to let run.
4. A vacant record stays until it expires, or a claim takes over and passes its duty on. So it expires no earlier than
   the record it replaces, nor than a lease that could begin now.
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
        found: Whether there was anything to forget.
        fenced: Whether a running owner was shut out.
        fencing_token: The largest of those that were forgotten.
    """

    found: bool = False
    fenced: bool = False
    fencing_token: int = 0


def forget(attempt: Claim, *, running: bool) -> Procedure[Forgotten | InProgress]:
    """Free a key. `running` shuts a running owner out; without `running`, such a key is in progress.

    `attempt.owner` will own the vacant record, and `attempt.label` says who freed the key.
    """
    locations = attempt.locations
    owners: set[str | None] | None = None
    largest = 0
    found: tuple[FoundRecord, ...] = ()
    for _ in range(ATTEMPTS):
        there = parse_found(locations, (yield from placements.look(locations)))
        found = tuple(each for each in there if _counts(each.record, attempt, running=running))
        if owners is None:
            owners = {each.record.owner for each in found}
        found = tuple(each for each in found if each.record.owner in owners)
        largest = max([largest, *(each.record.fencing_token for each in found)])
        if not found:
            # An earlier try may have been applied, and its answer lost: then our vacant record says so.
            fenced = any(each.record.owner == attempt.owner for each in there)
            return Forgotten(found=bool(owners), fenced=fenced, fencing_token=largest)
        verdict = judge_all(found, attempt)
        if isinstance(verdict, InProgress) and not running:
            return verdict
        freed = [_freed(each, attempt, running=running) for each in found]
        writes = tuple(each for each in freed if each is not None)
        operation = writes[0] if len(writes) == 1 else Transact(writes)
        reply = yield operation
        if isinstance(reply, Applied):
            fenced = running and any(_runs(each.record) for each in found)
            return Forgotten(found=True, fenced=fenced, fencing_token=largest)
        refusal_in(operation, reply)
    return InProgress(found[0].record, retry_after=attempt.lease)


def _counts(record: Record, attempt: Claim, *, running: bool) -> bool:
    """Tell whether there is anything to free: a record answers, or holds up calls, or its owner is to be shut out."""
    if record.vacant:
        return False
    return floor(attempt.now) <= record.expiration or (running and _runs(record))


def _freed(found: FoundRecord, attempt: Claim, *, running: bool) -> Put | Delete | None:
    """Free what one location holds, if unchanged; None for a late copy of a claim, which runs beside a finished record."""
    location, item, record, _ = found
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
