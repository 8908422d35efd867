"""Item to record and back. Parsing happens here, once; everything behind it can trust a `Record`.

We write what Powertools for Python writes, and read what its sisters write too: `data` as JSON
text, as any other text, or as native attributes.
"""

import json
from collections.abc import Mapping
from math import floor
from typing import cast

from aioidempotency._core.model import AttributeValue, Encoded, Item, Lease, Location, Record, Role, Status
from aioidempotency.exceptions import ConfigurationError

Changes = dict[Role, AttributeValue]


def milliseconds(instant: float) -> int:
    """Convert epoch seconds as the attribute `in_progress_expiration` wants them."""
    return round(instant * 1000)


def whole_milliseconds(instant: float) -> float:
    """Cut epoch seconds to what the attribute can hold: a lease ends no later than it says."""
    return floor(instant * 1000) / 1000


def running(lease: Lease) -> Item:
    """Make the item of a record that this lease holds."""
    return _item(lease, {"status": {"S": Status.INPROGRESS.value}, **renewed(lease)})


def finished(lease: Lease, result: Encoded, *, expiration: int) -> Item:
    """Make the item of a record that this lease has finished."""
    return _item(lease, {**renewed(lease), **completed(result, expiration=expiration)})


def renewed(lease: Lease) -> Changes:
    """Name what a renewal changes: the ends of lease and record."""
    return {
        "in_progress_expiration": {"N": str(milliseconds(lease.expires_at))},
        "expiration": {"N": str(lease.expiration)},
    }


def completed(result: Encoded, *, expiration: int) -> Changes:
    """Name what a completion changes. The end of the lease stays, as Powertools leaves it."""
    changes: Changes = {
        "status": {"S": Status.COMPLETED.value},
        "expiration": {"N": str(expiration)},
        "data": {"S": result.data},
    }
    return changes if result.encoding is None else {**changes, "encoding": {"S": result.encoding}}


def record_of(lease: Lease, result: Encoded, *, expiration: int) -> Record:
    """Make the record that `parse` reads from what this lease has finished."""
    return Record(
        key=lease.key,
        status=Status.COMPLETED,
        expiration=float(expiration),
        in_progress_expiration=float(milliseconds(lease.expires_at)),
        owner=lease.owner,
        fencing_token=lease.fencing_token,
        fingerprint=lease.fingerprint,
        encoding=result.encoding,
        data=result.data,
    )


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
    return Record(
        key=location.key,
        status=Status(status),
        expiration=expiration,
        in_progress_expiration=read.number("in_progress_expiration"),
        owner=read.text("owner"),
        fencing_token=int(read.number("fencing_token") or 0),
        fingerprint=read.text("validation"),
        encoding=read.text("encoding"),
        data=read.data(),
    )


def size(item: Item) -> int:
    """Count the bytes of an item of texts and numbers, by DynamoDB's rules; a number a little generously."""
    return sum(len(name.encode()) + len(str(next(iter(value.values()))).encode()) for name, value in item.items())


def _item(lease: Lease, changes: Changes) -> Item:
    names = lease.location.table.names
    values: Changes = {
        **changes,
        "owner": {"S": lease.owner},
        "fencing_token": {"N": str(lease.fencing_token)},
    }
    if lease.fingerprint is not None:
        values["validation"] = {"S": lease.fingerprint}
    return {**lease.location.item, **{names[role]: value for role, value in values.items()}}


class _Reader:
    """One item, read attribute by attribute; an empty text or a NULL counts as missing."""

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
        return float(str(value))

    def data(self) -> str | None:
        """Read the stored result as text, whatever its type; None where there is none."""
        kind, value = self._typed("data")
        if kind == "S":
            return str(value)
        stored = self._item.get(self._location.table.names["data"])
        return None if stored is None else _as_json(stored)

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
        return ("NULL", True) if value is None else next(iter(value.items()))


def _as_json(value: AttributeValue) -> str:
    """Write a native attribute as JSON text, each number exactly as it is stored."""
    kind, inner = next(iter(value.items()))
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
