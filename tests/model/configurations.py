"""What is explored: each case has one thing that the others do not have."""

from dataclasses import dataclass
from typing import final

from aioidempotency._core.model import Item
from tests.model.calls import Script
from tests.model.invariants import Limit
from tests.model.setting import Configuration, Faults
from tests.model.table import PLACE

COPIES = frozenset({Limit.RELEASED_BEFORE_A_COPY})

LAPSED: Item = {
    **PLACE.item,
    "status": {"S": "INPROGRESS"},
    "owner": {"S": "old"},
    "fencing_token": {"N": "2000000"},
    "in_progress_expiration": {"N": "990000"},
    "expiration": {"N": "1100"},
}
"""What an owner left that crashed before the beginning; its clock was far ahead, so is its token."""

POWERTOOLS: Item = {role: value for role, value in LAPSED.items() if role not in {"owner", "fencing_token"}}
"""The same by Powertools, which knows no owners."""


@final
@dataclass(frozen=True)
class Case:
    """A configuration, the states it has at least, and the outcomes it must reach."""

    configuration: Configuration
    states: int
    reaches: frozenset[str] = frozenset()


def case(states: int, *scripts: Script, reaches: tuple[str, ...] = (), **options: object) -> Case:
    """Write a case down; five seconds are explored unless it says otherwise."""
    options = {"horizon": 5.0, **options}
    return Case(Configuration(scripts=scripts, **options), states, frozenset(reaches))  # type: ignore[arg-type]


PLAIN, RENEWS, FINISHES = Script(), Script(renewals=1), Script(ends=("complete",))
LOST, COPY = Faults(lost=1), Faults(copy=1)

CASES = {
    "two that renew": case(
        16_000,
        RENEWS,
        RENEWS,
        horizon=6.0,
        reaches=(
            "claim: the key was free",
            "claim: in progress",
            "claim: replayed",
            "claim: took over, the lease had lapsed",
            "claim: gave way, the record had just changed",
            "complete: completed",
            "complete: late, and nobody had taken over",
            "complete: put again, the record was gone",
            "complete: lost, the record was running",
            "complete: lost, the record was finished",
            "release: released",
            "release: nothing was held",
            "release: lost, the record was running",
            "renew: renewed",
            "renew: lost, the record was running",
        ),
    ),
    "three": case(17_000, PLAIN, PLAIN, PLAIN, reaches=("claim: gave way, the record had just changed",)),
    "three for a lapsed lease, one clock ahead": case(
        26_000, Script(clock=5), PLAIN, PLAIN, start=(LAPSED,), faults=LOST, horizon=1.0
    ),
    "a lost answer": case(
        45_000,
        RENEWS,
        PLAIN,
        faults=LOST,
        reaches=(
            "claim: its own write was recognised",
            "complete: its own write was recognised",
            "renew: was renewed already",
        ),
    ),
    "a copy that comes late": case(
        84_000,
        RENEWS,
        PLAIN,
        faults=COPY,
        limits=COPIES,
        reaches=("claim: applied late", "renew: refused late", "complete: refused late", "release: refused late"),
    ),
    "two copies that come late": case(46_000, PLAIN, PLAIN, faults=Faults(copy=2), limits=COPIES, horizon=4.0),
    "a crash and a new start": case(45_000, Script(attempts=2), PLAIN, faults=Faults(crash=1), limits=COPIES),
    "giving up, a crash and a new start": case(
        45_000, Script(attempts=2), PLAIN, faults=Faults(crash=1, give_up=1), limits=COPIES, horizon=2.0
    ),
    "giving up": case(
        50_000, RENEWS, PLAIN, faults=Faults(give_up=1), limits=COPIES, horizon=4.0, reaches=("complete: applied late",)
    ),
    "a clock far ahead": case(48_000, Script(clock=5, renewals=1), PLAIN, faults=LOST, horizon=4.0),
    "a clock far behind": case(
        44_000,
        Script(clock=-5, renewals=1),
        PLAIN,
        faults=LOST,
        horizon=3.0,
        reaches=("claim: took over, the record had expired", "claim: took over a finished record that had expired"),
    ),
    "a clock ahead by the skew": case(46_000, Script(clock=1, renewals=1), PLAIN, faults=LOST),
    "a clock behind by the skew": case(50_000, Script(clock=-1, renewals=1), PLAIN, faults=LOST),
    "a clock behind by half of the skew": case(52_000, Script(clock=-0.5, renewals=1), PLAIN, faults=LOST),
    "another request": case(
        39_000,
        Script(fingerprint="f", renewals=1),
        Script(fingerprint="g"),
        faults=LOST,
        reaches=(
            "claim: mismatch, the record was running",
            "claim: mismatch, the record was finished",
            "claim: mismatch, the lease had lapsed",
        ),
    ),
    "the same request and another": case(
        39_000, Script(fingerprint="f"), Script(fingerprint="g"), Script(fingerprint="f")
    ),
    "a read first": case(
        20_000, PLAIN, Script(read_first=True), faults=LOST, reaches=("claim: gave way, the record had just changed",)
    ),
    "a store whose failures say nothing": case(
        30_000, RENEWS, PLAIN, faults=LOST, refusals_bring_items=False, horizon=4.0
    ),
    "such a store, and a copy that comes late": case(
        30_000, PLAIN, PLAIN, faults=COPY, refusals_bring_items=False, limits=COPIES
    ),
    "results that expire soon": case(
        29_000,
        PLAIN,
        PLAIN,
        faults=LOST,
        retention=1.0,
        reaches=("claim: took over a finished record that had expired", "complete: put again, the record was gone"),
    ),
    "a record by Powertools": case(
        15_000, PLAIN, PLAIN, start=(POWERTOOLS,), faults=LOST, reaches=("claim: took over, the lease had lapsed",)
    ),
    "two: a crash, a lost answer, a clock ahead": case(
        43_000, PLAIN, Script(clock=5), faults=Faults(crash=1, lost=1), limits=COPIES, horizon=4.0
    ),
    "two: a crash, a lost answer, a clock behind": case(
        28_000, PLAIN, Script(clock=-5), faults=Faults(crash=1, lost=1), limits=COPIES, horizon=3.0
    ),
    "three: a crash, a lost answer, a clock ahead": case(
        82_000, FINISHES, Script(clock=5), FINISHES, faults=Faults(crash=1, lost=1), limits=COPIES, horizon=2.0
    ),
}
