"""Forgetting a key, played reply by reply, and against owners that do not give up."""

from typing import Any

import pytest

from aioidempotency._core import model
from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.decisions import Claimed, InProgress, Replay
from aioidempotency._core.freeing import Forgotten, forget
from aioidempotency._core.model import Item, Lease, SerializedResult
from aioidempotency._core.operations import (
    Applied,
    ConditionFailed,
    Delete,
    Found,
    FoundAll,
    Get,
    GetAll,
    Put,
    Reply,
    Transact,
    TransactionFailed,
)
from aioidempotency._core.protocol import (
    ATTEMPTS,
    Completed,
    Contended,
    Lost,
    Released,
    Renewed,
    Vacant,
    claim,
    complete,
    inspect,
    judge,
    release,
    renew,
    take_back,
    withdraw,
)
from tests.core.playing import (
    NOW,
    RENAMED_PLACE,
    Contender,
    Shelf,
    Spreading,
    attempt,
    bucket,
    done,
    held,
    parsed,
    play,
    stored,
)

READ = Get(RENAMED_PLACE)
ROUTE = Spreading()
HERE, NEXT, LAST = ROUTE.at
RESULT = SerializedResult("1")
RUNNING, LAPSED = stored(), stored(in_progress_expiration=1_699_999_998_999)
POWERTOOLS = stored(owner=None, fencing_token=None)


def freeing(**changes: Any) -> Any:
    return attempt(**{"owner": "nobody", "label": "an operator", **changes})


def left(location: Any = RENAMED_PLACE, **changes: Any) -> Item:
    """Make the vacant record that a running one leaves."""
    made = {"owner": "nobody", "fencing_token": 1_699_999_990_001, "expiration": 1_700_003_590, **changes}
    return model.vacant(location, **{"freed_by": "an operator", **made})


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(
    "item",
    [
        done(),
        done(encoding="error"),
        done(encoding="tombstone"),
        done(validation="print"),
        done(owner=None, fencing_token=None, in_progress_expiration=None),
    ],
)
def test_a_finished_record_is_deleted_as_it_was_seen(item: Item, running: bool) -> None:
    """C21: results, errors, tombstones, and records by Powertools, which have no owner."""
    played = play(forget(freeing(), running=running), Found(item), Applied())
    assert played.operations == (READ, Delete(RENAMED_PLACE, Unchanged(item)))
    assert played.outcome == Forgotten(found=True, fencing_token=parsed(item).fencing_token)


def test_a_record_whose_lease_is_over_is_deleted() -> None:
    """C21: its owner has crashed, as far as anybody can tell."""
    played = play(forget(freeing(), running=False), Found(LAPSED), Applied())
    assert played.operations == (READ, Delete(RENAMED_PLACE, Unchanged(LAPSED)))
    assert played.outcome == Forgotten(found=True, fencing_token=1_699_999_990_000)


@pytest.mark.parametrize(
    "item",
    [
        None,
        done(expiration=1_699_999_999),
        stored(expiration=1_699_999_999),
        left(owner="earlier"),
        left(owner="earlier", freed_by=""),
    ],
)
def test_where_nothing_counts_there_is_nothing_to_forget(item: Item | None) -> None:
    """C21: an expired record answers nobody, and a vacant one keeps its old owner out."""
    played = play(forget(freeing(), running=False), Found(item))
    assert played.operations == (READ,)
    assert played.outcome == Forgotten()


@pytest.mark.parametrize("item", [RUNNING, POWERTOOLS, stored(in_progress_expiration=None, owner=None)])
def test_a_running_record_is_in_progress(item: Item) -> None:
    """C21: nothing is written."""
    played = play(forget(freeing(), running=False), Found(item))
    assert played.operations == (READ,)
    assert isinstance(played.outcome, InProgress)
    assert played.outcome.record == parsed(item)


