"""JMESPath over the arguments, with the three functions that Powertools adds."""

import base64
import gzip
import json
from collections import UserDict
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency import _expressions
from aioidempotency._selection import selector
from aioidempotency.exceptions import ConfigurationError, SerializationError
from tests.core.shapes import AttrsOrder, Basket, Colour, DataOrder, Item, ModelOrder, Point, StructOrder, Unknown

ID = UUID("12345678-1234-5678-1234-567812345678")


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@pytest.mark.parametrize(
    ("expression", "argument", "selected"),
    [
        ("a", "text", "text"),
        ("a.b", {"b": 0}, 0),
        ("b", "text", None),
        ("a.b.c", {"b": None}, None),
        ("a.id", DataOrder(ID, []), str(ID)),
        ("a.lines[*].id", DataOrder(1, [AttrsOrder(1), AttrsOrder(2)]), [1, 2]),
        ("a.id", AttrsOrder(Colour.RED), "red"),
        ("a.order_id", StructOrder(Decimal("1.10")), "1.10"),
        ("a.id", ModelOrder(orderId=5), 5),
        ("a.items[0].price", Basket(items=[Item(articleNumber="a", price=Decimal(1))]), "1"),
        ("a[1]", Point(1, "y"), "y"),
        ("[a.x, a.y]", {"x": 1, "y": [Point(1, "y")]}, [1, [[1, "y"]]]),
        ("{key: a.b}", {"b": {"c": Colour.RED}}, {"key": {"c": "red"}}),
        ("a", DataOrder(1, (2,)), {"id": 1, "lines": [2], "secret": None}),
        ("length(a)", (1, 2, 3), 3),
        ("powertools_json(a).b", '{"b": [1]}', [1]),
        ("powertools_json(a.body).id", {"body": '{"id": 0}'}, 0),
        ("powertools_base64(a)", base64.b64encode("é".encode()).decode(), "é"),
        ("powertools_base64_gzip(a)", _packed("é"), "é"),
        ("powertools_json(powertools_base64_gzip(a)).b", _packed('{"b": 1}'), 1),
    ],
)
def test_expressions_find_the_key(expression: str, argument: object, selected: object) -> None:
    """Through every kind of object, however it was passed."""
    assert selector(expression)({"a": argument}) == selected


NAMES = ["a", "b", "event", "x-id", "a b", "a.b", 'q"', "\\", "é", "\u2028", "0", ""]
"""Few names, so that paths find something; most must be quoted in an expression."""

SCALARS = st.none() | st.booleans() | st.integers(-1, 1) | st.sampled_from(["", "a", "event", 0.5])
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
ARGUMENTS = st.dictionaries(st.sampled_from(NAMES), DATA, min_size=1, max_size=4)


@st.composite
def dotted(draw: st.DrawFn) -> str:
    """Names with dots between, quoted or not, with blanks, or with brackets around the first ones."""
    names = [_quoted(draw, name) for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))]
    bracketed = draw(st.integers(0, len(names)))
    blank = draw(st.sampled_from(["", "", " "]))
    first, rest = f"{blank}.{blank}".join(names[:bracketed]), names[bracketed:]
    return f"{blank}.{blank}".join([*([f"({first})"] if first else []), *rest]) + blank


def _quoted(draw: st.DrawFn, name: str) -> str:
    plain = name.isidentifier() and name.isascii()
    return name if plain and draw(st.booleans()) else json.dumps(name, ensure_ascii=draw(st.booleans()))


