"""Commits interleaved operation by operation, with answers that get lost on the way: effects are counted."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._core.decisions import Claimed, InProgress, Replay
from aioidempotency._core.model import Lease, Route, SerializedResult
from aioidempotency._core.operations import Effect
from aioidempotency._core.protocol import Completed, Lost, claim, read, release
from aioidempotency._effects.commits import Commit, commit, commit_once
from tests.core.playing import NOW, RENAMED_PLACE, Contender, Shelf, Spreading, attempt, bucket
from tests.support.values import replace

STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40)
ROUTES = st.sampled_from([RENAMED_PLACE, Spreading()])


def effect_of(owner: str) -> Effect:
    return Effect("Put", {"TableName": "orders", "Item": {"pk": {"S": owner}}})


def committing(lease: Lease, *, now: float) -> Any:
    result = SerializedResult(f'"{lease.owner}"')
    wanted = Commit(lease=lease, result=result, effects=(effect_of(lease.owner),), now=now, clock_skew=0.0)
    return commit(wanted)


def owners_of(shelf: Shelf) -> list[str]:
    """Tell whose effects were applied, in order."""
    return [each.parameters["Item"]["pk"]["S"] for each in shelf.effects]  # type: ignore[union-attr,index] # puts of ours


@given(clocks=st.lists(st.floats(0, 1000), min_size=2, max_size=5), steps=STEPS, route=ROUTES)
@settings(max_examples=50, deadline=None)
def test_of_all_who_ever_owned_a_key_one_has_its_effect(
    clocks: list[float], steps: list[tuple[int, bool]], route: Route
) -> None:
    """X2, X3: leases of a second lapse all the time, answers get lost; the effect is that of whoever is answered so."""
    shelf = Shelf()
    claims = [
        attempt(owner=f"owner{n}", now=NOW + clock, lease=1.0, clock_skew=0.0, route=route)
        for n, clock in enumerate(clocks)
    ]
    claiming = [Contender(claim(each)) for each in claims]
    for index, lost in steps:
        claiming[index % len(claiming)].step(shelf, lost=lost)
    outcomes = [each.finish(shelf) for each in claiming]
    leases = [each.lease for each in outcomes if isinstance(each, Claimed)]
    finishing = [Contender(committing(lease, now=NOW + 1000)) for lease in leases]
    for index, lost in reversed(steps):
        finishing[index % len(finishing)].step(shelf, lost=lost)
    ended = [each.finish(shelf) for each in finishing]
    done = [lease.owner for lease, outcome in zip(leases, ended, strict=True) if isinstance(outcome, Completed)]
    assert len(done) == 1
    assert owners_of(shelf) == done
    assert sum(isinstance(outcome, Lost) for outcome in ended) == len(ended) - 1


@given(steps=STEPS, routes=st.lists(ROUTES, min_size=2, max_size=5), lapsed=st.booleans())
@settings(max_examples=50, deadline=None)
def test_of_many_commits_without_a_claim_one_is_applied(
    steps: list[tuple[int, bool]], routes: list[Route], lapsed: bool
) -> None:
    """X3: on a free key, or over an owner whose lease is over; all others get the result of that one."""
    shelf, route = Shelf(), routes[0]
    if lapsed:
        assert isinstance(shelf.run(claim(attempt(owner="old", now=NOW - 1000, lease=1.0, route=route))), Claimed)
    contenders = [
        Contender(
            commit_once(
                attempt(owner=f"owner{n}", route=route), SerializedResult(f'"owner{n}"'), (effect_of(f"owner{n}"),)
            )
        )
        for n in range(len(routes))
    ]
    for index, lost in steps:
        contenders[index % len(contenders)].step(shelf, lost=lost)
    outcomes = [each.finish(shelf) for each in contenders]
    (winner,) = owners_of(shelf)
    found = shelf.run(read(route, now=NOW))
    assert found is not None
    assert found.data == f'"{winner}"'
    for number, outcome in enumerate(outcomes):
        expected = Completed if winner == f"owner{number}" else Replay
        assert isinstance(outcome, expected)
        assert outcome.record.data == f'"{winner}"'


@given(steps=STEPS)
@settings(max_examples=50, deadline=None)
def test_a_claim_and_a_commit_without_one_exclude_each_other(steps: list[tuple[int, bool]]) -> None:
    """The body that runs, and the commit that needs none, are never both applied."""
    shelf = Shelf()
    claiming = Contender(claim(attempt(owner="claimant")))
    at_once = Contender(commit_once(attempt(owner="other"), SerializedResult('"other"'), (effect_of("other"),)))
    for index, lost in steps:
        (claiming, at_once)[index % 2].step(shelf, lost=lost)
    claimed, outcome = claiming.finish(shelf), at_once.finish(shelf)
    if isinstance(claimed, Claimed):
        assert isinstance(outcome, InProgress)
        assert isinstance(shelf.run(committing(claimed.lease, now=NOW + 1)), Completed)
        assert owners_of(shelf) == ["claimant"]
    else:
        assert isinstance(claimed, Replay)
        assert owners_of(shelf) == ["other"]


def test_a_release_settles_a_transaction_that_is_still_on_its_way() -> None:
    """Whichever arrives first: applied and finished, or released and never applied."""
    shelf = Shelf()
    claimed = shelf.run(claim(attempt()))
    assert isinstance(claimed, Claimed)
    late = Contender(committing(claimed.lease, now=NOW + 1))
    shelf.run(release(claimed.lease))
    assert late.finish(shelf) == Lost(None)
    assert not shelf.effects


def test_a_record_in_another_place_is_no_commits() -> None:
    """One that moved on while its owner slept has another owner."""
    shelf = Shelf()
    route = Spreading()
    claimed = shelf.run(claim(attempt(route=route, lease=1.0)))
    assert isinstance(claimed, Claimed)
    moved = replace(route, at=(bucket(9), bucket(7), bucket(8)))
    assert isinstance(shelf.run(claim(attempt(owner="next", route=moved, now=NOW + 100))), Claimed)
    assert shelf.run(committing(claimed.lease, now=NOW + 100)) == Lost(None)
    assert not shelf.effects
