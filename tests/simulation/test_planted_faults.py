"""The simulation is able to fail: each fault that is planted in the library is found by it."""

import re

import pytest

from tests.simulation.faults import FAULTS, Fault
from tests.simulation.world import Run, simulate

WITHIN = 1000
"""Seeds within which a fault must be found."""


def first_to_fail(symptom: str) -> Run | None:
    """Find the first seed that shows a symptom."""
    runs = (simulate(seed) for seed in range(WITHIN))
    return next((run for run in runs if any(re.search(symptom, rule) for rule in run.broken)), None)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed breaks the rule that fits the fault; without the fault, that seed breaks none."""
    with monkeypatch.context() as patch:
        fault.plant(patch)
        found = first_to_fail(fault.symptom)
    assert found is not None, f"not found within {WITHIN} seeds"
    assert simulate(found.seed).broken == ()