@given(expression=dotted(), arguments=ARGUMENTS)
@settings(max_examples=200)
def test_names_with_dots_find_what_jmespath_finds(expression: str, arguments: dict[str, object]) -> None:
    """C19: whatever is missing on the way, is null, or has no members; and without an interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_expressions, "Interpreter", None)
        found = selector(expression)(arguments)
    assert [found] == [jmespath.search(expression, arguments)]
    assert type(found) is type(jmespath.search(expression, arguments))


@pytest.mark.parametrize(
    "more", ["[0]", "[*]", ".*", ".[a]", ".{b: a}", " | a", " || a", " == a", "[?a]", "[]", " && @"]
)
@given(arguments=ARGUMENTS)
@settings(max_examples=20)
def test_what_follows_names_with_dots_counts(more: str, arguments: dict[str, object]) -> None:
    """C19: an expression with other parts has an interpreter."""
    for expression in (f"a{more}", f"event.a{more}", f'event."x-id"{more}'):
        assert selector(expression)(arguments) == jmespath.search(expression, arguments)


@pytest.mark.parametrize("expression", ["event.headers.tenant", 'event.headers."tenant"', '"event".headers.tenant'])
def test_names_with_dots_read_nothing_else(expression: str) -> None:
    """C19: what the expression does not name may be anything, and is not asked, however the names are written."""

    class Body(UserDict[str, object]):
        def __iter__(self) -> Iterator[str]:
            raise RuntimeError("it was read")

    assert selector(expression)({"event": {"headers": {"tenant": "a"}, "body": Body()}}) == "a"


def test_a_selector_is_used_again() -> None:
    """It is compiled once, for all calls, and remembers none of them."""
    select = selector("a.b")
    assert [select({"a": {"b": n}}) for n in (1, 2)] == [1, 2]


def test_what_an_expression_does_not_touch_may_be_anything() -> None:
    """A connection among the arguments does not stop a key from being found."""
    unknown = Unknown()
    assert selector("a.id")({"a": DataOrder(1, unknown), "connection": unknown, "raw": {b"x", b"y"}}) == 1
    assert selector("connection")({"connection": unknown}) is unknown, "it is refused as key material"


@pytest.mark.parametrize("expression", ["", "a.", "a[", "'open", "a b", "a..b"])
def test_a_bad_expression_is_refused_when_it_is_given(expression: str) -> None:
    """The message shows the expression, which is code and no payload."""
    with pytest.raises(ConfigurationError) as caught:
        selector(expression)
    assert f": {expression!r} is not a JMESPath expression: " in str(caught.value)
    assert caught.value.__cause__ is not None


_LOOP: list[Any] = []
_LOOP.append(_LOOP)


@pytest.mark.parametrize(
    ("expression", "argument", "kind"),
    [
        ("powertools_json(a)", "canary", "JSONDecodeError"),
        ("powertools_json(a)", 5, "JMESPathTypeError"),
        ("powertools_json(a)", None, "JMESPathTypeError"),
        ("powertools_json(a)", "[" * 100_000, "RecursionError"),
        ("powertools_base64(a)", "c", "Error"),
        ("powertools_base64(a)", "canär", "ValueError"),
        ("powertools_base64(a)", base64.b64encode(b"\xff").decode(), "UnicodeDecodeError"),
        ("powertools_base64(a)", 5, "JMESPathTypeError"),
        ("powertools_base64_gzip(a)", base64.b64encode(b"canary").decode(), "BadGzipFile"),
        ("powertools_base64_gzip(a)", base64.b64encode(gzip.compress(b"canary", mtime=0)[:-9]).decode(), "EOFError"),
        ("powertools_base64_gzip(a)", "c", "Error"),
        ("powertools_base64_gzip(a)", 5, "JMESPathTypeError"),
        ("keys(a)", "canary", "JMESPathTypeError"),
        ("unknown(a)", "canary", "UnknownFunctionError"),
        ("powertools_json(a, a)", "canary", "ArityError"),
        ("a", _LOOP, "RecursionError"),
    ],
)
def test_arguments_that_an_expression_cannot_take_are_refused(expression: str, argument: object, kind: str) -> None:
    """C15, U3: the message names the expression and the kind of trouble, and shows no value."""
    with pytest.raises(SerializationError) as caught:
        selector(expression)({"a": argument})
    assert str(caught.value) == (
        f"the arguments cannot hold a value that makes JMESPath raise {kind}: "
        f"{expression!r} could not be evaluated; check it against the arguments"
    )
    assert caught.value.__suppress_context__, "the cause would show values"
