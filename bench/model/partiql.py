"""PartiQL as far as it names one item: INSERT, UPDATE, DELETE, and SELECT of all attributes.

Each distinct text is parsed once. A request then only puts its parameters in, in the order of the
question marks, and their number must be right, as the service insists.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Literal, final

from bench.model.refusals import ServiceError, invalid
from bench.model.values import AttributeValue

_TOKEN: Final = re.compile(r"""\s*(?:("(?:[^"]|"")*")|('(?:[^']|'')*')|([A-Za-z_][A-Za-z0-9_]*)|([?*=,:{}]))""")
Kind = Literal["INSERT", "UPDATE", "DELETE", "SELECT"]
Value = AttributeValue | int
"""A text that is written in the statement, or the number of a parameter."""


@final
@dataclass(frozen=True, slots=True)
class Requirement:
    """One part of a WHERE, with the operator that an expression would have for it."""

    operator: Literal["=", "attribute_exists", "attribute_not_exists"]
    attribute: str
    value: Value | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement; as it is parsed, its parameters are open."""

    kind: Kind
    table: str
    assignments: tuple[tuple[str, Value], ...] = ()
    removed: tuple[str, ...] = ()
    requirements: tuple[Requirement, ...] = ()
    parameters: int = 0

    def filled(self, parameters: list[Any]) -> "Statement":
        """Put the parameters in, as they are sent.

        Raises:
            ServiceError: They are too many, or too few.
        """
        if len(parameters) != self.parameters:
            raise invalid("Number of parameters in request and statement don't match.")

        def value(given: Value) -> Any:
            return parameters[given] if type(given) is int else given

        return replace(
            self,
            assignments=tuple((name, value(given)) for name, given in self.assignments),
            requirements=tuple(
                each if each.value is None else Requirement(each.operator, each.attribute, value(each.value))
                for each in self.requirements
            ),
        )


@lru_cache(1024)
def parsed(text: str) -> Statement:
    """Read a statement.

    Raises:
        ServiceError: It is none, or not in this model.
    """
    tokens = _Tokens(text)
    kind = tokens.word(*_READERS)
    statement = _READERS[kind](tokens)
    tokens.end()
    return statement


@final
class _Tokens:
    """The tokens of one statement, from left to right; `next` is empty at the end."""

    def __init__(self, text: str) -> None:
        self._rest = self._split(text.rstrip())
        self.next = next(self._rest)
        self.parameters = 0

    def _split(self, text: str) -> Iterator[str]:
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise _wrong(text[position:].split(maxsplit=1)[0])
            position = found.end()
            yield found[0].strip() if found[3] or found[4] else found[1] or found[2]
        yield ""

    def word(self, *wanted: str) -> str:
        """Take one of these words or signs; words are written in capitals or not."""
        token = self.next.upper()
        if token not in wanted:
            raise _wrong(self.next)
        self._advance()
        return token

    def skip(self, wanted: str) -> bool:
        """Take this word or sign if it comes next, and tell whether it did."""
        if self.next.upper() != wanted:
            return False
        self._advance()
        return True

    def name(self) -> str:
        """Take a name, in double quotes or bare."""
        token = self.next
        if not (token.startswith('"') or token[:1].isalpha() or token[:1] == "_"):
            raise _wrong(token)
        self._advance()
        return token[1:-1].replace('""', '"') if token.startswith('"') else token

    def text(self) -> str:
        """Take a text in single quotes."""
        token = self.next
        if not token.startswith("'"):
            raise _wrong(token)
        self._advance()
        return token[1:-1].replace("''", "'")

    def value(self) -> Value:
        """Take a parameter, or a text."""
        if self.skip("?"):
            self.parameters += 1
            return self.parameters - 1
        return {"S": self.text()}

    def end(self) -> None:
        """Insist that nothing follows."""
        if self.next:
            raise _wrong(self.next)

    def _advance(self) -> None:
        self.next = next(self._rest, "")


def _insert(tokens: _Tokens) -> Statement:
    tokens.word("INTO")
    table = tokens.name()
    tokens.word("VALUE")
    tokens.word("{")
    values = [_entry(tokens)]
    while tokens.skip(","):
        values.append(_entry(tokens))
    tokens.word("}")
    return Statement(kind="INSERT", table=table, assignments=tuple(values), parameters=tokens.parameters)


def _entry(tokens: _Tokens) -> tuple[str, Value]:
    name = tokens.text()
    tokens.word(":")
    return name, tokens.value()


def _update(tokens: _Tokens) -> Statement:
    table = tokens.name()
    changes: list[tuple[str, Value]] = []
    removed: list[str] = []
    clause = tokens.word("SET", "REMOVE")
    while clause != "WHERE":
        if clause == "SET":
            changes.append(_assignment(tokens))
        else:
            removed.append(tokens.name())
        # A comma goes on with the same clause.
        clause = clause if tokens.skip(",") else tokens.word("SET", "REMOVE", "WHERE")
    return Statement(
        kind="UPDATE",
        table=table,
        assignments=tuple(changes),
        removed=tuple(removed),
        requirements=_requirements(tokens),
        parameters=tokens.parameters,
    )


def _assignment(tokens: _Tokens) -> tuple[str, Value]:
    name = tokens.name()
    tokens.word("=")
    return name, tokens.value()


def _delete(tokens: _Tokens) -> Statement:
    return _found("DELETE", tokens)


def _select(tokens: _Tokens) -> Statement:
    tokens.word("*")
    return _found("SELECT", tokens)


def _found(kind: Kind, tokens: _Tokens) -> Statement:
    tokens.word("FROM")
    table = tokens.name()
    tokens.word("WHERE")
    requirements = _requirements(tokens)
    return Statement(kind=kind, table=table, requirements=requirements, parameters=tokens.parameters)


def _requirements(tokens: _Tokens) -> tuple[Requirement, ...]:
    found = [_requirement(tokens)]
    while tokens.skip("AND"):
        found.append(_requirement(tokens))
    return tuple(found)


def _requirement(tokens: _Tokens) -> Requirement:
    name = tokens.name()
    if tokens.word("=", "IS") == "=":
        return Requirement("=", name, tokens.value())
    negated = tokens.skip("NOT")
    tokens.word("MISSING")
    return Requirement("attribute_exists" if negated else "attribute_not_exists", name)


def _wrong(token: str) -> ServiceError:
    part = f'unexpected term, or not in this model: "{token or "<EOF>"}"'
    return invalid(f"Statement wasn't well formed, can't be processed: {part}")


_READERS: Final[dict[str, Callable[[_Tokens], Statement]]] = {
    "INSERT": _insert,
    "UPDATE": _update,
    "DELETE": _delete,
    "SELECT": _select,
}
