"""What is decorated: whether it can be awaited, what it is called, what it takes and returns."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable
from types import FunctionType
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency._namespaces import namespace_of
from aioidempotency._selection import Parameters, finder
from aioidempotency._signatures import check_awaitable, first_name, return_type, unbound
from aioidempotency.exceptions import ConfigurationError

if TYPE_CHECKING:
    from tests.core.shapes import Address


async def charge(order: str, amount: int = 5, *lines: str, note: str = "none", **more: int) -> list[int]:
    return []


def plain(order: str) -> None: ...


async def generated() -> AsyncIterator[int]:
    yield 1


async def bare():  # type: ignore[no-untyped-def] # what happens without annotations is the question
    ...


async def quoted() -> "dict[str, Till]":
    raise NotImplementedError


async def annotated() -> Annotated[int, "cents"]:
    raise NotImplementedError


async def unresolved() -> "Address":
    raise NotImplementedError


class Till:
    """Methods of every kind."""

    async def pay(self, order: str) -> int:
        raise NotImplementedError

    @classmethod
    async def open(cls, order: str) -> "Till":
        raise NotImplementedError

    @staticmethod
    async def count(order: str) -> int:
        raise NotImplementedError

    def look(self) -> None: ...


class Caller:
    """An object that is awaited when called."""

    async def __call__(self, order: str) -> bytes:
        raise NotImplementedError


class PlainCaller:
    """An object that is not."""

    def __call__(self) -> None: ...


class Generator:
    """An object that has many results."""

    async def __call__(self) -> AsyncIterator[int]:
        yield 1


PARTIAL = functools.partial(functools.partial(charge, "first", note="inner"), 7, note="outer")


@pytest.mark.parametrize(
    "function",
    [charge, bare, Till.pay, Till().pay, Till.open, Till.count, Caller(), PARTIAL, functools.partial(Caller(), "a")],
)
def test_what_can_be_awaited_is_accepted(function: Callable[..., object]) -> None:
    """C14: functions, methods of every kind, partials, and objects with an async `__call__`."""
    check_awaitable(function)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (plain, "test_functions.plain"),
        (functools.partial(plain, "a"), "test_functions.plain"),
        (Till().look, "test_functions.Till.look"),
        (PlainCaller(), "test_functions.PlainCaller"),
        (Caller, "test_functions.Caller"),
        (lambda: None, "<lambda>"),
        (len, "builtins.len"),
    ],
)
def test_a_plain_function_is_refused(function: Callable[..., object], name: str) -> None:
    """C2: with its name and the reason."""
    with pytest.raises(ConfigurationError) as caught:
        check_awaitable(function)
    assert name in str(caught.value)
    assert "is not a coroutine function: it would run before its key is claimed" in str(caught.value)


@pytest.mark.parametrize("function", [generated, Generator(), functools.partial(generated)])
def test_an_async_generator_is_refused(function: Callable[..., object]) -> None:
    """C14: a record holds one result."""
    with pytest.raises(ConfigurationError, match="is an async generator: it has many results, and a record holds one"):
        check_awaitable(function)


def test_a_partial_is_taken_apart() -> None:
    """C6: what it holds counts like any argument; outer ones come later and win."""
    assert unbound(PARTIAL) == (charge, ("first", 7), {"note": "outer"})
    assert unbound(charge) == (charge, (), {})


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (charge, "charge"),
        (Till.pay, "Till.pay"),
        (Till().pay, "Till.pay"),
        (Till.open, "Till.open"),
        (Caller(), "Caller"),
    ],
)
def test_a_namespace_is_module_and_qualified_name(function: Callable[..., object], name: str) -> None:
    """C7: two methods of one name in different classes never share a record."""
    assert namespace_of(function) == f"{__name__}.{name}"


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("a",), {}),
        (("a", 5), {}),
        ((), {"order": "a"}),
        (("a",), {"amount": 5, "note": "none"}),
    ],
)
def test_arguments_have_one_name_however_they_are_passed(args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """C6: positional, by keyword, or by default."""
    bound = Parameters.of(charge).bind(args, kwargs)
    assert bound.arguments == {"order": "a", "amount": 5, "lines": (), "note": "none", "more": {}}


def test_variable_arguments_are_named_too() -> None:
    """A tuple and a mapping, under their own names."""
    bound = Parameters.of(charge).bind(("a", 1, "x", "y"), {"extra": 2})
    assert bound.arguments == {"order": "a", "amount": 1, "lines": ("x", "y"), "note": "none", "more": {"extra": 2}}


def test_arguments_that_do_not_fit_are_refused_as_python_does() -> None:
    """A wrong call is the caller's error, and none of ours."""
    with pytest.raises(TypeError, match="missing a required"):
        Parameters.of(charge).bind((), {})


KINDS = [
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
]
CALLS = st.tuples(
    st.lists(st.integers(), max_size=5).map(tuple),
    st.dictionaries(st.sampled_from([*"bcdfgh", "unknown"]), st.integers(), max_size=4),
)


