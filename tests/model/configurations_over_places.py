"""What is explored where a key has several locations: every mixture of nodes that a deployment may have."""

from aioidempotency._core.model import Item
from tests.model.calls import Script
from tests.model.configurations import COPIES, COPY, LOST, Case, case
from tests.model.routes import CUTOVER, KEY, NEW, OLD, PREPARE, RANDOM
from tests.model.setting import Faults
from tests.support.values import replace

LAPSED: Item = {
    "pk": {"S": "old"},
    "sk": {"S": KEY},
    "status": {"S": "INPROGRESS"},
    "owner": {"S": "old"},
    "fencing_token": {"N": "2000000"},
    "in_progress_expiration": {"N": "990000"},
    "expiration": {"N": "1100"},
}
"""What an owner left in the old location that crashed before the beginning; its clock was far ahead."""

EXPIRED: Item = {**LAPSED, "status": {"S": "COMPLETED"}, "data": {"S": '"old"'}, "expiration": {"N": "998"}}
"""A result in the old location that does not count any more."""


def there(item: Item) -> Item:
    """Have the same in the new location, by another owner."""
    return {**item, "pk": {"S": "new"}, "owner": {"S": "older"}, "fencing_token": {"N": "1999999"}}


ON_OLD, ON_PREPARE, ON_CUTOVER, ON_NEW = (Script(route=route) for route in (OLD, PREPARE, CUTOVER, NEW))
DRAWN, DRAWN_AGAIN = Script(route=RANDOM), Script(route=RANDOM, clock=0.25)
CRASH = Faults(crash=1)


def renewing(script: Script) -> Script:
    """Have it renew its lease once."""
    return replace(script, renewals=1)


def starting_anew(script: Script) -> Script:
    """Have it claim twice, as a new owner: its process was started again."""
    return replace(script, attempts=2)


TAKEN = "claim: took over in another location, the lease had lapsed"

