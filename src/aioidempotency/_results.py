"""Results and errors in their stored form.

A result that cannot be stored must not lead to a second execution. The record then becomes a tombstone, which says
only that the call was executed.
"""

import base64
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, final

import msgspec

from aioidempotency._attributes import LARGEST_ITEM
from aioidempotency._core import model
from aioidempotency._core.model import Lease, Record, SerializedResult, Status
from aioidempotency._options import Settings
from aioidempotency._signatures import qualified_name
from aioidempotency.codecs import Codec
from aioidempotency.events import Event, ResultDropped
from aioidempotency.exceptions import ConfigurationError, IdempotencyError, ResultUnavailableError, SerializationError

TOMBSTONE = SerializedResult("", "tombstone")
"""Stands for a result that could not be stored."""

ZLIB = "zlib"
ERROR = "error"

LONGEST_NAME = 200
"""The most characters of a stored name in a message. A table's text may be of any length."""

LARGEST_TEXT = 32 * 1024 * 1024
"""The most bytes of a result before compression. A record of 400 KB could unpack to 400 MB, for whoever can write one."""

SURELY_SMALL = 90_000
"""So many characters fit in an item with any key and fingerprint, at four bytes each. Longer texts are measured."""


@final
class Unstorable(msgspec.Struct, frozen=True):
    """A result that no codec shall write, for the given reason: the record becomes a tombstone."""

    reason: str


class StoredError(msgspec.Struct, frozen=True):
    """An error in its stored form: the name of the class, and the arguments if JSON can hold them."""

    type: str
    args: list[Any] | None

    # The arguments of an error are the caller's data.
    def __repr__(self) -> str:
        return f"<StoredError {self.type}>"


def encode(result: object, lease: Lease, codec: Codec, *, compress_over: int | None) -> SerializedResult:
    """Write a result, compressed if the text has more than `compress_over` characters.

    Raises:
        SerializationError: The codec cannot write the result, or the result is too large.
    """
    text = codec.encode(result)
    if not isinstance(text, str):
        raise SerializationError("the result", f"{type(text).__name__}, given by the codec", "let codec= give a text")
    encoded = SerializedResult(text)
    if compress_over is not None and len(text) > compress_over:
        plain = _bytes_of(text)
        # Replays would refuse to unpack the text.
        if len(plain) > LARGEST_TEXT:
            advice = f"the most is {LARGEST_TEXT} bytes; return a reference to the result instead"
            raise SerializationError("the result", f"a text of {len(plain)} bytes", advice)
        encoded = SerializedResult(base64.b64encode(zlib.compress(plain)).decode(), ZLIB)
    elif not text.isascii():
        _bytes_of(text)
    # Measuring an item costs more than a comparison, and nearly all results are small.
    if len(encoded.data) < SURELY_SMALL:
        return encoded
    size = model.size(model.finished(lease, encoded, expiration=lease.expiration))
    if size > LARGEST_ITEM:
        advice = f"DynamoDB takes {LARGEST_ITEM} bytes at the most; return a reference to the result instead"
        raise SerializationError("the record", f"an item of {size} bytes", advice)
    return encoded


