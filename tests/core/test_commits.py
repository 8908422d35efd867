"""Effects and their record in one transaction, played reply by reply."""

from typing import Any

import pytest

from aioidempotency._core.conditions import Absent, HeldBy, Unchanged
from aioidempotency._core.decisions import InProgress, Mismatch, Replay
from aioidempotency._core.model import AttributeValue, Item, Role, SerializedResult
from aioidempotency._core.operations import (
    Applied,
    Check,
    ConditionFailed,
    Delete,
    Effect,
    Found,
    FoundAll,
    Get,
    GetAll,
    Put,
    Reply,
    Transact,
    TransactionFailed,
    Update,
)
from aioidempotency._core.placements import Procedure
from aioidempotency._core.protocol import ATTEMPTS, Completed, Contended, Lost
from aioidempotency._effects.commits import Commit, EffectsFailed, commit, commit_once
from aioidempotency.exceptions import Reason
from tests.core.playing import NOW, RENAMED_PLACE, Spreading, attempt, done, held, parsed, play, stored
from tests.support.values import replace

RESULT = SerializedResult('{"paid": true}')
EFFECT = Effect("Put", {"TableName": "orders", "Item": {"pk": {"S": "order-1"}}})
CHANGES: dict[Role, AttributeValue] = {
    "status": {"S": "COMPLETED"},
    "expiration": {"N": "1700003620"},
    "data": {"S": '{"paid": true}'},
}
FINISH = Update(RENAMED_PLACE, CHANGES, HeldBy("me"))
TRANSACTION = Transact((FINISH,), (EFFECT,), "me")
CONDITION = Reason("ConditionalCheckFailed", {"pk": "order-1"})
FINE: Reply = TransactionFailed((None,), (CONDITION,))
READ = Get(RENAMED_PLACE)


def committing(**changes: Any) -> Procedure[Completed | Lost | EffectsFailed | Contended]:
    lease = changes.pop("lease", held())
    wanted = Commit(lease=lease, result=RESULT, effects=(EFFECT,), now=NOW + 20.7, clock_skew=1.0)
    return commit(replace(wanted, **changes))


def refused(item: Item | None, *reasons: Reason | None) -> TransactionFailed:
    return TransactionFailed((ConditionFailed(item),), reasons or (None,))


def test_effects_and_completion_are_one_transaction() -> None:
    """X2: under the one condition that the record is still ours; its token is the claim's owner."""
    played = play(committing(), Applied())
    assert played.operations == (TRANSACTION,)
    assert played.outcome == Completed(parsed({**PUT.item, "e": {"N": "1700003620"}}))


@pytest.mark.parametrize(("now", "expiration"), [(NOW + 20.7, 1_700_000_061), (NOW + 59.5, 1_700_000_062)])
def test_a_finished_record_lives_until_the_lease_ends(now: float, expiration: int) -> None:
    """Until then tries go on, and each must find it, however short the retention is."""
    played = play(committing(lease=held(retention=2.5 if now > NOW + 50 else 0.5), now=now), Applied())
    (sent,) = played.operations
    assert isinstance(sent, Transact)
    assert sent.writes[0].changes["expiration"] == {"N": str(expiration)}  # type: ignore[union-attr] # an update


@pytest.mark.parametrize("item", [stored(), done(), stored(owner=None), done(owner=None)])
@pytest.mark.parametrize("brought", [True, False])
def test_a_lease_that_is_lost_commits_nothing(item: Item, brought: bool) -> None:
    """X2, O4: whatever refused the effects as well; the other's record is told."""
    replies: list[Reply] = [refused(item, CONDITION)] if brought else [refused(None), Found(item)]
    played = play(committing(), *replies)
    assert played.operations == ((TRANSACTION,) if brought else (TRANSACTION, READ))
    assert played.outcome == Lost(parsed(item))


def test_a_record_that_is_gone_is_lost() -> None:
    """X3: it is not put anew, as a plain completion would be: the effects may have been applied before it went."""
    played = play(committing(), refused(None), Found(None))
    assert played.operations == (TRANSACTION, READ)
    assert played.outcome == Lost(None)