@pytest.mark.parametrize("item", [RUNNING, LAPSED, stored(validation="print")])
def test_a_running_record_is_replaced_by_a_vacant_one(item: Item) -> None:
    """C21: whether its lease is over is a matter of clocks, and the caller wants its owner out."""
    played = play(forget(freeing(), running=True), Found(item), Applied())
    assert played.operations == (READ, Put(RENAMED_PLACE, left(), Unchanged(item)))
    assert played.outcome == Forgotten(found=True, fenced=True, fencing_token=1_699_999_990_000)


def test_a_running_record_that_has_expired_is_replaced_where_its_owner_is_to_be_shut_out() -> None:
    """C21: it may have been written by a clock that is behind."""
    item = stored(expiration=1_699_999_999)
    played = play(forget(freeing(), running=True), Found(item), Applied())
    assert played.operations == (READ, Put(RENAMED_PLACE, left(expiration=1_700_000_061), Unchanged(item)))


def test_a_running_record_of_powertools_is_replaced_too() -> None:
    """C21: it has no token, so the vacant one has the first."""
    played = play(forget(freeing(), running=True), Found(POWERTOOLS), Applied())
    assert played.operations == (READ, Put(RENAMED_PLACE, left(fencing_token=1), Unchanged(POWERTOOLS)))
    assert played.outcome == Forgotten(found=True, fenced=True)


def test_a_store_without_a_label_shuts_out_all_the_same() -> None:
    """C21: the attribute says that an owner is kept out, so it is there, and empty."""
    played = play(forget(freeing(label=None), running=True), Found(RUNNING), Applied())
    assert played.operations[1] == Put(RENAMED_PLACE, left(freed_by=""), Unchanged(RUNNING))


@pytest.mark.parametrize(
    ("expiration", "kept"),
    [(1_700_009_000, 1_700_009_000), (1_700_000_061, 1_700_000_061), (1_699_999_000, 1_700_000_061)],
)
def test_a_vacant_record_lives_as_long_as_the_one_it_replaces(expiration: int, kept: int) -> None:
    """C21: and as long as a lease that could begin now, where that record has expired already."""
    played = play(forget(freeing(), running=True), Found(stored(expiration=expiration)), Applied())
    (_, put) = played.operations
    assert isinstance(put, Put)
    assert put.item["e"] == {"N": str(kept)}


def test_who_renews_meanwhile_is_shut_out_as_renewed() -> None:
    """C21: the same owner, so it is looked at again; a bounded number of times."""
    renewed = stored(in_progress_expiration=1_700_000_070_000)
    played = play(forget(freeing(), running=True), Found(RUNNING), ConditionFailed(renewed), Found(renewed), Applied())
    assert played.operations[3] == Put(RENAMED_PLACE, left(), Unchanged(renewed))
    always: list[Reply] = [Found(RUNNING), ConditionFailed(renewed)] * ATTEMPTS
    assert play(forget(freeing(), running=True), *always).outcome == Contended()


def test_who_finishes_meanwhile_is_forgotten() -> None:
    """C21: so that the next call runs."""
    played = play(forget(freeing(), running=True), Found(RUNNING), ConditionFailed(done()), Found(done()), Applied())
    assert played.operations[3] == Delete(RENAMED_PLACE, Unchanged(done()))
    assert played.outcome == Forgotten(found=True, fencing_token=1_699_999_990_000)


@pytest.mark.parametrize("now", [None, stored(owner="next", fencing_token=1_700_000_000_000), done(owner="next")])
@pytest.mark.parametrize("running", [False, True])
def test_who_claims_meanwhile_is_left_alone(now: Item | None, running: bool) -> None:
    """C21: that is the next call, which was to run."""
    played = play(forget(freeing(), running=running), Found(LAPSED), ConditionFailed(now), Found(now))
    assert played.outcome == Forgotten(found=True, fencing_token=1_699_999_990_000)


def test_the_lost_answer_of_a_shut_out_is_recognised() -> None:
    """C21: the vacant record is ours."""
    played = play(forget(freeing(), running=True), Found(RUNNING), ConditionFailed(left()), Found(left()))
    assert played.outcome == Forgotten(found=True, fenced=True, fencing_token=1_699_999_990_000)


