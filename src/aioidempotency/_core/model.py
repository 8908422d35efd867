"""Records: their locations, their attributes, and the items that store them.

Instants and durations are float seconds. Only the attribute `in_progress_expiration` holds milliseconds,
because Powertools writes milliseconds there.

An item is parsed here, once, and all code behind `parse` can trust a `Record`. Items are written as Powertools
for Python writes them. Items of the other Powertools are read, too: `data` may be JSON text, any other text, or
native attributes.

Each call makes many values, so most are `msgspec.Struct`s, at a tenth of the cost of a frozen dataclass. Users hold `Lease`
and `Record`, so both also pass for dataclasses: for `dataclasses.replace`, `fields` and `asdict`, for `pprint`, and for
pydantic. The values of a call form no cycles, so the garbage collector does not look at them (`gc=False`).
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields, make_dataclass
from enum import StrEnum
from functools import cached_property
from math import floor, inf, nan
from typing import Any, ClassVar, Final, Literal, Protocol, cast, final

from msgspec import Struct
from msgspec.structs import asdict

from aioidempotency.exceptions import ConfigurationError

AttributeValue = Mapping[str, object]
"""One value in DynamoDB's own form: `{"S": "text"}`."""

Item = Mapping[str, AttributeValue]
"""One item in DynamoDB's own form, under the table's attribute names."""

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
    "claimed_by",
    "freed_by",
    "result_class",
]
"""The purpose of an attribute; the name in the table may differ. `key` is the partition key."""

FREED: Final = 0
"""The lease end of a record that was freed from its owner: over by every clock, however wrong."""


@final
class Status(StrEnum):
    """The progress of a record, in Powertools' words."""

    INPROGRESS = "INPROGRESS"
    COMPLETED = "COMPLETED"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeNames:
    """The table's name for each attribute of a record; the layout names the attributes of the key."""

    status: str = "status"
    expiration: str = "expiration"
    in_progress_expiration: str = "in_progress_expiration"
    data: str = "data"
    validation: str = "validation"
    owner: str = "owner"
    fencing_token: str = "fencing_token"  # noqa: S105 - an attribute's name
    encoding: str = "encoding"
    claimed_by: str = "claimed_by"
    freed_by: str = "freed_by"
    result_class: str = "result_class"

    def __post_init__(self) -> None:
        check_names(getattr(self, each.name) for each in fields(self))


@final
@dataclass(frozen=True)
class Table:
    """One table: its name, its key, and the names of its attributes."""

    name: str
    partition_attribute: str
    sort_attribute: str | None
    attributes: AttributeNames

    def __post_init__(self) -> None:
        check_names(self.names.values())

    def __hash__(self) -> int:
        # Expressions are cached by table and looked up at every call. Hashing all attribute names each time costs more.
        return hash(self.name)

    @cached_property
    def names(self) -> dict[str, str]:
        """The table's attribute name for each role, and for the sort key of a table with a sort key."""
        names = {"key": self.partition_attribute}
        if self.sort_attribute is not None:
            names["sort"] = self.sort_attribute
        return names | {each.name: getattr(self.attributes, each.name) for each in fields(self.attributes)}


class Route(Protocol):
    """The locations in which the record of one key may be."""

    @property
    def key(self) -> str:
        """The key, `namespace#digest`."""
        ...

    @property
    def answer_within(self) -> float:
        """Seconds after which the locations of an instant may be incomplete."""
        ...

    def locations(self, now: float) -> "Locations":
        """Name the location of a new record, and then every other possible location of a live record.

        Of two claims, each looks at the location of the other claim's write.
        """
        ...

    def searched_until(self, location: "Location") -> float:
        """Epoch seconds until which every claim looks at a location of new records."""
        ...


