"""The type of a function's results: the class to store beside a result, and whether a replay will be equal.

A `ResultType` is made once for each function. Most results cost one comparison: `exact` and `members` tell which
results surely come back as they are. All others are read back once, before the record is written, and compared.
"""

import datetime as dt
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import NoneType
from typing import Annotated, Any, Final, final, get_args, get_origin
from uuid import UUID

from aioidempotency._annotations import Promise, alternatives, has_fields, is_pydantic, runtime_class, says_nothing
from aioidempotency._comparison import Difference, difference
from aioidempotency._namespaces import class_name
from aioidempotency.codecs import Codec, JsonCodec, mentions_pydantic
from aioidempotency.exceptions import ConfigurationError, SerializationError

COMPARED: Final = 3
"""How many results are compared where the annotation says nothing. Their differences are faults of the annotation."""

PLAIN: Final[frozenset[type]] = frozenset({str, int, float, bool, NoneType})
"""The classes that JSON has. NaN is refused when a result is written."""

_SURE: Final[frozenset[type]] = PLAIN | {bytes, UUID, dt.date, dt.timedelta}
"""The classes whose instances come back equal from JSON, if the annotation names the class."""

_CONTAINERS: Final = (list, tuple, set, frozenset)


@final
class ResultType:
    """The type of one function's results.

    Attributes:
        annotation: The return annotation.
        exact: Results of exactly these classes come back as they are.
        members: For a class of containers, the classes of members with which a container comes back as it is.
        says_nothing: Whether the annotation says nothing of a result, so that a replay is plain JSON.
    """

    __slots__ = (
        "_classes",
        "_codec",
        "_left",
        "_promise",
        "_reported",
        "annotation",
        "exact",
        "members",
        "says_nothing",
    )
    exact: frozenset[type]
    members: Mapping[type, frozenset[type]]

    def __init__(self, annotation: object, codec: Codec) -> None:
        """Read an annotation.

        Raises:
            ConfigurationError: No value of the annotation can be read back.
        """
        self.annotation = annotation
        self.says_nothing = says_nothing(annotation)
        self.exact, self.members = frozenset(), {}
        self._codec = codec
        self._promise = Promise.of(annotation)
        self._left = COMPARED
        self._reported = False
        self._classes = _Classes(annotation, codec)
        # Another codec may change any value.
        if isinstance(codec, JsonCodec) and not self._classes.always:
            self.exact, self.members = _sure(annotation)

    def read(self, text: str, result_class: str | None) -> object:
        """Read a stored text.

        Raises:
            SerializationError: The text does not fit the type, or the class is unknown.
        """
        # The codec keeps its readers by type, so the members of a union need none of their own here.
        if result_class is None or self.says_nothing:
            return self._codec.decode(text, self.annotation)
        return self._codec.decode(text, self._classes.find(result_class))

    def as_json(self, text: str) -> object:
        """Read a stored text as plain JSON, without a type."""
        return self._codec.decode(text, Any)

    def converted(self, value: object) -> object:
        """Read any value as the type: a result as it is, or its JSON.

        Raises:
            SerializationError: The value does not fit the type.
        """
        text = self._codec.encode(value)
        *others, last = self.names(value)
        for name in others:
            with suppress(SerializationError):
                return self.read(text, name)
        return self.read(text, last)

    def names(self, result: object) -> Iterator[str | None]:
        """Name the classes to try for a result, in order. None leaves the choice to the annotation."""
        return self._classes.names(type(result))

    @property
    def compares(self) -> bool:
        """Whether the next result has to be compared."""
        return self._left > 0 or not self.says_nothing

    def compare(self, result: object, text: str, result_class: str | None) -> Difference | None:
        """Read a text back, and find the worst difference from the result that was written.

        Raises:
            SerializationError: The text cannot be read back.
        """
        if self.says_nothing:
            self._left -= 1
        return difference(result, self.read(text, result_class), self._promise)

    def reports(self, found: Difference) -> bool:
        """Tell whether to report a difference. Where the annotation says nothing, one difference is reported."""
        if found.kind != "untold":
            return True
        self._left = 0
        first, self._reported = not self._reported, True
        return first

    def __repr__(self) -> str:
        return f"<ResultType {self.annotation}>"


def check_codec(codec: Codec) -> None:
    """Refuse a codec that writes no text, before any body has run.

    Raises:
        ConfigurationError: The codec gives bytes, for example.
    """
    try:
        text: object = codec.encode(None)
    except Exception:  # noqa: BLE001 - a codec may refuse None, and its first result tells then
        return
    if not isinstance(text, str):
        raise ConfigurationError(
            f"the codec {type(codec).__qualname__} gives {type(text).__name__}, and records hold text: "
            "let `encode` of codec= return a str"
        )


