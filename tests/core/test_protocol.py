"""A claim, played reply by reply: what it asks, in which order, and what it comes to."""

import pytest

from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.model import Item
from aioidempotency._core.operations import Applied, ConditionFailed, Found, Get, Put, Reply
from aioidempotency._core.protocol import ATTEMPTS, Contended, Vacant, claim, inspect
from aioidempotency.exceptions import ConfigurationError
from tests.core.playing import NOW, RENAMED_PLACE, attempt, done, held, parsed, play, stored

MINE: Item = {
    "part": {"S": "bucket#7"},
    "sort": {"S": "shop#1234"},
    "s": {"S": "INPROGRESS"},
    "e": {"N": "1700003600"},
    "ipe": {"N": "1700000060000"},
    "o": {"S": "me"},
    "f": {"N": "1700000000000"},
}
FIRST = Put(RENAMED_PLACE, MINE, Absent())
READ = Get(RENAMED_PLACE)
LAPSED = stored(in_progress_expiration=1_699_999_990_000)
EXPIRED = done(expiration=1_699_999_999)


def _take_over(seen: Item, token: int = 1_700_000_000_000) -> Put:
    return Put(RENAMED_PLACE, {**MINE, "f": {"N": str(token)}}, Unchanged(seen))


def test_a_first_claim_is_one_conditional_put() -> None:
    """C1: a fresh key costs one write, and no read."""
    played = play(claim(attempt()), Applied())
    assert played.operations == (FIRST,)
    assert played.outcome == Claimed(held())


def test_a_claim_writes_its_fingerprint() -> None:
    """O15: a later call with another payload must find it."""
    played = play(claim(attempt(fingerprint="print")), Applied())
    assert played.operations == (Put(RENAMED_PLACE, {**MINE, "v": {"S": "print"}}, Absent()),)
    assert played.outcome == Claimed(held(fingerprint="print"))


def test_a_lease_longer_than_the_retention_extends_the_record() -> None:
    """A record never expires before its lease is over, skew included."""
    played = play(claim(attempt(lease=60.0, retention=10.0, clock_skew=2.75, now=NOW + 0.5)), Applied())
    assert isinstance(played.outcome, Claimed)
    assert played.outcome.lease.expiration == 1_700_000_063
    assert played.outcome.lease.expires_at == NOW + 60.5


def test_a_record_expires_a_retention_after_its_claim() -> None:
    """Whole seconds: the table's TTL takes no others."""
    played = play(claim(attempt(now=NOW + 0.9, retention=3600.05)), Applied())
    assert isinstance(played.outcome, Claimed)
    assert played.outcome.lease.expiration == 1_700_003_600


def test_a_finished_duplicate_is_one_refused_put() -> None:
    """C1: the refusal brings the record, so there is no read."""
    played = play(claim(attempt()), ConditionFailed(done()))
    assert played.operations == (FIRST,)
    assert played.outcome == Replay(parsed(done()))
    assert played.outcome.result is None, "decoding is not the core's business"


def test_a_running_duplicate_is_told_how_long() -> None:
    """The other owner's lease ends in 50 s, and clocks may differ by one."""
    played = play(claim(attempt()), ConditionFailed(stored()))
    assert played.operations == (FIRST,)
    assert played.outcome == InProgress(parsed(stored()), retry_after=51.0)


def test_another_payload_is_told_so() -> None:
    """O15, O11: one refused put, and nothing is written."""
    item = done(validation="theirs")
    played = play(claim(attempt(fingerprint="mine")), ConditionFailed(item))
    assert played.operations == (Put(RENAMED_PLACE, {**MINE, "v": {"S": "mine"}}, Absent()),)
    assert played.outcome == Mismatch(parsed(item))


def test_a_refusal_that_brings_no_item_is_followed_by_one_read() -> None:
    """Not every store says what refused a write."""
    played = play(claim(attempt()), ConditionFailed(None), Found(done()))
    assert played.operations == (FIRST, READ)
    assert played.outcome == Replay(parsed(done()))


def test_a_record_that_went_away_meanwhile_is_claimed_anew() -> None:
    """ConditionFailed by a record that its owner then gave back: the next put is a first claim again."""
    played = play(claim(attempt()), ConditionFailed(None), Found(None), Applied())
    assert played.operations == (FIRST, READ, FIRST)
    assert played.outcome == Claimed(held())


def test_a_lost_answer_is_recognised_by_the_owner() -> None:
    """O2: our own record refuses our own put, because the first try of it had been applied."""
    played = play(claim(attempt()), ConditionFailed(MINE))
    assert played.operations == (FIRST,)
    assert played.outcome == Claimed(held())


