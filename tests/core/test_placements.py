"""Claims over several locations, played reply by reply: one transaction, and what each refusal comes to."""

import pytest

from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.model import Item, Location, SerializedResult
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
    Found,
    FoundAll,
    GetAll,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Update,
)
from aioidempotency._core.protocol import (
    Completed,
    Lost,
    Renewed,
    Vacant,
    claim,
    complete,
    inspect,
    read,
    release,
    renew,
    take_back,
)
from tests.core.playing import NOW, Spreading, attempt, bucket, done, held, play, stored
from tests.support.values import replace

ROUTE = Spreading()
HOME, NEXT, LAST = ROUTE.at
FINE = None


def running(location: Location = HOME, token: int = 1_700_000_000_000) -> Item:
    """What `attempt()` writes."""
    return stored(
        location, owner="me", expiration=1_700_003_600, in_progress_expiration=1_700_000_060_000, fencing_token=token
    )


def lapsed(location: Location, token: int = 5) -> Item:
    return stored(location, in_progress_expiration=1_699_999_990_000, fencing_token=token)


FIRST = Transact((Put(HOME, running(), Absent()), Check(NEXT, Absent()), Check(LAST, Absent())))
LOOK = GetAll((HOME, NEXT, LAST))
CLAIM = attempt(route=ROUTE)


def test_a_first_claim_is_one_transaction_over_all_places() -> None:
    """P7: the record is put at home, and each other location must be empty at that moment."""
    played = play(claim(CLAIM), Applied())
    assert played.operations == (FIRST,)
    assert played.outcome == Claimed(held(location=HOME, route=ROUTE))


@pytest.mark.parametrize("index", range(3))
def test_a_record_is_found_in_whichever_place_it_is(index: int) -> None:
    """P2: the refusal brings it by its index, so a duplicate is one refused transaction and no read."""
    location = ROUTE.at[index]
    for item, kind in (
        (done(location), Replay),
        (stored(location), InProgress),
        (done(location, validation="theirs"), Mismatch),
    ):
        failures = tuple(ConditionFailed(item) if number == index else FINE for number in range(3))
        played = play(claim(attempt(route=ROUTE, fingerprint="mine")), TransactionFailed(failures))
        assert len(played.operations) == 1
        assert isinstance(played.outcome, kind)
        assert not isinstance(played.outcome, Claimed)
        assert played.outcome.record.key == location.key


def test_what_is_vacant_elsewhere_is_deleted_by_the_take_over() -> None:
    """Deleted and not only checked: its old owner finds itself refused. The token is above each that was seen."""
    old = lapsed(NEXT, token=1_900_000_000_000)
    played = play(claim(CLAIM), TransactionFailed((FINE, ConditionFailed(old), FINE)), Applied())
    taken = running(token=1_900_000_000_001)
    assert played.operations == (
        FIRST,
        Transact((Put(HOME, taken, Absent()), Delete(NEXT, Unchanged(old)), Check(LAST, Absent()))),
    )
    assert played.outcome == Claimed(held(location=HOME, route=ROUTE, fencing_token=1_900_000_000_001))


def test_what_is_vacant_in_several_places_is_taken_over_at_once() -> None:
    """The one at home is overwritten, the others go away, and each must be as it was seen."""
    here, there = lapsed(HOME), done(LAST, expiration=1_699_999_999)
    played = play(claim(CLAIM), TransactionFailed((ConditionFailed(here), FINE, ConditionFailed(there))), Applied())
    # `there` has a token of `stored`, which is smaller than the time.
    assert played.operations[1] == Transact(
        (Put(HOME, running(), Unchanged(here)), Check(NEXT, Absent()), Delete(LAST, Unchanged(there)))
    )
    assert isinstance(played.outcome, Claimed)


