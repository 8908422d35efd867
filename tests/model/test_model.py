"""The protocol under every interleaving. The terminal's summary says how many states were seen."""

from collections.abc import Callable

import pytest

from tests.model.configurations import CASES
from tests.model.explorer import explore


@pytest.mark.parametrize("name", CASES)
def test_every_invariant_holds_in_every_state(name: str, record_property: Callable[[str, object], None]) -> None:
    """O1 to O4, O6, O7, O13, O15: whatever happens, in whatever order. Fewer states than before would be a hole."""
    case = CASES[name]
    explored = explore(case.configuration)
    record_property("explored", f"{explored.states:>7} states, {explored.transitions:>7} transitions: {name}")
    assert explored.states >= case.states
    assert case.reaches <= explored.outcomes.keys()
