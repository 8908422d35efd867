"""The protocol: how a call claims a key, keeps the key, finishes the record and gives the key back.

1. A record belongs to the owner in its attribute `owner`: 128 random bits, made for one claim. A refused write
   whose owner is already in the record had been applied before, and only the answer was lost.
2. Every write is conditional, and no condition holds a time. `judge` reads a record and decides whether a
   claim may take the record over; the write then insists on an unchanged record. So two contenders cannot both
   win, however wrong the clocks are.
3. A running record is its owner's until the lease is over by `clock_skew`. After that the first claim to take the
   record over wins, with a larger fencing token, and every later write of the old owner is refused. The losers of
   the race have seen the record change, and do not judge the winner by a clock.
4. A finished record is never written again, except by `forget`, and answers until its expiration.
5. The fingerprint of an unexpired record answers first, also after the end of the lease: the key is not free for
   another request.
6. A record never expires before its lease ends. A late renewal does not shorten a lease renewed since.
7. A key has one record, in any of its locations: see `placements`. Where claims stop searching a location after
   a time, lease and record end earlier. Where the locations of a key depend on the instant, rule 2 holds as
   long as clocks agree by `clock_skew`.
8. `forget` can take a key from a running owner. The vacant record left behind keeps the old owner out: a
   completion without a record would put a new one. The attribute `freed_by` marks the duty, later claims carry the
   attribute on, and giving the key back leaves a vacant record again. So the old owner stays refused until the
   vacant record of `forget` expires.

A procedure is a generator: the caller sends the reply to each operation, and the procedure returns an outcome. Time
and randomness are arguments, so tests can play every interleaving without a database.

A claim and a completion know their first operation without asking: `first_put` and `first_update` make the operation.
Nearly always the store applies the operation, and the call goes on at once. After a refusal, `claim_refused` or
`completion_refused` goes on. The procedures `claim` and `complete` are both steps in turn, so the rules are written
here once for both ways.
"""

from collections.abc import Iterable, Iterator
from math import floor, inf
from typing import NamedTuple, final

from msgspec import Struct
from msgspec.structs import replace

from aioidempotency._core import model, placements
from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.decisions import Claimed, Decision, InProgress, Mismatch, Replay
from aioidempotency._core.model import (
    Finished,
    Item,
    Lease,
    Location,
    Locations,
    Record,
    Route,
    SerializedResult,
    Status,
)
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Delete,
    Operation,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Update,
    Write,
)
from aioidempotency._core.placements import Procedure, Seen

ATTEMPTS = 5
"""Tries of a claim whose record keeps changing, before the key counts as in progress."""


@final
class Claim(Struct, frozen=True, kw_only=True, gc=False):
    """One attempt to own a key, with every argument decided before the first request.

    `now` is the instant at which the attempt began. A slow store makes `now` stale, which is safe: the granted
    lease is shorter than possible, and the leases of others look longer than real. Only a route whose locations
    change with time sets a bound: `answer_within`.

    `label` is the text of `claimed_by`; None leaves the attribute out.
    """

    route: Route
    owner: str
    now: float
    lease: float
    retention: float
    clock_skew: float
    fingerprint: str | None = None
    read_first: bool = False
    label: str | None = None

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
            label=self.label,
        )

    @property
    def locations(self) -> Locations:
        """The locations that may hold a record of the key; the attempt puts its own into the first."""
        return self.route.locations(self.now)


@final
class Contended(Struct, frozen=True):
    """Others changed the record at each of `ATTEMPTS` attempts, and nothing was written. The caller may try again later.

    No record can be shown for this outcome: each record found was over, or gone a moment later.
    """


@final
class Vacant(Struct, frozen=True):
    """The record protects no owner and no result: a claim may take the key over."""


@final
class Completed(Struct, frozen=True):
    """The record is finished, and holds the result."""

    record: Record


@final
class Renewed(Struct, frozen=True):
    """The lease goes on."""

    lease: Lease


@final
class Released(Struct, frozen=True):
    """The owner no longer holds the key."""


@final
class Lost(Struct, frozen=True):
    """Someone else holds the record, the record is gone, or the lease is over.

    Attributes:
        record: The present record. None if there is none, or if nobody looked.
        over: Whether the lease is over by time alone, or cannot be extended: nobody looked at the table.
    """

    record: Record | None
    over: bool = False


