"""The protocol of effects: the caller's own writes and the finished record, in one transaction.

1. Together or not at all. The transaction insists that the record is ours and running, or that there is
   none, as a completion or a claim does; when it is applied, neither holds any more. So it is applied once
   at the most, and never after the key was taken over.
2. Each try of one transaction is the same request, with one token. Whoever finds the record finished by
   itself, as the transaction would have left it, has had its answer lost: that settles it, whether the
   store knows tokens or not. (Powertools, on a shared record, finishes it in our name, and otherwise.)
3. What refused the caller's writes is told only where the record's own part was judged, and was fine: then
   nothing was applied, by this try or an earlier one.
4. A record that is gone is lost. A plain completion would put it anew, which changes nothing; a
   transaction's writes may have been applied before it went.
5. While tries go on the finished record does not expire: it lives until the lease's end, at the least. Who
   hears of a lost lease after that (a paused process, say) cannot know what came of an earlier try.
"""

from dataclasses import dataclass
from typing import final

from aioidempotency._core import model, placements, protocol
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.model import Lease, Record, SerializedResult
from aioidempotency._core.operations import Applied, Transact, TransactionFailed, Update
from aioidempotency._core.placements import Procedure, Seen
from aioidempotency._core.protocol import Claim, Completed, Lost, Vacant
from aioidempotency._effects.writes import Writes
from aioidempotency.exceptions import Reason


@final
@dataclass(frozen=True, slots=True)
class EffectsFailed:
    """The caller's writes were refused, and nothing was applied. A reason for each of them, or None."""

    reasons: tuple[Reason | None, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One transaction of a lease's result and the caller's writes: the same at each try, as of `now`."""

    lease: Lease
    result: SerializedResult
    effects: Writes
    now: float
    clock_skew: float


def commit(wanted: Commit) -> Procedure[Completed | Lost | EffectsFailed]:
    """Apply the caller's writes and complete the record, or neither."""
    lease, expiration = wanted.lease, expiration_of(wanted)
    if protocol.lapsed(lease, now=wanted.now):
        return Lost(None)
    finish = Update(lease.location, model.completed(wanted.result, expiration=expiration), HeldBy(lease.owner))
    finished = model.record_of(lease, wanted.result, expiration=expiration)
    operation = Transact((finish,), tuple(wanted.effects), lease.owner)
    record: Record | None = None
    for _ in range(protocol.ATTEMPTS):
        reply = yield from _transact(operation)
        if isinstance(reply, Applied):
            return Completed(finished)
        if reply.failures == (None,):
            return EffectsFailed(reply.reasons)
        found = protocol.parse_found((lease.location,), (yield from placements.seen_by(operation, reply)))
        record = found[0].record if found else None
        if record is None or record.owner != lease.owner:
            break
        if protocol.finished_by(record, lease.owner):
            ours = (record.data, record.expiration) == (finished.data, finished.expiration)
            return Completed(record) if ours else Lost(record)
    return Lost(record)


def expiration_of(wanted: Commit) -> int:
    """Say when the finished record expires: until then it tells whether the transaction was applied."""
    ends = max(wanted.now + wanted.lease.retention, wanted.lease.expires_at + wanted.clock_skew)
    return protocol.finished_until(wanted.lease, ends)


def commit_once(
    attempt: Claim, result: SerializedResult, effects: Writes
) -> Procedure[Completed | Replay | InProgress | Mismatch | EffectsFailed]:
    """Apply the caller's writes and put the finished record, where the key is free; one round trip."""
    locations, token = attempt.locations, model.milliseconds(attempt.now)
    known: Seen | None = None
    seen = (yield from placements.look(locations)) if attempt.read_first else None
    for number in range(protocol.ATTEMPTS):
        found = protocol.parse_found(locations, seen, known)
        verdict = _judge(found, attempt)
        if not isinstance(verdict, Vacant):
            return verdict
        lease = protocol.take_over(attempt, found, token)
        token = lease.fencing_token
        put = placements.put(locations, model.finished(lease, result, expiration=lease.expiration), seen)
        writes = put.writes if isinstance(put, Transact) else (put,)
        operation = Transact(writes, tuple(effects), f"{attempt.owner}{number}")
        reply = yield from _transact(operation)
        if isinstance(reply, Applied):
            return Completed(model.record_of(lease, result, expiration=lease.expiration))
        if not any(reply.failures):
            return EffectsFailed(reply.reasons)
        known, seen = seen, (yield from placements.seen_by(operation, reply))
    found = protocol.parse_found(locations, seen, known)
    verdict = _judge(found, attempt)
    if not isinstance(verdict, Vacant):
        return verdict
    lease = protocol.grant(attempt, locations[0], token)
    record = found[0].record if found else model.record_of(lease, result, expiration=lease.expiration)
    return InProgress(record, retry_after=attempt.lease)


def _judge(
    found: tuple[protocol.FoundRecord, ...], attempt: Claim
) -> Completed | Replay | InProgress | Mismatch | Vacant:
    """Say what was found: first, whether this very attempt was applied, even where its record has expired since."""
    for each in found:
        if protocol.finished_by(each.record, attempt.owner):
            return Completed(each.record)
    verdict = protocol.judge_all(found, attempt)
    assert not isinstance(verdict, Claimed)  # noqa: S101 - nobody has claimed with this owner
    return verdict


def _transact(operation: Transact) -> Procedure[Applied | TransactionFailed]:
    reply = yield operation
    if not isinstance(reply, Applied | TransactionFailed):
        raise TypeError(f"the backend answered a transaction with {type(reply).__name__}")
    return reply
