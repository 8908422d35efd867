"""What a backend can be asked, and what it answers.

Every write carries its condition. A backend executes one operation, as a whole or not at all, and
returns one reply; that a condition did not hold is a reply, that the store did not answer is an
exception. Where all records have one place, no transaction is ever asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from aioidempotency._core.conditions import Condition
from aioidempotency._core.model import AttributeValue, Item, Location, Places, Role


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
class Check:
    """Write nothing, and insist on a condition; a part of a transaction."""

    location: Location
    condition: Condition


@final
@dataclass(frozen=True, slots=True)
class Transact:
    """Apply all of these, or none of them: at most 100, no two at one place."""

    writes: tuple["Write | Check", ...]

    @property
    def location(self) -> Location:
        """The first one's place."""
        return self.writes[0].location


@final
@dataclass(frozen=True, slots=True)
class GetAll:
    """Read the items of all these places as they are at one moment, strongly consistent."""

    locations: Places

    @property
    def location(self) -> Location:
        """The first place."""
        return self.locations[0]


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
class Declined:
    """A transaction was not applied. Each of its writes was refused, or None: that one would have been applied."""

    refusals: tuple[Refused | None, ...]


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a read."""

    item: Item | None


@final
@dataclass(frozen=True, slots=True)
class FoundAll:
    """The answer of a read of several places, in the order asked."""

    items: tuple[Item | None, ...]


Write = Put | Update | Delete
Operation = Write | Transact | Get | GetAll
WriteReply = Applied | Refused | Declined
Reply = WriteReply | Found | FoundAll
