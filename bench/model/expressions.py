"""Expressions: comparisons, `attribute_exists` and `attribute_not_exists` joined by AND and OR, and `SET`.

Each distinct text is parsed once. A request then only puts its names and values in, and every one of
them must be used, as the service insists.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple, final

from bench.model.refusals import ServiceError, invalid
from bench.model.values import AttributeValue, Item, measured, order

_TOKEN: Final = re.compile(r"\s*(?:([#:]?[A-Za-z0-9_]+)|(<>|<=|>=|[=<>(),]))")
_FUNCTIONS: Final = ("attribute_exists", "attribute_not_exists")
_COMPARISONS: Final = ("=", "<>", "<", "<=", ">", ">=")
_ORDERED: Final = ("S", "N", "B")
Request = Mapping[str, Any]


class Part(NamedTuple):
    """Operator, name and value as they are written; a function has no value, and OR has only alternatives."""

    operator: str
    name: str = ""
    value: str = ""
    alternatives: tuple[tuple["Part", ...], ...] = ()


Parsed = tuple[Part, ...]


@final
@dataclass(frozen=True, slots=True)
class Test:
    """One requirement on an item, or with the operator `=` one assignment.

    With the operator `OR` it is several groups of requirements, all of one of which must hold.
    """

    operator: str
    attribute: str
    value: AttributeValue
    alternatives: tuple[tuple["Test", ...], ...] = ()

    def holds(self, item: Item) -> bool:
        """Tell whether an item (or, empty, the lack of one) meets it."""
        if self.alternatives:
            return any(all(each.holds(item) for each in group) for group in self.alternatives)
        found = item.get(self.attribute)
        if self.operator in _FUNCTIONS:
            return (found is not None) == (self.operator == "attribute_exists")
        if found is None:
            return self.operator == "<>"
        if self.operator in {"=", "<>"}:
            return (found == self.value) == (self.operator == "=")
        return found.keys() == self.value.keys() and self._compares(order(found), order(self.value))

    def _compares(self, found: bytes, wanted: bytes) -> bool:
        match self.operator:
            case "<":
                return found < wanted
            case "<=":
                return found <= wanted
            case ">":
                return found > wanted
            case _:
                return found >= wanted


Tests = tuple[Test, ...]


def resolve(request: Request, *fields: str) -> tuple[Tests, ...]:
    """Read the expressions in these fields of a request; an absent one has no tests."""
    names = _placeholders(request, "ExpressionAttributeNames", fields)
    values = {
        placeholder: measured(value)[0]
        for placeholder, value in _placeholders(request, "ExpressionAttributeValues", fields).items()
    }
    unused = {*names, *values}
    found = tuple(_resolved(field, request.get(field), names, values, unused) for field in fields)
    if unused:
        field = "ExpressionAttributeNames" if min(unused).startswith("#") else "ExpressionAttributeValues"
        raise invalid(f"Value provided in {field} unused in expressions: keys: {{{min(unused)}}}")
    return found


def _placeholders(request: Request, field: str, expressions: tuple[str, ...]) -> Mapping[str, Any]:
    given: Mapping[str, Any] | None = request.get(field)
    if given is None:
        return {}
    if not any(request.get(each) is not None for each in expressions):
        raise invalid(f"{field} can only be specified when using expressions")
    if not given:
        raise invalid(f"{field} must not be empty")
    return given


def _resolved(
    field: str, text: str | None, names: Mapping[str, str], values: Mapping[str, AttributeValue], unused: set[str]
) -> Tests:
    return () if text is None else _filled(field, _parsed(field, text), names, values, unused)


def _filled(
    field: str, parts: Parsed, names: Mapping[str, str], values: Mapping[str, AttributeValue], unused: set[str]
) -> Tests:
    tests = []
    for operator, name, placeholder, alternatives in parts:
        if alternatives:
            groups = tuple(_filled(field, group, names, values, unused) for group in alternatives)
            tests.append(Test(operator, name, {}, groups))
            continue
        if name.startswith("#") and name not in names:
            undefined = "An expression attribute name used in the document path is not defined; attribute name"
            raise invalid(f"Invalid {field}: {undefined}: {name}")
        if placeholder and placeholder not in values:
            undefined = "An expression attribute value used in expression is not defined; attribute value"
            raise invalid(f"Invalid {field}: {undefined}: {placeholder}")
        unused.difference_update((name, placeholder))
        value = values.get(placeholder, {})
        if operator in {"<", "<=", ">", ">="} and value.keys().isdisjoint(_ORDERED):
            raise invalid(f"Invalid {field}: Incorrect operand type for operator or function; operator: {operator}")
        tests.append(Test(operator, names.get(name, name), value))
    return tuple(tests)


@lru_cache(1024)
def _parsed(field: str, text: str) -> Parsed:
    tokens = _Tokens(field, text)
    if field == "UpdateExpression":
        tokens.word("SET")
        parts = _separated(tokens, ",", lambda each: (_assignment(each),))
    else:
        parts = _disjunction(tokens)
    tokens.end()
    return parts


def _separated(tokens: "_Tokens", separator: str, read: Callable[["_Tokens"], Parsed]) -> Parsed:
    parts = [*read(tokens)]
    while tokens.skip(separator):
        parts += read(tokens)
    return tuple(parts)


def _disjunction(tokens: "_Tokens") -> Parsed:
    groups = [_separated(tokens, "AND", _condition)]
    while tokens.skip("OR"):
        groups.append(_separated(tokens, "AND", _condition))
    return groups[0] if len(groups) == 1 else (Part("OR", alternatives=tuple(groups)),)


def _condition(tokens: "_Tokens") -> Parsed:
    if tokens.skip("("):
        inner = _disjunction(tokens)
        tokens.word(")")
        return inner
    name = tokens.take()
    if name in _FUNCTIONS:
        tokens.word("(")
        path = tokens.take()
        tokens.word(")")
        return (Part(name, path),)
    operator = tokens.take(*_COMPARISONS)
    return (Part(operator, name, tokens.value()),)


def _assignment(tokens: "_Tokens") -> Part:
    name = tokens.take()
    tokens.word("=")
    return Part("=", name, tokens.value())


@final
class _Tokens:
    """The tokens of one expression, from left to right; `next` is empty at the end."""

    def __init__(self, field: str, text: str) -> None:
        self._field = field
        self._rest = self._split(text)
        self.next = next(self._rest)

    def _split(self, text: str) -> Iterator[str]:
        position = 0
        while position < len(text.rstrip()):
            found = _TOKEN.match(text, position)
            if found is None:
                raise self._wrong(text[position:].split(maxsplit=1)[0])
            position = found.end()
            yield found[1] or found[2]
        yield ""

    def take(self, *wanted: str) -> str:
        """Take the next token: one of these, or any name."""
        token = self.next
        if token not in wanted if wanted else not token or not (token[0] == "#" or token[0].isalpha()):
            raise self._wrong(token)
        self.next = next(self._rest)
        return token

    def word(self, wanted: str) -> None:
        """Take this token; words are written in capitals or not."""
        if self.next.upper() != wanted:
            raise self._wrong(self.next)
        self.next = next(self._rest, "")

    def skip(self, wanted: str) -> bool:
        """Take this token if it comes next, and tell whether it did."""
        if self.next.upper() != wanted:
            return False
        self.word(wanted)
        return True

    def end(self) -> None:
        """Insist that nothing follows."""
        if self.next:
            raise self._wrong(self.next)

    def value(self) -> str:
        """Take the placeholder of a value."""
        token = self.next
        if not token.startswith(":"):
            raise self._wrong(token)
        self.next = next(self._rest)
        return token

    def _wrong(self, token: str) -> ServiceError:
        return invalid(f'Invalid {self._field}: Syntax error, or not in this model; token: "{token or "<EOF>"}"')