def test_all_locations_of_a_key_are_looked_at() -> None:
    """C21, P2: what counts is freed wherever it is, in one write if it is one record."""
    there = done(NEXT)
    played = play(forget(freeing(route=ROUTE), running=False), FoundAll((None, there, None)), Applied())
    assert played.operations == (GetAll(ROUTE.at), Delete(NEXT, Unchanged(there)))
    running = stored(LAST)
    played = play(forget(freeing(route=ROUTE), running=True), FoundAll((None, None, running)), Applied())
    assert played.operations == (GetAll(ROUTE.at), Put(LAST, left(LAST), Unchanged(running)))


def test_records_in_several_locations_are_freed_together() -> None:
    """C21, P2: a refusal leaves all as they are, and is looked at again."""
    lapsed, running = stored(HERE, owner="one", in_progress_expiration=1), stored(NEXT)
    writes = Put(HERE, left(HERE), Unchanged(lapsed)), Put(NEXT, left(NEXT), Unchanged(running))
    looks = FoundAll((lapsed, running, None))
    refused = TransactionFailed((None, ConditionFailed(running)))
    played = play(forget(freeing(route=ROUTE), running=True), looks, refused, looks, Applied())
    assert played.operations == (GetAll(ROUTE.at), Transact(writes)) * 2


def test_a_late_copy_of_a_claim_does_not_keep_a_finished_record_from_being_forgotten() -> None:
    """C21: the finished one counts, and the copy ends with its lease."""
    copy, there = stored(HERE, owner="gone"), done(NEXT)
    played = play(forget(freeing(route=ROUTE), running=False), FoundAll((copy, there, None)), Applied())
    assert played.operations == (GetAll(ROUTE.at), Delete(NEXT, Unchanged(there)))


def test_a_vacant_record_ends_when_claims_stop_to_look_for_it() -> None:
    """C21: but not before the record that it replaces."""
    route = Spreading(until=NOW + 900)
    played = play(forget(freeing(route=route), running=True), FoundAll((stored(HERE), None, None)), Applied())
    (_, put) = played.operations
    assert isinstance(put, Put)
    assert put.item["e"] == {"N": "1700003590"}


def test_a_backend_that_answers_a_forgetting_write_as_a_read_is_refused() -> None:
    """Nothing may be taken for applied that was not."""
    with pytest.raises(TypeError, match=r"the backend answered .* with Found"):
        play(forget(freeing(), running=True), Found(RUNNING), Found(RUNNING))


# The old owner, and whoever comes after.


def vacated() -> tuple[Shelf, Lease]:
    """Have an owner whose key was freed while it ran, and what is in the table then."""
    shelf = Shelf()
    claimed = shelf.run(claim(attempt()))
    assert isinstance(claimed, Claimed)
    assert shelf.run(forget(freeing(now=NOW + 5), running=True)) == Forgotten(
        found=True, fenced=True, fencing_token=1_700_000_000_000
    )
    return shelf, claimed.lease


def refused(shelf: Shelf, old: Lease) -> bool:
    """Tell whether the old owner is refused whatever it asks, and changes nothing."""
    before = dict(shelf.items)
    late = shelf.run(complete(old, RESULT, now=NOW + 6))
    later = shelf.run(renew(old, now=NOW + 6, clock_skew=1.0))
    last = shelf.run(release(old))
    shelf.run(take_back(old))
    return isinstance(late, Lost) and isinstance(later, Lost) and isinstance(last, Lost) and shelf.items == before


def taken_over(shelf: Shelf, **changes: Any) -> Lease:
    claimed = shelf.run(claim(attempt(**{"owner": "next", "now": NOW + 5.5, **changes})))
    assert isinstance(claimed, Claimed)
    return claimed.lease


