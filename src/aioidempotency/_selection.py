"""Selection of key material from a call's arguments: by a JMESPath expression, by a callable, or all arguments.

A wrong selection is worse than none: if the calls of two strangers both select null, both strangers get one answer.
Hence these rules:

1. a path begins with the name of a parameter, checked when decorating;
2. no part of a built key (`[tenant, order_id]`) is null;
3. an expression reads a request or an event as users do: attributes first, then items;
4. an object with an answer for every attribute is refused, because such an object says nothing about a call.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Literal, Self, TypeGuard, Union, final

from aioidempotency import _keys as keys
from aioidempotency._signatures import first_name, receiver_name
from aioidempotency.exceptions import ConfigurationError, IdempotencyError, MissingKeyError, SerializationError

AnyFunction = Callable[..., object]
KeySource = str | AnyFunction | None
"""The type of `key=` and `fingerprint=`: a JMESPath expression, a callable over the arguments, or None for all
arguments.
"""

MissingParts = Literal["raise", "allow"]
Find = Callable[[tuple[object, ...], Mapping[str, object]], object]
"""Finds key or fingerprint material in the arguments of a call."""

Select = Callable[[Mapping[str, object]], object]
"""Finds key or fingerprint material in named arguments."""


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a function.

    Attributes:
        signature: The function's signature, without `self` if bound.
        receiver: The parameter for a method's instance or class. None for a function.
        keywords: The name of `**kwargs`. None for a function without further arguments.
        plain: Reads the arguments of most calls. None for a function with `*args`, `**kwargs` or arguments by position
            alone.
    """

    signature: inspect.Signature
    receiver: str | None
    keywords: str | None
    plain: "PlainParameters | None"

    @classmethod
    def of(cls, function: AnyFunction) -> Self:
        """Read a function's parameters. By convention, a method's first parameter is `self` or `cls`."""
        signature = inspect.signature(function)
        parameters = signature.parameters.values()
        return cls(
            signature,
            receiver_name(function),
            next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None),
            PlainParameters.of(signature),
        )

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Name the arguments of a call, defaults included.

        Raises:
            TypeError: The function does not accept the arguments.
        """
        named = None if self.plain is None else self.plain.named(args, kwargs)
        return dict(self.bind(args, kwargs).arguments) if named is None else named

    def bind(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> inspect.BoundArguments:
        """Bind the arguments of a call, defaults included.

        Raises:
            TypeError: The function does not accept the arguments.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound

    def without_receiver(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Name the arguments of a call, without the method's instance or class."""
        named = self.named(args, kwargs)
        if self.receiver is not None:
            named.pop(self.receiver, None)
        return named

    def with_keywords(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        """Name the arguments of a call, with the members of `**kwargs` beside the other arguments."""
        named = self.named(args, kwargs)
        gathered = named.get(self.keywords or "")
        return {**gathered, **named} if isinstance(gathered, dict) else named


@final
@dataclass(frozen=True, slots=True)
class PlainParameters:
    """The parameters of a function whose arguments all have names. `Signature.bind` takes several times as long.

    Attributes:
        by_position: The names of the parameters that may be given by position, in order.
        defaults: All names in order, each with its default. None stands for a missing default.
        after: The names that may, and those that must, be given by name after each number of arguments by position.
    """

    by_position: tuple[str, ...]
    defaults: Mapping[str, object] = field(repr=False)
    after: tuple[tuple[frozenset[str], frozenset[str]], ...]

    @classmethod
    def of(cls, signature: inspect.Signature) -> Self | None:
        """Read a signature. None for one with other parameters."""
        parameters = tuple(signature.parameters.values())
        if any(each.kind not in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY} for each in parameters):
            return None
        by_position = tuple(each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD)
        required = {each.name for each in parameters if each.default is each.empty}
        named = [frozenset(signature.parameters) - {*by_position[:count]} for count in range(len(by_position) + 1)]
        return cls(
            by_position,
            {each.name: None if each.default is each.empty else each.default for each in parameters},
            tuple((names, names & required) for names in named),
        )

    def named(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object] | None:
        """Name the arguments of a call, in the order of the parameters. None for a call that the function refuses."""
        if len(args) >= len(self.after):
            return None
        may, must = self.after[len(args)]
        fits = must <= kwargs.keys() <= may if kwargs else not must
        if not fits:
            return None
        # There are no more arguments than names. To have `zip` check that again would cost as much as the rest.
        named = dict(zip(self.by_position, args))  # noqa: B905
        return {**self.defaults, **named, **kwargs} if may else named


def finder(
    source: KeySource,
    function: AnyFunction,
    *,
    option: str,
    name: str,
    types: Mapping[str, object],
    missing_parts: MissingParts = "allow",
) -> tuple[Find, frozenset[str]]:
    """Make a function that finds key or fingerprint material in the arguments of a call.

    Args:
        source: The value of `key=` or `fingerprint=`.
        function: The decorated function, without the arguments held by a `partial`.
        option: The name of the option, for messages.
        name: The name of the function, for messages.
        types: The resolvable annotations of the function's parameters.
        missing_parts: Whether to refuse a null part of a built key.

    Returns:
        The function, and the names of the parameters inside the material, as far as known.

    Raises:
        ConfigurationError: The expression is no JMESPath, or begins with an unknown parameter.
    """
    parameters = Parameters.of(function)
    subject = f"{option}= of {name}"
    # An instance says nothing about a request, and seldom has a canonical form.
    if source is None:
        all_named = parameters.named if parameters.receiver is None else parameters.without_receiver
        return all_named, frozenset(parameters.signature.parameters)
    if isinstance(source, str):
        roots = check_names(source, parameters, types, subject)
        select = selector(source, subject=subject, missing_parts=missing_parts, roots=roots)
        # Reading the members of an instance may fail, so only an expression that reads the receiver gets the receiver.
        reads_receiver = parameters.receiver is None or roots is None or parameters.receiver in roots
        named = parameters.named if reads_receiver else parameters.without_receiver
        if parameters.keywords is not None:
            named = parameters.with_keywords
        in_key = frozenset(parameters.signature.parameters) if roots is None else roots
        names, plain = _dotted_names(source, subject), parameters.plain
        if names is None or plain is None or names[0] not in plain.by_position:
            return lambda args, kwargs: select(named(args, kwargs)), in_key
        read, index = _member_reader(source, names[1:]), plain.by_position.index(names[0])
        # So many arguments by position include the one to be read, and are a complete call.
        complete = frozenset(count for count, (_, must) in enumerate(plain.after) if count > index and not must)

        def find_member(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
            # The usual call gives its arguments by position, and the others need no names.
            if not kwargs and len(args) in complete:
                return read(args[index])
            return select(named(args, kwargs))

        return find_member, in_key
    if not callable(source) or _is_async(source):
        raise ConfigurationError(f"{subject} takes a JMESPath text or a plain callable: not {type(source).__name__}")
    # A callable that does not take `self` gets the other arguments only.
    skipped = 0 if parameters.receiver is None or parameters.receiver == first_name(source) else 1

    def find(args: tuple[object, ...], kwargs: Mapping[str, object]) -> object:
        # Defaults are filled in: a call that omits a default has the key of a call that passes the same value.
        bound = parameters.bind(args, kwargs)
        material = source(*bound.args[skipped:], **bound.kwargs)
        if missing_parts == "raise" and isinstance(material, list | tuple):
            _check_built(material, subject)
        return material

    # Nobody knows which arguments a callable reads.
    return find, frozenset()


def _is_async(source: AnyFunction) -> bool:
    return inspect.iscoroutinefunction(source) or inspect.iscoroutinefunction(type(source).__call__)


def _check_built(material: "list[object] | tuple[object, ...]", subject: str) -> None:
    """Refuse a null part in a callable's answer. An answer with nothing but nulls is a missing key."""
    null = next((index for index, part in enumerate(material) if part is None), None)
    if null is not None and not keys.is_missing(material):
        raise MissingKeyError(subject, part=f"part {null + 1} of {len(material)}")


def check_names(
    expression: str, parameters: Parameters, types: Mapping[str, object], subject: str
) -> frozenset[str] | None:
    """Require that every path of an expression begins with a parameter, and names members of the annotated types.

    Returns:
        The first names of the paths. None if the expression reads all arguments at once (`@`).

    Raises:
        ConfigurationError: The expression is no JMESPath, or a path can never find anything.
    """
    paths = tuple(_paths(expression, subject))
    known = list(parameters.signature.parameters)
    for path in paths:
        if path and path[0] not in known and parameters.keywords is None:
            raise ConfigurationError(
                f"{subject}: {path[0]!r} in {expression!r} is no parameter{_advice(path[0], known)}"
            )
        _check_members(path, types, subject)
    return None if () in paths else frozenset(path[0] for path in paths)


def _paths(expression: str, subject: str) -> Iterator[tuple[str, ...]]:
    if _DOTTED.fullmatch(expression):
        return iter([tuple(expression.split("."))])
    from aioidempotency import _expressions as expressions  # noqa: PLC0415 - loads JMESPath

    return expressions.paths(expressions.compiled(expression, subject).parsed)


def _advice(name: str, known: "list[str]", what: str = "parameters") -> str:
    import difflib  # noqa: PLC0415 - for an error's text alone

    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; write {close[0]!r}"
    return f"; write one of {', '.join(known)}" if known else f"; there are no {what}"


def _check_members(path: tuple[str, ...], types: Mapping[str, object], subject: str) -> None:
    """Refuse a path with a member unknown to the parameter's annotated type. The path would be null at every call."""
    kinds: tuple[object, ...] = (types.get(path[0]),) if path else ()
    for name in path[1:]:
        members = [_members(alternative) for kind in kinds for alternative in _alternatives(kind)]
        if not members or any(each is None for each in members):
            return  # the members of one type are unknown
        kinds = tuple(each[name] for each in members if each is not None and name in each)
        if not kinds:
            listed = sorted({each for one in members if one is not None for each in one})
            raise ConfigurationError(
                f"{subject}: {'.'.join(path)!r} never finds anything: the annotated type of {path[0]!r} has no "
                f"{name!r}{_advice(name, listed, 'fields')}. To read a property, give a callable: key=lambda ..."
            )


def _alternatives(annotation: object) -> Iterator[object]:
    """List the types that an annotation allows, without None."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for each in typing.get_args(annotation):
            yield from _alternatives(each)
    elif annotation is not type(None):
        yield origin or annotation


def _members(annotation: object) -> dict[str, object] | None:
    """List the members that an expression finds in a value of this type. None if unknown."""
    if not isinstance(annotation, type):
        return None
    names = keys.field_names(annotation)
    if names is None:
        return None
    try:
        hints = typing.get_type_hints(annotation)
    except Exception:  # noqa: BLE001 - whatever an annotation raises, its names are known, and its types are not
        hints = {}
    return {name: hints.get(name) for name in names}


def selector(
    expression: str,
    *,
    subject: str = "the key",
    missing_parts: MissingParts = "allow",
    roots: frozenset[str] | None = None,
) -> Select:
    """Compile a JMESPath expression over the arguments.

    Args:
        expression: The expression.
        subject: The purpose of the expression, for messages.
        missing_parts: Whether to refuse a null part of a built key.
        roots: The arguments read by the expression. None for all.

    Raises:
        ConfigurationError: The expression is no JMESPath.
    """
    # Most expressions are names with dots between. The interpreter would convert all members of an argument, used or not.
    names = _dotted_names(expression, subject)
    if names is not None:
        return _member_reader(expression, names)
    from aioidempotency import _expressions as expressions  # noqa: PLC0415 - loads JMESPath

    compiled = expressions.compiled(expression, subject)
    built = frozenset(map(id, expressions.built(compiled.parsed))) if missing_parts == "raise" else frozenset[int]()

    def select(arguments: Mapping[str, object]) -> object:
        # Converting an argument costs time and may fail, so only the named arguments are converted.
        names = arguments if roots is None else roots & arguments.keys()
        interpreter = expressions.Interpreter(built)
        try:
            found = interpreter.visit(compiled.parsed, {name: _plain(arguments[name]) for name in names})
        except IdempotencyError:
            raise
        except Exception as error:  # noqa: BLE001 - the code of an argument may raise anything
            raise _failed(expression, error) from None
        # A key with nothing but nulls is a missing key: `missing_key` decides.
        if interpreter.null_part is not None and not keys.is_missing(found):
            raise MissingKeyError(subject, part=interpreter.null_part)
        return found.inner if isinstance(found, _Attributes) else found

    return select


_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


def _dotted_names(expression: str, subject: str) -> tuple[str, ...] | None:
    """Read the names of an expression like `order.id` or `headers."x-id"`. None for an expression with other parts."""
    if _DOTTED.fullmatch(expression):
        return tuple(expression.split("."))
    from aioidempotency import _expressions as expressions  # noqa: PLC0415 - loads JMESPath

    return expressions.dotted_names(expressions.compiled(expression, subject).parsed)


def _member_reader(expression: str, names: tuple[str, ...]) -> Callable[[object], object]:
    """Make the function that follows names with dots between. No interpreter runs, and only the named values are read."""

    def read(value: object) -> object:
        found = value
        try:
            for name in names:
                found = found.get(name) if type(found) is dict else _member(found, name)
            if type(found) in keys.NATIVE:
                return found
            plain = _plain(found)
        except IdempotencyError:
            raise
        except Exception as error:  # noqa: BLE001 - the code of an argument may raise anything
            raise _failed(expression, error) from None
        return plain.inner if isinstance(plain, _Attributes) else plain

    return read


def _member(value: object, name: str) -> object:
    """Read a member by name, as JMESPath would. None without such a member."""
    if _is_foreign_mapping(value):
        return _attribute_or_item(value, name)
    opened = keys.opened(value)
    match opened:
        case dict():
            return opened.get(name)
        case keys.Unknown(inner=inner):
            return _attribute(inner, name)
        case _:
            return None  # JMESPath's own rule: a text, a number or a list has no members


def _failed(expression: str, error: Exception) -> SerializationError:
    """Make the error of a failed evaluation. The first error's own text may contain data, and is left out."""
    advice = f"{expression!r} could not be evaluated; check it against the arguments"
    return SerializationError("the arguments", f"a value that makes JMESPath raise {type(error).__name__}", advice)


def _plain(value: object) -> object:
    """Convert a value and all its members for JMESPath."""
    if _is_foreign_mapping(value):
        return _MappingView(value)
    opened = keys.opened(value)
    match opened:
        case dict():
            return {name: _plain(member) for name, member in opened.items()}
        case list() | tuple():
            return [_plain(member) for member in opened]
        case keys.Unknown(inner=inner):
            return _Attributes(inner)
        case _:
            return opened


def _is_foreign_mapping(value: object) -> TypeGuard[Mapping[str, object]]:
    """Tell whether a value is a mapping that is no `dict`: a framework's request, an event object."""
    return not issubclass(type(value), dict) and issubclass(type(value), Mapping)


def _attribute_or_item(mapping: Mapping[str, object], name: str) -> object:
    """Read a member as users of a request or an event do: an attribute that is no method, or else an item."""
    # A request of Starlette's is a mapping over the ASGI scope, and its users read attributes: hence attributes first.
    found = None if answers_everything(mapping) else getattr(mapping, name, None)
    if found is not None and not inspect.isroutine(found):
        return found
    try:
        return mapping[name]
    except KeyError:
        if found is None:
            return None
    kind = type(mapping).__name__
    advice = f"an expression cannot call its method {name!r}; give a callable"
    raise SerializationError("the path of an expression", kind, advice)


def _attribute(value: object, name: str) -> object:
    """Read an attribute of an object that is no mapping.

    A missing attribute is an error. JMESPath would read null there, and two keys would be alike.
    """
    kind = type(value).__name__
    if answers_everything(value):
        raise SerializationError(
            "the path of an expression", kind, "the object answers every name, even a misspelt one; give a callable"
        )
    try:
        return getattr(value, name)
    except AttributeError:
        advice = f"the object has no {name!r}; correct the expression, or give a callable"
        raise SerializationError("the path of an expression", kind, advice) from None


_UNKNOWN_ATTRIBUTE = "no_such_attribute_of_any_object"


def answers_everything(value: object) -> bool:
    """Tell whether an object has an answer for every attribute: a mock, or a proxy with made-up attributes."""
    kind = type(value)
    # Only a class with its own `__getattribute__` or `__getattr__` can answer every name. Other objects are not asked,
    # because reading an attribute may have effects.
    if kind.__getattribute__ is object.__getattribute__ and not hasattr(kind, "__getattr__"):
        return False
    try:
        getattr(value, _UNKNOWN_ATTRIBUTE)
    except Exception:  # noqa: BLE001 - after an error of any kind, there is no answer
        return False
    return True


class _Attributes(keys.Unknown):
    """An object of an unknown type, in a form that JMESPath can read: by attributes."""

    __slots__ = ()

    def get(self, name: str) -> object:
        """Read the attribute named by an expression."""
        return _plain(_attribute(self.inner, name))

    def values(self) -> object:
        """Refuse to read all attributes."""
        raise SerializationError(
            "the path of an expression", type(self.inner).__name__, "name the fields of the object"
        )


class _MappingView(dict[str, object]):
    """A mapping that is no `dict`, in a form that JMESPath can read: attributes first, then items."""

    def __init__(self, inner: Mapping[str, object]) -> None:
        super().__init__((name, _plain(member)) for name, member in inner.items())
        self._inner = inner

    def get(self, name: str, default: object = None) -> object:  # noqa: ARG002 - as `dict` has it
        """Read the attribute or the item named by an expression."""
        return _plain(_attribute_or_item(self._inner, name))


# JMESPath's functions accept an object only if the name of its class is `dict`.
_MappingView.__name__ = "dict"