@st.composite
def signatures(draw: st.DrawFn) -> inspect.Signature:
    """Parameters of some kinds, in Python's order: those by position have defaults from some point on."""
    kinds = zip("abcdefgh", KINDS, strict=True)
    drawn = [(name, kind) for name, kind in kinds if draw(st.integers(0, 9)) < (7 if name in "bcdfg" else 2)]
    has_defaults = False
    parameters: list[inspect.Parameter] = []
    for name, kind in drawn:
        by_position = kind in {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
        has_default = draw(st.booleans()) or (has_defaults and by_position)
        has_defaults = has_defaults or has_default
        takes_many = kind in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        default = f"default of {name}" if has_default and not takes_many else inspect.Parameter.empty
        parameters.append(inspect.Parameter(name, kind, default=default))
    return inspect.Signature(parameters)


def _or_error(take: Callable[[tuple[object, ...], dict[str, object]], Any], call: tuple[Any, Any]) -> Any:
    try:
        return take(*call)
    except TypeError as error:
        return str(error)


@given(signature=signatures(), calls=st.lists(CALLS, min_size=1, max_size=5))
@settings(max_examples=300)
def test_arguments_are_named_as_python_binds_them(
    signature: inspect.Signature, calls: list[tuple[tuple[object, ...], dict[str, object]]]
) -> None:
    """C6: for any signature and call, in the same order; and an expression reads from one argument what it is."""

    async def function(*args: object, **kwargs: object) -> None: ...

    function.__signature__ = signature  # type: ignore[attr-defined] # what `inspect.signature` looks at
    parameters = Parameters.of(function)
    finds = {
        name: finder(name, function, option="key", name="it", types={})[0]
        for name, each in signature.parameters.items()
        if each.kind is not each.VAR_KEYWORD
    }
    for call in calls:
        bound = _or_error(lambda args, kwargs: dict(parameters.bind(args, kwargs).arguments), call)
        named = _or_error(parameters.named, call)
        assert named == bound
        assert list(named) == list(bound)
        for name, find in finds.items():
            expected = bound[name] if isinstance(bound, dict) else bound
            assert _or_error(find, call) == (list(expected) if isinstance(expected, tuple) else expected)


@pytest.mark.parametrize(
    ("function", "receiver"),
    [
        (Till.pay, "self"),
        (Till().pay, None),
        (Till.__dict__["open"].__func__, "cls"),
        (Till.open, None),
        (Till.count, None),
        (charge, None),
        (Caller(), None),
    ],
)
def test_a_method_takes_its_receiver_first(function: Callable[..., object], receiver: str | None) -> None:
    """C7: known by its name; where it is bound already there is none to take."""
    assert Parameters.of(function).receiver == receiver


def test_a_local_function_is_no_method() -> None:
    """Its qualified name has a scope, too, which is no class; a parameter may be called `self`."""

    async def inner(self: str) -> None: ...

    assert Parameters.of(inner).receiver is None


async def outside(self: str) -> None: ...


def test_a_function_is_no_method() -> None:
    """Without a class in its name, `self` is an argument like any other."""
    assert Parameters.of(outside).receiver is None


def test_the_receiver_is_no_part_of_the_key() -> None:
    """C7: unless asked for."""
    parameters = Parameters.of(Till.pay)
    assert parameters.without_receiver((Till(), "a"), {}) == {"order": "a"}
    assert Parameters.of(outside).without_receiver(("a",), {}) == {"self": "a"}


def test_the_first_name_is_read_where_there_is_one() -> None:
    """Some builtins do not say what they take."""
    assert first_name(charge) == "order"
    assert first_name(generated) is None
    assert first_name(max) is None


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (charge, list[int]),
        (bare, Any),
        (quoted, dict[str, Till]),
        (annotated, Annotated[int, "cents"]),
        (Till.pay, int),
        (Till().pay, int),
        (Till.open, Till),
        (Caller(), bytes),
        (plain, type(None)),
    ],
)
def test_the_return_type_is_the_annotation(function: Callable[..., object], expected: object) -> None:
    """C4: resolved where it is a text; `Any` where there is none."""
    assert return_type(function) == expected


def test_a_wrapped_function_is_resolved_where_it_was_written() -> None:
    """Another decorator below ours may live in another module."""
    outer = functools.wraps(quoted)(FunctionType(bare.__code__, {"dict": list}))
    assert return_type(outer) == dict[str, Till]


def test_an_annotation_that_cannot_be_resolved_is_refused() -> None:
    """A name imported for type checkers only; the message says what to do."""
    with pytest.raises(ConfigurationError) as caught:
        return_type(unresolved)
    assert str(caught.value) == (
        f"the return annotation of {__name__}.unresolved cannot be resolved: name 'Address' is not defined; "
        "import its names at run time, or give result_type="
    )
    assert isinstance(caught.value.__cause__, NameError)
