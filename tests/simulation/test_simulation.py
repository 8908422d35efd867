"""The store and its procedures under a simulated network, clocks and processes: every seed is one run.

`AIOIDEMPOTENCY_SEEDS` says how many seeds are run, `AIOIDEMPOTENCY_FIRST_SEED` where they begin.
"""

import os
from collections import Counter
from functools import cache

import pytest

from tests.simulation.plan import TROUBLES
from tests.simulation.world import Run, simulate

FIRST = int(os.environ.get("AIOIDEMPOTENCY_FIRST_SEED", "0"))
SEEDS = int(os.environ.get("AIOIDEMPOTENCY_SEEDS", "500"))
BATCH = 100

ALL_FAULTS = {
    *TROUBLES,
    "cancelled",
    "cut off",
    "declined without item",
    "deleted by TTL",
    "hesitates",
    "process dies",
    "process resumes",
    "process stops",
    "refusal without item",
    "renewal fails",
    "slow",
}
"""Everything that is injected."""

PLACES = {
    *(f"scheme: {name}" for name in ("one location", "random buckets", "windows", "a move", "a move astray")),
    *("phase 0 beside 1", "phase 1 beside 2", "phase 2 beside 3", "phase 2 beside 1", "phase 1 beside 0"),
    "a late copy beside a record",
    "a move with different retentions",
    "late transact: Applied",
    "late transact: TransactionFailed",
    "taken over from another location",
}
"""Where records lay, and what happened between the locations."""

EFFECTS = {
    "effects applied",
    "late commit: Applied",
    "late commit: TransactionFailed",
    "not run: TransactionError",
    "run: TransactionError",
}
"""What became of effects that were committed with results."""


FREED = {
    "a key is forgotten",
    "an owner is shut out",
    "given back, and an owner is kept out",
    "ran on, shut out",
    "taken over what was freed",
}
"""What became of keys that were freed."""

MOVES = {
    *("clock leaps", "denied", "machine sleeps", "two blocks"),
    *("a completion is given up for want of rights", "refused for want of rights", "ran on when woken"),
}
"""What befell machines, rights and blocks, and what became of it."""


@cache
def played(first: int, last: int) -> tuple[Run | None, Counter[str]]:
    """Run seeds, for whichever test asks first: the first run that breaks a rule, and what happened in all of them."""
    counts: Counter[str] = Counter()
    for seed in range(first, last):
        run = simulate(seed)
        counts.update(run.counts)
        if run.broken:
            return run, counts
    return None, counts


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, BATCH))
def test_no_seed_breaks_a_rule(first: int) -> None:
    """Owners, results, answers and leases are what the rules say, whatever goes wrong on the way."""
    broken, _ = played(first, min(first + BATCH, FIRST + SEEDS))
    if broken is not None:
        pytest.fail(str(broken), pytrace=False)


@pytest.mark.timeout(600)
def test_everything_that_can_go_wrong_went_wrong() -> None:
    """In 500 seeds each fault was injected, bodies ran, and calls were answered in every way there is."""
    counts = sum((played(first, first + BATCH)[1] for first in range(0, 5 * BATCH, BATCH)), Counter[str]())
    print(*(f"{number:7} {what}" for what, number in sorted(counts.items())), sep="\n")  # noqa: T201 - for `pytest -s`
    answers = {"dict", "DeclinedError", "InProgressError", "MismatchError", "ResultUnavailableError", "StoreError"}
    assert counts.keys() >= ALL_FAULTS | PLACES | EFFECTS | FREED | MOVES
    assert {f"not run: {answer}" for answer in answers} <= counts.keys()
    assert {"run: dict", "run: BodyFailedError", "run: CancelledError", "run: LeaseLostError"} <= counts.keys()


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_replays_exactly(seed: int) -> None:
    """One seed gives one trace, to the last line."""
    assert simulate(seed) == simulate(seed)


def test_a_failing_seed_says_how_to_replay_it() -> None:
    """The report names the seed, the broken rule, the whole run, and the command that shows it again."""
    run = simulate(7)
    report = str(run)
    assert "AIOIDEMPOTENCY_FIRST_SEED=7 AIOIDEMPOTENCY_SEEDS=1 pytest tests/simulation/test_simulation.py" in report
    assert all(line in report for line in run.trace)
