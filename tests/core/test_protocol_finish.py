"""Completing, renewing, giving back and reading, played reply by reply."""

from typing import Any

import pytest

from aioidempotency._core.conditions import Absent, HeldBy, requirements
from aioidempotency._core.model import AttributeValue, Item, Lease, Role, SerializedResult
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Found, Get, Put, Reply, Update
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import (
    ATTEMPTS,
    Completed,
    Contended,
    Lost,
    Released,
    Renewed,
    complete,
    read,
    release,
    renew,
)
from tests.core.playing import NOW, RENAMED_PLACE, done, held, parsed, play, stored

READ = Get(RENAMED_PLACE)
RESULT = SerializedResult('{"paid": true}')
LATER = NOW + 20.7
CHANGES: dict[Role, AttributeValue] = {
    "status": {"S": "COMPLETED"},
    "expiration": {"N": "1700003620"},
    "data": {"S": '{"paid": true}'},
}
UPDATE = Update(RENAMED_PLACE, CHANGES, HeldBy("me"))
FINISHED: Item = {
    "part": {"S": "bucket#7"},
    "sort": {"S": "shop#1234"},
    "s": {"S": "COMPLETED"},
    "e": {"N": "1700003620"},
    "ipe": {"N": "1700000060000"},
    "d": {"S": '{"paid": true}'},
    "o": {"S": "me"},
    "f": {"N": "1700000000000"},
}
PUT = Put(RENAMED_PLACE, FINISHED, Absent())


def _complete(lease: Lease | None = None) -> Procedure[Completed | Lost | Contended]:
    return complete(lease or held(), RESULT, now=LATER)


def test_a_completion_is_one_update() -> None:
    """C1: held by its owner; the retention starts again, in whole seconds."""
    played = play(_complete(), Applied())
    assert played.operations == (UPDATE,)
    assert played.outcome == Completed(parsed(FINISHED))


def test_a_completion_keeps_fingerprint_and_encoding() -> None:
    """The finished record says all that the stored one does."""
    played = play(complete(held(fingerprint="print"), SerializedResult("", "tombstone"), now=LATER), Applied())
    record = parsed({**FINISHED, "d": {"S": ""}, "c": {"S": "tombstone"}, "v": {"S": "print"}})
    assert played.outcome == Completed(record)
    assert played.operations == (
        Update(RENAMED_PLACE, {**CHANGES, "data": {"S": ""}, "encoding": {"S": "tombstone"}}, HeldBy("me")),
    )


@pytest.mark.parametrize("item", [stored(), done(), stored(owner=None), done(owner=None)])
@pytest.mark.parametrize("brought", [True, False])
def test_a_completion_refused_by_anothers_record_is_lost(item: Item, brought: bool) -> None:
    """O4: a stale owner changes nothing, and is told whose record it is."""
    replies = [ConditionFailed(item)] if brought else [ConditionFailed(None), Found(item)]
    played = play(_complete(), *replies)
    assert played.operations == ((UPDATE,) if brought else (UPDATE, READ))
    assert played.outcome == Lost(parsed(item))


def test_the_lost_answer_of_a_completion_is_recognised() -> None:
    """O3: our own finished record refuses the second try, and its first result stays."""
    mine = done(owner="me")
    played = play(_complete(), ConditionFailed(mine))
    assert played.operations == (UPDATE,)
    assert played.outcome == Completed(parsed(mine))


def test_a_refused_completion_is_tried_again_while_the_record_is_ours_and_runs() -> None:
    """A late copy of our own claim brought the record back: its result is stored all the same."""
    mine = stored(owner="me")
    played = play(_complete(), ConditionFailed(None), Found(None), ConditionFailed(mine), Applied())
    assert played.operations == (UPDATE, READ, PUT, UPDATE)
    assert played.outcome == Completed(parsed(FINISHED))


def test_a_completion_that_is_refused_for_no_reason_ends() -> None:
    """Ours, but never finished: no result is stored, so nothing may say that it is."""
    mine = stored(owner="me")
    played = play(_complete(), *[ConditionFailed(mine)] * ATTEMPTS)
    assert played.operations == (UPDATE,) * ATTEMPTS
    assert played.outcome == Contended()


def test_a_finished_call_whose_record_is_gone_is_remembered_all_the_same() -> None:
    """Deleted by TTL, say: the finished record is put where nothing is."""
    played = play(_complete(), ConditionFailed(None), Found(None), Applied())
    assert played.operations == (UPDATE, READ, PUT)
    assert played.outcome == Completed(parsed(FINISHED))


