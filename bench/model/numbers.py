"""Numbers as DynamoDB keeps them: by value, with up to 38 digits, written without an exponent."""

import re
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

from bench.model.refusals import invalid

_DIGITS: Final = 38
_LARGEST_EXPONENT: Final = 125
_SMALLEST_EXPONENT: Final = -130
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_EXACT: Final = Context(prec=1000)
_COMPLEMENT: Final = bytes(255 - byte for byte in range(256))


@lru_cache(4096)
def canonical(text: str) -> str:
    """Write a number as the service gives it back: `1.50` is `1.5`, `1E+3` is `1000`, `-0` is `0`.

    Raises:
        ServiceError: It is no number, or out of range.
    """
    if text.isascii() and text.isdigit() and text[0] != "0" and len(text) <= _DIGITS:
        return text
    if not _NUMBER.fullmatch(text):
        raise invalid(f"The parameter cannot be converted to a numeric value: {text}")
    number = Decimal(text)
    if number == 0:
        return "0"
    if number.adjusted() > _LARGEST_EXPONENT:
        raise invalid("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if number.adjusted() < _SMALLEST_EXPONENT:
        raise invalid("Number underflow. Attempting to store a number with magnitude smaller than supported range")
    number = number.normalize(_EXACT)
    if len(number.as_tuple().digits) > _DIGITS:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    return f"{number:f}"


def size(number: str) -> int:
    """Count the bytes of a canonical number: one for two digits, and one more; its sign takes another."""
    digits = len(number.lstrip("-0.").rstrip("0").replace(".", ""))
    return (digits + 1) // 2 + 1 + number.startswith("-")


def order(number: str) -> bytes:
    """Encode a canonical number so that bytes compare as the numbers do."""
    value = Decimal(number)
    if value == 0:
        return b"\x01"
    magnitude = (value.adjusted() - _SMALLEST_EXPONENT).to_bytes(2) + "".join(
        str(digit) for digit in value.normalize(_EXACT).as_tuple().digits
    ).encode()
    # Of two negative numbers the one with more digits is the smaller: the last byte sees to it.
    return b"\x00" + magnitude.translate(_COMPLEMENT) + b"\xff" if value < 0 else b"\x02" + magnitude