OVER_PLACES: dict[str, Case] = {
    "prepare and cutover, which renew": case(
        44_000,
        renewing(ON_PREPARE),
        renewing(ON_CUTOVER),
        horizon=6.0,
        reaches=(
            TAKEN,
            "claim: in progress",
            "claim: replayed",
            "claim: gave way, the record had just changed",
            "complete: put again, the record was gone",
            "complete: lost, the record was running",
            "complete: lost, the record was finished",
            "renew: lost, the record was running",
        ),
    ),
    "prepare and cutover, a lost answer": case(
        45_000,
        renewing(ON_PREPARE),
        renewing(ON_CUTOVER),
        faults=LOST,
        horizon=4.0,
        reaches=("claim: its own write was recognised", "complete: its own write was recognised", TAKEN),
    ),
    "prepare and cutover, a copy that comes late": case(
        39_000,
        renewing(ON_PREPARE),
        ON_CUTOVER,
        faults=COPY,
        limits=COPIES,
        horizon=4.0,
        reaches=("claim: applied late", "complete: refused late", "renew: refused late", "release: refused late"),
    ),
    "prepare and cutover, a crash and a new start on the other": case(
        23_000, starting_anew(ON_PREPARE), starting_anew(ON_CUTOVER), faults=CRASH, limits=COPIES, horizon=3.0
    ),
    "prepare and cutover, giving up": case(
        32_000, renewing(ON_PREPARE), renewing(ON_CUTOVER), faults=Faults(give_up=1), limits=COPIES, horizon=3.0
    ),
    "prepare and cutover, failures say nothing": case(
        29_000, ON_PREPARE, ON_CUTOVER, faults=LOST, refusals_bring_items=False
    ),
    "prepare and cutover, failures say nothing, and a copy that comes late": case(
        25_000, ON_PREPARE, ON_CUTOVER, faults=COPY, refusals_bring_items=False, limits=COPIES, horizon=4.0
    ),
    "prepare and cutover, and another request": case(
        15_000,
        replace(ON_PREPARE, fingerprint="f"),
        replace(ON_CUTOVER, fingerprint="g"),
        faults=LOST,
        reaches=(
            "claim: mismatch, the record was running",
            "claim: mismatch, the record was finished",
            "claim: mismatch, the lease had lapsed",
        ),
    ),
    "prepare and cutover, a read first": case(21_000, ON_PREPARE, replace(ON_CUTOVER, read_first=True), faults=LOST),
    "prepare and cutover, a clock ahead by the skew": case(
        22_000, replace(renewing(ON_PREPARE), clock=1), ON_CUTOVER, faults=LOST, horizon=4.0
    ),
    "prepare and cutover, a clock far behind": case(
        15_000, replace(ON_PREPARE, clock=-5), ON_CUTOVER, faults=LOST, horizon=3.0
    ),
    "prepare and cutover, results that expire soon": case(
        17_000, ON_PREPARE, ON_CUTOVER, faults=LOST, retention=1.0, horizon=4.0
    ),
    "prepare and two of cutover": case(27_000, ON_PREPARE, ON_CUTOVER, ON_CUTOVER, faults=LOST, horizon=3.0),
    "prepare and two of cutover, for a lapsed lease": case(
        18_000,
        ON_PREPARE,
        ON_CUTOVER,
        ON_CUTOVER,
        start=(LAPSED,),
        faults=LOST,
        horizon=1.0,
        reaches=(TAKEN,),
    ),
    "prepare and cutover, expired records in both locations": case(
        16_000, ON_PREPARE, ON_CUTOVER, start=(EXPIRED, there(EXPIRED)), faults=LOST, horizon=1.0
    ),
    "prepare and cutover, lapsed records in both locations": case(
        20_000, ON_PREPARE, ON_CUTOVER, start=(LAPSED, there(LAPSED)), faults=LOST, horizon=4.0
    ),
    "old and prepare": case(43_000, renewing(ON_OLD), renewing(ON_PREPARE), faults=LOST, horizon=4.0),
    "old and prepare, a copy that comes late": case(
        15_000, ON_OLD, ON_PREPARE, faults=COPY, limits=COPIES, horizon=4.0
    ),
    "old and prepare, a crash and a new start": case(
        19_000, starting_anew(ON_OLD), ON_PREPARE, faults=CRASH, limits=COPIES, start=(LAPSED,), horizon=3.0
    ),
    "old and prepare, failures say nothing": case(27_000, ON_OLD, ON_PREPARE, faults=LOST, refusals_bring_items=False),
    "old and two of prepare": case(27_000, ON_OLD, ON_PREPARE, ON_PREPARE, faults=LOST, horizon=3.0),
    "cutover and new": case(16_000, renewing(ON_CUTOVER), renewing(ON_NEW), faults=LOST, horizon=3.0),
    "cutover and new, a copy that comes late": case(
        15_000, ON_CUTOVER, ON_NEW, faults=COPY, limits=COPIES, horizon=4.0
    ),
    "cutover and new, an expired result in the old location": case(
        25_000, ON_CUTOVER, ON_NEW, start=(EXPIRED,), faults=LOST, horizon=4.0
    ),
    "drawn homes": case(18_000, renewing(DRAWN), renewing(DRAWN_AGAIN), faults=LOST, horizon=3.0),
    "drawn homes, a copy that comes late": case(20_000, DRAWN, DRAWN_AGAIN, faults=COPY, limits=COPIES, horizon=4.0),
    "drawn homes, a crash and a new start": case(
        25_000, starting_anew(DRAWN), DRAWN_AGAIN, faults=CRASH, limits=COPIES, horizon=4.0
    ),
    "drawn homes, failures say nothing": case(33_000, DRAWN, DRAWN_AGAIN, faults=LOST, refusals_bring_items=False),
    "three drawn homes": case(14_000, DRAWN, DRAWN_AGAIN, replace(DRAWN, clock=0.5), faults=LOST, horizon=2.0),
}
