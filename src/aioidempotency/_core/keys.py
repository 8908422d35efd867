"""What makes two calls the same call: canonical JSON, its digest, and where the key is found.

The canonical form is that of Powertools for Python (sorted keys, ASCII escapes, default separators),
so `1`, `1.0`, `true` and `"1"` are four different keys. The digest is SHA-256: with a hash that can
be collided, one tenant could be handed another's answer.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

import jmespath
import jmespath.exceptions
import jmespath.functions
import msgspec

from aioidempotency.exceptions import ConfigurationError, SerializationError

Select = Callable[[Mapping[str, object]], object]
"""Finds the key material in the arguments, by name."""

_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False)

_NATIVE = frozenset({str, int, float, bool, type(None)})

_BYTES = (bytes, bytearray, memoryview)
_SETS = (set, frozenset)
_REFUSED = (*_BYTES, *_SETS)
_ADVICE = ((_BYTES, "decode them, or take a digest of them"), (_SETS, "it has no order; sort it into a list"))
_SECRET = "get_secret_value"  # noqa: S105 - the method by which a pydantic secret is known
_SELECT = "select the fields that make the key, with key="


def canonical(material: object, *, subject: str = "the key material") -> bytes:
    """Write key material so that equal requests give equal bytes.

    Raises:
        SerializationError: The material holds bytes, a set, NaN, or an object of an unknown type.
    """
    try:
        return _ENCODER.encode(_checked(material, subject)).encode()
    except ValueError:
        raise SerializationError(subject, "NaN or an infinity", "neither equals itself in JSON; leave it out") from None
    except RecursionError:
        raise SerializationError(subject, "itself, or too many levels", "select the part that is the key") from None


def digest(material: object, *, subject: str = "the key material") -> str:
    """Digest key material: hex SHA-256 of its canonical form."""
    return hashlib.sha256(canonical(material, subject=subject)).hexdigest()


def is_missing(material: object) -> bool:
    """Tell whether material is no key: None, an empty text or container, or one of nothing but None."""
    opened = _opened(material)
    match opened:
        case None | "":
            return True
        case dict():
            return all(value is None for value in opened.values())
        case list() | tuple():
            return all(value is None for value in opened)
        case _:
            return False


def selector(expression: str) -> Select:
    """Compile a JMESPath expression over the arguments.

    Raises:
        ConfigurationError: The expression is not JMESPath.
    """
    try:
        compiled = jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise ConfigurationError(f"{expression!r} is not a JMESPath expression: {error}") from error

    def select(arguments: Mapping[str, object]) -> object:
        try:
            found = compiled.search(_plain(arguments), options=_OPTIONS)
        except (jmespath.exceptions.JMESPathError, ValueError, RecursionError, OSError, EOFError, zlib.error) as error:
            kind = type(error).__name__
            advice = f"{expression!r} could not be evaluated; check it against the arguments"
            raise SerializationError("the arguments", f"what makes JMESPath fail ({kind})", advice) from None
        return found.inner if isinstance(found, _Attributes) else found

    return select


def _opened(value: object) -> object:
    """Turn one value of a known type into what JSON has; its members stay as they are."""
    if type(value) in _NATIVE:
        return value
    for known, convert in _CONVERSIONS:
        if isinstance(value, known):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return value if isinstance(value, type) else _opened_by_shape(value)


def _opened_by_shape(value: Any) -> object:
    """Open an attrs or pydantic object, a date, a time, a UUID; anything else stays as it is."""
    if hasattr(value, "__attrs_attrs__"):
        return {attribute.name: getattr(value, attribute.name) for attribute in value.__attrs_attrs__}
    if hasattr(value, "model_dump"):
        return _opened_model(value)
    if hasattr(value, "isoformat"):
        return cast("object", value.isoformat())
    try:
        return value if isinstance(value, _REFUSED) else msgspec.to_builtins(value)
    except TypeError:
        return value


def _opened_model(model: Any) -> dict[str, object]:
    """Open a pydantic model field by field.

    Its own dump would make two models alike that are not: it masks secrets and leaves out excluded
    fields. It serves for the types that only pydantic knows.
    """
    members = {name: getattr(model, name) for name in type(model).model_fields} | (model.model_extra or {})
    strange = {name for name, member in members.items() if _is_strange(member)}
    try:
        dumped = model.model_dump(mode="json", include=strange) if strange else {}
    except ValueError:  # not even pydantic can dump them; the key is refused by their types
        dumped = {}
    return {**members, **dumped}


def _is_strange(value: object) -> bool:
    """Tell whether a value is one that pydantic alone may know, and no secret."""
    known = isinstance(value, (str, int, float, list, tuple, dict, type(None), *_REFUSED))
    return not known and _opened(value) is value and not hasattr(value, _SECRET)


def _plain(value: object) -> object:
    """Open a value and all its members for JMESPath."""
    opened = _opened(value)
    match opened:
        case dict():
            return {name: _plain(member) for name, member in opened.items()}
        case list() | tuple():
            return [_plain(member) for member in opened]
        case None | str() | int() | float():
            return opened
        case _:
            return _Attributes(opened)


class _Attributes:
    """An object of an unknown type as JMESPath sees it: by its attributes.

    JMESPath takes what it cannot look into for null, which would make two keys alike; so a name that
    the object does not have is an error.
    """

    def __init__(self, inner: object) -> None:
        self.inner = inner

    def get(self, name: str) -> object:
        """Read the attribute that an expression names."""
        try:
            return _plain(getattr(self.inner, name))
        except AttributeError:
            kind = type(self.inner).__name__
            advice = f"it has no {name!r}; correct the expression, or give a callable"
            raise SerializationError("what JMESPath looks into", kind, advice) from None

    def values(self) -> object:
        """Refuse to read all attributes."""
        raise SerializationError("what JMESPath looks into", type(self.inner).__name__, "name its fields")


def _checked(value: object, subject: str) -> object:
    """Open a value and all its members, and refuse what has no canonical form."""
    opened = _opened(value)
    match opened:
        case None | str() | bool() | int() | float():
            return opened
        case dict():
            checked = {_name(name, subject): _checked(member, subject) for name, member in opened.items()}
            if len(checked) < len(opened):
                raise SerializationError(subject, "a mapping with one name twice", "make its keys texts that differ")
            return checked
        case list() | tuple():
            return [_checked(member, subject) for member in opened]
        case _:
            unknown = opened.inner if isinstance(opened, _Attributes) else opened
            advice = next((advice for kinds, advice in _ADVICE if isinstance(unknown, kinds)), _SELECT)
            raise SerializationError(subject, type(unknown).__name__, advice)


def _name(name: object, subject: str) -> str:
    opened = _opened(name)
    if not isinstance(opened, str):
        raise SerializationError(subject, f"a mapping with {type(name).__name__} keys", "make its keys texts")
    return opened


_CONVERSIONS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    (Enum, lambda value: _opened(value.value)),
    ((str, bool, int, float, list, tuple, dict), lambda value: value),
    ((Decimal, PurePath), str),
    (msgspec.Struct, msgspec.structs.asdict),
    (Mapping, dict),
)


class _PowertoolsFunctions(jmespath.functions.Functions):
    """The three functions that Powertools adds to JMESPath, under their names."""

    @jmespath.functions.signature({"types": ["string"]})
    def _func_powertools_json(self, value: str) -> object:
        return json.loads(value)

    @jmespath.functions.signature({"types": ["string"]})
    def _func_powertools_base64(self, value: str) -> str:
        return base64.b64decode(value).decode()

    @jmespath.functions.signature({"types": ["string"]})
    def _func_powertools_base64_gzip(self, value: str) -> str:
        return gzip.decompress(base64.b64decode(value)).decode()


_OPTIONS = jmespath.Options(custom_functions=_PowertoolsFunctions())
