"""What makes two calls the same call: the key in their arguments, its canonical JSON, and the record's key.

The canonical form is that of Powertools for Python (sorted keys, ASCII escapes, default separators),
so `1`, `1.0`, `true` and `"1"` are four different keys. The digest is SHA-256: with a hash that can
be collided, one tenant could be handed another's answer.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from pathlib import PurePath
from typing import Any, cast

import jmespath
import jmespath.exceptions
import jmespath.functions
import msgspec

from aioidempotency.exceptions import ConfigurationError, MissingKeyError, SerializationError

LONGEST_NAMESPACE = 400
"""Bytes of one namespace: two of them and a digest fit into a sort key, which takes 1,024 bytes."""

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
    if type(material) is str:  # the common key: the encoder below would write the same, by a longer way
        return hashlib.sha256(encode_basestring_ascii(material).encode()).hexdigest()
    return hashlib.sha256(canonical(material, subject=subject)).hexdigest()


def record_key(material: object, store_namespace: str, namespace: str) -> str:
    """Make a record's key, `namespace#digest`; the store's own namespace comes first.

    Raises:
        MissingKeyError: The material is None or empty.
        ConfigurationError: The namespace cannot be part of a key.
        SerializationError: The material has no canonical form.
    """
    if not material if type(material) is str else is_missing(material):
        raise MissingKeyError(f"the key of {namespace}" if namespace else "the key")
    if not isinstance(namespace, str):
        check_namespace(namespace)
    return _prefix(store_namespace, namespace) + digest(material)


def check_namespace(namespace: str) -> None:
    """Refuse namespaces that could make two functions' keys alike, or a key longer than DynamoDB takes."""
    if not isinstance(namespace, str) or "#" in namespace or any("\ud800" <= char <= "\udfff" for char in namespace):
        raise ConfigurationError(f"a namespace is a text without '#', which ends it in a key: not {namespace!r}")
    if len(namespace.encode(errors="replace")) > LONGEST_NAMESPACE:
        raise ConfigurationError(
            f"a namespace has {LONGEST_NAMESPACE} bytes at the most: {namespace[:40]!r}... has more"
        )


@lru_cache(maxsize=1024)  # each call of a function has the same; of a refusal, nothing is kept
def _prefix(store_namespace: str, namespace: str) -> str:
    check_namespace(namespace)
    return "#".join(filter(None, (store_namespace, namespace))) + "#"


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
    if _DOTTED.fullmatch(expression):
        return _member_selector(expression)
    try:
        compiled = jmespath.compile(expression)
    except jmespath.exceptions.JMESPathError as error:
        raise ConfigurationError(f"{expression!r} is not a JMESPath expression: {error}") from error

    def select(arguments: Mapping[str, object]) -> object:
        try:
            found = compiled.search(_plain(arguments), options=_OPTIONS)
        except (jmespath.exceptions.JMESPathError, ValueError, RecursionError, OSError, EOFError, zlib.error) as error:
            raise _failed(expression, error) from None
        return found.inner if isinstance(found, _Attributes) else found

    return select


_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def _member_selector(expression: str) -> Select:
    """Make what `selector` makes, for names with dots between them: no interpreter, and only what they name is opened."""
    names = expression.split(".")

    def select(arguments: Mapping[str, object]) -> object:
        found: object = arguments
        for name in names:
            opened = found if type(found) is dict else _opened(found)
            match opened:
                case dict():
                    found = opened.get(name)
                case None | str() | int() | float() | list() | tuple():
                    return None  # as JMESPath has it: there is no such member
                case _:
                    found = _Attributes(opened).get(name)
        if type(found) in _NATIVE:
            return found
        try:
            plain = _plain(found)
        except RecursionError as error:
            raise _failed(expression, error) from None
        return plain.inner if isinstance(plain, _Attributes) else plain

    return select


def _failed(expression: str, error: Exception) -> SerializationError:
    """Say that an expression could not be evaluated; the error's own text may hold data."""
    advice = f"{expression!r} could not be evaluated; check it against the arguments"
    return SerializationError("the arguments", f"what makes JMESPath fail ({type(error).__name__})", advice)


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
