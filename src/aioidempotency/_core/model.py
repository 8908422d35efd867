"""Values: where a record lives, what it says, and who holds it.

Instants and durations are float seconds. Milliseconds appear in the attribute
`in_progress_expiration` only, because Powertools writes it so.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from math import inf
from typing import Literal, Protocol, final

from aioidempotency.exceptions import ConfigurationError

AttributeValue = Mapping[str, object]
"""One value as the wire has it: `{"S": "text"}`."""

Item = Mapping[str, AttributeValue]
"""One item as the wire has it, by the table's own attribute names."""

Role = Literal[
    "key",
    "status",
    "expiration",
    "in_progress_expiration",
    "data",
    "validation",
    "owner",
    "fencing_token",
    "encoding",
]
"""What an attribute is for, whatever its name in the table. `key` is the partition key."""


@final
class Status(StrEnum):
    """How far a record is, as Powertools spells it."""

    INPROGRESS = "INPROGRESS"
    COMPLETED = "COMPLETED"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeNames:
    """What the table calls each attribute of a record; the layout names the key's attributes."""

    status: str = "status"
    expiration: str = "expiration"
    in_progress_expiration: str = "in_progress_expiration"
    data: str = "data"
    validation: str = "validation"
    owner: str = "owner"
    fencing_token: str = "fencing_token"  # noqa: S105 - an attribute's name
    encoding: str = "encoding"

    def __post_init__(self) -> None:
        check_names(getattr(self, each.name) for each in fields(self))


@final
@dataclass(frozen=True)
class Table:
    """One table: its name, its key, and what it calls each attribute."""

    name: str
    partition_attribute: str
    sort_attribute: str | None
    attributes: AttributeNames

    def __post_init__(self) -> None:
        check_names(self.names.values())

    def __hash__(self) -> int:
        # Expressions are kept by table, and looked up at every call: hashing eleven texts each time costs more.
        return hash(self.name)

    @cached_property
    def names(self) -> dict[str, str]:
        """The table's attribute name for each role, and for the sort key where there is one."""
        names = {"key": self.partition_attribute}
        if self.sort_attribute is not None:
            names["sort"] = self.sort_attribute
        return names | {each.name: getattr(self.attributes, each.name) for each in fields(self.attributes)}


class Route(Protocol):
    """Where the record of one key may be."""

    @property
    def key(self) -> str:
        """The key, `namespace#digest`."""
        ...

    @property
    def answer_within(self) -> float:
        """Seconds after which the places of an instant may no longer be all that matter."""
        ...

    def places(self, now: float) -> "Places":
        """Name the place of a new record, and then every other one where a live record may be.

        Of two claims, each looks at the place that the other one writes.
        """
        ...

    def looked_at_until(self, place: "Location") -> float:
        """Epoch seconds until which every claim looks at a place that is home now."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where one record lives. `sort` is None in a table without a sort key.

    `typed` are the key's attributes where they need not be texts: in a table of the caller's own.

    It is a `Route`, too: that of a key whose record is always here.
    """

    table: Table
    partition: str
    sort: str | None = None
    typed: Item | None = None

    @property
    def key(self) -> str:
        """The record's key, `namespace#digest`."""
        return self.partition if self.sort is None else self.sort

    @property
    def item(self) -> Item:
        """The key's attributes as the wire has them."""
        if self.typed is not None:
            return self.typed
        key: Item = {self.table.partition_attribute: {"S": self.partition}}
        if self.table.sort_attribute is None or self.sort is None:
            return key
        return {**key, self.table.sort_attribute: {"S": self.sort}}

    @property
    def answer_within(self) -> float:
        """Any time: the record has no other place."""
        return inf

    def places(self, now: float) -> "Places":
        """Name this one place."""
        return (self,)

    def looked_at_until(self, place: "Location") -> float:
        """For ever."""
        return inf


Places = tuple[Location, ...]
"""Where a record may be; a new one is put into the first."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record as it was found in the table.

    Attributes:
        key: `namespace#digest`.
        status: How far it is.
        expiration: Epoch seconds after which the record no longer counts.
        in_progress_expiration: Epoch milliseconds at which the lease ends; None without a lease.
        owner: The claimant's 128 random bits in hex; None where Powertools wrote the record.
        fencing_token: Grows with every claim of this record; 0 where Powertools wrote it.
        fingerprint: The digest of the request's payload, when there is one.
        encoding: How `data` is to be read; None for plain JSON.
        data: The stored result as text.
        result: The decoded result of a finished record.
    """

    key: str
    status: Status
    expiration: float
    in_progress_expiration: float | None = None
    owner: str | None = None
    fencing_token: int = 0
    fingerprint: str | None = None
    encoding: str | None = None
    data: str | None = field(default=None, repr=False)
    result: object = field(default=None, repr=False)

    @property
    def lease_ends_at(self) -> float | None:
        """Epoch seconds at which the lease ends."""
        return None if self.in_progress_expiration is None else self.in_progress_expiration / 1000


@final
@dataclass(frozen=True, slots=True)
class Encoded:
    """A result as it is stored: text, and how it is to be read (None: plain JSON)."""

    data: str = field(repr=False)
    encoding: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to run one key until `expires_at`, as the table grants it.

    Attributes:
        location: Where the record lives.
        route: Where it is looked for.
        owner: The 128 random bits that mark the record as ours.
        fencing_token: Grows with every claim of this record; hand it to systems that can compare.
        expires_at: Epoch seconds at which the lease ends.
        expiration: Epoch seconds after which the record no longer counts; never before the lease's end.
        duration: Seconds from a renewal to the end of the lease.
        retention: Seconds that the finished record will answer.
        fingerprint: The digest of the request's payload, when there is one.
    """

    location: Location = field(repr=False)
    route: Route = field(repr=False, compare=False)
    owner: str
    fencing_token: int
    expires_at: float
    expiration: int
    duration: float
    retention: float
    fingerprint: str | None = None

    @property
    def key(self) -> str:
        """The record's key, `namespace#digest`."""
        return self.location.key


def check_names(names: Iterable[str]) -> None:
    """Refuse attribute names that are empty, or given twice."""
    listed = list(names)
    if not all(isinstance(name, str) and name for name in listed):
        raise ConfigurationError("an attribute's name must be a text that is not empty")
    twice = sorted(name for name, count in Counter(listed).items() if count > 1)
    if twice:
        raise ConfigurationError(f"two attributes have one name: {', '.join(twice)}; give each its own")
