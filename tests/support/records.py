"""Records for tests that write them past a store: they last longer than the test, by the real clock."""

from collections.abc import Mapping
from typing import Final

from aioidempotency._core.model import AttributeValue, Item, Location
from aioidempotency.testing import FakeClock
from tests.support.real_time import check_outlasts_its_test

EXPIRES: Final = int(FakeClock()()) + 3600
"""Epoch seconds when each record expires, if a test says nothing else."""

RECORD: Final[Mapping[str, AttributeValue]] = {
    "status": {"S": "INPROGRESS"},
    "owner": {"S": "me"},
    "fencing_token": {"N": "7"},
    "expiration": {"N": str(EXPIRES)},
    "in_progress_expiration": {"N": "1500000"},
}


def record(location: Location, **changes: AttributeValue | None) -> Item:
    """Make an item by role; None leaves an attribute out.

    Raises:
        ShortLifeError: it could be deleted by an engine's TTL during the test.
    """
    roles: dict[str, AttributeValue | None] = {**RECORD, **changes}
    check_outlasts_its_test(roles["expiration"] or {})
    return {
        **location.item,
        **{location.table.names[role]: value for role, value in roles.items() if value is not None},
    }