class FoundRecord(NamedTuple):
    """A record that was found. `fresh`: written after the attempt began."""

    location: Location
    item: Item
    record: Record
    fresh: bool

    # The item holds a result.
    def __repr__(self) -> str:
        return f"<FoundRecord in {self.location!r}: {self.record!r}{', fresh' if self.fresh else ''}>"


def claim(attempt: Claim) -> Procedure[Decision | Contended]:
    """Own the key, or say why not."""
    if attempt.read_first:
        seen = yield from placements.look(attempt.locations)
        return (yield from _contend(attempt, seen, tries=ATTEMPTS))
    lease, operation = first_put(attempt)
    reply = yield operation
    return Claimed(lease) if isinstance(reply, Applied) else (yield from claim_refused(attempt, operation, reply))


def first_put(attempt: Claim) -> tuple[Lease, Put | Transact]:
    """Make the first write of a claim without a read, and the lease granted by the write."""
    locations = attempt.locations
    lease = grant(attempt, locations[0], round(attempt.now * 1000))
    item = model.running(lease)
    if len(locations) == 1:
        return lease, Put(locations[0], item, _ABSENT)
    return lease, placements.put(locations, item, None)


def claim_refused(attempt: Claim, operation: Put | Transact, reply: Reply) -> Procedure[Decision | Contended]:
    """Continue a claim whose first write was refused: judge the record found, and take over a vacant one."""
    seen = yield from placements.seen_by(operation, refusal_in(operation, reply))
    return (yield from _contend(attempt, seen, tries=ATTEMPTS - 1))


def _contend(attempt: Claim, seen: Seen, *, tries: int) -> Procedure[Decision | Contended]:
    """Judge the records in the locations, and take over vacant ones. Try again while the records keep changing."""
    locations, token = attempt.locations, model.milliseconds(attempt.now)
    known: Seen | None = None
    for _ in range(tries):
        found = parse_found(locations, seen, known)
        verdict = judge_all(found, attempt)
        if not isinstance(verdict, Vacant):
            return verdict
        lease = take_over(attempt, found, token)
        token = lease.fencing_token
        operation = placements.put(locations, model.running(lease), seen)
        reply = yield operation
        if isinstance(reply, Applied):
            return Claimed(lease)
        known, seen = seen, (yield from placements.seen_by(operation, refusal_in(operation, reply)))
    verdict = judge_all(parse_found(locations, seen, known), attempt)
    return Contended() if isinstance(verdict, Vacant) else verdict


def inspect(attempt: Claim) -> Procedure[Decision | Vacant]:
    """Say how a claim would end now, without claiming."""
    locations = attempt.locations
    seen = yield from placements.look(locations)
    return judge_all(parse_found(locations, seen), attempt)


def judge_all(found: tuple[FoundRecord, ...], attempt: Claim) -> Decision | Vacant:
    """Judge all records found: first the attempt's own, then finished, then running records.

    A single record counts at a time. Other locations may hold expired records, and late copies of abandoned
    claims. A late copy of the attempt's own earlier claim counts only if no other record does.
    """
    for location, _, record, fresh in sorted(found, key=lambda each: _weight(each.record, attempt), reverse=True):
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
    """Judge one record for an attempt. Every judgement about time is made here.

    A `fresh` record was written after the attempt began, and counts as running, whatever the clocks say: of many
    contenders for a lapsed lease, a single contender wins. Only the vacant record of `forget` is nobody's, fresh or not.
    """
    if record.owner == attempt.owner and record.status is Status.INPROGRESS:
        ours = _regrant(record, attempt)
        return Vacant() if lapsed(ours, now=attempt.now) else Claimed(ours)
    verdict = _judge_by_clock(record, attempt)
    if fresh and isinstance(verdict, Vacant) and record.status is Status.INPROGRESS and not record.vacant:
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
    """Store the result for the retention of the lease.

    If the record is gone (deleted by the table's TTL, say), the completion puts a finished record as a claim would
    put a running one, so that finished work is remembered. A record that the owner finished before keeps its first
    result. A running record of the same owner, after a refusal, is a late copy of the claim, and is finished, too.

    Where the locations of a key depend on the instant, a missing record means a lost lease, and so does a lease that
    is over: another call may have claimed the key in a location that this owner did not look at.
    """
    if lapsed(lease, now=now):
        return Lost(None, over=True)
    finished, operation = first_update(lease, result, now=now)
    reply = yield operation
    if isinstance(reply, Applied):
        return Completed(finished.record)
    return (yield from completion_refused(lease, result, operation, reply, now=now))


