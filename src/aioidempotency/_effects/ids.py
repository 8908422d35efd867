"""What is made once: an id for a key, and an item in a table of the caller's.

Who comes first writes, under the condition that nothing is there; everybody after that is refused, and shown
what is there, which is the answer. A lost answer needs no care: whoever asks again is shown its own.

An id is no record. It has no owner and no lease, and no expiration unless one is asked for, so its location
depends on nothing but its key: neither on a layout that moves, nor on time.
"""

from math import floor
from typing import Final

from aioidempotency._core import placements
from aioidempotency._core.conditions import Absent, Condition, Unchanged
from aioidempotency._core.model import AttributeNames, AttributeValue, Item, Location, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Put
from aioidempotency._core.placements import Procedure
from aioidempotency.exceptions import ConfigurationError

KEY: Final = "aioidempotency#id"
"""What the key of an id begins with. No record's key looks so: it has two namespaces at the most."""

ATTEMPTS: Final = 5
"""How often an item may go away, or change, while it is looked at."""

UNUSED_NAMES: Final = AttributeNames(
    **{f"{role}": f"aioidempotency#{role}" for role in AttributeNames.__dataclass_fields__}
)
"""Stands for the attributes of a table that is not ours: none of them is ever named."""


def location_of(table: Table, namespace: str, digest: str) -> Location:
    """Find the id of a key: in a partition of its own."""
    key = f"{KEY}#{namespace}#{digest}"
    return Location(table=table, partition=key, sort=None if table.sort_attribute is None else key)


def get_or_create(location: Location, made: str, *, now: float, expires_after: float | None) -> Procedure[str]:
    """Answer with the id that is stored, or store this one."""
    names = location.table.names
    item: dict[str, AttributeValue] = {**location.item, names["data"]: {"S": made}}
    if expires_after is not None:
        item[names["expiration"]] = {"N": str(floor(now + expires_after))}
    condition: Condition = Absent()
    for _ in range(ATTEMPTS):
        found = yield from _put(Put(location, item, condition))
        expiration = None if found is None else found.get(names["expiration"])
        over = expiration is not None and floor(now) > float(str(expiration["N"]))
        if found is not None and not over:
            return _id_in(found, location)
        condition = Absent() if found is None else Unchanged(found)
    raise _changed_too_often(location)


def put_if_absent(location: Location, item: Item) -> Procedure[Item]:
    """Store an item, or answer with the one that is there."""
    for _ in range(ATTEMPTS):
        found = yield from _put(Put(location, item, Absent()))
        if found is not None:
            return found
    raise _changed_too_often(location)


def uuid7(milliseconds: int, random: int) -> str:
    """Write a UUID of version 7 (RFC 9562) as text: 48 bits of time, then 74 of these random ones."""
    high, low = (random >> 62) & 0xFFF, random & ((1 << 62) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low
    digits = f"{value:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _put(operation: Put) -> Procedure[Item | None]:
    """Put an item, and answer with what is there then; None where it has gone meanwhile."""
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
        raise ConfigurationError(
            f"the item {location.key!r} of table {location.table.name!r} is not an id: its attribute "
            f"{location.table.names['data']!r} is no text. Nothing was overwritten; check attributes=AttributeNames(...)"
        )
    return value


def _changed_too_often(location: Location) -> ConfigurationError:
    return ConfigurationError(
        f"an item of table {location.table.name!r} was deleted {ATTEMPTS} times while it was looked at; "
        "what is made once must stay: find out who deletes it"
    )
