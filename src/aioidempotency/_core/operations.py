"""What a backend can be asked, and what it answers.

Every write carries its condition. A backend executes one operation, as a whole or not at all, and
returns one reply; that a condition did not hold is a reply, that the store did not answer is an
exception. Where all records have one place, no transaction is ever asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from aioidempotency._core.conditions import Condition
from aioidempotency._core.model import AttributeValue, Item, Location, Places, Role
from aioidempotency.exceptions import Reason


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
class Effect:
    """A write of the caller's own, to whatever table, in the wire's parameters; a part of a transaction."""

    kind: Literal["Put", "Update", "Delete", "ConditionCheck"]
    parameters: Mapping[str, object] = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Transact:
    """Apply all of these, or none of them: at most 100, no two at one place.

    Attributes:
        writes: Those of the record.
        effects: What is committed together with them.
        token: The same for each try of the same transaction: what was applied with it is not applied again,
            where the store knows tokens.
    """

    writes: tuple["Write | Check", ...]
    effects: tuple["Effect | Put", ...] = ()
    token: str | None = None

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
class Query:
    """Read the first items of the location's partition, in the order of their sort keys, strongly consistent.

    It reads up to `limit` items, or fewer where they are large.
    """

    location: Location
    limit: int


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
    """A transaction was not applied. Each of its writes was refused, or None: that one would have been applied.

    `reasons` says the same of its effects; there are reasons besides their conditions.
    """

    refusals: tuple[Refused | None, ...]
    reasons: tuple[Reason | None, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Found:
    """The answer of a read."""

    item: Item | None


@final
@dataclass(frozen=True, slots=True)
class FoundAll:
    """The answer of a read of several places, in the order asked; or of a query."""

    items: tuple[Item | None, ...]


Write = Put | Update | Delete
Operation = Write | Transact | Get | GetAll | Query
WriteReply = Applied | Refused | Declined
Reply = WriteReply | Found | FoundAll
