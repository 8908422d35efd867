"""When a write may happen. A condition is data with two readings.

Each condition comes down to requirements that all must hold: an attribute equals a value, or is
missing.
`expression` renders them for DynamoDB, `holds` evaluates them on an item in memory. None of them
holds a time: whether a record may be taken over is judged before the write, by `protocol.judge`,
and the write then insists that nothing has changed since.
"""

from decimal import Decimal
from functools import lru_cache
from typing import assert_never, final

from msgspec import Struct

from aioidempotency._core.model import AttributeValue, Item, Role, Status, Table


@final
class Absent(Struct, frozen=True):
    """No item is there."""


@final
class HeldBy(Struct, frozen=True):
    """The record is running, and its owner is this one. Nobody holds a finished record.

    With `until`, its lease also still ends at that millisecond: a renewal that was delayed on its way
    must not shorten a lease that was renewed since.
    """

    owner: str
    until: int | None = None


@final
class Unchanged(Struct, frozen=True):
    """The record is still the one that was seen.

    Owner and fencing token alone would not tell: their owner may have renewed or finished the
    record in the meantime.
    """

    item: Item

    def __repr__(self) -> str:
        return "Unchanged(...)"


Condition = Absent | HeldBy | Unchanged

Requirement = tuple[Role, AttributeValue | None]
"""The attribute of that role equals the value; None: the attribute is missing."""

IDENTITY: tuple[Role, ...] = ("status", "owner", "fencing_token", "expiration", "in_progress_expiration")
"""What together says that a record is still the same one."""


def requirements(condition: Condition, table: Table) -> tuple[Requirement, ...]:
    """Spell out a condition."""
    match condition:
        case Absent():
            return (("key", None),)
        case HeldBy(owner, until):
            owned: tuple[Requirement, ...] = (("owner", {"S": owner}), ("status", {"S": Status.INPROGRESS.value}))
            return owned if until is None else (*owned, ("in_progress_expiration", {"N": str(until)}))
        case Unchanged(item):
            return tuple((role, item.get(table.names[role])) for role in IDENTITY)
        case _ as never:
            assert_never(never)


def holds(condition: Condition, item: Item | None, table: Table) -> bool:
    """Evaluate a condition on an item, or on the lack of one."""
    present: Item = item or {}
    return all(_same(present.get(table.names[role]), wanted) for role, wanted in requirements(condition, table))


@lru_cache
def expression(shape: tuple[tuple[Role, bool], ...]) -> str:
    """Write requirements as DynamoDB does; the flag says whether a value is wanted, or that it be missing."""
    return " AND ".join(f"#{role} = :{role}" if wanted else f"attribute_not_exists(#{role})" for role, wanted in shape)


def _same(found: AttributeValue | None, wanted: AttributeValue | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    if found.keys() == wanted.keys() == {"N"}:
        return Decimal(str(found["N"])) == Decimal(str(wanted["N"]))
    return found == wanted