@final
class Location(Struct, frozen=True, gc=False):
    """The location of one record. `sort` is None in a table without a sort key.

    `typed` holds the attributes of a key in a table of the caller's own, where keys need not be texts.

    A location is also the `Route` of a key whose record has no other location.
    """

    answer_within: ClassVar[float] = inf

    table: Table
    partition: str
    sort: str | None = None
    typed: Item | None = None

    @property
    def key(self) -> str:
        """The record's key, `namespace#digest`."""
        return self.partition if self.sort is None else self.sort

    @property
    def shown(self) -> str:
        """The key for people, or the table alone: the key of an item of the caller's is the caller's data."""
        return self.key if self.typed is None else f"an item of {self.table.name}"

    def __repr__(self) -> str:
        if self.typed is not None:
            return f"<Location of {self.shown}>"
        return f"<Location {' '.join(filter(None, (self.partition, self.sort)))} in {self.table.name}>"

    @property
    def item(self) -> Item:
        """The key's attributes in DynamoDB's own form."""
        if self.typed is not None:
            return self.typed
        if self.table.sort_attribute is None or self.sort is None:
            return {self.table.partition_attribute: {"S": self.partition}}
        return {self.table.partition_attribute: {"S": self.partition}, self.table.sort_attribute: {"S": self.sort}}

    def locations(self, now: float) -> "Locations":
        """Name the only location."""
        return (self,)

    def searched_until(self, location: "Location") -> float:
        """No limit."""
        return inf


Locations = tuple[Location, ...]
"""All possible locations of a record; a new record is put into the first."""


def _shown(value: "Record | Lease") -> str:
    fields_shown = ", ".join(f"{name}={shown!r}" for name, shown in value.__rich_repr__())
    return f"{type(value).__name__}({fields_shown})"


def _like_dataclass(kind: Any) -> Any:
    """Have a Struct pass for a dataclass, and return a dataclass with the same fields.

    Whoever asks `dataclasses.is_dataclass` reads the types, the defaults and the parameters next, so all are needed.
    """
    defaults = kind.__struct_defaults__
    missing = (MISSING,) * (len(kind.__struct_fields__) - len(defaults))
    described = [
        (name, kind.__annotations__[name], field(default=default))
        for name, default in zip(kind.__struct_fields__, (*missing, *defaults), strict=True)
    ]
    twin: Any = make_dataclass(kind.__name__, described, frozen=True, kw_only=True, repr=False)
    kind.__dataclass_fields__ = twin.__dataclass_fields__
    kind.__dataclass_params__ = twin.__dataclass_params__
    kind.__setattr__ = kind.__delattr__ = _refuse_change
    return twin


def _refuse_change(value: object, name: str, *_: object) -> None:
    raise FrozenInstanceError(f"a {type(value).__name__} does not change, and neither does its {name!r}")