def test_a_lost_answer_is_settled_by_the_record() -> None:
    """X3: finished by us, so it was applied, though the effects' own conditions refuse them now."""
    mine = {**done(owner="me", expiration=1_700_003_620), "d": {"S": RESULT.data}}
    played = play(committing(), refused(mine, CONDITION))
    assert played.operations == (TRANSACTION,)
    assert played.outcome == Completed(parsed(mine))
    assert play(committing(), refused(None), Found(mine)).outcome == Completed(parsed(mine))


@pytest.mark.parametrize("change", [{"d": {"S": '{"paid":true}'}}, {"e": {"N": "1700003621"}}])
def test_a_record_that_another_finished_in_our_name_is_lost(change: Item) -> None:
    """X3: as Powertools does where it shares the record; our effects were not applied."""
    theirs = {**done(owner="me", expiration=1_700_003_620), "d": {"S": RESULT.data}, **change}
    assert play(committing(), refused(theirs)).outcome == Lost(parsed(theirs))


def test_a_transaction_is_sent_again_as_it_was_while_the_record_is_ours_and_runs() -> None:
    """A late copy of our claim brought the record back before it was looked at."""
    mine = stored(owner="me")
    played = play(committing(), refused(None), Found(mine), Applied())
    assert played.operations == (TRANSACTION, READ, TRANSACTION)
    assert isinstance(played.outcome, Completed)
    endless = play(committing(), *[refused(mine)] * ATTEMPTS)
    assert endless.operations == (TRANSACTION,) * ATTEMPTS
    assert endless.outcome == Contended()


def test_effects_that_are_refused_are_told_by_index() -> None:
    """X2: the record's own part was fine, so nothing was applied, now or before."""
    reasons = (None, CONDITION, Reason("ValidationError"))
    assert play(committing(), TransactionFailed((None,), reasons)).outcome == EffectsFailed(reasons)


def test_where_places_pass_a_lease_that_is_over_commits_nothing() -> None:
    """Another call may have claimed the key where this transaction does not look."""
    route = Spreading(answer_within=10.0)
    assert play(committing(lease=held(route=route), now=NOW + 60.5)).outcome == Lost(None, over=True)
    assert isinstance(play(committing(lease=held(route=route)), Applied()).outcome, Completed)
    assert isinstance(play(committing(now=NOW + 60.5), Applied()).outcome, Completed)


@pytest.mark.parametrize("answer", [ConditionFailed(None), Found(None)])
def test_an_answer_that_is_none_of_a_transactions_is_a_bug(answer: Reply) -> None:
    with pytest.raises(TypeError, match="answered a transaction with"):
        play(committing(), answer)


def at_once(effects: tuple[Effect, ...] = (EFFECT,), **changes: Any) -> Procedure[Any]:
    return commit_once(attempt(**changes), RESULT, effects)


FINISHED = done(owner="me", fencing_token=1_700_000_000_000, in_progress_expiration=1_700_000_060_000)
PUT = Put(RENAMED_PLACE, {**FINISHED, "d": {"S": '{"paid": true}'}, "e": {"N": "1700003600"}}, Absent())


def once(number: int, *writes: Any) -> Transact:
    return Transact(writes or (PUT,), (EFFECT,), f"me{number}")


def test_a_commit_without_a_claim_is_one_transaction() -> None:
    """The finished record where there is none, and the effects."""
    played = play(at_once(), Applied())
    assert played.operations == (once(0),)
    assert played.outcome == Completed(parsed(PUT.item))


def test_a_duplicate_gets_what_is_stored() -> None:
    """Whatever became of its own effects."""
    there = done()
    assert play(at_once(), refused(there, CONDITION)).outcome == Replay(parsed(there))
    assert play(at_once(), refused(None), Found(there)).outcome == Replay(parsed(there))
    assert play(at_once(read_first=True), Found(there)).operations == (READ,)


def test_a_running_claim_and_another_fingerprint_refuse_a_commit() -> None:
    running = stored()
    assert play(at_once(), refused(running)).outcome == InProgress(parsed(running), retry_after=51.0)
    other = done(validation="another")
    assert play(at_once(fingerprint="mine"), refused(other)).outcome == Mismatch(parsed(other))