def test_what_a_refusal_did_not_name_is_still_as_it_was_seen() -> None:
    """A location that changes during a take-over is judged anew, and the others are remembered."""
    here, there = lapsed(HOME), lapsed(LAST)
    finished = done(LAST, expiration=1_699_999_999, fencing_token=1_700_000_000_007)
    played = play(
        claim(CLAIM),
        TransactionFailed((ConditionFailed(here), FINE, ConditionFailed(there))),
        TransactionFailed((FINE, FINE, ConditionFailed(finished))),
        Applied(),
    )
    assert played.operations[2] == Transact(
        (
            Put(HOME, running(token=1_700_000_000_008), Unchanged(here)),
            Check(NEXT, Absent()),
            Delete(LAST, Unchanged(finished)),
        )
    )


def test_a_refusal_that_brings_no_item_is_followed_by_one_read_of_all_places() -> None:
    """They are read as they are at one moment: one after the other, a record that moves could be missed."""
    played = play(
        claim(CLAIM), TransactionFailed((FINE, ConditionFailed(None), FINE)), FoundAll((None, None, done(LAST)))
    )
    assert played.operations == (FIRST, LOOK)
    assert isinstance(played.outcome, Replay)


def test_who_loses_a_take_over_does_not_judge_the_winner_by_its_own_clock() -> None:
    """O7: a record that appears in any location during a claim is running, whatever the clock says."""
    winner = lapsed(LAST)
    played = play(
        claim(CLAIM),
        TransactionFailed((ConditionFailed(lapsed(HOME)), FINE, FINE)),
        TransactionFailed((FINE, FINE, ConditionFailed(winner))),
    )
    assert len(played.operations) == 2
    assert isinstance(played.outcome, InProgress)
    assert played.outcome.retry_after == 60.0


def test_its_own_record_is_recognised_in_another_place() -> None:
    """O2: an earlier try of the call had another home; the lease is for where the record is."""
    mine = running(NEXT)
    played = play(claim(CLAIM), TransactionFailed((FINE, ConditionFailed(mine), FINE)))
    assert played.outcome == Claimed(held(location=NEXT, route=ROUTE))


def test_a_finished_record_answers_before_a_running_one() -> None:
    """A late copy of a claim that was given up may stand beside it; so may what has expired."""
    copy = stored(HOME, fencing_token=1_900_000_000_000)
    failures = (
        ConditionFailed(copy),
        ConditionFailed(done(NEXT, expiration=1_699_999_999)),
        ConditionFailed(done(LAST, data='"it"')),
    )
    played = play(claim(CLAIM), TransactionFailed(failures))
    assert isinstance(played.outcome, Replay)
    assert played.outcome.record.data == '"it"'


def test_its_own_record_counts_where_no_other_does() -> None:
    """It may be a late copy of an earlier try, beside a record of whoever has the key now; this try's own is not."""
    earlier = ConditionFailed(running(LAST, token=1_699_999_999_999))
    played = play(claim(CLAIM), TransactionFailed((ConditionFailed(stored(HOME)), FINE, earlier)))
    assert isinstance(played.outcome, InProgress)
    assert played.outcome.record.owner == "other"
    played = play(claim(CLAIM), TransactionFailed((ConditionFailed(lapsed(HOME)), FINE, earlier)))
    assert played.outcome == Claimed(held(location=LAST, route=ROUTE, fencing_token=1_699_999_999_999))
    played = play(
        claim(CLAIM), TransactionFailed((ConditionFailed(stored(HOME)), FINE, ConditionFailed(running(LAST))))
    )
    assert played.outcome == Claimed(held(location=LAST, route=ROUTE))


def test_a_record_that_is_gone_is_lost_where_places_depend_on_the_instant() -> None:
    """Its result could arrive when another call has the key in a location that this one did not look at."""
    lease = replace(LEASE, route=Spreading(answer_within=10.0))
    played = play(complete(lease, SerializedResult("1"), now=NOW), ConditionFailed(None), Found(None))
    assert played.outcome == Lost(None)


