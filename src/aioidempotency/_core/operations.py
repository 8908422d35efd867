"""What a backend can be asked, and what it answers.

Every write carries its condition. A backend executes one operation and returns one reply; that the
condition did not hold is a reply, that the store did not answer is an exception.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from aioidempotency._core.conditions import Condition
from aioidempotency._core.model import AttributeValue, Item, Location, Role


@final
@dataclass(frozen=True, slots=True)
class Put:
    """Write a whole item."""

    location: Location
    item: Item
    condition: Condition


@final
@dataclass(frozen=True, slots=True)
class Update:
    """Set the attributes of these roles, and leave the others."""

    location: Location
    changes: Mapping[Role, AttributeValue]
    condition: Condition


@final
@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the item."""

    location: Location
    condition: Condition


@final
@dataclass(frozen=True, slots=True)
class Get:
    """Read the item, strongly consistent."""

    location: Location


@final
@dataclass(frozen=True, slots=True)
class Applied:
    """The write happened."""


@final
@dataclass(frozen=True, slots=True)
class Refused:
    """The condition did not hold. `item` is what was there; None also where the store did not say."""

    item: Item | None


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a read."""

    item: Item | None


Write = Put | Update | Delete
Operation = Write | Get
WriteReply = Applied | Refused
Reply = WriteReply | Found
