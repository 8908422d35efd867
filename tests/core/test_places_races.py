"""Contenders for one key that put their records into different locations, interleaved operation by operation."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._core.decisions import Claimed, Replay
from aioidempotency._core.model import Lease, Record, SerializedResult
from aioidempotency._core.protocol import Claim, Completed, Lost, claim, complete, read
from tests.core.playing import NOW, Contender, Shelf, Spreading, attempt, bucket, parsed, stored

PLACES = tuple(map(bucket, (7, 8, 9)))
ROUTES = st.permutations(PLACES).map(lambda locations: Spreading(at=tuple(locations)))
"""All look at all locations, in orders of their own; the first one is home."""

CLOCKS = st.floats(-300, 300)
STEPS = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40)
LAPSED = st.sets(st.integers(0, 2))
"""In which locations a lapsed record lies at the start."""

CONTENDERS = st.lists(st.tuples(ROUTES, CLOCKS), min_size=2, max_size=5)


def _shelf(lapsed: set[int]) -> Shelf:
    """Have lapsed records, with tokens ahead of most clocks."""
    shelf = Shelf()
    for index in lapsed:
        location = PLACES[index]
        token = 1_700_000_200_000 + index
        shelf.items[location.partition, location.sort] = stored(
            location, in_progress_expiration=1_600_000_000_000, fencing_token=token
        )
    return shelf


def _claims(drawn: Sequence[tuple[Spreading, float]], **terms: float) -> list[Claim]:
    return [attempt(route=route, owner=f"owner{n}", now=NOW + clock, **terms) for n, (route, clock) in enumerate(drawn)]


def _records(shelf: Shelf) -> list[Record]:
    return [parsed(item) for item in shelf.items.values()]


def _owners(shelf: Shelf, claims: Sequence[Claim], steps: list[tuple[int, bool]], *, look: bool = False) -> list[Lease]:
    """Have the claims race; `look`: each sends its first request before any goes on."""
    contenders = [Contender(claim(each)) for each in claims]
    for contender in contenders if look else ():
        contender.step(shelf)
    for index, lost in steps:
        contenders[index % len(contenders)].step(shelf, lost=lost)
    outcomes = [contender.finish(shelf) for contender in contenders]
    return [outcome.lease for outcome in outcomes if isinstance(outcome, Claimed)]


@given(drawn=CONTENDERS, steps=STEPS, lapsed=LAPSED, look=st.booleans())
@settings(max_examples=30, deadline=None)
def test_one_contender_wins_whatever_its_home(
    drawn: list[tuple[Spreading, float]], steps: list[tuple[int, bool]], lapsed: set[int], look: bool
) -> None:
    """O1, O7, P2: and one record is left, in the winner's home, with a token above each that it replaced."""
    shelf = _shelf(lapsed)
    tokens = [record.fencing_token for record in _records(shelf)]
    (winner,) = _owners(shelf, _claims(drawn, lease=900.0), steps, look=look)
    (record,) = _records(shelf)
    assert (record.owner, record.fencing_token) == (winner.owner, winner.fencing_token)
    assert shelf.found(winner.location) is not None
    assert all(winner.fencing_token > token for token in tokens)


@given(drawn=st.lists(st.tuples(ROUTES, st.floats(0, 1000)), min_size=2, max_size=5), steps=STEPS)
@settings(max_examples=30, deadline=None)
def test_of_all_who_ever_owned_a_key_in_any_place_one_can_finish_it(
    drawn: list[tuple[Spreading, float]], steps: list[tuple[int, bool]]
) -> None:
    """O4, O13, P2: leases of a second lapse all the time; a take-over from another location fences the old owner off."""
    shelf = Shelf()
    owners = _owners(shelf, _claims(drawn, lease=1.0, clock_skew=0.0), steps)
    assert len({lease.fencing_token for lease in owners}) == len(owners)
    holder = max(owners, key=lambda lease: lease.fencing_token)
    for lease in owners:
        outcome = shelf.run(complete(lease, SerializedResult(f'"{lease.owner}"'), now=NOW + 1000))
        assert isinstance(outcome, Completed if lease is holder else Lost)
    for route, _ in drawn:
        found = shelf.run(read(route, now=NOW + 1000))
        assert found is not None
        assert found.data == f'"{holder.owner}"'


@given(homes=st.lists(ROUTES, min_size=4, max_size=4), steps=STEPS, lost=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_result_in_another_place_is_never_overwritten(
    homes: list[Spreading], steps: list[tuple[int, bool]], lost: bool
) -> None:
    """O3, P2: a lapsed owner finishes while others take over from elsewhere: whoever is first, its result stays."""
    shelf = Shelf()
    old = shelf.run(claim(attempt(route=homes[0], owner="old", now=NOW - 1000, lease=1.0)))
    assert isinstance(old, Claimed)
    finishing = Contender(complete(old.lease, SerializedResult('"old"'), now=NOW))
    takers = [Contender(claim(attempt(route=home, owner=f"owner{n}", lease=900.0))) for n, home in enumerate(homes[1:])]
    for index, answer_lost in steps:
        [finishing, *takers][index % 4].step(shelf, lost=answer_lost or (index == 0 and lost))
    finished = finishing.finish(shelf)
    winners = [each for each in (taker.finish(shelf) for taker in takers) if isinstance(each, Claimed)]
    assert len(winners) == (0 if isinstance(finished, Completed) else 1)
    assert len(shelf.items) == 1
    later = shelf.run(claim(attempt(route=homes[-1], owner="later", now=NOW + 1)))
    assert isinstance(later, Replay) is isinstance(finished, Completed)
