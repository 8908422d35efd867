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
7. A key has one record, in whichever of its locations it is: `placements` says how. Where claims stop
   looking at a location after a time, lease and record end before that; where the locations of a key depend
   on the instant, rule 2 holds as long as clocks agree by `clock_skew`.

A procedure is a generator: it yields operations, is sent replies, and returns its outcome. Time and
randomness come in as arguments, so a test can play every interleaving without a database.

The first operation of a claim and of a completion is known before anything is asked: `first_put` and
`first_update` make it. Nearly always it is applied, and the call goes on at once. What refuses it goes to
`claim_refused` or `completion_refused`. The procedures `claim` and `complete` are these two steps in turn,
so the rules stand here once, whichever way a call takes.
"""

from dataclasses import replace
from math import floor, inf
from typing import NamedTuple, final

from msgspec import Struct

from aioidempotency._core import model, placements
from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import Lease, Location, Locations, Record, Route, SerializedResult, Status
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Delete,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Update,
    Write,
)
from aioidempotency._core.placements import Procedure, Seen

ATTEMPTS = 5
"""How often a claim may find that the record changed under it, before it is called contended."""


@final
class Claim(Struct, frozen=True, kw_only=True):
    """One attempt to own a key: everything about it is decided before the first request.

    `now` is the instant at which the attempt began. A slow store makes it stale, which is safe: the
    lease is then shorter than it could be, and others' leases look longer than they are. Only a route
    whose locations change with time bounds that: `answer_within`.
    """

    route: Route
    owner: str
    now: float
    lease: float
    retention: float
    clock_skew: float
    fingerprint: str | None = None
    read_first: bool = False

    def at(self, now: float, *, lease: float) -> "Claim":
        """Make the same attempt at another instant."""
        return Claim(
            route=self.route,
            owner=self.owner,
            now=now,
            lease=lease,
            retention=self.retention,
            clock_skew=self.clock_skew,
            fingerprint=self.fingerprint,
            read_first=self.read_first,
        )

    @property
    def locations(self) -> Locations:
        """Where a record of the key may be; this attempt puts one into the first."""
        return self.route.locations(self.now)


@final
class Contended(Struct, frozen=True):
    """Others changed the record at each of `ATTEMPTS` attempts, and nothing was written. The caller may try again later.

    No record can be shown for this outcome: each record found was over, or gone a moment later.
    """


@final
class Vacant(Struct, frozen=True):
    """The record no longer protects anyone: it may be taken over."""


@final
class Completed(Struct, frozen=True):
    """The record is finished, with this result."""

    record: Record


@final
class Renewed(Struct, frozen=True):
    """The lease goes on."""

    lease: Lease


@final
class Released(Struct, frozen=True):
    """The key is free as far as we are concerned."""


@final
class Lost(Struct, frozen=True):
    """Someone else holds the record, or it is gone."""

    record: Record | None


class FoundRecord(NamedTuple):
    """A record that was found. `fresh`: it was written after the attempt began."""

    location: Location
    record: Record
    fresh: bool


def claim(attempt: Claim) -> Procedure[Decision | Contended]:
    """Own the key, or say why not."""
    if attempt.read_first:
        seen = yield from placements.look(attempt.locations)
        return (yield from _contend(attempt, seen, tries=ATTEMPTS))
    lease, operation = first_put(attempt)
    reply = yield operation
    return Claimed(lease) if isinstance(reply, Applied) else (yield from claim_refused(attempt, operation, reply))


def first_put(attempt: Claim) -> tuple[Lease, Put | Transact]:
    """Make the first write of a claim that has read nothing, and the lease that the write grants where it is applied."""
    locations = attempt.locations
    lease = grant(attempt, locations[0], model.milliseconds(attempt.now))
    item = model.running(lease)
    if len(locations) == 1:
        return lease, Put(locations[0], item, _ABSENT)
    return lease, placements.put(locations, item, None)


def claim_refused(attempt: Claim, operation: Put | Transact, reply: Reply) -> Procedure[Decision | Contended]:
    """Go on where the first write of a claim was refused: judge what refused it, and take over what is vacant."""
    seen = yield from placements.seen_by(operation, _refusal_in(operation, reply))
    return (yield from _contend(attempt, seen, tries=ATTEMPTS - 1))


def _contend(attempt: Claim, seen: Seen, *, tries: int) -> Procedure[Decision | Contended]:
    """Judge what is in the locations, and take over what is vacant, as often as the record changes under this."""
    locations, token = attempt.locations, model.milliseconds(attempt.now)
    known: Seen | None = None
    for _ in range(tries):
        found = parse_found(locations, seen, known)
        verdict = judge_all(found, attempt)
        if not isinstance(verdict, Vacant):
            return verdict
        token = max([token, *(each.record.fencing_token + 1 for each in found)])
        lease = grant(attempt, locations[0], token)
        operation = placements.put(locations, model.running(lease), seen)
        reply = yield operation
        if isinstance(reply, Applied):
            return Claimed(lease)
        known, seen = seen, (yield from placements.seen_by(operation, _refusal_in(operation, reply)))
    verdict = judge_all(parse_found(locations, seen, known), attempt)
    return Contended() if isinstance(verdict, Vacant) else verdict


def inspect(attempt: Claim) -> Procedure[Decision | Vacant]:
    """Say what a claim would find now, without claiming."""
    locations = attempt.locations
    seen = yield from placements.look(locations)
    return judge_all(parse_found(locations, seen), attempt)


def judge_all(found: tuple[FoundRecord, ...], attempt: Claim) -> Decision | Vacant:
    """Say what all that was found means: what this attempt wrote, then what is finished, then what runs.

    One record counts at a time. Beside it may be what has expired, and a late copy of a claim that
    its owner gave up. That may have been ours, earlier: then it counts only where no other does.
    """
    for location, record, fresh in sorted(found, key=lambda each: _weight(each.record, attempt), reverse=True):
        verdict = judge(record, attempt, fresh=fresh)
        if isinstance(verdict, Claimed):
            return Claimed(replace(verdict.lease, location=location))
        if not isinstance(verdict, Vacant):
            return verdict
    return Vacant()


def _weight(record: Record, attempt: Claim) -> tuple[bool, bool, bool, int]:
    ours = record.owner == attempt.owner
    just_written = ours and record.fencing_token >= model.milliseconds(attempt.now)
    return just_written, record.status is Status.COMPLETED, not ours, record.fencing_token


def judge(record: Record, attempt: Claim, *, fresh: bool = False) -> Decision | Vacant:
    """Say what a record that was found means to this attempt: every judgement about time is here.

    `fresh` says that it was written after the attempt began. Then it is running, whatever the
    clocks say: of many who find a lease over, one wins.
    """
    if record.owner == attempt.owner and record.status is Status.INPROGRESS:
        ours = _regrant(record, attempt)
        return Vacant() if lapsed(ours, now=attempt.now) else Claimed(ours)
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


def complete(lease: Lease, result: SerializedResult, *, now: float) -> Procedure[Completed | Lost | Contended]:
    """Store the result for as long as the lease's retention says.

    A record that is gone (deleted by the table's TTL, say) is written again as a claim would be, so
    that finished work is remembered. One that we finished before keeps its first result. One that is
    ours and running, although we were refused, is a late copy of our claim: it is finished, too.

    Where the locations of a key depend on the instant, a record that is gone is lost, and so is one whose
    lease is over: another call may have claimed the key in a location that this one did not look at.
    """
    if lapsed(lease, now=now):
        return Lost(None)
    finished, operation = first_update(lease, result, now=now)
    reply = yield operation
    if isinstance(reply, Applied):
        return Completed(finished)
    return (yield from completion_refused(lease, result, operation, reply, now=now))


def first_update(lease: Lease, result: SerializedResult, *, now: float) -> tuple[Record, Update]:
    """Make the first write of a completion, and the record that it leaves where it is applied."""
    expiration = expiration_of(lease.route, lease.location, now + lease.retention)
    changes = model.completed(result, expiration=expiration)
    return (
        model.record_of(lease, result, expiration=expiration),
        Update(lease.location, changes, HeldBy(lease.owner)),
    )


def completion_refused(
    lease: Lease, result: SerializedResult, operation: Write | Transact, reply: Reply, *, now: float
) -> Procedure[Completed | Lost | Contended]:
    """Go on where the first write of a completion was refused; see `complete`."""
    for tries_left in reversed(range(ATTEMPTS)):
        seen = yield from placements.seen_by(operation, _refusal_in(operation, reply))
        found = parse_found(_locations_of(operation), seen)
        if not found:
            if lease.route.answer_within < inf:
                return Lost(None)
            if not tries_left:
                break
            locations = lease.route.locations(now)
            lease = lease if locations[0] is lease.location else replace(lease, location=locations[0])
            expiration = expiration_of(lease.route, lease.location, now + lease.retention)
            finished = model.record_of(lease, result, expiration=expiration)
            operation = placements.put(locations, model.finished(lease, result, expiration=expiration), seen=None)
        else:
            location, record, _ = max(found, key=lambda each: each.record.owner == lease.owner)
            if record.owner != lease.owner:
                return Lost(record)
            if finished_by(record, lease.owner):
                return Completed(record)
            if not tries_left:
                break
            lease = lease if location is lease.location else replace(lease, location=location)
            finished, operation = first_update(lease, result, now=now)
        reply = yield operation
        if isinstance(reply, Applied):
            return Completed(finished)
    return Contended()


def finished_by(record: Record, owner: str) -> bool:
    """Tell whether an owner has finished a record: then its completion was applied, and its answer lost."""
    return record.owner == owner and record.status is Status.COMPLETED


def lapsed(lease: Lease, *, now: float) -> bool:
    """Tell whether a lease is over where that alone ends it: where the locations of a key depend on the instant.

    Whoever took it over may be in a later location, and a late copy of its claim be where its record was.
    """
    return now > lease.expires_at and lease.route.answer_within < inf


def renew(lease: Lease, *, now: float, clock_skew: float) -> Procedure[Renewed | Lost | Contended]:
    """Move the end of the lease to its duration from now."""
    duration = min(lease.duration, lease.route.searched_until(lease.location) - clock_skew - now)
    ends = model.whole_milliseconds(now + duration)
    if lapsed(lease, now=now) or (duration < lease.duration and ends <= lease.expires_at):
        return Lost(None)
    expiration = max(lease.expiration, floor(ends + clock_skew))
    wanted = replace(lease, expires_at=ends, expiration=expiration, duration=duration)
    until = model.milliseconds(lease.expires_at)
    for _ in range(ATTEMPTS):
        operation = Update(lease.location, model.renewed(wanted), HeldBy(lease.owner, until))
        reply = yield operation
        if isinstance(reply, Applied):
            return Renewed(wanted)
        record = yield from _refuser(operation, reply)
        if record is None or record.owner != lease.owner or record.status is not Status.INPROGRESS:
            return Lost(record)
        # Leases always have an end: without one, somebody else has written the record.
        if record.in_progress_expiration is None:
            return Lost(record)
        until = int(record.in_progress_expiration)
        if until >= model.milliseconds(ends):
            return Renewed(replace(wanted, expires_at=until / 1000, expiration=floor(record.expiration)))
    return Contended()


def release(location: Location, owner: str) -> Procedure[Released | Lost]:
    """Give the key back, so that the next call runs. A finished record stays, and so does another's."""
    operation = Delete(location, HeldBy(owner))
    reply = yield operation
    if isinstance(reply, Applied):
        return Released()
    record = yield from _refuser(operation, reply)
    return Released() if record is None or record.owner == owner else Lost(record)


def take_back(lease: Lease) -> Procedure[None]:
    """Remove the record of a claim that nobody relied on, as it was claimed.

    A copy of this that arrives late leaves alone what the same owner has claimed since.
    """
    yield Delete(lease.location, Unchanged(model.running(lease)))


def read(route: Route, *, now: float) -> Procedure[Record | None]:
    """Read the record that counts now; an expired one does not, even while it is still stored."""
    locations = route.locations(now)
    found = parse_found(locations, (yield from placements.look(locations)))
    living = [each.record for each in found if floor(now) <= each.record.expiration]
    return max(living, key=lambda record: (record.status is Status.COMPLETED, record.fencing_token), default=None)


def grant(attempt: Claim, location: Location, fencing_token: int) -> Lease:
    """Say what lease an attempt gets in a location."""
    searched_until = attempt.route.searched_until(location)
    # A lease does not outlast the time for which claims look at its location, nor does a record.
    duration = min(attempt.lease, searched_until - attempt.clock_skew - attempt.now)
    ends = model.whole_milliseconds(attempt.now + duration)
    expiration = max(attempt.now + attempt.retention, ends + attempt.clock_skew)
    return Lease(
        location=location,
        route=attempt.route,
        owner=attempt.owner,
        fencing_token=fencing_token,
        expires_at=ends,
        expiration=floor(min(expiration, searched_until)),
        duration=duration,
        retention=attempt.retention,
        fingerprint=attempt.fingerprint,
    )


def _regrant(record: Record, attempt: Claim) -> Lease:
    """Take our own write for granted as it stands: an earlier look of this call may have sent it."""
    lease = grant(attempt, attempt.locations[0], record.fencing_token)
    ends = lease.expires_at if record.lease_ends_at is None else record.lease_ends_at
    return replace(lease, expires_at=ends, expiration=floor(record.expiration))


def expiration_of(route: Route, location: Location, wanted: float) -> int:
    """Let a record expire when wanted, but not after claims have stopped to look at its location."""
    return floor(min(wanted, route.searched_until(location)))


def parse_found(locations: Locations, seen: Seen | None, known: Seen | None = None) -> tuple[FoundRecord, ...]:
    """Read what was seen in the locations, and known from the look before, if there was one."""
    if seen is None:
        return ()
    return tuple(
        FoundRecord(location, model.parse(item, location), fresh=known is not None and item != known[index])
        for index, (location, item) in enumerate(zip(locations, seen, strict=True))
        if item is not None
    )


def _refuser(operation: Write, reply: Reply) -> Procedure[Record | None]:
    """Have the record that refused a write of one location."""
    seen = yield from placements.seen_by(operation, _refusal_in(operation, reply))
    found = parse_found((operation.location,), seen)
    return found[0].record if found else None


def _refusal_in(operation: Write | Transact, reply: Reply) -> ConditionFailed | TransactionFailed:
    """Insist that a write which was not applied was refused."""
    if not isinstance(reply, TransactionFailed if isinstance(operation, Transact) else ConditionFailed):
        raise TypeError(f"the backend answered {operation!r} with {type(reply).__name__}")
    return reply


def _locations_of(operation: Write | Transact) -> Locations:
    return (
        tuple(each.location for each in operation.writes) if isinstance(operation, Transact) else (operation.location,)
    )


_ABSENT = Absent()