def test_the_old_owner_is_refused_and_the_next_call_runs() -> None:
    """C21, O13: with a larger token, by a clock that is minutes behind, too, and for another request."""
    shelf, old = vacated()
    assert refused(shelf, old)
    lease = taken_over(shelf, now=NOW - 300, fingerprint="another")
    assert lease.fencing_token == old.fencing_token + 2
    assert lease.freed_by == "an operator"
    assert refused(shelf, old)
    assert isinstance(shelf.run(complete(lease, RESULT, now=NOW + 7)), Completed)
    assert refused(shelf, old)


@pytest.mark.parametrize("ends", [release, take_back])
def test_the_next_owner_gives_back_and_the_old_one_is_still_refused(ends: Any) -> None:
    """C21: else it would find no record, and put its own."""
    shelf, old = vacated()
    lease = taken_over(shelf)
    shelf.run(ends(lease))
    (item,) = shelf.items.values()
    assert parsed(item).vacant
    assert refused(shelf, old)
    assert shelf.run(release(lease)) == Released()
    assert isinstance(shelf.run(complete(lease, RESULT, now=NOW + 7)), Lost)
    again = taken_over(shelf, owner="third", now=NOW + 8)
    assert again.fencing_token > lease.fencing_token
    shelf.run(release(again))
    assert refused(shelf, old)


def test_what_the_next_owner_has_finished_can_be_forgotten_and_the_old_one_is_still_refused() -> None:
    """C21: a vacant record takes its place."""
    shelf, old = vacated()
    shelf.run(complete(taken_over(shelf), RESULT, now=NOW + 7))
    assert isinstance(shelf.run(forget(freeing(owner="other", label=None, now=NOW + 8), running=False)), Forgotten)
    (item,) = shelf.items.values()
    assert (parsed(item).vacant, parsed(item).freed_by) == (True, "an operator")
    assert refused(shelf, old)


def test_the_duty_to_keep_an_owner_out_ends_with_the_expiration() -> None:
    """C21: a claim that comes after that takes over a record like any other."""
    shelf, _ = vacated()
    lease = taken_over(shelf, now=NOW + 3601)
    assert lease.freed_by is None
    shelf.run(release(lease))
    assert not shelf.items


def test_a_claim_with_a_short_retention_keeps_out_as_long() -> None:
    """C21: its record lives as long as the vacant one would have, also when it is finished."""
    shelf, old = vacated()
    lease = taken_over(shelf, retention=1.0)
    assert lease.expiration == 1_700_003_600
    done_by_next = shelf.run(complete(lease, RESULT, now=NOW + 6))
    assert isinstance(done_by_next, Completed)
    assert done_by_next.record.expiration == 1_700_003_600
    assert refused(shelf, old)


def test_the_lost_answer_of_a_take_over_keeps_the_duty() -> None:
    """C21, O2: the claim recognises its own record, and what that says of an owner who is kept out."""
    shelf, old = vacated()
    contender = Contender(claim(attempt(owner="next", now=NOW + 5.5)))
    contender.step(shelf)
    contender.step(shelf, lost=True)
    claimed = contender.finish(shelf)
    assert isinstance(claimed, Claimed)
    assert claimed.lease.freed_by == "an operator"
    shelf.run(release(claimed.lease))
    assert refused(shelf, old)


def test_who_meets_a_key_that_was_just_freed_takes_it_over() -> None:
    """C21: a record that was written since the attempt began is another's who won, but not where it is nobody's."""
    vacant = parsed(left())
    assert judge(vacant, attempt(), fresh=True) == Vacant()
    played = play(claim(attempt()), ConditionFailed(LAPSED), ConditionFailed(left()), Applied())
    assert isinstance(played.outcome, Claimed)
    assert played.operations[2] == Put(
        RENAMED_PLACE,
        model.running(held(freed_by="an operator", fencing_token=1_700_000_000_000)),
        Unchanged(left()),
    )


