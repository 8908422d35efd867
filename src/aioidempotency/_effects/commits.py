"""The commit protocol: the caller's own writes and the finished record, in one transaction.

1. All or nothing, and at most once. The transaction insists on a running record of this owner, as a completion does,
   or on no record, as a claim does. After the transaction, neither condition holds any more. So a second
   copy is refused, and so is a copy after a take-over of the key.
2. Each attempt of one transaction is the same request, with the same token. A record finished exactly as the
   transaction would have finished the record means a lost answer: the transaction was applied, whether the store
   knows tokens or not. (Powertools, in a shared table, may finish the record of this owner in another way.)
3. Reasons of failed effects count only if DynamoDB evaluated the record's part without a failure. Only then
   was nothing applied, neither by this attempt nor by an earlier one.
4. An absent record is lost. A plain completion may put an absent record again, because a completion has no other
   effect. A transaction's writes may have been applied before the record disappeared.
5. The finished record does not expire during the attempts: the record lives at least to the end of the lease. A caller
   that sees a lost lease later (a paused process, for example) cannot know the outcome of an earlier attempt.
"""

from dataclasses import dataclass
from typing import final

from aioidempotency._core import model, placements, protocol
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.model import Finished, Lease, SerializedResult
from aioidempotency._core.operations import Applied, Transact, TransactionFailed, Update
from aioidempotency._core.placements import Procedure, Seen
from aioidempotency._core.protocol import Claim, Completed, Contended, Lost, Vacant
from aioidempotency._effects.writes import Writes
from aioidempotency.exceptions import Reason


@final
@dataclass(frozen=True, slots=True)
class EffectsFailed:
    """The caller's writes were refused, and nothing was applied. Each write has a reason, or None."""

    reasons: tuple[Reason | None, ...]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One transaction of a lease's result and the caller's writes, the same at each attempt, as of `now`."""

    lease: Lease
    result: SerializedResult
    effects: Writes
    now: float
    clock_skew: float


def commit(wanted: Commit) -> Procedure[Completed | Lost | EffectsFailed | Contended]:
    """Apply the caller's writes and complete the record, or do neither."""
    lease, expiration = wanted.lease, expiration_of(wanted)
    if protocol.lapsed(lease, now=wanted.now):
        return Lost(None, over=True)
    finish = Update(lease.location, model.completed(wanted.result, expiration=expiration), HeldBy(lease.owner))
    finished = Finished(lease, wanted.result, expiration).record
    operation = Transact((finish,), tuple(wanted.effects), lease.owner)
    for _ in range(protocol.ATTEMPTS):
        reply = yield from _transact(operation)
        if isinstance(reply, Applied):
            return Completed(finished)
        # Rule 3: the record's part has no failure.
        if reply.failures == (None,):
            return EffectsFailed(reply.reasons)
        found = protocol.parse_found((lease.location,), (yield from placements.seen_by(operation, reply)))
        record = found[0].record if found else None
        if record is None or record.owner != lease.owner:
            return Lost(record)
        if protocol.finished_by(record, lease.owner):
            # Rule 2: the owner alone does not prove the transaction, because Powertools completes records of any
            # owner.
            ours = (record.data, record.expiration) == (finished.data, finished.expiration)
            return Completed(record) if ours else Lost(record)
    return Contended()


def expiration_of(wanted: Commit) -> int:
    """Compute the finished record's expiration. Until then, the record tells whether the transaction was applied."""
    ends = max(wanted.now + wanted.lease.retention, wanted.lease.expires_at + wanted.clock_skew)
    return protocol.finished_until(wanted.lease, ends)


def commit_once(
    attempt: Claim, result: SerializedResult, effects: Writes
) -> Procedure[Completed | Replay | InProgress | Mismatch | EffectsFailed | Contended]:
    """Apply the caller's writes and put the finished record if the key is free, in one round trip."""
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
        # Another round is another request, and DynamoDB refuses one token with two sets of parameters.
        operation = Transact(writes, tuple(effects), f"{attempt.owner}{number}")
        reply = yield from _transact(operation)
        if isinstance(reply, Applied):
            return Completed(Finished(lease, result, lease.expiration).record)
        if not any(reply.failures):
            return EffectsFailed(reply.reasons)
        known, seen = seen, (yield from placements.seen_by(operation, reply))
    verdict = _judge(protocol.parse_found(locations, seen, known), attempt)
    return Contended() if isinstance(verdict, Vacant) else verdict


def _judge(
    found: tuple[protocol.FoundRecord, ...], attempt: Claim
) -> Completed | Replay | InProgress | Mismatch | Vacant:
    """Decide by the records found: first, whether this attempt was applied already.

    That holds even if the attempt's record has expired since.
    """
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