def first_update(lease: Lease, result: SerializedResult, *, now: float) -> tuple[Finished, Update]:
    """Make the first write of a completion, and the record to come of the write."""
    # As `finished_until` of most leases, in line.
    usual = lease.freed_by is None and lease.route is lease.location
    expiration = floor(now + lease.retention) if usual else finished_until(lease, now + lease.retention)
    changes = model.completed(result, expiration=expiration)
    return (
        Finished(lease, result, expiration),
        Update(lease.location, changes, HeldBy(lease.owner)),
    )


def completion_refused(
    lease: Lease, result: SerializedResult, operation: Write | Transact, reply: Reply, *, now: float
) -> Procedure[Completed | Lost | Contended]:
    """Continue a completion whose first write was refused; see `complete`."""
    tries_left = ATTEMPTS
    while True:
        tries_left -= 1
        seen = yield from placements.seen_by(operation, refusal_in(operation, reply))
        found = parse_found(_locations_of(operation), seen)
        if not found:
            if lease.route.answer_within < inf:
                return Lost(None)
            if not tries_left:
                break
            locations = lease.route.locations(now)
            lease = lease if locations[0] is lease.location else replace(lease, location=locations[0])
            expiration = finished_until(lease, now + lease.retention)
            finished = Finished(lease, result, expiration)
            operation = placements.put(locations, model.finished(lease, result, expiration=expiration), seen=None)
        else:
            location, _, record, _ = max(found, key=lambda each: each.record.owner == lease.owner)
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
            return Completed(finished.record)
    return Contended()


def finished_by(record: Record, owner: str) -> bool:
    """Tell whether an owner has finished a record: then the completion was applied, and the answer lost."""
    return record.owner == owner and record.status is Status.COMPLETED


def lapsed(lease: Lease, *, now: float) -> bool:
    """Tell whether a lease has ended by time alone, as leases do where the locations of a key depend on the instant.

    There another owner's record may be in a later location, and a late copy of the claim in the old one.
    """
    return now > lease.expires_at and lease.route.answer_within < inf


def renew(lease: Lease, *, now: float, clock_skew: float) -> Procedure[Renewed | Lost | Contended]:
    """Move the end of the lease to its full duration from now."""
    duration = min(lease.duration, lease.route.searched_until(lease.location) - clock_skew - now)
    ends = model.whole_milliseconds(now + duration)
    if lapsed(lease, now=now) or (duration < lease.duration and ends <= lease.expires_at):
        return Lost(None, over=True)
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


def release(lease: Lease) -> Procedure[Released | Lost]:
    """Give the key back, so that the next call runs. A finished record stays, and so does another owner's."""
    operation = _give_back(lease, HeldBy(lease.owner))
    reply = yield operation
    if isinstance(reply, Applied):
        return Released()
    record = yield from _refuser(operation, reply)
    left = {lease.owner, _successor(lease.owner)}
    return Released() if record is None or record.owner in left else Lost(record)


def withdraw(attempt: Claim, sent: Iterable[Operation]) -> Procedure[Released | Lost]:
    """Give back the key of a cancelled claim, which any of the operations sent may have won.

    The last write may still be under way, so reading the record would not tell whether the claim has taken over the duty
    to keep an old owner out. The claim's own writes do.
    """
    lease = grant(attempt, attempt.locations[0], 0)
    for put in _puts(sent):
        record = model.parse(put.item, put.location)
        if record.freed_by is not None:
            token, expiration = record.fencing_token, floor(record.expiration)
            lease = replace(lease, freed_by=record.freed_by, fencing_token=token, expiration=expiration)
    return (yield from release(lease))


def _puts(sent: Iterable[Operation]) -> Iterator[Put]:
    for operation in sent:
        writes = operation.writes if isinstance(operation, Transact) else (operation,)
        yield from (each for each in writes if isinstance(each, Put))


def take_back(lease: Lease) -> Procedure[None]:
    """Remove the record of a claim that nobody relied on, as claimed.

    A late copy of the removal spares a record claimed by the same owner since.
    """
    yield _give_back(lease, Unchanged(model.running(lease)))


def _give_back(lease: Lease, condition: HeldBy | Unchanged) -> Put | Delete:
    """Delete the record of a lease, or leave a vacant record where an old owner must be kept out."""
    if lease.freed_by is None:
        return Delete(lease.location, condition)
    left = model.vacant(
        lease.location,
        owner=_successor(lease.owner),
        fencing_token=lease.fencing_token + 1,
        expiration=lease.expiration,
        freed_by=lease.freed_by,
    )
    return Put(lease.location, left, condition)


