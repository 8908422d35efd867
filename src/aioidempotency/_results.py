"""Results as they are stored, and errors that are results.

A result that cannot be stored must not lead to a second execution: its record becomes a tombstone,
which says that the key was executed, and nothing more.
"""

import base64
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

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
"""What stands for a result that could not be stored."""

ZLIB = "zlib"
ERROR = "error"

SURELY_SMALL = 90_000
"""Characters, four bytes each at the most, that fit into an item together with any key and fingerprint."""


class StoredError(msgspec.Struct, frozen=True):
    """An error as it is stored: its class by name, and its arguments where JSON can carry them."""

    type: str
    args: list[Any] | None


def encode(result: object, lease: Lease, codec: Codec, *, compress_over: int | None) -> SerializedResult:
    """Write a result; compress it when its text has more than `compress_over` characters.

    Raises:
        SerializationError: The codec cannot write it, or its item would be too large.
    """
    text = codec.encode(result)
    encoded = SerializedResult(text)
    if compress_over is not None and len(text) > compress_over:
        encoded = SerializedResult(base64.b64encode(zlib.compress(text.encode())).decode(), ZLIB)
    if len(encoded.data) < SURELY_SMALL:
        return encoded
    size = model.size(model.finished(lease, encoded, expiration=lease.expiration))
    if size > LARGEST_ITEM:
        advice = f"DynamoDB takes {LARGEST_ITEM}; return a reference to it instead"
        raise SerializationError("the record", f"an item of {size} bytes", advice)
    return encoded


def serialize_or_tombstone(
    result: object, lease: Lease, settings: Settings, report: Callable[[Event], object]
) -> SerializedResult:
    """Write a result as it is stored; a tombstone, with an event, where it cannot be."""
    try:
        return encode(result, lease, settings.codec, compress_over=settings.compress_over)
    except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything, and the body has run
        said = str(error) if isinstance(error, SerializationError) else f"encoding it raised {type(error).__name__}"
        report(ResultDropped(lease.key, said))
        return TOMBSTONE


def serialize_error(error: Exception) -> SerializedResult:
    """Write an error that is to be replayed; one that cannot be rebuilt is stored by name only."""
    name = qualified_name(type(error))
    args: list[Any] = []
    rebuilt = False
    try:
        args = msgspec.json.decode(msgspec.json.encode(error.args), type=list[Any])
        again = type(error)(*args)
        rebuilt = args == list(error.args) and str(again) == str(error) and _facts(again) == _facts(error)
    except Exception:  # noqa: BLE001 - whatever a user's constructor raises, it cannot be rebuilt
        rebuilt = False
    encoded = msgspec.json.encode(StoredError(name, args if rebuilt else None))
    if len(encoded) > SURELY_SMALL:
        encoded = msgspec.json.encode(StoredError(name, None))
    return SerializedResult(encoded.decode(), ERROR)


def _facts(error: Exception) -> dict[str, object]:
    """Read what an error keeps besides its arguments; notes are added after it is made."""
    return {name: value for name, value in vars(error).items() if name != "__notes__"}


def decode(
    record: Record, codec: Codec, result_type: object = Any, store_errors: tuple[type[Exception], ...] = ()
) -> object:
    """Read a finished record's result, or raise the error that is its result.

    Raises:
        ResultUnavailableError: It was not stored, or does not fit the type.
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
            raise ResultUnavailableError(record, "it could not be stored when the call was executed")
        case unknown:
            raise ResultUnavailableError(record, f"its encoding {unknown!r} is not known to this version")
    try:
        return codec.decode(text, result_type)
    except SerializationError as error:
        raise ResultUnavailableError(record, str(error)) from error
    except ConfigurationError:
        raise
    except Exception as error:
        raise ResultUnavailableError(record, f"decoding it raised {type(error).__name__}") from error


def opened(record: Record, codec: Codec, *, tolerant: bool = False) -> Record:
    """Decode the result of a record that is handed out; `tolerant` leaves out one that cannot be decoded."""
    if record.status is not Status.COMPLETED:
        return record
    try:
        return replace(record, result=decode(record, codec))
    except IdempotencyError:
        if tolerant:
            return record
        raise


def _decompressed(record: Record, data: str) -> str:
    try:
        return zlib.decompress(base64.b64decode(data)).decode()
    except (ValueError, zlib.error) as error:
        raise ResultUnavailableError(record, "its compressed data is damaged") from error


def _rebuilt(record: Record, data: str, store_errors: tuple[type[Exception], ...]) -> Exception:
    """Make the first call's error again, if its class is among those that are stored."""
    try:
        stored = msgspec.json.decode(data, type=StoredError)
    except msgspec.DecodeError:
        return ResultUnavailableError(record, "its stored error is damaged")
    known = {qualified_name(kind): kind for kind in _with_subclasses(store_errors)}
    if stored.args is not None and stored.type in known:
        with suppress(Exception):  # the class has changed since, and is named instead
            return known[stored.type](*stored.args)
    return IdempotencyError(f"{record.key} was executed before, and failed with {stored.type}")


def _with_subclasses(kinds: tuple[type[Exception], ...]) -> list[type[Exception]]:
    return [each for kind in kinds for each in (kind, *_with_subclasses(tuple(kind.__subclasses__())))]
