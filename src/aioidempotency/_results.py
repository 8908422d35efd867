"""Results and errors in their stored form.

A result that cannot be stored must not lead to a second execution. The record then becomes a tombstone, which says
only that the call was executed.
"""

import base64
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, final

import msgspec
from msgspec.structs import replace

from aioidempotency._annotations import Promise
from aioidempotency._attributes import LARGEST_ITEM
from aioidempotency._comparison import Difference, attributes_of, difference
from aioidempotency._core import model
from aioidempotency._core.model import Lease, Record, SerializedResult, Status
from aioidempotency._namespaces import class_name
from aioidempotency._options import Settings
from aioidempotency._result_types import ResultType
from aioidempotency.events import Event, ResultDiffers, ResultDropped
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


Upgrade = Callable[[Any], object]
"""Turns the decoded JSON of an old result into a result of the present type."""


@final
class Unstorable(msgspec.Struct, frozen=True):
    """A result that no codec shall write, for the given reason: the record becomes a tombstone."""

    reason: str


class StoredError(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error in its stored form.

    Attributes:
        type: The name of the class.
        args: The arguments; None if the error cannot be rebuilt from JSON.
        state: The attributes to set, by name; None if the constructor sets them.
        made: Whether to call the constructor. Otherwise the error is made without it, as by `pickle`.
    """

    type: str
    args: list[Any] | None
    state: dict[str, Any] | None = None
    made: bool = True

    # The arguments of an error are the caller's data.
    def __repr__(self) -> str:
        return f"<StoredError {self.type}>"


def serialize(
    result: object, lease: Lease, settings: Settings, expected: ResultType, report: Callable[[Event], object]
) -> SerializedResult:
    """Write a result in its stored form, unless a replay would be another value. Report a difference in class.

    Raises:
        SerializationError: The codec cannot write the result, the result is too large, or would not come back equal.
    """
    text = settings.codec.encode(result)
    if not isinstance(text, str):
        raise SerializationError("the result", f"{type(text).__name__}, given by the codec", "let codec= give a text")
    kind, result_class = type(result), None
    # In line, because nearly all results are simple, and every call passes here.
    if kind not in expected.exact:
        if isinstance(result, Unstorable):
            report(ResultDropped(lease.key, result.reason))
            return TOMBSTONE
        members = expected.members.get(kind)
        if kind is dict:
            sure = members is not None
            if members is not None:  # a loop, since most have few members, and sets of types cost as much as ten
                for name, member in result.items():  # type: ignore[attr-defined]
                    if type(name) is not str or type(member) not in members:
                        sure = False
                        break
        else:
            sure = members is not None and {*map(type, result)} <= members  # type: ignore[call-overload]
        if not sure and expected.compares:
            result_class = _compared(result, text, lease, settings, expected=expected, report=report)
    # Measuring an item costs more than a comparison, and nearly all results are small.
    limit = settings.compress_over
    if len(text) < SURELY_SMALL and (limit is None or len(text) <= limit) and text.isascii():
        return SerializedResult(text, None, result_class)
    return _stored(text, lease, limit, result_class)


def _compared(
    result: object,
    text: str,
    lease: Lease,
    settings: Settings,
    *,
    expected: ResultType,
    report: Callable[[Event], object],
) -> str | None:
    """Read a written result back, and find the class to store beside it.

    Raises:
        SerializationError: A replay would be another value, or none.
    """
    trouble: SerializationError | None = None
    for name in expected.names(result):
        try:
            found = expected.compare(result, text, name)
        except SerializationError as error:
            trouble = trouble or error
            continue
        if found is None or found.kind != "value":
            if found is not None and expected.reports(found):
                _tell(found, lease, settings, report)
            return name
        trouble = _would_differ(found)
    raise trouble or _not_read_back(result)


def _tell(found: Difference, lease: Lease, settings: Settings, report: Callable[[Event], object]) -> None:
    """Report that a replay will differ in class; or raise, if the store is strict."""
    advice = "annotate the function with the type of its result" if found.kind == "untold" else "let the two agree"
    if settings.strict_results:
        raise SerializationError("a replay", f"{found.where} as it is ({found.change})", advice)
    report(ResultDiffers(lease.key, found.where, f"{found.change}; {advice}"))


def _would_differ(found: Difference) -> SerializationError:
    if found.fields:
        advice = "name each class in the annotation, and give the members of a union a tag"
    else:
        advice = "let the annotation and the result agree, and see `__post_init__`, converters and excluded fields"
    return SerializationError("a replay", f"{found.where} as it is ({found.change})", advice)


def _not_read_back(result: object) -> SerializationError:
    return SerializationError("the result", type(result).__name__, "return what the annotation says")


def tombstone(
    error: Exception, lease: Lease, settings: Settings, report: Callable[[Event], object]
) -> SerializedResult:
    """Report that a result cannot be stored, and return a tombstone in its place.

    Raises:
        SerializationError: The store is strict.
    """
    # A codec or a model may raise anything, and the message may quote the result.
    reason = str(error) if isinstance(error, SerializationError) else f"encoding it raised {type(error).__name__}"
    if settings.strict_results:
        raise error if isinstance(error, SerializationError) else SerializationError("the result", reason, "see above")
    report(ResultDropped(lease.key, reason))
    return TOMBSTONE


def _stored(text: str, lease: Lease, compress_over: int | None, result_class: str | None) -> SerializedResult:
    """Make the stored form of a text, compressed if the text has more than `compress_over` characters."""
    encoded = SerializedResult(text, None, result_class)
    if compress_over is not None and len(text) > compress_over:
        plain = _bytes_of(text)
        # Replays would refuse to unpack the text.
        if len(plain) > LARGEST_TEXT:
            advice = f"the most is {LARGEST_TEXT} bytes; return a reference to the result instead"
            raise SerializationError("the result", f"a text of {len(plain)} bytes", advice)
        encoded = SerializedResult(base64.b64encode(zlib.compress(plain)).decode(), ZLIB, result_class)
    elif not text.isascii():
        _bytes_of(text)
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


def serialize_error(error: Exception) -> SerializedResult:
    """Write an error for replays. An error that cannot be rebuilt is stored by name."""
    name = class_name(type(error))
    for candidate in _forms(error, name):
        # A replay that differs from the first error would mislead the caller, so the error is rebuilt once and
        # compared.
        try:
            encoded = msgspec.json.encode(candidate)
            again = _made(type(error), msgspec.json.decode(encoded, type=StoredError))
            alike = _alike(error, again)
        except Exception:  # noqa: BLE001, S112 - a user's constructor may raise anything
            continue
        if alike and len(encoded) <= SURELY_SMALL:
            return SerializedResult(encoded.decode(), ERROR)
    return SerializedResult(msgspec.json.encode(StoredError(name, None)).decode(), ERROR)


def _forms(error: Exception, name: str) -> Iterator[StoredError]:
    """List the forms in which an error may be stored, the plainest first."""
    state = _facts(error)
    yield StoredError(name, list(error.args))
    # The arguments of the constructor, as `pickle` would find them. Another function than the class would have to be
    # looked up by a stored name.
    with suppress(Exception):  # the method is the user's
        reduced = error.__reduce__()
        if isinstance(reduced, tuple) and reduced[0] is type(error):
            yield StoredError(name, list(reduced[1]), state or None)
    # `HTTPException(status_code=402)` keeps its facts as attributes, and has no arguments to repeat.
    yield StoredError(name, list(error.args), state, made=False)


def _made(kind: type[Exception], stored: StoredError) -> Exception:
    """Rebuild an error from its stored form."""
    args = stored.args or []
    if stored.made:
        error = kind(*args)
    else:
        error = kind.__new__(kind, *args)
        error.args = tuple(args)
    for name, value in (stored.state or {}).items():
        object.__setattr__(error, name, value)  # as `pickle` does; a frozen class refuses `setattr`
    return error


def _alike(error: Exception, again: Exception) -> bool:
    """Compare an error with its rebuilt form: class, text, arguments and attributes."""
    if type(again) is not type(error) or str(again) != str(error):
        return False
    before, after = ({"args": list(each.args), **_facts(each)} for each in (error, again))
    found = difference(before, after, Promise(()))
    # `HTTPStatus.NOT_FOUND` comes back as 404, which is as good.
    return found is None or (found.kind == "class" and found.scalar)


def _facts(error: Exception) -> dict[str, object]:
    """Read an error's attributes besides its arguments. Notes do not count, because they come after construction."""
    return {name: getattr(error, name) for name in attributes_of(error) if name != "__notes__"}


def decode(
    record: Record,
    expected: ResultType,
    store_errors: tuple[type[Exception], ...] = (),
    upgrade: Upgrade | None = None,
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
        return expected.read(text, record.result_class)
    except SerializationError as error:
        if upgrade is not None:
            return _upgraded(record, text, expected, upgrade)
        raise ResultUnavailableError(record, str(error)) from error
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - a codec or a model may raise anything
        # Without a cause, because the errors of codecs quote the stored result, and results must not reach logs.
        raise ResultUnavailableError(record, f"decoding it raised {type(error).__name__}") from None


def _upgraded(record: Record, text: str, expected: ResultType, upgrade: Upgrade) -> object:
    """Let the caller turn an old result into one of the present type."""
    try:
        return expected.converted(upgrade(expected.as_json(text)))
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        # Without a cause, because the message of a user's error may quote the result.
        raise ResultUnavailableError(record, f"upgrading it raised {type(error).__name__}") from None


def opened(record: Record, expected: ResultType, *, tolerant: bool = False) -> Record:
    """Decode the result of a record for the caller. With `tolerant`, leave out an undecodable result."""
    if record.status is not Status.COMPLETED:
        return record
    try:
        return replace(record, result=decode(record, expected))
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
    known = {class_name(kind): kind for kind in _with_subclasses(store_errors)}
    if stored.args is not None and stored.type in known:
        with suppress(Exception):  # if the class has changed since, the error below names the class
            return _made(known[stored.type], stored)
    return IdempotencyError(f"{record.key} was executed before, and failed with {stored.type[:LONGEST_NAME]}")


def _with_subclasses(kinds: tuple[type[Exception], ...]) -> list[type[Exception]]:
    return [each for kind in kinds for each in (kind, *_with_subclasses(tuple(kind.__subclasses__())))]
