"""Contenders for one key, interleaved operation by operation, with answers that get lost on the way."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._core.decisions import Claimed, Replay
from aioidempotency._core.model import Lease, SerializedResult
from aioidempotency._core.operations import ConditionFailed, Get
from aioidempotency._core.protocol import Completed, Lost, claim, complete, read
from tests.core.playing import NOW, RENAMED_PLACE, Contender, Shelf, attempt, parsed, play, stored
from tests.support.values import replace

SKEWS = st.floats(-300, 300)
STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40)


def _race(shelf: Shelf, contenders: list[Contender], steps: list[tuple[int, bool]]) -> list[Lease]:
    for index, lost in steps:
        contenders[index % len(contenders)].step(shelf, lost=lost)
    outcomes = [contender.finish(shelf) for contender in contenders]
    return [outcome.lease for outcome in outcomes if isinstance(outcome, Claimed)]


@given(clocks=st.lists(SKEWS, min_size=1, max_size=5), steps=STEPS, lapsed=st.booleans())
@settings(max_examples=25, deadline=None)
def test_one_contender_wins_whatever_their_clocks_say(
    clocks: list[float], steps: list[tuple[int, bool]], lapsed: bool
) -> None:
    """O1, O2, O7: for a free key and for a lapsed lease, with clocks that differ by minutes and lost answers."""
    shelf = Shelf()
    if lapsed:
        shelf.items["bucket#7", "shop#1234"] = stored(in_progress_expiration=1_600_000_000_000)
    claims = [attempt(owner=f"owner{n}", now=NOW + clock, lease=900.0) for n, clock in enumerate(clocks)]
    winners = _race(shelf, [Contender(claim(each)) for each in claims], steps)
    assert len(winners) == 1
    stored_now = parsed(shelf.items["bucket#7", "shop#1234"])
    assert (stored_now.owner, stored_now.fencing_token) == (winners[0].owner, winners[0].fencing_token)


@given(clocks=st.lists(SKEWS, min_size=1, max_size=5), steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_of_all_who_saw_a_lapsed_lease_one_wins(clocks: list[float], steps: list[tuple[int, bool]]) -> None:
    """O7: even where the leases are shorter than the clocks differ."""
    shelf = Shelf()
    shelf.items["bucket#7", "shop#1234"] = stored(in_progress_expiration=1_600_000_000_000)
    claims = [attempt(owner=f"owner{n}", now=NOW + clock, lease=1.0) for n, clock in enumerate(clocks)]
    contenders = [Contender(claim(each)) for each in claims]
    for contender in contenders:
        contender.step(shelf)
    winners = _race(shelf, contenders, steps)
    assert len(winners) == 1
    assert parsed(shelf.items["bucket#7", "shop#1234"]).owner == winners[0].owner


@given(clocks=st.lists(st.floats(0, 1000), min_size=2, max_size=5), steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_of_all_who_ever_owned_a_key_one_can_finish_it(clocks: list[float], steps: list[tuple[int, bool]]) -> None:
    """O4, O13: leases of a second lapse all the time; tokens differ, and only the last owner's result is stored."""
    shelf = Shelf()
    claims = [attempt(owner=f"owner{n}", now=NOW + clock, lease=1.0, clock_skew=0.0) for n, clock in enumerate(clocks)]
    owners = _race(shelf, [Contender(claim(each)) for each in claims], steps)
    assert len({lease.fencing_token for lease in owners}) == len(owners)
    holder = max(owners, key=lambda lease: lease.fencing_token)
    assert parsed(shelf.items["bucket#7", "shop#1234"]).owner == holder.owner

    for lease in owners:
        outcome = shelf.run(complete(lease, SerializedResult(f'"{lease.owner}"'), now=NOW + 1000))
        assert isinstance(outcome, Completed if lease is holder else Lost)
    found = shelf.run(read(RENAMED_PLACE, now=NOW + 1000))
    assert found is not None
    assert found.data == f'"{holder.owner}"'


@given(steps=STEPS, finish_lost=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_result_is_never_overwritten(steps: list[tuple[int, bool]], finish_lost: bool) -> None:
    """A lapsed owner finishes while others take over: whoever completes first, its result stays."""
    shelf = Shelf()
    old = shelf.run(claim(attempt(owner="old", now=NOW - 1000, lease=1.0)))
    assert isinstance(old, Claimed)
    finishing = Contender(complete(old.lease, SerializedResult('"old"'), now=NOW))
    takers = [Contender(claim(attempt(owner=f"owner{n}", lease=900.0))) for n in range(3)]
    for index, lost in steps:
        [finishing, *takers][index % 4].step(shelf, lost=lost or (index == 0 and finish_lost))
    finished = finishing.finish(shelf)
    outcomes = [taker.finish(shelf) for taker in takers]
    winners = [outcome for outcome in outcomes if isinstance(outcome, Claimed)]
    assert len(winners) == (0 if isinstance(finished, Completed) else 1)
    if isinstance(finished, Completed):
        again = shelf.run(claim(attempt(owner="later", now=NOW + 1)))
        assert isinstance(again, Replay)
        assert again.record.data == '"old"'


def test_a_take_over_cannot_undo_a_renewal() -> None:
    """The lapsed owner renews between a contender's look and its put: the contender is refused."""
    shelf = Shelf()
    owner = shelf.run(claim(attempt(owner="owner", now=NOW - 100)))
    contender = Contender(claim(attempt()))
    contender.step(shelf)
    assert isinstance(owner, Claimed)
    location = ("bucket#7", "shop#1234")
    shelf.items[location] = {**shelf.items[location], "ipe": {"N": "1700000090000"}}
    contender.finish(shelf)
    assert parsed(shelf.items[location]).owner == "owner"


def test_scripted_and_stored_replies_agree() -> None:
    """The shelf refuses with what is there, as the scripts of the other modules do."""
    shelf = Shelf()
    shelf.items["bucket#7", "shop#1234"] = stored()
    first = play(claim(attempt()), ConditionFailed(stored()))
    assert shelf.run(claim(attempt())) == first.outcome
    assert shelf.answer(Get(replace(RENAMED_PLACE, sort="other"))).item is None  # type: ignore[union-attr] # a read