def _bytes_of(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        # Without a cause: the error of Python holds the whole text.
        advice = "let codec= give a text of whole characters"
        raise SerializationError("the result", "half a character, which has no bytes", advice) from None


def serialize_or_tombstone(
    result: object, lease: Lease, settings: Settings, report: Callable[[Event], object]
) -> SerializedResult:
    """Write a result in its stored form. If that fails, report an event and return a tombstone."""
    if isinstance(result, Unstorable):
        report(ResultDropped(lease.key, result.reason))
        return TOMBSTONE
    try:
        return encode(result, lease, settings.codec, compress_over=settings.compress_over)
    except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything, and the body has run already
        reason = str(error) if isinstance(error, SerializationError) else f"encoding it raised {type(error).__name__}"
        report(ResultDropped(lease.key, reason))
        return TOMBSTONE


def serialize_error(error: Exception) -> SerializedResult:
    """Write an error for replays. An error that cannot be rebuilt is stored by name."""
    name = qualified_name(type(error))
    args: list[Any] = []
    rebuilt = False
    try:
        args = msgspec.json.decode(msgspec.json.encode(error.args), type=list[Any])
        # A constructor may take other arguments than `args`, or keep facts elsewhere. A replay that differs from the
        # first error would mislead the caller, so the error is rebuilt once and compared.
        again = type(error)(*args)
        rebuilt = args == list(error.args) and str(again) == str(error) and _facts(again) == _facts(error)
    except Exception:  # noqa: BLE001 - a user's constructor may raise anything; then the error cannot be rebuilt
        rebuilt = False
    encoded = msgspec.json.encode(StoredError(name, args if rebuilt else None))
    if len(encoded) > SURELY_SMALL:
        encoded = msgspec.json.encode(StoredError(name, None))
    return SerializedResult(encoded.decode(), ERROR)


def _facts(error: Exception) -> dict[str, object]:
    """Read an error's attributes besides its arguments. Notes do not count, because they come after construction."""
    return {name: value for name, value in vars(error).items() if name != "__notes__"}


def decode(
    record: Record, codec: Codec, result_type: object = Any, store_errors: tuple[type[Exception], ...] = ()
) -> object:
    """Read a finished record's result, or raise the stored error.

    Raises:
        ResultUnavailableError: The result was not stored, or does not fit the type.
        IdempotencyError: The first call failed with an error that cannot be rebuilt here.
    """
    if record.data is None:
        return None
    match record.encoding:
        case None:
            text = record.data
        case "zlib":
            text = _decompressed(record, record.data)
        case "error":
            raise _rebuilt(record, record.data, store_errors)
        case "tombstone":
            raise ResultUnavailableError(record, "the result could not be stored when the call was executed")
        # A newer version of the library, in a rolling deployment, may write an encoding unknown here.
        case unknown:
            raise ResultUnavailableError(
                record, f"its encoding {unknown[:LONGEST_NAME]!r} is not known to this version"
            )
    try:
        return codec.decode(text, result_type)
    except SerializationError as error:
        raise ResultUnavailableError(record, str(error)) from error
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything
        # Without a cause, because the errors of codecs quote the stored result, and results must not reach logs.
        raise ResultUnavailableError(record, f"decoding it raised {type(error).__name__}") from None


def opened(record: Record, codec: Codec, *, tolerant: bool = False) -> Record:
    """Decode the result of a record for the caller. With `tolerant`, leave out an undecodable result."""
    if record.status is not Status.COMPLETED:
        return record
    try:
        return replace(record, result=decode(record, codec))
    except IdempotencyError:
        if tolerant:
            return record
        raise


def _decompressed(record: Record, data: str) -> str:
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(base64.b64decode(data), LARGEST_TEXT + 1)
        text = "" if len(plain) > LARGEST_TEXT else plain.decode()
    except (ValueError, zlib.error):
        # Without a cause: the error of Python holds the data.
        raise ResultUnavailableError(record, "its compressed data is damaged") from None
    if len(plain) > LARGEST_TEXT:
        raise ResultUnavailableError(record, f"its compressed data holds more than {LARGEST_TEXT // 2**20} MiB")
    if not stream.eof:
        raise ResultUnavailableError(record, "its compressed data is damaged")
    return text


def _rebuilt(record: Record, data: str, store_errors: tuple[type[Exception], ...]) -> Exception:
    """Rebuild the first call's error, if its class is among the stored ones."""
    try:
        stored = msgspec.json.decode(data, type=StoredError)
    except (ValueError, RecursionError):
        return ResultUnavailableError(record, "its stored error is damaged")
    # Only a class listed by the caller is rebuilt. An import by a stored name would let the table's text choose code to
    # run.
    known = {qualified_name(kind): kind for kind in _with_subclasses(store_errors)}
    if stored.args is not None and stored.type in known:
        with suppress(Exception):  # if the class has changed since, the error below names the class
            return known[stored.type](*stored.args)
    return IdempotencyError(f"{record.key} was executed before, and failed with {stored.type[:LONGEST_NAME]}")


def _with_subclasses(kinds: tuple[type[Exception], ...]) -> list[type[Exception]]:
    return [each for kind in kinds for each in (kind, *_with_subclasses(tuple(kind.__subclasses__())))]