def test_a_vacant_record_does_not_answer() -> None:
    """C21: neither who looks first, nor who only looks."""
    assert play(inspect(attempt()), Found(left())).outcome == Vacant()
    played = play(claim(attempt(read_first=True)), Found(left()), Applied())
    assert isinstance(played.outcome, Claimed)


def test_an_owner_that_is_shut_out_in_one_location_is_refused_from_another() -> None:
    """C21, P2: the next record is put at home, and what kept the old owner out elsewhere goes with it."""
    shelf = Shelf()
    old = shelf.run(claim(attempt(route=Spreading(at=(NEXT, HERE)))))
    assert isinstance(old, Claimed)
    shelf.run(forget(freeing(route=ROUTE), running=True))
    lease = taken_over(shelf, route=ROUTE)
    assert (lease.location, lease.freed_by) == (HERE, "an operator")
    shelf.run(release(lease))
    assert isinstance(shelf.run(complete(old.lease, RESULT, now=NOW + 7)), Lost)
    assert bucket(8) == NEXT
    assert shelf.found(NEXT) is None


def test_an_owner_that_finishes_just_before_is_forgotten() -> None:
    """C21: and one that finishes after that finds itself refused; its body ran, and the next call runs again."""
    shelf = Shelf()
    claimed = shelf.run(claim(attempt()))
    assert isinstance(claimed, Claimed)
    forgetting = Contender(forget(freeing(now=NOW + 5), running=True))
    forgetting.step(shelf)
    shelf.run(complete(claimed.lease, RESULT, now=NOW + 5))
    assert forgetting.finish(shelf) == Forgotten(found=True, fencing_token=1_700_000_000_000)
    assert not isinstance(shelf.run(claim(attempt(owner="next"))), Replay)


@pytest.mark.parametrize("route", [RENAMED_PLACE, ROUTE], ids=["one location", "several"])
def test_a_take_over_that_is_still_on_its_way_when_it_is_withdrawn_keeps_the_old_owner_out(route: Any) -> None:
    """C21, O5: what the claim has sent says what it may have taken over."""
    shelf = Shelf()
    old = shelf.run(claim(attempt(route=route)))
    assert isinstance(old, Claimed)
    shelf.run(forget(freeing(route=route, now=NOW + 5), running=True))
    made = attempt(route=route, owner="next", now=NOW + 5.5)
    cancelled = claim(made)
    first = next(cancelled)
    second = cancelled.send(shelf.answer(first))
    shelf.answer(second)
    assert shelf.run(withdraw(made, [first, second])) == Released()
    (item,) = shelf.items.values()
    assert parsed(item).vacant
    assert parsed(item).fencing_token == 1_700_000_005_501
    assert refused(shelf, old.lease)


def test_withdrawing_a_claim_is_one_deletion() -> None:
    """O5: that its owner alone may make, where it has met nobody who is kept out."""
    sent = play(claim(attempt()), ConditionFailed(LAPSED), Applied()).operations
    played = play(withdraw(attempt(), sent), ConditionFailed(RUNNING))
    assert played.operations == (Delete(RENAMED_PLACE, HeldBy("me")),)
    assert played.outcome == Lost(parsed(RUNNING))


def test_a_claim_writes_its_label() -> None:
    """C21: into the first write, and into every other one that makes a record."""
    played = play(claim(attempt(label="a host")), Applied())
    assert played.operations == (Put(RENAMED_PLACE, model.running(held(claimed_by="a host")), Absent()),)
    lease = held(claimed_by="a host")
    finishing = play(complete(lease, RESULT, now=NOW), ConditionFailed(None), Found(None), Applied())
    put = Put(RENAMED_PLACE, model.finished(lease, RESULT, expiration=1_700_003_600), Absent())
    assert finishing.operations[2] == put
    assert put.item["cb"] == {"S": "a host"}
    renewed = play(renew(lease, now=NOW, clock_skew=1.0), Applied()).outcome
    assert isinstance(renewed, Renewed)
    assert renewed.lease.claimed_by == "a host"
