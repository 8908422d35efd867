"""Codecs write results as text, and read texts as the type that the caller expects."""

import inspect
import json
import types
from collections import defaultdict, deque
from collections.abc import Callable
from functools import lru_cache
from pathlib import PurePath
from typing import Any, Final, Protocol, cast, final, get_args, get_origin

import msgspec

from aioidempotency._annotations import REBUILDABLE, Promise, is_pydantic, unreadable
from aioidempotency._comparison import difference
from aioidempotency.exceptions import ConfigurationError, SerializationError

Decode = Callable[[bytes], object]

_ADVICE = "return a value that JSON can hold, or give another codec="

_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    ((PurePath, str), str),
    (int, int),
    (float, float),
    (deque, list),
)
"""Types that msgspec refuses to write, subclasses of plain types included, and their writers."""


class Codec(Protocol):
    """Writes results as text, and reads them. Give a store a codec of your own with `codec=`.

    ```python
    import json
    from typing import Any

    from aioidempotency import AsyncIdempotencyStore, SerializationError


    class PlainJson:
        def encode(self, result: object) -> str:
            try:
                return json.dumps(result)
            except TypeError:
                raise SerializationError("the result", type(result).__name__, "return plain JSON") from None

        def decode(self, text: str, result_type: Any) -> object:
            return json.loads(text)


    store = AsyncIdempotencyStore.in_memory(codec=PlainJson())
    ```
    """

    def encode(self, result: object) -> str:
        """Write a result.

        Raises:
            SerializationError: The result cannot be written.
        """
        ...

    def decode(self, text: str, result_type: object) -> object:
        """Read the text from `encode` as `result_type`. `typing.Any` asks for no conversion.

        Raises:
            SerializationError: The text does not fit the type.
        """
        ...


@final
class JsonCodec:
    """Results as JSON, read by msgspec, or by pydantic if the type contains a pydantic model.

    ```python
    from dataclasses import dataclass

    from aioidempotency import JsonCodec


    @dataclass
    class Receipt:
        number: int


    codec = JsonCodec()
    assert codec.encode(Receipt(7)) == '{"number":7}'
    assert codec.decode('{"number":7}', Receipt) == Receipt(7)
    ```

    Pydantic models are written and read by the names of their fields, never by aliases. Pydantic models need
    pydantic 2.11 or later.
    """

    def encode(self, result: object) -> str:
        """Write a result as JSON.

        Raises:
            SerializationError: The result contains a value that JSON cannot hold.
        """
        try:
            encoded = _encode(result)
            # msgspec writes NaN as null. A search for "null" costs little, and only such results are converted again.
            if b"null" in encoded:
                _refuse_nan(result)
        except (TypeError, ValueError, OverflowError, RecursionError):
            # No cause: the exceptions of msgspec and pydantic quote the result, and results must not reach logs.
            raise _unwritable(result) from None
        return encoded.decode()

    def decode(self, text: str, result_type: object) -> object:
        """Read JSON as `result_type`. Text that is no JSON is read as a string.

        Raises:
            ConfigurationError: No value of the type can be read from JSON.
            SerializationError: The text does not fit the type.
        """
        decode = self.decoder(result_type)
        try:
            return decode(text.encode())
        except (ValueError, TypeError, RecursionError):
            if result_type is str:
                return text
            if not _is_json(text):
                return self.decode(json.dumps(text), result_type)
            # Raised without a cause, because the exceptions of msgspec and pydantic may quote the stored result.
            name = getattr(result_type, "__name__", str(result_type))
            raise SerializationError(
                "the stored result", f"a value of another type than {name}", "was the return type changed?"
            ) from None

    def decoder(self, result_type: object) -> Decode:
        """Make the function that reads one type.

        Raises:
            ConfigurationError: No value of the type can be read from JSON.
        """
        try:
            return _decoder(result_type)
        except (TypeError, AttributeError, NameError, RuntimeError) as error:  # pydantic's own are `RuntimeError`s
            raise ConfigurationError(
                f"a result of type {result_type} cannot be read back from JSON: {error}; "
                "give the decorator a result_type= that can be read back, or give the store another codec="
            ) from error

    def __repr__(self) -> str:
        return "JsonCodec()"


