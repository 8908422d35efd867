"""What is explored where the locations of a key change with time.

A request arrives within a lease after its call began, or never: one that comes later is a limit, and
`test_limits` shows it.
"""

from typing import Any

from aioidempotency._core.model import Item
from tests.model.calls import Script
from tests.model.configurations import COPIES, COPY, LOST, Case, case
from tests.model.configurations_over_places import LAPSED, renewing, starting_anew
from tests.model.routes import OLD, SHORT_WINDOWS, TO_WINDOWS_CUTOVER, TO_WINDOWS_PREPARE, WINDOWS
from tests.model.setting import Faults
from tests.support.values import replace

PLAIN, AHEAD, BEHIND = Script(route=WINDOWS), Script(route=WINDOWS, clock=1), Script(route=WINDOWS, clock=-1)
SHORT, SHORT_AHEAD = Script(route=SHORT_WINDOWS), Script(route=SHORT_WINDOWS, clock=1)
ON_OLD = Script(route=OLD)
PREPARE, CUTOVER = Script(route=TO_WINDOWS_PREPARE), Script(route=TO_WINDOWS_CUTOVER)

EARLIER: Item = {**LAPSED, "pk": {"S": "idempotency#332#0"}}
"""What an owner left in the window before the start."""


IN_TIME: dict[str, Any] = {"arrives_within": 1.0, "ends_within": 1.0}
"""Claims stop to look at such windows soon: what finishes a record arrives in the time that an answer counts."""


def timely(states: int, *scripts: Script, reaches: tuple[str, ...] = (), **options: object) -> Case:
    """Write a case down in which no request arrives later than a lease after its call began."""
    return case(states, *scripts, reaches=reaches, **{"arrives_within": 2.0, "horizon": 4.0, **options})


TAKEN = "claim: took over in another location, the lease had lapsed"

OVER_WINDOWS: dict[str, Case] = {
    "windows, a clock ahead": timely(
        19_000,
        renewing(PLAIN),
        renewing(AHEAD),
        horizon=5.0,
        reaches=(
            TAKEN,
            "claim: replayed",
            "claim: too late to be relied upon",
            "complete: lost, the record was gone",
            "renew: lost, the record was running",
        ),
    ),
    "windows, a clock behind": timely(11_000, PLAIN, BEHIND, faults=LOST),
    "windows, a lost answer": timely(
        24_000,
        renewing(PLAIN),
        AHEAD,
        faults=LOST,
        reaches=("claim: its own write was recognised", "complete: its own write was recognised"),
    ),
    "windows, a copy that comes late": timely(
        26_000, PLAIN, AHEAD, faults=COPY, limits=COPIES, reaches=("claim: applied late", "complete: refused late")
    ),
    "windows, a crash and a new start": timely(
        22_000, starting_anew(PLAIN), AHEAD, faults=Faults(crash=1), limits=COPIES
    ),
    "windows, giving up": timely(11_000, PLAIN, AHEAD, faults=Faults(give_up=1), limits=COPIES, horizon=3.0),
    "windows, failures say nothing": timely(21_000, PLAIN, AHEAD, faults=LOST, refusals_bring_items=False),
    "windows, another request": timely(1_900, replace(PLAIN, fingerprint="f"), replace(AHEAD, fingerprint="g")),
    "windows, a lapsed record in the one before": timely(
        14_000, PLAIN, AHEAD, start=(EARLIER,), faults=LOST, horizon=3.0, reaches=(TAKEN,)
    ),
    "leases as long as windows": timely(
        8_000, PLAIN, starting_anew(AHEAD), lease=4.0, horizon=5.0, reaches=("claim: too late to be relied upon",)
    ),
    "three in windows": timely(11_000, PLAIN, AHEAD, PLAIN, horizon=3.0),
    "windows that are not looked at for long": timely(
        32_000,
        renewing(SHORT),
        SHORT_AHEAD,
        retention=1.0,
        horizon=6.0,
        **IN_TIME,
    ),
    "such windows, a lost answer": timely(
        28_000, SHORT, SHORT_AHEAD, retention=1.0, horizon=5.0, faults=LOST, **IN_TIME
    ),
    "old and prepare of a move to windows": timely(10_000, ON_OLD, replace(PREPARE, clock=1), faults=LOST),
    "prepare and cutover of a move to windows": timely(11_000, PREPARE, replace(CUTOVER, clock=1), faults=LOST),
    "prepare and cutover of a move to windows, a copy that comes late": timely(
        26_000, PREPARE, replace(CUTOVER, clock=1), faults=COPY, limits=COPIES
    ),
    "cutover of a move to windows, and windows": timely(11_000, CUTOVER, AHEAD, faults=LOST),
}
