"""Values made once: an id for a key, and an item in the caller's own table.

The first caller writes, under the condition that nothing is there. DynamoDB refuses every later caller and returns
the existing item, which is the answer. A lost answer is harmless: the repetition returns the caller's own item.

An id is no record. An id has no owner, no lease, and an expiration only on request. So the location of an id depends
only on the key: neither on a layout that moves, nor on time.
"""

from math import floor, inf, nan
from typing import Final

from aioidempotency._core import placements
from aioidempotency._core.conditions import Absent, Condition, Unchanged
from aioidempotency._core.model import LARGEST_NUMBER, AttributeNames, AttributeValue, Item, Location, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Put
from aioidempotency._core.placements import Procedure
from aioidempotency.exceptions import ConfigurationError, StoreError

KEY: Final = "aioidempotency#id"
"""The beginning of an id's key. A record's key has at most two namespaces, so the two never clash."""

ATTEMPTS: Final = 5
"""The most attempts while other callers delete or change the item."""

UNUSED_NAMES: Final = AttributeNames(
    **{f"{role}": f"aioidempotency#{role}" for role in AttributeNames.__dataclass_fields__}
)
"""Stands for the attribute names of a caller's table. No expression ever uses one."""


def location_of(table: Table, namespace: str, digest: str) -> Location:
    """Find the location of a key's id, in a partition of its own."""
    # Also the partition value, not a bucket of a strategy: an id lives for ever, longer than any layout.
    key = f"{KEY}#{namespace}#{digest}"
    return Location(table=table, partition=key, sort=None if table.sort_attribute is None else key)


def get_or_create(location: Location, made: str, *, now: float, expires_after: float | None) -> Procedure[str]:
    """Return the stored id, or store a new one."""
    names = location.table.names
    item: dict[str, AttributeValue] = {**location.item, names["data"]: {"S": made}}
    if expires_after is not None:
        item[names["expiration"]] = {"N": str(floor(now + expires_after))}
    condition: Condition = Absent()
    for _ in range(ATTEMPTS):
        found = yield from _put(Put(location, item, condition))
        # DynamoDB deletes late, so an expired id may still be there. `Unchanged` replaces only the expired id: of two
        # callers, one wins, and the other gets the winner's id.
        over = found is not None and floor(now) > _expiration_of(found, location)
        if found is not None and not over:
            return _id_in(found, location)
        condition = Absent() if found is None else Unchanged(found)
    raise _changed_too_often(location)


def put_if_absent(location: Location, item: Item) -> Procedure[Item]:
    """Store an item, or return the existing one."""
    for _ in range(ATTEMPTS):
        found = yield from _put(Put(location, item, Absent()))
        if found is not None:
            return found
    raise _changed_too_often(location)


def uuid7(milliseconds: int, random: int) -> str:
    """Write a UUID of version 7 (RFC 9562) as text, from 48 bits of time and 74 random bits."""
    high, low = (random >> 62) & 0xFFF, random & ((1 << 62) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _put(operation: Put) -> Procedure[Item | None]:
    """Put an item, and return the item then in the table. None if another caller deleted the item."""
    reply = yield operation
    if isinstance(reply, Applied):
        return operation.item
    if not isinstance(reply, ConditionFailed):
        raise TypeError(f"the backend answered a put with {type(reply).__name__}")
    (found,) = yield from placements.seen_by(operation, reply)
    return found


def _id_in(item: Item, location: Location) -> str:
    value = item.get(location.table.names["data"], {}).get("S")
    if not isinstance(value, str):
        raise _no_id(location, location.table.names["data"], "is no text")
    return value


def _expiration_of(item: Item, location: Location) -> float:
    """Read the end of an id: for ever, unless the item says otherwise."""
    name = location.table.names["expiration"]
    value = item.get(name)
    if value is None:
        return inf
    try:
        expiration = float(str(value.get("N")))
    except ValueError:
        expiration = nan
    if not 0 <= expiration <= LARGEST_NUMBER:
        raise _no_id(location, name, f"is not a number from 0 to {LARGEST_NUMBER} (delete the item if it is damaged)")
    return expiration


def _no_id(location: Location, attribute: str, trouble: str) -> ConfigurationError:
    return ConfigurationError(
        f"the item {location.key!r} of table {location.table.name!r} is not an id: its attribute {attribute!r} "
        f"{trouble}. Nothing was overwritten; check attributes=AttributeNames(...)"
    )


def _changed_too_often(location: Location) -> StoreError:
    reason = (
        f"the item is contended: others deleted it {ATTEMPTS} times during one call, and an item made once must stay; "
        "find out who deletes the item"
    )
    return StoreError("a put", location.table.name, reason, contended=True)
