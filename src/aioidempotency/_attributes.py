"""Python values as DynamoDB's attribute values, the way back, and the sizes of items.

1. A mapping with one entry under a type's name, as in `{"S": "text"}`, counts as typed if given for an attribute.
   Inside a plain value, the same mapping is an ordinary one. To store such a mapping, write the type around the
   mapping.
2. Numbers are exact. A float is written by its shortest text, and a number that DynamoDB would round is refused.
3. On the way back, a whole number is an int and any other a `Decimal`; a tuple is a list.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final, cast

from aioidempotency._core.model import AttributeValue, Item
from aioidempotency.exceptions import SerializationError

MOST_DIGITS: Final = 38
"""The most significant digits of a number, by DynamoDB's limit."""

LARGEST_ITEM: Final = 400 * 1024
"""The most bytes of an item, attribute names included, by DynamoDB's limit."""

_EXACT: Final = Context(prec=400, traps=[])
"""Independent of the caller's decimal context, which may round or trap."""

_BYTES: Final = (bytes, bytearray, memoryview)
_LEAST, _MOST = -130, 125
"""The powers of ten within the range of DynamoDB's numbers."""


def item(values: object, subject: str) -> dict[str, AttributeValue]:
    """Write a mapping of attribute names to values.

    Raises:
        SerializationError: The values are no mapping, are empty, or do not fit DynamoDB.
    """
    if not isinstance(values, Mapping) or not values or not all(isinstance(name, str) for name in values):
        advice = "give a mapping of attribute names to values"
        raise SerializationError(subject, type(values).__name__ if values else "nothing", advice)
    return {text(name, subject): attribute(value, subject) for name, value in values.items()}


def attribute(value: object, subject: str) -> AttributeValue:
    """Write the value of one attribute, typed or plain.

    Raises:
        SerializationError: The value does not fit DynamoDB.
    """
    if not isinstance(value, Mapping) or len(value) != 1 or (kind := next(iter(value))) not in _TYPED:
        return written(value, subject)
    if is_typed(value):
        return _rebuilt(value, subject)
    # Refused, not guessed: as a map, `{"S": 5}` would be a surprise for one caller, and as a text for another.
    advice = f'a mapping of one name that is a type\'s is taken as typed; write a map as {{"M": {{"{kind}": ...}}}}'
    raise SerializationError(subject, f'{{"{kind}": ...}} with a value of another type', advice)


def is_typed(value: object) -> bool:
    """Tell whether a value is typed in DynamoDB's wire format."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return False
    ((kind, inner),) = value.items()
    return kind in _TYPED and bool(_TYPED[kind](inner))


def written(value: Any, subject: str) -> AttributeValue:  # noqa: PLR0911 - one for each type
    """Write a plain value.

    Raises:
        SerializationError: The value does not fit DynamoDB.
    """
    match value:
        case None:
            return {"NULL": True}
        # Before the numbers: `True` is an `int`, too.
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": text(value, subject)}
        case int() | float() | Decimal():
            return {"N": _number(value, subject)}
        case bytes() | bytearray() | memoryview():
            return {"B": bytes(value)}
        case Mapping():
            if not all(isinstance(name, str) for name in value):
                raise SerializationError(subject, "a mapping with names that are no texts", "make them texts")
            return {"M": {text(name, subject): written(member, subject) for name, member in value.items()}}
        case list() | tuple():
            return {"L": [written(member, subject) for member in value]}
        case AbstractSet():
            return _set(value, subject)
        case _:
            raise SerializationError(
                subject, type(value).__name__, "give text, numbers, bytes, sets, lists or mappings"
            )


def read(value: AttributeValue) -> object:  # noqa: PLR0911 - one for each type
    """Read an attribute value as a plain value."""
    ((kind, inner),) = cast("Mapping[str, Any]", value).items()
    match kind:
        case "N":
            return _read_number(inner)
        case "NULL":
            return None
        case "B":
            return bytes(inner)
        case "M":
            return {name: read(member) for name, member in inner.items()}
        case "L":
            return [read(member) for member in inner]
        case "NS":
            return {_read_number(member) for member in inner}
        case "SS" | "BS":
            return set(inner)
        case _:
            return inner


def read_item(found: Item) -> dict[str, object]:
    """Read an item as plain values."""
    return {name: read(value) for name, value in found.items()}


def size(found: Mapping[str, AttributeValue]) -> int:
    """Count the bytes of an item by DynamoDB's rules, names included."""
    return sum(len(name.encode()) + _size(value) for name, value in found.items())


def text(value: str, subject: str) -> str:
    """Read a text as a plain `str`, and an enumeration's member by its value.

    Raises:
        SerializationError: The text holds half of a surrogate pair, which has no bytes.
    """
    # Not `str(value)`: for an enumeration's member, `str` gives the name of the member.
    plain = str.__str__(value)
    try:
        # Before any request: a transaction with such a text can never be sent.
        plain.encode()
    except UnicodeEncodeError:
        raise SerializationError(subject, "a text with half a character", "give whole ones") from None
    return plain


