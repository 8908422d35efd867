"""The simulation is able to fail: each fault that is planted in the library is found by it."""

import re

import pytest

from tests.simulation.drawing import SHORT, make_plan
from tests.simulation.effect_faults import EFFECT_FAULTS
from tests.simulation.faults import FAULTS, Fault
from tests.simulation.freeing_faults import FREEING_FAULTS
from tests.simulation.place_faults import PLACE_FAULTS
from tests.simulation.process_faults import PROCESS_FAULTS
from tests.simulation.world import Run, simulate

ALL = (*FAULTS, *PLACE_FAULTS, *EFFECT_FAULTS, *FREEING_FAULTS, *PROCESS_FAULTS)

WITHIN = 1000
"""Seeds within which a fault must be found; more of them where few can show it."""


def first_to_fail(fault: Fault) -> Run | None:
    """Find the first seed that shows a fault's symptom."""
    seeds = range(WITHIN * (10 if fault.short or fault.promised else 4 if fault.windows else 1))
    runs = (simulate(seed) for seed in seeds if _can_show(fault, seed))
    return next((run for run in runs if any(re.search(fault.symptom, rule) for rule in run.broken)), None)


def _can_show(fault: Fault, seed: int) -> bool:
    if not fault.windows and not fault.short and not fault.promised:
        return True
    plan = make_plan(seed)
    if fault.promised:
        return plan.scheme.verified and plan.retentions_differ
    return plan.retention == SHORT if fault.short else plan.scheme.window is not None


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ALL, ids=[fault.name for fault in ALL])
def test_a_planted_fault_is_found(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seed breaks the rule that fits the fault; without the fault, that seed breaks none."""
    with monkeypatch.context() as patch:
        fault.plant(patch)
        found = first_to_fail(fault)
    assert found is not None, f"not found within {WITHIN} seeds"
    assert simulate(found.seed).broken == ()
