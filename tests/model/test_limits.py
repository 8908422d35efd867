"""What the invariants leave out, and what they take for granted, one test each, with the shortest way there.

When a limit is gone, its test fails, and it can go too.
"""

import pytest

from tests.model.calls import Script
from tests.model.configurations import COPIES
from tests.model.configurations_over_places import ON_CUTOVER, ON_NEW, ON_OLD, ON_PREPARE
from tests.model.configurations_over_windows import AHEAD, PLAIN
from tests.model.explorer import ViolationError, explore
from tests.model.invariants import Limit
from tests.model.setting import Configuration, Faults
from tests.support.values import replace

IN_WINDOWS = Configuration(scripts=(PLAIN, AHEAD), horizon=5.0)
TWO_AND_A_COPY = Configuration(scripts=(Script(), Script()), faults=Faults(copy=1))


def _without(limit: Limit, configuration: Configuration) -> str:
    """Explore without leaving this out; return the way to where an invariant does not hold."""
    limits = frozenset(Limit) - {limit}
    with pytest.raises(ViolationError) as found:
        explore(replace(configuration, limits=limits))
    return str(found.value)


def test_a_late_copy_of_its_claim_can_bring_back_a_released_record() -> None:
    """The key is free again when the copy's lease is over."""
    way = _without(Limit.RELEASED_BEFORE_A_COPY, TWO_AND_A_COPY)
    assert way.startswith("invariant 13: the contender still holds the record")
    assert "the network delivers it late: Put when Absent by a1 is applied" in way


def _violated(configuration: Configuration) -> str:
    with pytest.raises(ViolationError) as found:
        explore(configuration)
    return str(found.value)


def test_phases_that_are_no_neighbours_do_not_exclude_each_other() -> None:
    """P4: nodes of `old` do not look where those of `cutover` put; the table refuses such a deployment."""
    for first, second in ((ON_OLD, ON_CUTOVER), (ON_PREPARE, ON_NEW), (ON_OLD, ON_NEW)):
        claiming = replace(first, ends=("release",)), replace(second, ends=("release",))
        way = _violated(Configuration(scripts=claiming))
        assert way.startswith("invariant 16: the records of a1 and b1 count, both")


def test_windows_need_clocks_that_agree() -> None:
    """P2: a clock that is ahead by more than the skew puts its record into a window that nobody looks at yet."""
    way = _violated(replace(IN_WINDOWS, scripts=(PLAIN, replace(PLAIN, clock=6))))
    assert way.startswith("invariant 16: the records of a1 and b1 count, both")


def test_a_copy_that_comes_after_a_take_over_in_a_later_window_brings_its_record_back() -> None:
    """Its owner could finish beside the other one. DynamoDB does not apply a transaction's copy for ten minutes."""
    way = _violated(replace(IN_WINDOWS, faults=Faults(copy=1), limits=COPIES))
    assert way.startswith("invariant 16: the records of a1 and b1 count, both")
    assert "the network delivers it late: Put when Absent" in way.splitlines()[-1]