@final
class Record(Struct, frozen=True, kw_only=True):
    """One record as found in the table.

    Attributes:
        key: `namespace#digest`.
        status: Running or finished.
        expiration: Epoch seconds after which the record no longer counts.
        in_progress_expiration: Epoch milliseconds at which the lease ends; None without a lease.
        owner: The claimant's 128 random bits in hex; None in a record of Powertools.
        fencing_token: Grows with every claim of the key; 0 in a record of Powertools.
        fingerprint: The digest of the request's payload; None without a payload to compare.
        encoding: The form of `data`; None for plain JSON.
        claimed_by: Who claimed, for people: the store's `label`. Shown in no error and no log.
        freed_by: Who called `forget(running=True)` while another owner ran; empty if unknown, None if nobody did.
        result_class: The class of the result, if the return annotation alone does not tell; else None.
        data: The stored result as text.
        result: The decoded result of a finished record.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    key: str
    status: Status
    expiration: float
    in_progress_expiration: float | None = None
    owner: str | None = None
    fencing_token: int = 0
    fingerprint: str | None = None
    encoding: str | None = None
    claimed_by: str | None = None
    freed_by: str | None = None
    result_class: str | None = None
    data: str | None = None
    result: object = None

    def __repr__(self) -> str:
        return _shown(self)

    # Texts for people and results must not reach logs. Without this method, rich would show all fields of a Struct in its
    # tracebacks, whatever `repr` hides.
    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            ("key", self.key),
            ("status", self.status),
            ("expiration", self.expiration),
            ("in_progress_expiration", self.in_progress_expiration),
            ("owner", self.owner),
            ("fencing_token", self.fencing_token),
            ("fingerprint", self.fingerprint),
            ("encoding", self.encoding),
        ]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Callable[[object], Any]) -> Any:
        """Tell pydantic how to read a record. pydantic cannot make a Struct as it makes a dataclass."""
        from pydantic_core import core_schema  # noqa: PLC0415 - whoever calls this has loaded it

        def read(value: object, as_dataclass: Callable[[object], Any]) -> "Record":
            return value if isinstance(value, Record) else Record(**vars(as_dataclass(value)))

        written = core_schema.plain_serializer_function_ser_schema(asdict)
        return core_schema.no_info_wrap_validator_function(read, handler(_RECORD), serialization=written)

    @property
    def lease_ends_at(self) -> float | None:
        """Epoch seconds at which the lease ends."""
        return None if self.in_progress_expiration is None else self.in_progress_expiration / 1000

    @property
    def vacant(self) -> bool:
        """Whether `forget` has freed the key, with no claim since: the record only keeps the old owner out."""
        return self.status is Status.INPROGRESS and self.in_progress_expiration == FREED


_RECORD: Final = _like_dataclass(Record)


@final
class SerializedResult(Struct, frozen=True, gc=False):
    """A result in its stored form.

    Attributes:
        data: The result as text.
        encoding: The form of `data`; None for plain JSON.
        result_class: The class of the result, if the return annotation alone does not tell; else None.
    """

    data: str
    encoding: str | None = None
    result_class: str | None = None

    def __repr__(self) -> str:
        return f"<SerializedResult: {len(self.data)} characters, encoding {self.encoding}>"


@final
class Lease(Struct, frozen=True, kw_only=True, gc=False):
    """The right to run one key until `expires_at`, as granted by the table.

    Attributes:
        location: The location of the record.
        route: All locations in which calls look for the record.
        owner: The 128 random bits that mark the record as this owner's.
        fencing_token: Grows with every claim of the key; hand the token to systems that can compare.
        expires_at: Epoch seconds at which the lease ends.
        expiration: Epoch seconds after which the record no longer counts; never before the lease's end.
        duration: Seconds from a renewal to the end of the lease.
        retention: Seconds for which the finished record will answer.
        fingerprint: The digest of the request's payload; None without a payload to compare.
        claimed_by: The store's `label`, for people.
        freed_by: Who freed the key from an earlier owner; None if nobody did.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    location: Location
    route: Route
    owner: str
    fencing_token: int
    expires_at: float
    expiration: int
    duration: float
    retention: float
    fingerprint: str | None = None
    claimed_by: str | None = None
    freed_by: str | None = None

    @property
    def key(self) -> str:
        """The record's key, `namespace#digest`."""
        return self.location.key

    def __repr__(self) -> str:
        return _shown(self)

    # Texts for people must not reach logs. See `Record`.
    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            ("owner", self.owner),
            ("fencing_token", self.fencing_token),
            ("expires_at", self.expires_at),
            ("expiration", self.expiration),
            ("duration", self.duration),
            ("retention", self.retention),
            ("fingerprint", self.fingerprint),
        ]


_like_dataclass(Lease)


Changes = dict[Role, AttributeValue]

_RUNNING: Final[AttributeValue] = {"S": "INPROGRESS"}
_COMPLETED: Final[AttributeValue] = {"S": "COMPLETED"}

LARGEST_NUMBER = 2**53 - 1
"""The largest number in a record. Any time and any token is far below, and up to here a float is exact.

A larger fencing token could have no successor: DynamoDB refuses numbers of more than 38 digits, and so every claim.
"""


def milliseconds(instant: float) -> int:
    """Convert epoch seconds to the milliseconds of the attribute `in_progress_expiration`."""
    return round(instant * 1000)


def whole_milliseconds(instant: float) -> float:
    """Cut epoch seconds to whole milliseconds, so that a lease ends no later than its attribute says."""
    return floor(instant * 1000) / 1000


