"""The key of a record: canonical JSON of the key material, and a digest.

1. Equal material has one key, and different material has different keys. The canonical form is that of Powertools for
   Python (sorted keys, ASCII escapes, default separators), so `1`, `1.0`, `true` and `"1"` have four different keys.
2. The digest is SHA-256. With a hash that can be collided, one tenant could get another tenant's answer.
3. A value without a canonical form is refused. Text such as `<Order object at 0x7f...>` would differ at each call.
"""

import dataclasses
import hashlib
import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _escaped
from pathlib import PurePath
from typing import Any, cast

import msgspec

from aioidempotency.exceptions import ConfigurationError, MissingKeyError, SerializationError

LONGEST_NAMESPACE = 400
"""Bytes of one namespace. Two namespaces and a digest fit in a sort key, 1,024 bytes."""

_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False)

NATIVE = frozenset({str, int, float, bool, type(None)})
"""The types of JSON's own scalars. Subclasses may be read otherwise."""

_TEXT = frozenset({str})

_MASKED = re.compile("[*•●]{3,}")

_BYTES = (bytes, bytearray, memoryview)
_SETS = (set, frozenset)
_REFUSED = (*_BYTES, *_SETS)
_ADVICE = ((_BYTES, "decode them, or take a digest of them"), (_SETS, "it has no order; sort it into a list"))
_SECRET = "get_secret_value"  # noqa: S105 - the method by which a pydantic secret is known
_SELECT = "select the fields that make the key, with key="


def canonical(material: object, *, subject: str = "the key material") -> bytes:
    """Write key material as bytes, equal for equal requests.

    Raises:
        SerializationError: The material contains bytes, a set, NaN, a number of thousands of digits, a masked secret,
            or an object of an unknown type.
    """
    try:
        return _ENCODER.encode(_checked(material, subject)).encode()
    except ValueError:  # all that is left: Python writes no longer ones
        raise SerializationError(subject, "an integer of over 4,300 digits", "take a digest of the number") from None
    except RecursionError:
        raise SerializationError(subject, "itself, or too many levels", "select the part that is the key") from None


def digest(material: object, *, subject: str = "the key material") -> str:
    """Digest key material: hex SHA-256 of the canonical form."""
    # The common keys are a text, or arguments that are texts. For these, the encoder of `canonical` would write the same,
    # by a longer way.
    text = None
    if type(material) is str:
        text = _escaped(material)
    elif type(material) is dict and (len(material) == 1 or {*map(type, material)} == _TEXT):
        members = []
        for name in sorted(material):
            member = material[name]
            if type(member) is not str or type(name) is not str:
                break
            members.append(f"{_escaped(name)}: {_escaped(member)}")
        else:
            text = f"{{{', '.join(members)}}}"
    encoded = canonical(material, subject=subject) if text is None else text.encode()
    return hashlib.sha256(encoded).hexdigest()


def record_key(material: object, store_namespace: str, namespace: str) -> str:
    """Make a record's key, `namespace#digest`. The store's own namespace comes first.

    Raises:
        MissingKeyError: The material is None or empty.
        ConfigurationError: The namespace cannot be part of a key.
        SerializationError: The material has no canonical form.
    """
    # The common key is a text, or arguments of which the first is given, and needs no closer look.
    kind = type(material)
    if kind is str:
        missing = not material
    elif kind is dict and material and next(iter(material.values())) is not None:  # type: ignore[attr-defined]
        missing = False
    else:
        missing = is_missing(material)
    if missing:
        raise MissingKeyError(f"the key of {namespace}" if namespace else "the key")
    if not isinstance(namespace, str):
        check_namespace(namespace)
    return _prefix(store_namespace, namespace) + digest(material)


def check_namespace(namespace: str) -> None:
    """Require a namespace that keeps functions apart, and fits in DynamoDB's longest key.

    Raises:
        ConfigurationError: The namespace is no text, contains `#`, or is too long.
    """
    # A lone surrogate has no UTF-8 form, so no request could contain the key.
    if not isinstance(namespace, str) or "#" in namespace or any("\ud800" <= char <= "\udfff" for char in namespace):
        raise ConfigurationError(f"a namespace is a text without '#', the end mark of a namespace: not {namespace!r}")
    if len(namespace.encode(errors="replace")) > LONGEST_NAMESPACE:
        raise ConfigurationError(
            f"a namespace has {LONGEST_NAMESPACE} bytes at most, and {namespace[:40]!r}... has more; give a shorter one"
        )


@lru_cache(maxsize=1024)  # each call of a function has the same; of a refusal, nothing is kept
def _prefix(store_namespace: str, namespace: str) -> str:
    check_namespace(namespace)
    return "#".join(filter(None, (store_namespace, namespace))) + "#"


def is_missing(material: object) -> bool:
    """Tell whether material is no key: None, an empty text or container, or a container of None alone."""
    match opened(material):
        case None | "":
            return True
        case dict() as members:
            return all(value is None for value in members.values())
        case list() | tuple() as members:
            return all(value is None for value in members)
        case _:
            return False