def _successor(owner: str) -> str:
    """Name the owner of the vacant record after an owner: never the owner of a claim, and the same at each try."""
    return f"{owner} left"


def read(route: Route, *, now: float) -> Procedure[Record | None]:
    """Read the record that counts now. An expired record does not count, even while stored."""
    locations = route.locations(now)
    found = parse_found(locations, (yield from placements.look(locations)))
    living = [each.record for each in found if floor(now) <= each.record.expiration]
    return max(living, key=lambda record: (record.status is Status.COMPLETED, record.fencing_token), default=None)


def take_over(attempt: Claim, found: tuple[FoundRecord, ...], token: int) -> Lease:
    """Grant the lease of a claim over all records found, with a larger fencing token than any of them.

    A record with the duty to keep an old owner out passes the duty on, at least until the record's own expiration.
    """
    records = [each.record for each in found]
    lease = grant(attempt, attempt.locations[0], max([token, *(each.fencing_token + 1 for each in records)]))
    for record in records:
        if record.freed_by is not None and floor(attempt.now) <= record.expiration:
            kept = expiration_of(attempt.route, lease.location, record.expiration)
            lease = replace(lease, freed_by=record.freed_by, expiration=max(lease.expiration, kept))
    return lease


def grant(attempt: Claim, location: Location, fencing_token: int) -> Lease:
    """Make the lease that an attempt gets in a location."""
    now, duration = attempt.now, attempt.lease
    route, searched_until = attempt.route, inf
    # A lease does not outlast the time for which claims look at its location, nor does a record.
    if route is not location:
        searched_until = route.searched_until(location)
        duration = min(duration, searched_until - attempt.clock_skew - now)
    ends = floor((now + duration) * 1000) / 1000  # as `model.whole_milliseconds`
    expiration, least = now + attempt.retention, ends + attempt.clock_skew
    if expiration < least:  # noqa: PLR1730 - without a call, as this is on the path of every claim
        expiration = least
    return Lease(
        location=location,
        route=route,
        owner=attempt.owner,
        fencing_token=fencing_token,
        expires_at=ends,
        expiration=floor(expiration if expiration < searched_until else searched_until),  # noqa: FURB136
        duration=duration,
        retention=attempt.retention,
        fingerprint=attempt.fingerprint,
        claimed_by=attempt.label,
    )


def _regrant(record: Record, attempt: Claim) -> Lease:
    """Make the lease of the attempt's own record as stored: an earlier try of the same call may have written the record."""
    lease = grant(attempt, attempt.locations[0], record.fencing_token)
    ends = lease.expires_at if record.lease_ends_at is None else record.lease_ends_at
    return replace(lease, expires_at=ends, expiration=floor(record.expiration), freed_by=record.freed_by)


def expiration_of(route: Route, location: Location, wanted: float) -> int:
    """Let a record expire when wanted, but not after claims stop searching its location."""
    return floor(min(wanted, route.searched_until(location)))


def finished_until(lease: Lease, wanted: float) -> int:
    """Say when the finished record of a lease expires: as wanted, or later to keep an old owner out for long enough."""
    expiration = expiration_of(lease.route, lease.location, wanted)
    return expiration if lease.freed_by is None else max(expiration, lease.expiration)


def parse_found(locations: Locations, seen: Seen | None, known: Seen | None = None) -> tuple[FoundRecord, ...]:
    """Read the items seen in the locations; items unknown to an earlier look are fresh."""
    if seen is None:
        return ()
    return tuple(
        FoundRecord(location, item, model.parse(item, location), fresh=known is not None and item != known[index])
        for index, (location, item) in enumerate(zip(locations, seen, strict=True))
        if item is not None
    )


def _refuser(operation: Write, reply: Reply) -> Procedure[Record | None]:
    """Find the record that refused a write of one location."""
    seen = yield from placements.seen_by(operation, refusal_in(operation, reply))
    found = parse_found((operation.location,), seen)
    return found[0].record if found else None


def refusal_in(operation: Write | Transact, reply: Reply) -> ConditionFailed | TransactionFailed:
    """Insist on a refusal as the reply to a write without effect."""
    if not isinstance(reply, TransactionFailed if isinstance(operation, Transact) else ConditionFailed):
        raise TypeError(f"the backend answered {operation!r} with {type(reply).__name__}")
    return reply


def _locations_of(operation: Write | Transact) -> Locations:
    return (
        tuple(each.location for each in operation.writes) if isinstance(operation, Transact) else (operation.location,)
    )


_ABSENT = Absent()