def running(lease: Lease) -> Item:
    """Make the item of a running record from its lease."""
    location = lease.location
    names = location.table.names
    # Each call passes here, so it is written in line: as `renewed`, and `Location.item`.
    item: dict[str, AttributeValue] = {
        names["key"]: {"S": location.partition},
        names["status"]: _RUNNING,
        names["in_progress_expiration"]: {"N": str(round(lease.expires_at * 1000))},
        names["expiration"]: {"N": str(lease.expiration)},
        names["owner"]: {"S": lease.owner},
        names["fencing_token"]: {"N": str(lease.fencing_token)},
    }
    if location.sort is not None:
        item[names["sort"]] = {"S": location.sort}
    if lease.fingerprint is not None:
        item[names["validation"]] = {"S": lease.fingerprint}
    if lease.claimed_by is not None:
        item[names["claimed_by"]] = {"S": lease.claimed_by}
    if lease.freed_by is not None:
        item[names["freed_by"]] = {"S": lease.freed_by}
    return item


def finished(lease: Lease, result: SerializedResult, *, expiration: int) -> Item:
    """Make the item of a finished record from its lease and result."""
    names = lease.location.table.names
    changes = completed(result, expiration=expiration)
    return {**running(lease), **{names[role]: value for role, value in changes.items()}}


def vacant(location: Location, *, owner: str, fencing_token: int, expiration: int, freed_by: str) -> Item:
    """Make the item of a vacant record: any claim may take over at once, and an old owner is kept out.

    The item has no fingerprint: the key is free for every request. `freed_by` is always written, if need be empty:
    claims carry the attribute on, and so keep the old owner out after the key is given back.
    """
    names = location.table.names
    return {
        **location.item,
        names["status"]: {"S": "INPROGRESS"},
        names["in_progress_expiration"]: {"N": str(FREED)},
        names["expiration"]: {"N": str(expiration)},
        names["owner"]: {"S": owner},
        names["fencing_token"]: {"N": str(fencing_token)},
        names["freed_by"]: {"S": freed_by},
    }


def renewed(lease: Lease) -> Changes:
    """List the changes of a renewal: the ends of lease and record."""
    return {
        "in_progress_expiration": {"N": str(milliseconds(lease.expires_at))},
        "expiration": {"N": str(lease.expiration)},
    }


def completed(result: SerializedResult, *, expiration: int) -> Changes:
    """List the changes of a completion. The end of the lease stays, as with Powertools."""
    changes: Changes = {
        "status": _COMPLETED,
        "expiration": {"N": str(expiration)},
        "data": {"S": result.data},
    }
    if result.encoding is not None:
        changes["encoding"] = {"S": result.encoding}
    if result.result_class is not None:
        changes["result_class"] = {"S": result.result_class}
    return changes


@final
class Finished(Struct, frozen=True, gc=False):
    """A completion as written. Most completions have no observer, so the record is made when somebody asks."""

    lease: Lease
    result: SerializedResult
    expiration: int

    @property
    def record(self) -> Record:
        """The same record as `parse` of the finished item."""
        lease, result = self.lease, self.result
        return Record(
            key=lease.location.key,
            status=Status.COMPLETED,
            expiration=float(self.expiration),
            in_progress_expiration=float(milliseconds(lease.expires_at)),
            owner=lease.owner,
            fencing_token=lease.fencing_token,
            fingerprint=lease.fingerprint,
            encoding=result.encoding,
            claimed_by=lease.claimed_by,
            freed_by=lease.freed_by,
            result_class=result.result_class,
            data=result.data,
        )


def record_of(left: Record | Finished) -> Record:
    """Read the record that a call has left."""
    return left.record if isinstance(left, Finished) else left


def parse(item: Item, location: Location) -> Record:
    """Read an item.

    Raises:
        ConfigurationError: The item is not a record; the message names its key and the attribute.
    """
    read = _Reader(item, location)
    status = read.text("status")
    if status is None or status not in Status.__members__:
        raise read.refusal("status", "is missing" if status is None else "is neither INPROGRESS nor COMPLETED")
    expiration = read.number("expiration")
    if expiration is None:
        raise read.refusal("expiration", "is missing")
    names = location.table.names
    claimed_by, freed_by = item.get(names["claimed_by"]), item.get(names["freed_by"])
    result_class = item.get(names["result_class"])
    return Record(
        key=location.key,
        status=Status(status),
        expiration=expiration,
        in_progress_expiration=read.number("in_progress_expiration"),
        owner=read.text("owner"),
        fencing_token=int(read.number("fencing_token") or 0),
        fingerprint=read.text("validation"),
        encoding=read.text("encoding"),
        # No call depends on texts for people, and few on a class: other types count as missing.
        claimed_by=None if claimed_by is None else cast("str | None", claimed_by.get("S")),
        freed_by=None if freed_by is None else cast("str | None", freed_by.get("S")),
        result_class=None if result_class is None else cast("str | None", result_class.get("S")) or None,
        data=read.data(),
    )