def test_what_nobody_relied_on_is_taken_back_as_it_was_claimed() -> None:
    """A late copy of that leaves alone what the same owner has claimed since."""
    played = play(take_back(held(location=HOME, route=ROUTE)), Applied())
    assert played.operations == (Delete(HOME, Unchanged(running())),)


def test_reading_first_reads_all_places_at_once() -> None:
    """And then takes over what was read there."""
    old = lapsed(LAST)
    played = play(claim(replace(CLAIM, read_first=True)), FoundAll((None, None, old)), Applied())
    assert played.operations == (
        LOOK,
        Transact((Put(HOME, running(), Absent()), Check(NEXT, Absent()), Delete(LAST, Unchanged(old)))),
    )


def test_inspecting_looks_at_all_places() -> None:
    """A waiting duplicate is told what a claim would be."""
    assert play(inspect(CLAIM), FoundAll((None, None, None))).outcome == Vacant()
    played = play(inspect(CLAIM), FoundAll((None, done(NEXT), None)))
    assert played.operations == (LOOK,)
    assert isinstance(played.outcome, Replay)


def test_reading_finds_the_record_that_counts() -> None:
    """An expired one does not, and of two the newer one does."""
    items = (done(HOME, expiration=1_699_999_999), done(NEXT, data='"old"', fencing_token=1), done(LAST, data='"new"'))
    played = play(read(ROUTE, now=NOW), FoundAll(items))
    assert played.operations == (LOOK,)
    assert played.outcome is not None
    assert played.outcome.data == '"new"'
    assert play(read(ROUTE, now=NOW), FoundAll((items[0], None, None))).outcome is None
    assert (
        play(read(ROUTE, now=NOW), FoundAll((stored(HOME), items[1], None))).outcome
        == play(read(NEXT, now=NOW), Found(items[1])).outcome
    )


LEASE = held(location=NEXT, route=ROUTE)


def test_completion_renewal_and_release_are_plain_writes_where_the_record_is() -> None:
    """Only the claim looks at all locations."""
    for procedure in (
        complete(LEASE, SerializedResult("1"), now=NOW),
        renew(LEASE, now=NOW + 1, clock_skew=1.0),
        release(LEASE),
    ):
        (operation,) = play(procedure, Applied()).operations
        assert isinstance(operation, Update | Delete)
        assert operation.location == NEXT


def finished(location: Location) -> Item:
    return done(
        location,
        owner="me",
        data="1",
        expiration=1_700_003_600,
        in_progress_expiration=1_700_000_060_000,
        fencing_token=1_700_000_000_000,
    )


def test_a_record_that_is_gone_is_put_again_as_a_claim_would() -> None:
    """Into its home, where all locations are empty: whoever took over and moved it is not overlooked."""
    played = play(complete(LEASE, SerializedResult("1"), now=NOW), ConditionFailed(None), Found(None), Applied())
    assert played.operations[2] == Transact(
        (Put(HOME, finished(HOME), Absent()), Check(NEXT, Absent()), Check(LAST, Absent()))
    )
    assert isinstance(played.outcome, Completed)


def test_a_completion_is_lost_to_whoever_took_over_elsewhere() -> None:
    """O4: the record is gone from its location, because its new owner put one into another."""
    theirs = stored(LAST)
    played = play(
        complete(LEASE, SerializedResult("1"), now=NOW),
        ConditionFailed(None),
        Found(None),
        TransactionFailed((FINE, FINE, ConditionFailed(theirs))),
    )
    assert isinstance(played.outcome, Lost)
    assert played.outcome.record is not None
    assert played.outcome.record.owner == "other"


@pytest.mark.parametrize("others", [FINE, ConditionFailed(stored(HOME))])
def test_its_own_result_elsewhere_counts_as_completed(others: ConditionFailed | None) -> None:
    """O3: the answer to the first put got lost."""
    played = play(
        complete(LEASE, SerializedResult("1"), now=NOW),
        ConditionFailed(None),
        Found(None),
        TransactionFailed((others, FINE, ConditionFailed(finished(LAST)))),
    )
    assert isinstance(played.outcome, Completed)
    assert played.outcome.record.data == "1"


