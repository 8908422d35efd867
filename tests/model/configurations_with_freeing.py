"""What is explored where somebody frees the key while others contend for it: by `forget`, or by shutting out who runs."""

from aioidempotency._core.model import Item
from tests.model.calls import Script
from tests.model.configurations import COPIES, COPY, FINISHES, LAPSED, LOST, PLAIN, POWERTOOLS, RENEWS, Case, case
from tests.model.configurations_over_places import ON_CUTOVER, ON_NEW, ON_OLD, ON_PREPARE
from tests.model.configurations_over_windows import AHEAD
from tests.model.configurations_over_windows import PLAIN as IN_WINDOWS
from tests.model.setting import Faults
from tests.support.values import replace

FORGETS, SHUTS_OUT = Script(frees="forget"), Script(frees="shut out")
CRASH = Faults(crash=1)

DONE: Item = {**LAPSED, "status": {"S": "COMPLETED"}, "data": {"S": '"old"'}}
"""What an owner has finished before the beginning; its token is far ahead."""


def freeing(script: Script, frees: Script) -> Script:
    """Free the key by another route, or clock."""
    return replace(frees, route=script.route, clock=script.clock)


WITH_FREEING: dict[str, Case] = {
    "an owner that is shut out, and the next": case(
        120_000,
        RENEWS,
        PLAIN,
        SHUTS_OUT,
        horizon=4.0,
        reaches=(
            "shut out: shut an owner out",
            "shut out: forgot something",
            "shut out: forgot nothing",
            "claim: took over, the lease had lapsed",
            "complete: lost, the record was running",
            "renew: lost, the record was running",
            "release: lost, the record was running",
        ),
    ),
    "an owner, and somebody who forgets": case(
        28_000,
        RENEWS,
        PLAIN,
        FORGETS,
        horizon=4.0,
        reaches=("forget: forgot something", "forget: forgot nothing", "forget: in progress"),
    ),
    "shut out, a lost answer": case(26_000, PLAIN, PLAIN, SHUTS_OUT, faults=LOST, horizon=2.0),
    "shut out, a copy that comes late": case(46_000, PLAIN, PLAIN, SHUTS_OUT, faults=COPY, limits=COPIES, horizon=2.0),
    "shut out, giving up": case(44_000, PLAIN, PLAIN, SHUTS_OUT, faults=Faults(give_up=1), limits=COPIES, horizon=2.0),
    "shut out, a crash and a new start": case(
        34_000, Script(attempts=2), SHUTS_OUT, faults=CRASH, limits=COPIES, horizon=4.0
    ),
    "shut out, a clock far ahead": case(48_000, RENEWS, replace(PLAIN, clock=5), SHUTS_OUT, horizon=2.0),
    "shut out by a clock far behind": case(41_000, RENEWS, PLAIN, replace(SHUTS_OUT, clock=-5), horizon=3.0),
    "shut out, results that expire soon": case(95_000, PLAIN, PLAIN, SHUTS_OUT, retention=1.0, horizon=4.0),
    "shut out, another request": case(
        42_000, Script(fingerprint="f"), Script(fingerprint="g"), SHUTS_OUT, faults=LOST, horizon=2.0
    ),
    "shut out, failures say nothing": case(
        34_000, PLAIN, PLAIN, SHUTS_OUT, faults=LOST, refusals_bring_items=False, horizon=2.0
    ),
    "shut out twice": case(80_000, Script(attempts=2), PLAIN, replace(SHUTS_OUT, attempts=2), horizon=2.0),
    "shut out, and then forgotten": case(4_000, FINISHES, PLAIN, SHUTS_OUT, FORGETS, horizon=2.0),
    "two who forget": case(3_200, PLAIN, FORGETS, FORGETS, faults=LOST, horizon=2.0),
    "forgotten, a lapsed record": case(8_500, PLAIN, FORGETS, start=(LAPSED,), faults=LOST, horizon=4.0),
    "forgotten, a finished record": case(
        2_000, PLAIN, FORGETS, start=(DONE,), faults=LOST, horizon=4.0, reaches=("forget: forgot something",)
    ),
    "forgotten, a copy that comes late": case(
        1_600, PLAIN, FORGETS, faults=COPY, limits=COPIES, start=(DONE,), horizon=3.0
    ),
    "shut out, a record by Powertools": case(
        11_500,
        PLAIN,
        SHUTS_OUT,
        start=(POWERTOOLS,),
        faults=LOST,
        horizon=4.0,
        reaches=("shut out: shut an owner out",),
    ),
    "shut out of prepare by cutover": case(
        46_000, ON_PREPARE, ON_CUTOVER, freeing(ON_CUTOVER, SHUTS_OUT), faults=LOST, horizon=2.0
    ),
    "shut out of cutover by prepare": case(16_500, ON_CUTOVER, ON_PREPARE, freeing(ON_PREPARE, SHUTS_OUT), horizon=3.0),
    "shut out, old and prepare": case(15_500, ON_OLD, ON_PREPARE, freeing(ON_PREPARE, SHUTS_OUT), horizon=3.0),
    "shut out, cutover and new": case(15_500, ON_NEW, ON_CUTOVER, freeing(ON_CUTOVER, SHUTS_OUT), horizon=3.0),
    "forgotten, prepare and cutover": case(
        10_000, ON_PREPARE, ON_CUTOVER, freeing(ON_CUTOVER, FORGETS), faults=LOST, horizon=2.0
    ),
    "shut out in windows": case(
        135_000, IN_WINDOWS, AHEAD, freeing(IN_WINDOWS, SHUTS_OUT), arrives_within=2.0, horizon=4.0
    ),
    "forgotten in windows": case(23_000, IN_WINDOWS, AHEAD, freeing(AHEAD, FORGETS), arrives_within=2.0, horizon=4.0),
}
