"""What the invariants leave out, one test each: when a limit is gone, its test fails, and it can go too."""

from dataclasses import replace

import pytest

from tests.model.contenders import Script
from tests.model.explorer import ViolationError, explore
from tests.model.invariants import Limit
from tests.model.moves import Configuration, Faults

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