def _sure(annotation: Any) -> tuple[frozenset[type], dict[type, frozenset[type]]]:
    """Find the classes of results that surely come back as they are."""
    exact: set[type] = set()
    members: dict[type, frozenset[type]] = {}
    if mentions_pydantic(annotation):  # pydantic chooses among the members of a union by rules of its own
        return frozenset({NoneType}), {}
    for each in alternatives(annotation):
        kind, arguments = get_origin(each) or each, get_args(each)
        if kind is Any or kind is object:
            exact |= PLAIN
            members |= {list: PLAIN, dict: PLAIN}
        elif kind in _SURE and _is_bare(annotation, each):
            exact.add(kind)
        elif kind is dict and (not arguments or arguments[0] is str):
            members[dict] = _sure_members(arguments[1] if arguments else Any)
        elif kind is list or (
            kind in _CONTAINERS and arguments and (kind is not tuple or arguments[1:] == (Ellipsis,))
        ):
            members[kind] = _sure_members(arguments[0] if arguments else Any)
    return frozenset(exact), members


def _sure_members(annotation: Any) -> frozenset[type]:
    return _sure(annotation)[0]


def _is_bare(annotation: Any, member: Any) -> bool:
    """Tell whether no `Annotated` is around a member: a note may demand more than a class."""
    if annotation is None or annotation is member:
        return True
    return get_origin(annotation) is not Annotated and member in get_args(annotation)


@final
class _Classes:
    """The classes that a result of one annotation may have.

    Attributes:
        always: Whether the class of each result is stored, because the annotation alone never tells.
    """

    __slots__ = ("_members", "always")

    def __init__(self, annotation: object, codec: Codec) -> None:
        members: dict[type, Any] = {}
        unclear = False
        for each in alternatives(annotation):
            kind = runtime_class(each)
            unclear = unclear or kind is None or kind in members
            if kind is not None and kind is not object and each is not Any:
                members[kind] = each
        self._members = members
        records = [kind for kind in members if has_fields(kind)]
        self.always = len(records) > 1 and not _is_tagged(records)
        if not isinstance(codec, JsonCodec):
            return
        try:
            codec.decoder(annotation)
        except ConfigurationError as error:
            if len(members) < 2 or unclear or _overlap(members) or isinstance(error.__cause__, NameError):  # noqa: PLR2004 - a union
                raise
            # JSON cannot tell the members apart, but the class beside the data can. Each has to be readable by itself.
            for each in members.values():
                codec.decoder(each)
            self.always = True

    def names(self, kind: type) -> Iterator[str | None]:
        """Name the classes to try for a result, in order. None leaves the choice to the annotation."""
        member = kind in self._members
        named = kind if member or (kind is bool and int in self._members) else self._below(kind)
        # The annotation alone may tell a member. It never tells a subclass with fields.
        if named is None or not (self.always or (has_fields(kind) and not member)):
            yield None
        if named is not None and (self.always or not member or len(self._members) > 1):
            yield class_name(named)

    def _below(self, kind: type) -> type | None:
        """Find the class to name for a class below a member: itself, or an abstract member such as `Sequence`."""
        for each in self._members:
            if _has_subclasses(each) and issubclass(kind, each):
                return each if inspect.isabstract(each) and not has_fields(each) else kind
        return None

    def find(self, name: str) -> Any:
        """Find the type of a stored class among the members of the annotation and their subclasses.

        Raises:
            SerializationError: The class is unknown, or there are several.
        """
        found = [each for kind, each in self._members.items() if class_name(kind) == name]
        if not found:
            below: set[type] = set().union(*(_subclasses(kind) for kind in self._members if _has_subclasses(kind)))
            found = _living([each for each in below if class_name(each) == name])
        if not found and name == "builtins.bool" and int in self._members:
            found = [bool]
        if len(found) != 1:
            trouble = "a class unknown to the return annotation" if not found else "a class of which there are several"
            raise SerializationError("the stored result", trouble, "was a class renamed or removed?")
        return found[0]


def _overlap(kinds: Iterable[type]) -> bool:
    """Tell whether a container may belong to two members: a list to `list[int]` and to `Sequence[str]`."""
    containers = [kind for kind in kinds if not has_fields(kind)]
    abstract = [kind for kind in containers if inspect.isabstract(kind)]
    return any(one is not other and issubclass(one, other) for one in containers for other in abstract)


def _is_tagged(kinds: list[type]) -> bool:
    """Tell whether all classes are Structs with a tag in their JSON."""
    return all(getattr(getattr(kind, "__struct_config__", None), "tag", None) is not None for kind in kinds)


def _has_subclasses(kind: type) -> bool:
    """Tell whether a stored class may be a subclass: never of the classes that half of all classes inherit from."""
    return kind.__module__ != "builtins" and not (is_pydantic(kind) and kind.__module__.startswith("pydantic."))


def _subclasses(kind: type) -> set[type]:
    below: set[type] = set(kind.__subclasses__())
    return below.union(*map(_subclasses, below))


def _living(kinds: list[type]) -> list[type]:
    """Leave out what is no longer in use: the class before a reload, and the one that `slots=True` has copied."""
    if len(kinds) > 1:
        current = [each for each in kinds if _by_name(each) is each]
        kinds = current or kinds
    if len(kinds) > 1:
        # A copy with slots shares its fields with the original, and attrs marks only the copy.
        marks = ("__dataclass_fields__", "__attrs_attrs__")
        copies = [each for each in kinds if any(mark in vars(each) for mark in marks) and "__slots__" in vars(each)]
        kinds = copies or kinds
    return kinds


def _by_name(kind: type) -> object:
    """Look a class up in its module, without an import."""
    found: object = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found
