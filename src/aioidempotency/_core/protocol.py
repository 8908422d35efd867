"""The protocol: how a key is claimed, kept, finished and given back.

1. A record belongs to whoever wrote its `owner`, 128 random bits made for one claim. Finding our own
   owner in a refused write means that the write had been applied and its answer was lost.
2. Every write is conditional, and no condition holds a time. Whether a record may be taken over is
   judged here, by `judge`, on a record that was read; the write then insists that nothing changed.
   So two contenders cannot both win, whatever their clocks say.
3. A running record is its owner's until its lease is over by `clock_skew`. Then the first who takes
   it over wins, with a larger fencing token, and everything the old owner still writes is refused.
   Who loses that race has seen the record change, and does not judge the winner by its own clock.
4. A finished record is never written again, and answers until its expiration.
5. The fingerprint of an unexpired record answers first, also when its lease is over: the key is not
   free for another request.
6. A record never expires before its lease does, and a renewal that was delayed on its way does not
   shorten a lease that was renewed since.

A procedure is a generator: it yields operations, is sent replies, and returns its outcome. Time and
randomness come in as arguments, so a test can play every interleaving without a database.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from math import floor
from typing import TypeVar, final

from aioidempotency._core import records
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Encoded, Item, Lease, Location, Record, Status
from aioidempotency._core.operations import (
    Applied,
    Delete,
    Found,
    Get,
    Operation,
    Put,
    Refused,
    Reply,
    Update,
    Write,
    WriteReply,
)

T = TypeVar("T")
Procedure = Generator[Operation, Reply, T]

ATTEMPTS = 5
"""How often a claim may find that the record changed under it, before it is called contended."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt to own a key: everything about it is decided before the first request.

    `now` is the instant at which the attempt began. A slow store makes it stale, which is safe: the
    lease is then shorter than it could be, and others' leases look longer than they are.
    """

    location: Location
    owner: str
    now: float
    lease: float
    retention: float
    clock_skew: float
    fingerprint: str | None = None
    read_first: bool = False


@final
@dataclass(frozen=True, slots=True)
class Vacant:
    """The record no longer protects anyone: it may be taken over."""


@final
@dataclass(frozen=True, slots=True)
class Completed:
    """The record is finished, with this result."""

    record: Record


@final
@dataclass(frozen=True, slots=True)
class Renewed:
    """The lease goes on."""

    lease: Lease


@final
@dataclass(frozen=True, slots=True)
class Released:
    """The key is free as far as we are concerned."""


@final
@dataclass(frozen=True, slots=True)
class Lost:
    """Someone else holds the record, or it is gone."""

    record: Record | None


def claim(attempt: Claim) -> Procedure[Decision]:
    """Own the key, or say why not."""
    lease = _grant(attempt, records.milliseconds(attempt.now))
    item = (yield from _read(attempt.location)) if attempt.read_first else None
    looked, fresh = attempt.read_first, False
    for _ in range(ATTEMPTS):
        condition: Condition = Absent()
        if item is not None:
            record = records.parse(item, attempt.location)
            verdict = judge(record, attempt, fresh=fresh)
            if not isinstance(verdict, Vacant):
                return verdict
            condition = Unchanged(item)
            lease = _grant(attempt, max(lease.fencing_token, record.fencing_token + 1))
        reply = yield from _write(Put(attempt.location, records.running(lease), condition))
        if isinstance(reply, Applied):
            return Claimed(lease)
        item = yield from _seen_by(reply, attempt.location)
        looked, fresh = True, looked
    record = records.parse(records.running(lease) if item is None else item, attempt.location)
    verdict = Vacant() if item is None else judge(record, attempt, fresh=True)
    return InProgress(record, retry_after=attempt.lease) if isinstance(verdict, Vacant) else verdict


def inspect(attempt: Claim) -> Procedure[Decision | Vacant]:
    """Say what a claim would find now, without claiming."""
    item = yield from _read(attempt.location)
    return Vacant() if item is None else judge(records.parse(item, attempt.location), attempt)


def judge(record: Record, attempt: Claim, *, fresh: bool = False) -> Decision | Vacant:
    """Say what a record that was found means to this attempt: every judgement about time is here.

    `fresh` says that it was written after the attempt began. Then it is running, whatever the
    clocks say: of many who find a lease over, one wins.
    """
    if record.owner == attempt.owner and record.status is Status.INPROGRESS:
        return Claimed(_regrant(record, attempt))
    verdict = _judge_by_clock(record, attempt)
    if fresh and isinstance(verdict, Vacant) and record.status is Status.INPROGRESS:
        return InProgress(record, retry_after=attempt.lease)
    return verdict


def _judge_by_clock(record: Record, attempt: Claim) -> Decision | Vacant:
    if floor(attempt.now) > record.expiration:
        return Vacant()
    if attempt.fingerprint is not None and record.fingerprint not in (None, attempt.fingerprint):
        return Mismatch(record)
    if record.status is Status.COMPLETED:
        return Replay(record)
    if record.lease_ends_at is None:
        return InProgress(record, retry_after=floor(record.expiration) + 1 - attempt.now)
    remaining = record.lease_ends_at + attempt.clock_skew - attempt.now
    return Vacant() if remaining < 0 else InProgress(record, retry_after=remaining)


def complete(lease: Lease, result: Encoded, *, now: float) -> Procedure[Completed | Lost]:
    """Store the result for as long as the lease's retention says.

    A record that is gone (deleted by the table's TTL, say) is written again as a claim would be, so
    that finished work is remembered. One that we finished before keeps its first result. One that is
    ours and running, although we were refused, is a late copy of our claim: it is finished, too.
    """
    expiration = floor(now + lease.retention)
    update = Update(lease.location, records.completed(result, expiration=expiration), HeldBy(lease.owner))
    record: Record | None = None
    operation: Write = update
    for _ in range(ATTEMPTS):
        reply = yield from _write(operation)
        if isinstance(reply, Applied):
            return Completed(records.record_of(lease, result, expiration=expiration))
        seen = yield from _seen_by(reply, lease.location)
        if seen is None:
            operation = Put(lease.location, records.finished(lease, result, expiration=expiration), Absent())
            continue
        record, operation = records.parse(seen, lease.location), update
        if record.owner != lease.owner:
            break
        if record.status is Status.COMPLETED:
            return Completed(record)
    return Lost(record)


def renew(lease: Lease, *, now: float, clock_skew: float) -> Procedure[Renewed | Lost]:
    """Move the end of the lease to its duration from now."""
    ends = records.whole_milliseconds(now + lease.duration)
    wanted = replace(lease, expires_at=ends, expiration=max(lease.expiration, floor(ends + clock_skew)))
    until = records.milliseconds(lease.expires_at)
    record: Record | None = None
    for _ in range(ATTEMPTS):
        reply = yield from _write(Update(lease.location, records.renewed(wanted), HeldBy(lease.owner, until)))
        if isinstance(reply, Applied):
            return Renewed(wanted)
        seen = yield from _seen_by(reply, lease.location)
        record = None if seen is None else records.parse(seen, lease.location)
        if record is None or record.owner != lease.owner or record.status is not Status.INPROGRESS:
            break
        until = int(record.in_progress_expiration or 0)
        if until >= records.milliseconds(ends):
            return Renewed(replace(wanted, expires_at=until / 1000, expiration=floor(record.expiration)))
    return Lost(record)


def release(location: Location, owner: str) -> Procedure[Released | Lost]:
    """Give the key back, so that the next call runs. A finished record stays, and so does another's."""
    reply = yield from _write(Delete(location, HeldBy(owner)))
    if isinstance(reply, Applied):
        return Released()
    seen = yield from _seen_by(reply, location)
    record = None if seen is None else records.parse(seen, location)
    return Released() if record is None or record.owner == owner else Lost(record)


def read(location: Location, *, now: float) -> Procedure[Record | None]:
    """Read the record that counts now; an expired one does not, even while it is still stored."""
    item = yield from _read(location)
    record = None if item is None else records.parse(item, location)
    return None if record is None or floor(now) > record.expiration else record


def _grant(attempt: Claim, fencing_token: int) -> Lease:
    ends = records.whole_milliseconds(attempt.now + attempt.lease)
    return Lease(
        location=attempt.location,
        owner=attempt.owner,
        fencing_token=fencing_token,
        expires_at=ends,
        expiration=floor(max(attempt.now + attempt.retention, ends + attempt.clock_skew)),
        duration=attempt.lease,
        retention=attempt.retention,
        fingerprint=attempt.fingerprint,
    )


def _regrant(record: Record, attempt: Claim) -> Lease:
    """Take our own write for granted as it stands: an earlier look of this call may have sent it."""
    lease = _grant(attempt, record.fencing_token)
    ends = lease.expires_at if record.lease_ends_at is None else record.lease_ends_at
    return replace(lease, expires_at=ends, expiration=floor(record.expiration))


def _seen_by(reply: Refused, location: Location) -> Procedure[Item | None]:
    """Have the item that refused a write; one consistent read where the refusal did not bring it."""
    if reply.item is not None:
        return reply.item
    return (yield from _read(location))


def _write(operation: Write) -> Procedure[WriteReply]:
    reply = yield operation
    if isinstance(reply, Found):
        raise TypeError(f"the backend answered {operation} as if it were a read")
    return reply


def _read(location: Location) -> Procedure[Item | None]:
    reply = yield Get(location)
    if not isinstance(reply, Found):
        raise TypeError(f"the backend answered a read of {location.key} as if it were a write")
    return reply.item