@pytest.mark.parametrize(("there", "outcome"), [(stored(), Lost), (done(), Lost), (done(owner="me"), Completed)])
@pytest.mark.parametrize("brought", [True, False])
def test_the_put_of_a_gone_record_is_judged_likewise(there: Item, outcome: type, brought: bool) -> None:
    """Another owner came first: lost. Our own put, whose answer was lost: finished."""
    replies = [ConditionFailed(there)] if brought else [ConditionFailed(None), Found(there)]
    played = play(_complete(), ConditionFailed(None), Found(None), *replies)
    assert played.operations == ((UPDATE, READ, PUT) if brought else (UPDATE, READ, PUT, READ))
    assert played.outcome == outcome(parsed(there))


def test_a_record_that_is_gone_again_and_again_is_contended() -> None:
    """The procedure ends, whatever the table does."""
    gone: list[Reply] = [ConditionFailed(None), Found(None)]
    played = play(_complete(), *gone * ATTEMPTS)
    assert played.operations == (UPDATE, READ, *[PUT, READ] * (ATTEMPTS - 1))
    assert played.outcome == Contended()


def _renewal(ends: int, expiration: int, until: int | None) -> Update:
    changes: dict[Role, AttributeValue] = {
        "in_progress_expiration": {"N": str(ends)},
        "expiration": {"N": str(expiration)},
    }
    return Update(RENAMED_PLACE, changes, HeldBy("me", until))


RENEWAL = _renewal(1_700_000_080_700, 1_700_003_600, 1_700_000_060_000)


def _renew(lease: Lease | None = None) -> Procedure[Renewed | Lost | Contended]:
    return renew(lease or held(), now=LATER, clock_skew=1.0)


def test_a_renewal_moves_the_end_of_the_lease() -> None:
    """By its duration from now; the record's expiration stays where it is later anyway."""
    played = play(_renew(), Applied())
    assert played.operations == (RENEWAL,)
    assert played.outcome == Renewed(held(expires_at=LATER + 60))


def test_a_renewal_extends_a_record_that_would_expire_before_its_lease() -> None:
    """A heartbeat that outlives the retention keeps the record, clock skew included."""
    played = play(renew(held(expiration=1_700_000_010), now=LATER, clock_skew=2.5), Applied())
    assert played.operations == (_renewal(1_700_000_080_700, 1_700_000_083, 1_700_000_060_000),)
    assert played.outcome == Renewed(held(expires_at=LATER + 60, expiration=1_700_000_083))


@pytest.mark.parametrize("item", [stored(), done(), done(owner="me"), stored(owner=None)])
@pytest.mark.parametrize("brought", [True, False])
def test_a_renewal_refused_by_another_or_a_finished_record_is_lost(item: Item, brought: bool) -> None:
    """O8: a heartbeat never revives a finished record, not even our own."""
    replies = [ConditionFailed(item)] if brought else [ConditionFailed(None), Found(item)]
    played = play(_renew(), *replies)
    assert played.operations == ((RENEWAL,) if brought else (RENEWAL, READ))
    assert played.outcome == Lost(parsed(item))


def test_a_renewal_of_a_record_that_is_gone_is_lost() -> None:
    """Nothing is put: only a claim or a completion makes records."""
    played = play(_renew(), ConditionFailed(None), Found(None))
    assert played.operations == (RENEWAL, READ)
    assert played.outcome == Lost(None)


@pytest.mark.parametrize(("ends", "seconds"), [(1_700_000_080_700, LATER + 60), (1_700_000_090_000, NOW + 90)])
def test_a_lease_that_was_renewed_since_is_not_shortened(ends: int, seconds: float) -> None:
    """A delayed renewal, or the lost answer of this one: the lease that is stored is the one that counts."""
    played = play(_renew(), ConditionFailed(stored(owner="me", in_progress_expiration=ends)))
    assert played.operations == (RENEWAL,)
    assert isinstance(played.outcome, Renewed)
    assert played.outcome.lease.expires_at == pytest.approx(seconds, abs=0.0005)


