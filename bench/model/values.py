"""Attribute values: checked, normalised and measured in one walk, once, when a request comes in."""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

from bench.model import numbers
from bench.model.refusals import invalid, malformed

AttributeValue = dict[str, Any]
Item = dict[str, AttributeValue]
Measured = tuple[AttributeValue, int]
"""A value and its bytes, as the service counts them."""

LARGEST_ITEM: Final = 400 * 1024
_DEEPEST: Final = 32
_CONTAINER: Final = 3
"""Bytes that a list or a map takes besides its elements, each of which takes one more."""


@final
@dataclass(frozen=True, slots=True)
class Stored:
    """An item in a table, with its size in bytes, names included."""

    item: Item
    size: int


def measured_item(item: object) -> Stored:
    """Normalise an item and measure it; whether a table takes it is not asked here."""
    if type(item) is not dict:
        raise malformed("An item is a map of attribute values")
    kept: Item = {}
    total = 0
    for name, value in item.items():
        kept[name], bytes_of_value = measured(value)
        total += text_size(name) + bytes_of_value
    return Stored(kept, total)


def measured(value: object, depth: int = 1) -> Measured:
    """Normalise a value and measure it.

    Raises:
        ServiceError: It is none, a number out of range, an empty set, or nested more than 32 levels deep.
    """
    if type(value) is not dict:
        raise malformed("An attribute value is a map from its type to its content")
    if len(value) != 1:
        many = "has more than one datatypes set" if value else "is empty"
        raise invalid(f"Supplied AttributeValue {many}, must contain exactly one of the supported datatypes")
    ((kind, content),) = value.items()
    if kind == "S" and type(content) is str:
        return value, text_size(content)
    if kind not in _READERS:
        raise invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
    wanted, read = _READERS[kind]
    if type(content) is not wanted:
        raise malformed(f"An attribute value of type {kind} cannot hold a {type(content).__name__}")
    return read(content, depth)


def text_size(text: str) -> int:
    """Count the bytes of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def order(value: AttributeValue) -> bytes:
    """Encode a normalised text, number or binary so that bytes compare as the values do."""
    ((kind, content),) = value.items()
    if kind == "S":
        return str(content).encode()
    return numbers.order(content) if kind == "N" else _decoded(content)


def _number(content: str, _: int) -> Measured:
    canonical = numbers.canonical(content)
    return {"N": canonical}, numbers.size(canonical)


def _binary(content: str, _: int) -> Measured:
    decoded = _decoded(content)
    return {"B": base64.b64encode(decoded).decode()}, len(decoded)


def _decoded(content: str) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (binascii.Error, ValueError) as error:
        raise malformed("Invalid Base64") from error


def _boolean(content: bool, _: int) -> Measured:  # noqa: FBT001 - it is a value
    return {"BOOL": content}, 1


def _null(content: bool, _: int) -> Measured:  # noqa: FBT001 - it is a value
    if not content:
        raise invalid(
            "One or more parameter values were invalid: Null attribute value types must have the value of true"
        )
    return {"NULL": True}, 1


def _list(content: list[object], depth: int) -> Measured:
    _check_depth(depth)
    elements = [measured(each, depth + 1) for each in content]
    return {"L": [value for value, _ in elements]}, _CONTAINER + sum(size + 1 for _, size in elements)


def _map(content: Mapping[str, object], depth: int) -> Measured:
    _check_depth(depth)
    elements = {name: measured(each, depth + 1) for name, each in content.items()}
    total = sum(text_size(name) + size + 1 for name, (_, size) in elements.items())
    return {"M": {name: value for name, (value, _) in elements.items()}}, _CONTAINER + total


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise invalid("Nesting Levels have exceeded supported limits: Attributes have nested over 32 levels.")


def _set_of(kind: str) -> Callable[[list[object], int], Measured]:
    """Read a set of texts, numbers or binaries; its order does not count, so it is sorted."""

    def read(content: list[object], depth: int) -> Measured:
        if not content:
            raise invalid("One or more parameter values were invalid: A set may not be empty")
        elements = [measured({kind: each}, depth) for each in content]
        unique = sorted({value[kind] for value, _ in elements})
        if len(unique) != len(elements):
            raise invalid("One or more parameter values were invalid: Input collection contains duplicates.")
        return {f"{kind}S": unique}, sum(size for _, size in elements)

    return read


_READERS: Final[Mapping[str, tuple[type, Callable[[Any, int], Measured]]]] = {
    # A text is read without this table; here it is one of a wrong type.
    "S": (str, lambda content, _: ({"S": content}, text_size(content))),
    "N": (str, _number),
    "B": (str, _binary),
    "BOOL": (bool, _boolean),
    "NULL": (bool, _null),
    "L": (list, _list),
    "M": (dict, _map),
    "SS": (list, _set_of("S")),
    "NS": (list, _set_of("N")),
    "BS": (list, _set_of("B")),
}