def _is_json(text: str) -> bool:
    """Tell JSON from other text: Powertools for Java stores a String as plain text."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1024)
def _decoder(result_type: Any) -> Decode:
    trouble = unreadable(result_type)
    if trouble is not None:
        raise TypeError(trouble)
    if mentions_pydantic(result_type):
        from pydantic import TypeAdapter  # noqa: PLC0415 - the user's dependency, not ours

        adapter = TypeAdapter(result_type)
        return lambda encoded: adapter.validate_json(encoded, by_alias=False, by_name=True)
    return msgspec.json.Decoder(result_type, dec_hook=_decode_other).decode


def mentions_pydantic(result_type: object) -> bool:
    """Tell whether pydantic reads a type, because the type names a pydantic model."""
    return is_pydantic(result_type) or any(mentions_pydantic(part) for part in get_args(result_type))


def _encode_other(value: Any) -> object:
    """Write a value of a type unknown to msgspec."""
    if is_pydantic(type(value)) and hasattr(value, "model_dump"):
        return _dumped(value)
    for kinds, write in _WRITERS:
        if isinstance(value, kinds):
            return write(value)
    raise _unwritable(value)


_encode: Final = msgspec.json.Encoder(enc_hook=_encode_other).encode


def _decode_other(expected: Any, value: Any) -> object:
    """Read a value of a type unknown to msgspec: a path, or a pydantic model inside a dataclass."""
    if expected is object:
        return value
    if is_pydantic(expected):
        return _decoder(expected)(msgspec.json.encode(value))
    kind, arguments = get_origin(expected) or expected, get_args(expected)
    if inspect.isabstract(kind) and len(arguments) <= 1:
        return msgspec.convert(value, list[arguments] if arguments else list, dec_hook=_decode_other)  # type: ignore[valid-type]
    if arguments and issubclass(kind, dict | list | set | frozenset | deque):
        value = msgspec.convert(value, _plain(kind, arguments), dec_hook=_decode_other, str_keys=True)
    if issubclass(kind, defaultdict):
        return kind(None, value)
    if issubclass(kind, REBUILDABLE):
        return kind(value)
    raise ValueError(f"no way to read a {kind.__name__}")


def _plain(kind: Any, arguments: tuple[Any, ...]) -> Any:
    """Name the plain container with the members of a subclass: `dict[str, int]` for `Counter[str]`."""
    if issubclass(kind, dict):
        return types.GenericAlias(dict, arguments if len(arguments) > 1 else (*arguments, int))
    return types.GenericAlias(list, arguments)


def _dumped(model: Any) -> object:
    """Write a pydantic model that can be read back equal. Secrets and excluded fields cannot."""
    # By field names: an alias for writing may differ from the alias for reading.
    # Without warnings, because the warnings of pydantic quote the model.
    dumped = model.model_dump(mode="json", by_alias=False, round_trip=True, warnings=False)
    decode: Decode = _decoder(cast("Any", type(model)))
    # A secret is written as asterisks, and an excluded field not at all: the replay would differ without an error.
    found = difference(model, decode(msgspec.json.encode(dumped)), Promise.of(type(model)))
    if found is not None and found.kind == "value":
        raise SerializationError("a replay", f"{found.where} as it is ({found.change})", _ADVICE)
    return cast("object", dumped)


def _refuse_nan(result: object) -> None:
    """Refuse NaN and infinities. msgspec writes both as null, without an error."""
    json.dumps(msgspec.to_builtins(result, str_keys=True, enc_hook=_encode_other), allow_nan=False)


def _unwritable(value: object) -> SerializationError:
    return SerializationError("the result", type(value).__name__, _ADVICE)