def key_text(one: AttributeValue) -> str:
    """Write a scalar as text, equal for two scalars if DynamoDB takes both for one key."""
    # DynamoDB takes `1`, `1.0` and `1E0` for one key, so the text must be the same for all.
    kind, value = comparable(one)
    return f"{kind}:{value.normalize(_EXACT) if isinstance(value, Decimal) else value}"


def comparable(one: AttributeValue) -> tuple[str, object]:
    """Make a scalar comparable. Two scalars are equal if DynamoDB takes both for one key: `1` and `1.0` do."""
    ((kind, inner),) = cast("Mapping[str, Any]", one).items()
    return kind, Decimal(str(inner)) if kind == "N" else bytes(inner) if kind == "B" else inner


def _number(value: float | Decimal, subject: str) -> str:
    """Write a number, and an enumeration's member by its value."""
    # By the shortest text, because `Decimal(0.1)` has 55 digits and DynamoDB would refuse the number.
    exact = Decimal(repr(float(value))) if isinstance(value, float) else Decimal(value)
    if not exact.is_finite():
        raise SerializationError(subject, "NaN or an infinity", "DynamoDB has neither; leave it out")
    normal = _shortened(exact)
    if len(normal.as_tuple().digits) > MOST_DIGITS or (normal and not _LEAST <= normal.adjusted() <= _MOST):
        advice = f"DynamoDB keeps {MOST_DIGITS} digits, from 1E{_LEAST} to 1E{_MOST}; round it, or give text"
        raise SerializationError(subject, "a number that is out of bounds", advice)
    return str(exact)


def _shortened(exact: Decimal) -> Decimal:
    """Drop the zeros at the end of a number, exactly."""
    sign, digits, exponent = exact.as_tuple()
    # Not `normalize`, which would round to the context's precision, and then hide a number that DynamoDB rounds.
    significant = digits
    while len(significant) > 1 and significant[-1] == 0:
        significant = significant[:-1]
    return Decimal((sign, significant, int(exponent) + len(digits) - len(significant)))


def _read_number(written: str) -> int | Decimal:
    number = Decimal(written)
    return (
        int(number)
        if number == number.to_integral_value(context=_EXACT) and abs(number.adjusted()) < MOST_DIGITS
        else number
    )


def _rebuilt(value: Mapping[str, Any], subject: str) -> AttributeValue:
    """Copy a typed value, so that later changes by the caller have no effect."""
    ((kind, inner),) = value.items()
    match kind:
        case "S" | "N":
            return {kind: text(inner, subject)}
        case "B":
            return {kind: bytes(inner)}
        case "M":
            return {kind: {text(name, subject): _rebuilt(member, subject) for name, member in inner.items()}}
        case "L":
            return {kind: [_rebuilt(member, subject) for member in inner]}
        case "SS" | "NS" | "BS":
            return {kind: [bytes(each) if kind == "BS" else text(each, subject) for each in inner]}
        case _:
            return {kind: inner}


def _set(value: AbstractSet[Any], subject: str) -> AttributeValue:
    for kind, types, write in (
        ("SS", str, lambda member: text(member, subject)),
        ("NS", (int, float, Decimal), lambda member: _number(member, subject)),
        ("BS", _BYTES, bytes),
    ):
        if value and all(isinstance(member, types) and not isinstance(member, bool) for member in value):
            return {kind: sorted(write(member) for member in value)}
    advice = "DynamoDB's sets hold texts, numbers or bytes, one of them at least"
    raise SerializationError(subject, "an empty set" if not value else "a set of mixed or other values", advice)


def _size(value: AttributeValue) -> int:  # noqa: PLR0911 - one for each type
    ((kind, inner),) = cast("Mapping[str, Any]", value).items()
    match kind:
        case "S":
            return len(inner.encode(errors="replace"))
        case "N":
            return _number_size(inner)
        case "B":
            return len(inner)
        case "M":
            return 3 + sum(1 + len(name.encode()) + _size(member) for name, member in inner.items())
        case "L":
            return 3 + sum(1 + _size(member) for member in inner)
        case "SS" | "NS" | "BS":
            return sum(_size({kind[0]: member}) for member in inner)
        case _:
            return 1


def _number_size(number: str) -> int:
    digits = len(_shortened(Decimal(number)).as_tuple().digits)
    return (digits + 1) // 2 + 1 + number.startswith("-")


def _is_number(value: object) -> bool:
    try:
        return isinstance(value, str) and Decimal(value).is_finite()
    except InvalidOperation:
        return False


def _all(test: Any) -> Any:
    return lambda value: isinstance(value, list | tuple) and len(value) > 0 and all(test(member) for member in value)


_TYPED: Final[Mapping[str, Any]] = {
    "S": lambda value: isinstance(value, str),
    "N": _is_number,
    "B": lambda value: isinstance(value, _BYTES),
    "BOOL": lambda value: isinstance(value, bool),
    "NULL": lambda value: value is True,
    "SS": _all(lambda member: isinstance(member, str)),
    "NS": _all(_is_number),
    "BS": _all(lambda member: isinstance(member, _BYTES)),
    "L": lambda value: isinstance(value, list | tuple) and all(is_typed(member) for member in value),
    "M": lambda value: isinstance(value, Mapping) and all(is_typed(member) for member in value.values()),
}
"""Whether a value fits a type of the wire."""