def test_a_lapsed_record_is_taken_over_if_it_has_not_changed() -> None:
    """O6: the put insists on the very record that was judged."""
    played = play(claim(attempt()), ConditionFailed(LAPSED), Applied())
    assert played.operations == (FIRST, _take_over(LAPSED))
    assert played.outcome == Claimed(held())


@pytest.mark.parametrize(
    ("found", "mine"),
    [
        (None, 1_700_000_000_000),
        (5, 1_700_000_000_000),
        (1_699_999_999_998, 1_700_000_000_000),
        (1_699_999_999_999, 1_700_000_000_000),
        (1_700_000_000_000, 1_700_000_000_001),
        (1_700_000_000_001, 1_700_000_000_002),
        (1_900_000_000_000, 1_900_000_000_001),
    ],
)
def test_the_fencing_token_grows_with_every_take_over(found: int | None, mine: int) -> None:
    """O13: the time in ms, or one more than the token that was found, whichever is larger."""
    lapsed = stored(in_progress_expiration=1_699_999_990_000, fencing_token=found)
    played = play(claim(attempt()), ConditionFailed(lapsed), Applied())
    assert played.operations == (FIRST, _take_over(lapsed, mine))
    assert played.outcome == Claimed(held(fencing_token=mine))


def test_who_loses_a_take_over_does_not_judge_the_winner_by_its_own_clock() -> None:
    """O7: the record changed while we looked, so its new owner runs, whatever the clocks say."""
    winner = stored(in_progress_expiration=1_699_999_990_001, owner="third")
    played = play(claim(attempt()), ConditionFailed(LAPSED), ConditionFailed(winner))
    assert played.operations == (FIRST, _take_over(LAPSED))
    assert played.outcome == InProgress(parsed(winner), retry_after=60.0)


@pytest.mark.parametrize("winner", [LAPSED, stored(expiration=1_699_999_999)])
def test_who_saw_nothing_does_not_judge_what_comes_by_its_own_clock(winner: Item) -> None:
    """O7: a record that is written after our look is running, in seconds that we may count otherwise."""
    played = play(claim(attempt()), ConditionFailed(None), Found(None), ConditionFailed(winner))
    assert played.operations == (FIRST, READ, FIRST)
    assert played.outcome == InProgress(parsed(winner), retry_after=60.0)


def test_an_expired_result_that_came_meanwhile_is_taken_over_in_turn() -> None:
    """The owner finished with a retention that is over: nobody runs, so the claim goes on, with a larger token."""
    finished = done(expiration=1_699_999_999, fencing_token=1_700_000_000_007)
    played = play(claim(attempt()), ConditionFailed(LAPSED), ConditionFailed(finished), Applied())
    assert played.operations == (FIRST, _take_over(LAPSED), _take_over(finished, 1_700_000_000_008))
    assert played.outcome == Claimed(held(fencing_token=1_700_000_000_008))


def test_the_fencing_token_never_falls_during_a_claim() -> None:
    """A record deleted and written anew may have a smaller one: what we saw before still counts."""
    ahead = stored(in_progress_expiration=1_699_999_990_000, fencing_token=1_900_000_000_000)
    played = play(claim(attempt()), ConditionFailed(ahead), ConditionFailed(EXPIRED), Applied())
    assert played.operations[-1] == _take_over(EXPIRED, 1_900_000_000_001)


def test_a_lapsed_record_that_went_away_is_claimed_as_a_first_one() -> None:
    """Nothing is there to be unchanged; the token stays above the one that was seen."""
    ahead = stored(in_progress_expiration=1_699_999_990_000, fencing_token=1_900_000_000_000)
    played = play(claim(attempt()), ConditionFailed(ahead), ConditionFailed(None), Found(None), Applied())
    token = {"f": {"N": "1900000000001"}}
    assert played.operations[1:] == (
        _take_over(ahead, 1_900_000_000_001),
        READ,
        Put(RENAMED_PLACE, {**MINE, **token}, Absent()),
    )
    assert played.outcome == Claimed(held(fencing_token=1_900_000_000_001))


@pytest.mark.parametrize("meanwhile", [[ConditionFailed(done())], [ConditionFailed(None), Found(done())]])
def test_a_lapsed_owner_that_finished_meanwhile_is_replayed(meanwhile: list[Reply]) -> None:
    """The take-over is refused by its completion, and finds the result."""
    played = play(claim(attempt()), ConditionFailed(LAPSED), *meanwhile)
    assert played.outcome == Replay(parsed(done()))


def test_a_lapsed_owner_that_renewed_meanwhile_keeps_its_record() -> None:
    """The take-over is refused by the renewal."""
    played = play(claim(attempt()), ConditionFailed(LAPSED), ConditionFailed(stored()))
    assert played.operations == (FIRST, _take_over(LAPSED))
    assert played.outcome == InProgress(parsed(stored()), retry_after=51.0)


