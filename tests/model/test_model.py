"""The protocol under every interleaving. The terminal's summary says how many states were seen."""

from collections.abc import Callable

import pytest

from tests.model.configurations import CASES, Case
from tests.model.configurations_over_places import OVER_PLACES
from tests.model.configurations_over_windows import OVER_WINDOWS
from tests.model.configurations_with_freeing import WITH_FREEING
from tests.model.explorer import explore

Recorder = Callable[[str, object], None]


@pytest.mark.parametrize("name", CASES)
def test_every_invariant_holds_in_every_state(name: str, record_property: Recorder) -> None:
    """O1 to O4, O6, O7, O13, O15: whatever happens, in whatever order."""
    _explore(CASES[name], name, record_property)


@pytest.mark.parametrize("name", OVER_PLACES)
def test_every_invariant_holds_over_several_places(name: str, record_property: Recorder) -> None:
    """P2, P7: the same, where nodes put records into different locations and look at those of the others."""
    _explore(OVER_PLACES[name], name, record_property)


@pytest.mark.parametrize("name", OVER_WINDOWS)
def test_every_invariant_holds_where_places_change_with_time(name: str, record_property: Recorder) -> None:
    """P2, P7: the same, on both sides of a boundary between two windows, with clocks apart by the skew."""
    _explore(OVER_WINDOWS[name], name, record_property)


@pytest.mark.parametrize("name", WITH_FREEING)
def test_every_invariant_holds_where_keys_are_freed(name: str, record_property: Recorder) -> None:
    """C21, O13: who is shut out stays out, and every claim has a larger token than the one before."""
    _explore(WITH_FREEING[name], name, record_property)


def _explore(case: Case, name: str, record_property: Recorder) -> None:
    """Visit all states. Fewer than before, or an outcome that is not reached any more, would be a hole."""
    explored = explore(case.configuration)
    record_property("explored", f"{explored.states:>7} states, {explored.transitions:>7} transitions: {name}")
    assert explored.states >= case.states
    assert case.reaches <= explored.outcomes.keys()
