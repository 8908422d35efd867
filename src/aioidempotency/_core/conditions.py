"""Conditions of writes. A condition is data with two readings.

`requirements` turns a condition into requirements, all of which must hold: an attribute equals a value, or an
attribute is missing. `expression` writes requirements for DynamoDB, `holds` evaluates a condition on an item in
memory.

No condition holds a time, and that must stay so: `protocol.judge` decides before the write whether a record may be
taken over, and the condition then insists on an unchanged record. So two contenders with different clocks
can never both win.
"""

from decimal import Decimal
from functools import lru_cache
from typing import assert_never, final

from msgspec import Struct

from aioidempotency._core.model import AttributeValue, Item, Role, Status, Table


@final
class Absent(Struct, frozen=True):
    """There is no item."""


@final
class HeldBy(Struct, frozen=True, gc=False):
    """The record is running and belongs to this owner. A finished record belongs to nobody.

    With `until`, the lease must also still end at that millisecond. Else a renewal delayed on the network could
    shorten a lease renewed since.
    """

    owner: str
    until: int | None = None


@final
class Unchanged(Struct, frozen=True):
    """The record is the same as when it was read.

    Owner and fencing token alone do not suffice: the owner may have renewed or finished the record since.
    """

    item: Item

    # The item holds a result, and results must not reach logs.
    def __repr__(self) -> str:
        return "Unchanged(...)"


Condition = Absent | HeldBy | Unchanged

Requirement = tuple[Role, AttributeValue | None]
"""The attribute of the role equals the value. With None, the attribute is missing."""

IDENTITY: tuple[Role, ...] = ("status", "owner", "fencing_token", "expiration", "in_progress_expiration")
"""The attributes that change with every claim, renewal and completion, so together identify a state of the record."""


def requirements(condition: Condition, table: Table) -> tuple[Requirement, ...]:
    """List the requirements of a condition."""
    match condition:
        case Absent():
            return (("key", None),)
        case HeldBy(owner, until):
            owned: tuple[Requirement, ...] = (("owner", {"S": owner}), ("status", {"S": Status.INPROGRESS.value}))
            return owned if until is None else (*owned, ("in_progress_expiration", {"N": str(until)}))
        # A record of Powertools has no owner and no fencing token: the condition then insists on their absence.
        case Unchanged(item):
            return tuple((role, item.get(table.names[role])) for role in IDENTITY)
        case _ as never:
            assert_never(never)


def holds(condition: Condition, item: Item | None, table: Table) -> bool:
    """Evaluate a condition on an item, or on the absence of an item."""
    present: Item = item or {}
    return all(_same(present.get(table.names[role]), wanted) for role, wanted in requirements(condition, table))


@lru_cache
def expression(shape: tuple[tuple[Role, bool], ...]) -> str:
    """Write requirements as a DynamoDB expression. The flag tells whether the attribute has a value or is missing."""
    return " AND ".join(f"#{role} = :{role}" if wanted else f"attribute_not_exists(#{role})" for role, wanted in shape)


def _same(found: AttributeValue | None, wanted: AttributeValue | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    # By value, because engines write one number in different ways: `1`, `1.0`, `1E0`.
    if found.keys() == wanted.keys() == {"N"}:
        return Decimal(str(found["N"])) == Decimal(str(wanted["N"]))
    return found == wanted
