"""What a record means at an instant: every judgement about time, at its exact boundaries."""

import pytest

from aioidempotency._core.decisions import Claimed, InProgress, Mismatch, Replay
from aioidempotency._core.model import Item, Record
from aioidempotency._core.protocol import Claim, Vacant, judge
from tests.core.playing import NOW, attempt, done, parsed, stored

SECOND = 1_700_000_000
ENDLESS = stored(in_progress_expiration=None, owner=None, fencing_token=None)
LAPSED = stored(in_progress_expiration=1_699_999_990_000)
EXPIRED = 1_699_999_999


def _kind(item: Item, claim: Claim) -> type:
    return type(judge(parsed(item), claim))


@pytest.mark.parametrize(
    ("now", "kind"), [(NOW - 1, Replay), (NOW, Replay), (NOW + 0.999, Replay), (NOW + 1, Vacant), (NOW + 1.5, Vacant)]
)
def test_a_finished_record_answers_through_the_second_of_its_expiration(now: float, kind: type) -> None:
    """As in Powertools, a record whose expiration is this second still counts."""
    assert _kind(done(expiration=SECOND), attempt(now=now)) is kind


@pytest.mark.parametrize(("now", "kind"), [(NOW + 0.999, Replay), (NOW + 1, Vacant)])
def test_an_expiration_with_a_fraction_ends_with_its_second(now: float, kind: type) -> None:
    """The instant is compared in whole seconds."""
    assert _kind({**done(), "e": {"N": f"{SECOND}.5"}}, attempt(now=now)) is kind


def test_a_finished_record_answers_after_its_lease() -> None:
    """The end of the lease stays on it, and means nothing any more."""
    item = done(in_progress_expiration=1)
    assert judge(parsed(item), attempt()) == Replay(parsed(item))


@pytest.mark.parametrize(
    ("ends", "skew", "remaining"),
    [
        (1_700_000_050_000, 1.0, 51.0),
        (1_700_000_000_000, 1.0, 1.0),
        (1_700_000_000_000, 0.0, 0.0),
        (1_699_999_999_000, 1.0, 0.0),
        (1_699_999_999_500, 1.0, 0.5),
        (1_699_999_700_000, 300.0, 0.0),
    ],
)
def test_a_lease_protects_until_it_is_over_by_the_clock_skew(ends: int, skew: float, remaining: float) -> None:
    """To the very instant; the caller is told how long."""
    item = stored(in_progress_expiration=ends)
    assert judge(parsed(item), attempt(clock_skew=skew)) == InProgress(parsed(item), retry_after=remaining)


@pytest.mark.parametrize(("ends", "skew"), [(1_699_999_999_500, 0.0), (1_699_999_998_500, 1.0), (0, 1.0)])
def test_a_lease_that_is_over_by_more_leaves_the_key_free(ends: int, skew: float) -> None:
    """O6: after the lease, not after the retention."""
    assert _kind(stored(in_progress_expiration=ends), attempt(clock_skew=skew)) is Vacant


@pytest.mark.parametrize(("now", "wait"), [(NOW - 10, 11.0), (NOW, 1.0), (NOW + 0.75, 0.25)])
def test_a_record_without_a_lease_protects_until_its_expiration(now: float, wait: float) -> None:
    """Powertools writes such where it does not know the remaining time. The wait ends where the record does."""
    item = {**ENDLESS, "e": {"N": f"{SECOND}"}}
    assert judge(parsed(item), attempt(now=now)) == InProgress(parsed(item), retry_after=wait)
    assert _kind(item, attempt(now=now + wait)) is Vacant


def test_the_wait_for_an_expiration_with_a_fraction_ends_where_the_record_does() -> None:
    """One second more would be a second too long."""
    item = {**ENDLESS, "e": {"N": f"{SECOND}.5"}}
    assert judge(parsed(item), attempt()) == InProgress(parsed(item), retry_after=1.0)


def test_a_clock_skew_does_not_prolong_a_record_without_a_lease() -> None:
    """An expiration is no promise to an owner."""
    assert judge(parsed(ENDLESS), attempt(clock_skew=300.0)) == InProgress(parsed(ENDLESS), retry_after=3591.0)


@pytest.mark.parametrize(
    "item",
    [
        stored(expiration=EXPIRED),
        stored(expiration=EXPIRED, in_progress_expiration=None),
        stored(expiration=EXPIRED, validation="theirs"),
        done(expiration=EXPIRED),
        done(expiration=EXPIRED, validation="theirs"),
        LAPSED,
    ],
)
def test_what_is_over_is_vacant(item: Item) -> None:
    """TTL deletes late: an expired record is still found, and means nothing, not even by its fingerprint."""
    assert judge(parsed(item), attempt(fingerprint="mine")) == Vacant()