def size(item: Item) -> int:
    """Count the bytes of an item of texts and numbers by DynamoDB's rules; numbers a little too high."""
    return sum(len(name.encode()) + len(str(next(iter(value.values()))).encode()) for name, value in item.items())


class _Reader:
    """Reads one item attribute by attribute. An empty text or a NULL counts as missing."""

    def __init__(self, item: Item, location: Location) -> None:
        self._item = item
        self._location = location

    def text(self, role: Role) -> str | None:
        """Read an attribute that must be text."""
        kind, value = self._typed(role)
        if kind == "NULL":
            return None
        if kind != "S" or not isinstance(value, str):
            raise self.refusal(role, f"has the type {kind} and should have S")
        return value or None

    def number(self, role: Role) -> float | None:
        """Read an attribute that must be a number."""
        kind, value = self._typed(role)
        if kind == "NULL":
            return None
        if kind != "N":
            raise self.refusal(role, f"has the type {kind} and should have N")
        try:
            number = float(str(value))
        except ValueError:
            number = nan
        # False for NaN, too.
        if not 0 <= number <= LARGEST_NUMBER:
            raise self.refusal(role, f"is not a number from 0 to {LARGEST_NUMBER} (delete the item if it is damaged)")
        return number

    def data(self) -> str | None:
        """Read the stored result of any type as text; None without a result."""
        kind, value = self._typed("data")
        if kind == "S" and isinstance(value, str):
            return value
        stored = self._item.get(self._location.table.names["data"])
        try:
            return None if stored is None else _as_json(stored)
        except RecursionError:
            raise self.refusal("data", "is nested too deeply") from None
        except (TypeError, ValueError, AttributeError):
            raise self.refusal("data", "has no form that DynamoDB has") from None

    def refusal(self, role: Role, trouble: str) -> ConfigurationError:
        """Say that the item is not a record."""
        table = self._location.table
        return ConfigurationError(
            f"the item {self._location.key!r} of table {table.name!r} is not an idempotency record: "
            f"its attribute {table.names[role]!r} {trouble}. Nothing was overwritten; "
            "check the table's name and attributes=AttributeNames(...)"
        )

    def _typed(self, role: Role) -> tuple[str, object]:
        value = self._item.get(self._location.table.names[role])
        if value is None:
            return "NULL", True
        if len(value) != 1:
            raise self.refusal(role, "has no type, or several")
        return next(iter(value.items()))


def _as_json(value: AttributeValue) -> str:
    """Write a native attribute as JSON text, with each number exactly as stored."""
    ((kind, inner),) = value.items()
    match kind:
        case "M":
            members = cast("Mapping[str, AttributeValue]", inner).items()
            return "{" + ", ".join(f"{json.dumps(name)}: {_as_json(member)}" for name, member in members) + "}"
        case "L":
            return "[" + ", ".join(_as_json(member) for member in cast("list[AttributeValue]", inner)) + "]"
        case "N":
            return str(inner)
        case "NS":
            return "[" + ", ".join(cast("list[str]", inner)) + "]"
        case "NULL":
            return "null"
        case _:
            return json.dumps(inner, default=list)


def check_names(names: Iterable[str]) -> None:
    """Refuse attribute names that are empty, or given twice."""
    listed = list(names)
    if not all(isinstance(name, str) and name for name in listed):
        raise ConfigurationError("an attribute's name must be a text that is not empty")
    twice = sorted(name for name, count in Counter(listed).items() if count > 1)
    if twice:
        raise ConfigurationError(f"two attributes have one name: {', '.join(twice)}; give each its own")