def test_its_own_running_record_elsewhere_is_finished_there() -> None:
    """A late copy of its claim brought it back."""
    played = play(
        complete(LEASE, SerializedResult("1"), now=NOW),
        ConditionFailed(None),
        Found(None),
        TransactionFailed((FINE, FINE, ConditionFailed(running(LAST)))),
        Applied(),
    )
    last = played.operations[-1]
    assert isinstance(last, Update)
    assert (last.location, last.condition) == (LAST, HeldBy("me"))
    assert isinstance(played.outcome, Completed)


SHORT = Spreading(until=NOW + 30)
"""Claims stop to look at these locations after 30 s: an earlier window of time is like that."""


def test_lease_and_record_end_before_claims_stop_to_look() -> None:
    """A lease of 60 s and a retention of an hour are cut: nobody would see them."""
    played = play(claim(attempt(route=SHORT)), Applied())
    assert isinstance(played.outcome, Claimed)
    lease = played.outcome.lease
    assert (lease.expires_at, lease.expiration, lease.duration) == (NOW + 29, 1_700_000_030, 29.0)

    completed = play(complete(lease, SerializedResult("1"), now=NOW + 1), Applied()).outcome
    assert isinstance(completed, Completed)
    assert completed.record.expiration == 1_700_000_030


def test_a_renewal_goes_as_far_as_claims_look() -> None:
    """And no further: then the lease is lost, without a request."""
    lease = replace(LEASE, route=SHORT, expires_at=NOW + 20, duration=20.0)
    played = play(renew(lease, now=NOW + 15, clock_skew=1.0), Applied())
    assert isinstance(played.outcome, Renewed)
    assert (played.outcome.lease.expires_at, played.outcome.lease.duration) == (NOW + 29, 14.0)
    assert play(renew(played.outcome.lease, now=NOW + 28, clock_skew=1.0)).outcome == Lost(None, over=True)


@pytest.mark.parametrize("after", [0.0, 0.001])
def test_a_lease_that_is_over_is_lost_where_places_depend_on_the_instant(after: float) -> None:
    """Whoever took it over may be in a location that it does not see; elsewhere only a take-over ends it."""
    ended = replace(LEASE, route=Spreading(answer_within=10.0))
    now = ended.expires_at + after
    if after:
        assert play(complete(ended, SerializedResult("1"), now=now)).outcome == Lost(None, over=True)
        assert play(renew(ended, now=now, clock_skew=1.0)).outcome == Lost(None, over=True)
    else:
        assert isinstance(play(complete(ended, SerializedResult("1"), now=now), Applied()).outcome, Completed)
        assert isinstance(play(renew(ended, now=now, clock_skew=1.0), Applied()).outcome, Renewed)
    assert isinstance(play(complete(LEASE, SerializedResult("1"), now=now), Applied()).outcome, Completed)
    assert isinstance(play(renew(LEASE, now=now, clock_skew=1.0), Applied()).outcome, Renewed)


@pytest.mark.parametrize("reply", [ConditionFailed(None), Found(None), FoundAll((None, None, None))])
def test_a_backend_that_answers_a_transaction_otherwise_is_refused(reply: Reply) -> None:
    """Taking that for success would run a body without a record."""
    with pytest.raises(TypeError, match="the backend answered <Transact"):
        play(claim(CLAIM), reply)


def test_a_backend_that_declines_a_plain_write_is_refused() -> None:
    """Only a transaction has parts."""
    with pytest.raises(TypeError, match=r"the backend answered <Put shop#1234: .* with TransactionFailed"):
        play(claim(attempt()), TransactionFailed((ConditionFailed(None),)))


def test_places_are_told_apart_by_their_partition() -> None:
    """The scripts of this module are about three locations of one key."""
    assert {location.key for location in ROUTE.at} == {"shop#1234"}
    assert len({bucket(number).partition for number in (7, 8, 9)}) == 3