@pytest.mark.parametrize("expired", [False, True])
def test_a_lost_answer_of_a_commit_is_recognised(expired: bool) -> None:
    """X3: by its owner, even where the retention was over sooner than the next try came."""
    mine = done(owner="me", **({"expiration": 1_699_999_000} if expired else {}))
    assert play(at_once(), refused(mine, CONDITION)).outcome == Completed(parsed(mine))


@pytest.mark.parametrize(
    "vacant",
    [done(expiration=1_699_999_000), stored(in_progress_expiration=1_699_999_000_000)],
    ids=["expired", "lapsed"],
)
def test_what_counts_no_more_is_replaced_in_another_transaction(vacant: Item) -> None:
    """It has other parameters, and so another token; a larger fencing token, too."""
    vacant = {**vacant, "f": {"N": "1700000000500"}}
    played = play(at_once(), refused(vacant), Applied())
    taken = replace(PUT, item={**PUT.item, "f": {"N": "1700000000501"}}, condition=Unchanged(vacant))
    assert played.operations == (once(0), once(1, taken))
    assert played.outcome == Completed(parsed(taken.item))


def test_refused_effects_store_nothing() -> None:
    """X2: told by index, where the record's part was fine."""
    assert play(at_once(), TransactionFailed((None,), (CONDITION,))).outcome == EffectsFailed((CONDITION,))


def test_who_lost_a_race_for_a_lapsed_record_does_not_judge_the_winner_by_its_clock() -> None:
    lapsed, won = stored(in_progress_expiration=1_699_999_000_000), stored(in_progress_expiration=1_699_999_500_000)
    played = play(at_once(), refused(lapsed), refused(won))
    assert played.outcome == InProgress(parsed(won), retry_after=60.0)


def test_a_commit_that_never_settles_is_contended() -> None:
    """A record that comes and goes: bounded, and each try has its own token."""
    played = play(at_once(), *[reply for _ in range(ATTEMPTS) for reply in (refused(None), Found(None))])
    sent = [each for each in played.operations if isinstance(each, Transact)]
    assert [each.token for each in sent] == [f"me{number}" for number in range(ATTEMPTS)]
    assert played.outcome == Contended()


def test_in_several_places_all_of_them_are_looked_at() -> None:
    """P2: as a claim does; what is found elsewhere goes away."""
    route = Spreading()
    home, near, far = route.at
    put = replace(PUT, location=home, item={**PUT.item, **home.item})
    first = once(0, put, Check(near, Absent()), Check(far, Absent()))
    vacant = done(far, expiration=1_699_999_000)
    declined = TransactionFailed((None, None, ConditionFailed(vacant)), (None,))
    played = play(at_once(route=route), declined, Applied())
    token = {"N": str(max(1_700_000_000_000, int(str(vacant["f"]["N"])) + 1))}
    second = once(1, replace(put, item={**put.item, "f": token}), Check(near, Absent()), Delete(far, Unchanged(vacant)))
    assert played.operations == (first, second)
    looked = play(at_once(route=route, read_first=True), FoundAll((None, None, done(far))))
    assert looked.operations == (GetAll(route.at),)
    assert isinstance(looked.outcome, Replay)


def test_a_stored_result_expires_as_its_attempt_says() -> None:
    """Not before the lease that nobody needed would have ended: a record outlives its lease."""
    played = play(at_once(retention=10.0), Applied())
    assert isinstance(played.outcome, Completed)
    assert played.outcome.record.expiration == 1_700_000_061


def test_what_the_last_try_meets_is_judged_too() -> None:
    """A lapsed record that was seen to change before may be finished by then."""
    lapsed = [refused(stored(in_progress_expiration=1_600_000_000_000, owner=f"o{n}")) for n in range(ATTEMPTS - 1)]
    first, *_ = lapsed
    played = play(at_once(), first, refused(done()))
    assert played.outcome == Replay(parsed(done()))
    gone: list[Reply] = [reply for _ in range(ATTEMPTS - 1) for reply in (refused(None), Found(None))]
    assert play(at_once(), *gone, refused(done())).outcome == Replay(parsed(done()))