@pytest.mark.parametrize("ends", [1_700_000_060_001, 1_700_000_080_699])
def test_a_lease_that_was_renewed_to_an_earlier_end_is_renewed_again(ends: int) -> None:
    """The answer of the last renewal was lost, so the stored end is not the one that we knew."""
    played = play(_renew(), ConditionFailed(stored(owner="me", in_progress_expiration=ends)), Applied())
    assert played.operations == (RENEWAL, _renewal(1_700_000_080_700, 1_700_003_600, ends))
    assert played.outcome == Renewed(held(expires_at=LATER + 60))


def test_a_renewal_that_always_comes_too_late_gives_up() -> None:
    """The bound: the record is ours, and others are in the way of every try. The next renewal may come through."""
    mine = stored(owner="me", in_progress_expiration=1_700_000_070_000)
    played = play(_renew(), *[ConditionFailed(mine)] * ATTEMPTS)
    assert played.operations == (RENEWAL, *[_renewal(1_700_000_080_700, 1_700_003_600, 1_700_000_070_000)] * 4)
    assert played.outcome == Contended()


def test_a_record_of_our_own_without_a_lease_is_not_renewed() -> None:
    """We write none such: whoever took the end of the lease away, we do not hold the record."""
    mine = stored(owner="me", in_progress_expiration=None)
    played = play(_renew(), ConditionFailed(mine))
    assert played.operations == (RENEWAL,)
    assert played.outcome == Lost(parsed(mine))


def test_a_renewal_tried_again_asks_for_whole_milliseconds() -> None:
    """As the attribute has them."""
    mine = stored(owner="me", in_progress_expiration=1_700_000_070_000)
    again = play(_renew(), ConditionFailed(mine), Applied()).operations[1]
    assert isinstance(again, Update)
    assert ("in_progress_expiration", {"N": "1700000070000"}) in requirements(again.condition, RENAMED_PLACE.table)


DELETE = Delete(RENAMED_PLACE, HeldBy("me"))


def test_a_release_is_one_delete() -> None:
    """The key is free for the next call."""
    played = play(release(held()), Applied())
    assert played.operations == (DELETE,)
    assert played.outcome == Released()


@pytest.mark.parametrize("replies", [[ConditionFailed(None), Found(None)], [ConditionFailed(done(owner="me"))]])
def test_a_release_has_nothing_to_do_where_nothing_runs(replies: list[Reply]) -> None:
    """Gone already, or finished: a finished record stays."""
    played = play(release(held()), *replies)
    assert played.operations == (DELETE, READ)[: len(replies)]
    assert played.outcome == Released()


@pytest.mark.parametrize("item", [stored(), done(), stored(owner=None)])
@pytest.mark.parametrize("brought", [True, False])
def test_a_release_refused_by_anothers_record_is_lost(item: Item, brought: bool) -> None:
    """O4: a stale owner deletes nothing, and is told."""
    replies = [ConditionFailed(item)] if brought else [ConditionFailed(None), Found(item)]
    played = play(release(held()), *replies)
    assert played.operations == ((DELETE,) if brought else (DELETE, READ))
    assert played.outcome == Lost(parsed(item))


@pytest.mark.parametrize(("now", "counts"), [(NOW - 1, True), (NOW, True), (NOW + 0.999, True), (NOW + 1, False)])
def test_reading_finds_records_until_they_expire(now: float, counts: bool) -> None:
    """Through the second of the expiration, as in every judgement; one read."""
    item = done(expiration=1_700_000_000)
    played = play(read(RENAMED_PLACE, now=now), Found(item))
    assert played.operations == (READ,)
    assert played.outcome == (parsed(item) if counts else None)


def test_reading_finds_nothing_where_nothing_is() -> None:
    """One read, again."""
    assert play(read(RENAMED_PLACE, now=NOW), Found(None)).outcome is None


@pytest.mark.parametrize("procedure", [_complete(), _renew(), release(held())])
def test_a_backend_that_answers_a_write_as_a_read_is_refused(procedure: Procedure[Any]) -> None:
    """Nothing may be taken for applied that was not."""
    with pytest.raises(TypeError, match=r"the backend answered .* with Found"):
        play(procedure, Found(done(owner="me")))


@pytest.mark.parametrize("procedure", [_complete(), _renew(), release(held())])
def test_a_backend_that_answers_the_read_after_a_refusal_as_a_write_is_refused(procedure: Procedure[Any]) -> None:
    """Nothing may be taken for gone that was not looked for."""
    with pytest.raises(TypeError, match="the backend answered <Get shop#1234> with "):
        play(procedure, ConditionFailed(None), Applied())