def test_the_lost_answer_of_a_take_over_is_recognised_too() -> None:
    """O2: with the token under which the record was written."""
    mine = {**MINE, "f": {"N": "1900000000001"}}
    ahead = stored(in_progress_expiration=1_699_999_990_000, fencing_token=1_900_000_000_000)
    played = play(claim(attempt()), ConditionFailed(ahead), ConditionFailed(mine))
    assert played.outcome == Claimed(held(fencing_token=1_900_000_000_001))


def test_a_claim_that_always_comes_too_late_gives_up() -> None:
    """The bound: what refused the last write is over, too, so no record can be shown as the one in progress."""
    last = done(expiration=1_699_999_998, owner="the last one")
    played = play(claim(attempt()), *[ConditionFailed(EXPIRED)] * 4, ConditionFailed(last))
    assert ATTEMPTS == 5
    assert played.operations == (FIRST, *[_take_over(EXPIRED)] * 4)
    assert played.outcome == Contended()


def test_a_claim_whose_record_always_vanishes_gives_up() -> None:
    """A key that is claimed and given back all the time ends in an answer, too."""
    vanishing: list[Reply] = [ConditionFailed(None), Found(None)] * ATTEMPTS
    played = play(claim(attempt()), *vanishing)
    assert played.operations == (FIRST, READ) * ATTEMPTS
    assert played.outcome == Contended()


def test_reading_first_spares_the_refused_put_of_a_duplicate() -> None:
    """A refused write is billed by the size of the item, a read at a twentieth of it."""
    played = play(claim(attempt(read_first=True)), Found(done()))
    assert played.operations == (READ,)
    assert played.outcome == Replay(parsed(done()))


def test_reading_first_claims_what_is_not_there() -> None:
    """A fresh key costs the read and the write."""
    played = play(claim(attempt(read_first=True)), Found(None), Applied())
    assert played.operations == (READ, FIRST)
    assert played.outcome == Claimed(held())


def test_reading_first_takes_over_what_was_read() -> None:
    """The lapsed record is known: no put is wasted."""
    played = play(claim(attempt(read_first=True)), Found(LAPSED), Applied())
    assert played.operations == (READ, _take_over(LAPSED))
    assert played.outcome == Claimed(held())


@pytest.mark.parametrize("seen", [None, LAPSED])
def test_reading_first_is_a_look_like_any_other(seen: Item | None) -> None:
    """O7: who comes between the read and the put has won, whatever the clocks say."""
    played = play(claim(attempt(read_first=True)), Found(seen), ConditionFailed(stored(in_progress_expiration=1)))
    assert len(played.operations) == 2
    assert played.outcome == InProgress(parsed(stored(in_progress_expiration=1)), retry_after=60.0)


def test_inspecting_asks_and_writes_nothing() -> None:
    """One read, judged as a claim would."""
    assert play(inspect(attempt()), Found(None)).outcome == Vacant()
    assert play(inspect(attempt()), Found(LAPSED)).outcome == Vacant()
    played = play(inspect(attempt()), Found(stored()))
    assert played.operations == (READ,)
    assert played.outcome == InProgress(parsed(stored()), retry_after=51.0)


def test_an_item_that_is_no_record_stops_a_claim() -> None:
    """Whatever lives under the key is not overwritten."""
    with pytest.raises(ConfigurationError, match="not an idempotency record"):
        play(claim(attempt()), ConditionFailed(stored(status=None)))


def test_a_backend_that_answers_a_put_as_a_read_is_refused() -> None:
    """Taking that for success would run a body without a record."""
    with pytest.raises(TypeError, match=r"the backend answered <Put shop#1234: .* with Found"):
        play(claim(attempt()), Found(None))


@pytest.mark.parametrize("reply", [Applied(), ConditionFailed(None)])
def test_a_backend_that_answers_a_read_as_a_write_is_refused(reply: Reply) -> None:
    """The message names the key, a digest."""
    with pytest.raises(TypeError, match=r"the backend answered <Get shop#1234> with (Applied|ConditionFailed)"):
        play(claim(attempt()), ConditionFailed(None), reply)


@pytest.mark.parametrize("refuser", ["another", "its own"])
def test_the_last_refusal_counts_too(refuser: str) -> None:
    """What refused the last write is judged like the first: a result is a replay, its own record is its claim."""
    contended: list[Reply] = [ConditionFailed(None), Found(None)] * (ATTEMPTS - 1)
    item = done() if refuser == "another" else stored(owner=attempt().owner)
    decision = play(claim(attempt()), *contended, ConditionFailed(item)).outcome
    assert isinstance(decision, Replay if refuser == "another" else Claimed)