@pytest.mark.parametrize("item", [stored(), ENDLESS, done(), LAPSED])
def test_another_fingerprint_answers_first(item: Item) -> None:
    """O15: while running, finished, and after a lapsed lease."""
    found = parsed({**item, "v": {"S": "theirs"}})
    assert judge(found, attempt(fingerprint="mine")) == Mismatch(found)


@pytest.mark.parametrize(("theirs", "mine"), [("same", "same"), (None, "mine"), ("theirs", None), (None, None)])
@pytest.mark.parametrize(("item", "kind"), [(stored(), InProgress), (done(), Replay), (LAPSED, Vacant)])
def test_a_fingerprint_that_is_equal_or_missing_changes_nothing(
    item: Item, kind: type, theirs: str | None, mine: str | None
) -> None:
    """O15: an identical retry replays, and who gives no fingerprint asks for no check."""
    found = item if theirs is None else {**item, "v": {"S": theirs}}
    assert _kind(found, attempt(fingerprint=mine)) is kind


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"expiration": EXPIRED},
        {"in_progress_expiration": 1_699_999_990_000},
        {"in_progress_expiration": None},
        {"validation": "theirs"},
    ],
)
def test_our_own_running_record_is_ours_before_anything_else(changes: dict[str, str | int | None]) -> None:
    """O2: whatever it says besides, it can only be the write whose answer was lost; its token counts."""
    found = stored(**{"owner": "me", "fencing_token": 77, **changes})
    verdict = judge(parsed(found), attempt(fingerprint="mine"))
    assert isinstance(verdict, Claimed)
    assert (verdict.lease.owner, verdict.lease.fencing_token, verdict.lease.fingerprint) == ("me", 77, "mine")


def test_a_finished_record_of_our_own_is_replayed() -> None:
    """Whoever has finished does not run again."""
    found = parsed(done(owner="me"))
    assert judge(found, attempt()) == Replay(found)


@pytest.mark.parametrize("item", [LAPSED, stored(expiration=EXPIRED), stored(expiration=EXPIRED, validation="theirs")])
def test_a_record_written_after_our_look_is_running(item: Item) -> None:
    """O7: its lease cannot be over yet, whatever the clocks say; it lasts as long as ours would."""
    found = parsed(item)
    assert judge(found, attempt(fingerprint="mine", lease=7.0), fresh=True) == InProgress(found, retry_after=7.0)


def test_a_record_written_after_our_look_is_judged_like_any_other_where_it_matters() -> None:
    """By owner, fingerprint, result and expiration; a lease that is not over says itself how long it lasts."""
    mine, theirs = attempt(fingerprint="mine"), {"v": {"S": "theirs"}}
    mismatched = parsed({**LAPSED, **theirs})
    assert judge(mismatched, mine, fresh=True) == Mismatch(mismatched)
    assert judge(parsed(done()), mine, fresh=True) == Replay(parsed(done()))
    assert judge(parsed(done(expiration=EXPIRED)), mine, fresh=True) == Vacant()
    assert judge(parsed(stored()), mine, fresh=True) == InProgress(parsed(stored()), retry_after=51.0)
    assert isinstance(judge(parsed(stored(owner="me", expiration=EXPIRED)), mine, fresh=True), Claimed)


def test_judging_changes_no_record() -> None:
    """O11: what is reported is what was found."""
    found: Record = parsed(stored())
    decision = judge(found, attempt())
    assert isinstance(decision, InProgress)
    assert decision.record is found


def test_our_own_write_is_granted_as_it_stands() -> None:
    """An earlier look of a waiting call sent it, and it arrived late: its lease ends when the table says."""
    early = stored(owner="me", in_progress_expiration=1_700_000_010_000, expiration=1_700_000_900)
    verdict = judge(parsed(early), attempt(now=NOW + 5))
    assert isinstance(verdict, Claimed)
    assert (verdict.lease.expires_at, verdict.lease.expiration) == (1_700_000_010.0, 1_700_000_900)


def test_our_own_write_without_an_end_is_granted_from_now() -> None:
    """Not a record that we write; whoever removed its end left it ours."""
    verdict = judge(parsed(stored(owner="me", in_progress_expiration=None)), attempt())
    assert isinstance(verdict, Claimed)
    assert verdict.lease.expires_at == NOW + 60