class Unknown:
    """A value of a type without a canonical form. An expression may still select a part of the value.

    A mock or a proxy claims by its `__class__` to be a text. So types are read with `type`, and other values travel
    inside this class, where no `isinstance` mistakes a mock for a text.
    """

    __slots__ = ("inner",)

    def __init__(self, inner: object) -> None:
        self.inner = inner


def opened(value: object) -> object:
    """Turn one value of a known type into JSON's types. Members stay unchanged. Other values become `Unknown`.

    Raises:
        SerializationError: The value raises when read, or a pydantic model shows a masked secret.
    """
    kind = type(value)
    if kind in NATIVE:
        return value
    try:
        for known, convert in _CONVERSIONS:
            if issubclass(kind, known):
                return convert(value)
        names = None if issubclass(kind, type) else field_names(kind, pydantic=False)
        if names is not None:
            return {name: getattr(value, name) for name in names}
        return value if issubclass(kind, Unknown) else _opened_by_shape(value, kind)
    # `canonical` turns a recursion error into a refusal.
    except (SerializationError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - a user's property may raise anything
        # Without the user's error as cause, because its text may contain data.
        raised = f"a {kind.__name__} that raises {type(error).__name__} when it is read"
        raise SerializationError("the key material", raised, _SELECT) from None


def field_names(kind: Any, *, pydantic: bool = True) -> tuple[str, ...] | None:
    """List the fields of a class whose objects have no others. None for other kinds of classes."""
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    if hasattr(kind, "__attrs_attrs__"):
        return tuple(attribute.name for attribute in kind.__attrs_attrs__)
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if typing.is_typeddict(kind):
        return tuple(kind.__annotations__)
    # A model that allows extra fields has members that no list names.
    if pydantic and _is_model(kind) and getattr(kind, "model_config", {}).get("extra") != "allow":
        return tuple(kind.model_fields)
    return None


def _is_model(kind: Any) -> bool:
    return hasattr(kind, "model_dump") and isinstance(getattr(kind, "model_fields", None), dict)


def _opened_by_shape(value: Any, kind: type) -> object:
    """Open a pydantic object, a date, a time or a UUID. Other objects are unknown.

    The class is asked, not the object: an object with `__getattr__` answers every name.
    """
    # Before dates: a model may define `isoformat` for itself.
    if _is_model(kind):
        return _opened_model(value)
    if hasattr(kind, "isoformat"):
        return cast("object", value.isoformat())
    if issubclass(kind, (*_REFUSED, type)):
        return Unknown(value)
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return Unknown(value)


def _opened_model(model: Any) -> dict[str, object]:
    """Open a pydantic model field by field.

    The model's own dump would make different models alike, because a dump masks secrets and leaves out excluded fields.
    The dump serves only for types known to pydantic alone.
    """
    members = {name: getattr(model, name) for name in type(model).model_fields} | (model.model_extra or {})
    strange = {name for name, member in members.items() if _is_strange(member)}
    try:
        dumped = model.model_dump(mode="json", include=strange) if strange else {}
    except ValueError:  # not even pydantic can dump them; the key is refused by their types
        dumped = {}
    for name, shown in dumped.items():
        if _MASKED.search(json.dumps(shown, ensure_ascii=False)):
            masked = f"{type(members[name]).__name__}, which pydantic shows masked"
            raise SerializationError("the key material", masked, "two that differ would look alike; take a digest")
    return {**members, **dumped}


def _is_strange(value: object) -> bool:
    """Tell whether a value may be known to pydantic alone, and is no secret."""
    kind = type(value)
    return isinstance(opened(value), Unknown) and not issubclass(kind, _REFUSED) and not hasattr(kind, _SECRET)


def _checked(value: object, subject: str) -> object:
    """Open a value and all members. Refuse a value without a canonical form."""
    shown = opened(value)
    match shown:
        case float():
            if not math.isfinite(shown):
                advice = "neither equals itself in JSON; leave it out"
                raise SerializationError(subject, "NaN or an infinity", advice)
            return shown
        case None | str() | bool() | int():
            return shown
        case dict():
            checked = {_name(name, subject): _checked(member, subject) for name, member in shown.items()}
            # `{Color.RED: ..., "red": ...}` has two members and one JSON name, so two requests would look alike.
            if len(checked) < len(shown):
                raise SerializationError(subject, "a mapping with one name twice", "make its keys texts that differ")
            return checked
        case list() | tuple():
            return [_checked(member, subject) for member in shown]
        case _:
            unknown = shown.inner if isinstance(shown, Unknown) else shown
            advice = next((advice for kinds, advice in _ADVICE if isinstance(unknown, kinds)), _SELECT)
            raise SerializationError(subject, type(unknown).__name__, advice)


def _name(name: object, subject: str) -> str:
    shown = opened(name)
    if not isinstance(shown, str):
        raise SerializationError(subject, f"a mapping with {type(name).__name__} keys", "make its keys texts")
    return shown


_CONVERSIONS: tuple[tuple[type | tuple[type, ...], Callable[[Any], object]], ...] = (
    # The first match counts: an `IntEnum` is an `int`, too.
    (Enum, lambda value: opened(value.value)),
    ((str, bool, int, float, list, tuple, dict), lambda value: value),
    ((Decimal, PurePath), str),
    (msgspec.Struct, msgspec.structs.asdict),
    (Mapping, dict),
)
