"""Which part of a call is its key: names that are checked, parts that must be there, and objects that tell nothing."""

import inspect
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from keyword import iskeyword
from typing import Annotated, Any, TypedDict
from unittest.mock import AsyncMock, MagicMock, Mock, create_autospec

import attrs
import jmespath
import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from aws_lambda_powertools.utilities.data_classes import SQSEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, PlainSerializer
from pydantic_core import core_schema
from starlette.requests import Request

from aioidempotency import ConfigurationError, MissingKeyError, SerializationError
from aioidempotency._keys import digest
from aioidempotency._selection import AnyFunction, Find, KeySource, MissingParts, finder
from aioidempotency._signatures import parameter_types


def find(function: AnyFunction, source: KeySource, *, missing_parts: MissingParts = "raise") -> Find:
    """Make what finds the key of a function's calls."""
    types = parameter_types(function)
    made, _ = finder(source, function, option="key", name="shop.pay", types=types, missing_parts=missing_parts)
    return made


@dataclass
class Order:
    id: str
    note: str | None = None


class Model(BaseModel):
    id: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    id: str


@attrs.define
class Attrs:
    id: str


class Struct(msgspec.Struct):
    id: str


class Typed(TypedDict):
    id: str


async def pay(tenant: Any, order_id: Any, **options: Any) -> None: ...
async def charge(order: Any, tenant: Any = None) -> None: ...


class Till:
    async def pay(self, order: Any) -> None: ...


# Names


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("[tenent, order]", "'tenent' in '[tenent, order]' is no parameter; write 'tenant'"),
        ("ordr.id", "'ordr' in 'ordr.id' is no parameter; write 'order'"),
        ("x", "'x' in 'x' is no parameter; write one of order, tenant"),
        ("{a: order.id, b: tenent}", "'tenent'"),
        ("join('-', [order.id, tenent])", "'tenent'"),
        ("ordr[0].id", "'ordr'"),
        ("ordr[*].id", "'ordr'"),
        ("ordr[?id=='1'].id", "'ordr'"),
        ("ordr.*", "'ordr'"),
        ("order || ordr", "'ordr'"),
        ("order && !ordr", "'ordr'"),
        ("ordr | id", "'ordr'"),
        ("@.ordr", "'ordr'"),
        ("@ | ordr", "'ordr'"),
        ("sort_by(ordr, &id)", "'ordr'"),
        ("ordr == tenant", "'ordr'"),
    ],
)
def test_a_name_that_is_no_parameter_is_refused_when_decorating(expression: str, told: str) -> None:
    """C19: all tenants would share one record, or no call would have a key."""
    with pytest.raises(ConfigurationError) as caught:
        find(charge, expression)
    assert str(caught.value).startswith(f"key= of shop.pay: {told}")


def test_a_function_without_parameters_has_no_names() -> None:
    """C19: the message does not end in nothing."""

    async def tick() -> None: ...

    with pytest.raises(ConfigurationError, match="is no parameter; there are no parameters"):
        find(tick, "now")


@pytest.mark.parametrize(
    "expression",
    [
        "order",
        "order.id",
        "[order.id, tenant]",
        "order.lines[*].id",
        "order.lines[?paid].id",
        "sort_by(order.lines, &id)[0].id",
        "@",
        "order | [id, note]",
        "@.order.id",
        "length(@)",
        "'constant'",
        "`1`",
        "order.lines[].[id, amount]",
    ],
)
def test_names_of_parameters_and_of_what_they_hold_pass(expression: str) -> None:
    """C19: only the first name of a path is a parameter's."""
    find(charge, expression)


def test_any_name_may_be_among_the_keywords_that_a_function_gathers() -> None:
    """C19: they are found by their own names, and under that of `**options`."""
    for expression in ("order_ref", "options.order_ref", "[order_ref, tenant][0]"):
        assert find(pay, expression)((), {"tenant": "a", "order_id": 1, "order_ref": "o-1"}) == "o-1"
    assert find(pay, "tenant")((), {"tenant": "a", "order_id": 1}) == "a"


def test_a_method_may_name_its_receiver() -> None:
    """C19: `self` is a parameter like any other where an expression names it."""
    till = Till()
    till.currency = "CHF"  # type: ignore[attr-defined] # an attribute of the object
    assert find(Till.pay, "[self.currency, order]")((till, 1), {}) == ["CHF", 1]


@pytest.mark.parametrize("annotation", [Order, Model, Attrs, Struct, Typed, Order | None, Order | Model])
def test_a_member_that_an_annotated_type_has_not_is_refused(annotation: Any) -> None:
    """C19: a misspelt field would be null at every call, and all payloads one."""

    async def take(order: Any) -> None: ...

    take.__annotations__["order"] = annotation
    with pytest.raises(
        ConfigurationError, match=r"'order.idd' never finds anything: the annotated type of 'order' has no 'idd'"
    ):
        find(take, "order.idd")
    with pytest.raises(ConfigurationError, match=r"write 'id'. To read a property, give a callable"):
        find(take, "[order.idd, order.id]")
    find(take, "order.id")


@pytest.mark.parametrize(
    "annotation", [Any, dict[str, Any], Mapping[str, Any], Open, Order | dict[str, Any], "Unknown", Annotated[Any, 1]]
)
def test_a_type_that_may_have_any_member_is_not_judged(annotation: Any) -> None:
    """C19: what cannot be known is left to the call."""

    async def take(order: Any) -> None: ...

    take.__annotations__["order"] = annotation
    find(take, "order.anything.at_all")


def test_members_are_followed_through_annotated_types() -> None:
    """C19: the second level is checked like the first."""

    @dataclass
    class Line:
        order: Order | None

    async def take(line: Line) -> None: ...

    find(take, "line.order.id")
    find(take, "line.order.id.anything")
    with pytest.raises(ConfigurationError, match="has no 'nte'; write 'note'"):
        find(take, "line.order.nte")


NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=6).filter(lambda name: not iskeyword(name))


def _expressions(names: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    paths = st.lists(names, min_size=1, max_size=3).map(".".join)
    return st.recursive(
        paths,
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
            st.lists(inner, min_size=1, max_size=2).map(lambda parts: f"{{a: {parts[0]}, b: {parts[-1]}}}"),
            st.tuples(inner, inner).map(" || ".join),
            inner.map(lambda part: f"length({part})"),
            st.tuples(paths, inner).map(lambda both: f"{both[0]}[*].{both[1]}" if "|" not in both[1] else both[0]),
            st.tuples(paths, inner).map(lambda both: f"{both[0]} | {both[1]}"),
        ),
        max_leaves=4,
    )


@given(parameters=st.sets(NAMES, min_size=1, max_size=4), expression=_expressions(NAMES))
def test_no_unknown_first_name_passes(parameters: set[str], expression: str) -> None:
    """C19: for any signature and expression, what passes reads nothing of the arguments but parameters."""

    async def take(**_: Any) -> None: ...

    take.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # what `inspect.signature` looks at
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in sorted(parameters)]
    )
    asked: set[str] = set()

    class Asked(dict[str, Any]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.add(name)
            return {"inner": 1} if name in parameters else default

    Asked.__name__ = "dict"
    try:
        find(take, expression)
    except ConfigurationError:
        return
    with suppress(jmespath.exceptions.JMESPathError):  # a length of what has none
        jmespath.compile(expression).search(Asked())
    assert asked <= parameters


# Parts


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("[tenant, order.id]", "'tenant'"),
        ("[order.id, tenant]", "'tenant'"),
        ("{t: tenant, o: order.id}", "'t'"),
        ("[[tenant, order.id], order.id]", "'tenant'"),
        ("order | [id, note]", "'note'"),
        ("order.[id, note]", "'note'"),
        ("[order.id, tenant.name]", "'tenant.name'"),
        ("[order.id, order.lines[0]]", "part 2 of 2"),
        ("not_null([tenant, order.id])", "'tenant'"),
        ("[order.id] && [order.id, tenant]", "'tenant'"),
        ("lines || [order.id, tenant]", None),
    ],
)
def test_a_null_part_of_a_built_key_is_named_and_refused(expression: str, part: str | None) -> None:
    """C19: strangers would share the answer to `[null, …]`."""
    arguments = {"order": {"id": "o-1", "note": None}, "tenant": None}
    if part is None:
        with pytest.raises(ConfigurationError):
            find(charge, expression)
        return
    with pytest.raises(MissingKeyError) as caught:
        find(charge, expression)((), arguments)
    assert caught.value.part == part
    assert str(caught.value).startswith(f"no idempotency key: in key= of shop.pay, {part} is null")
    find(charge, expression, missing_parts="allow")((), arguments)


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("order", {"id": "o-1", "note": None}),
        ("[order.id, order.note || 'none']", ["o-1", "none"]),
        ("[tenant]", [None]),
        ("[tenant, order.note]", [None, None]),
        ("[order.id, order.note] | [0]", "o-1"),
        ("order.id[?[a, b]]", None),
        ("[order.id, `0`, `false`]", ["o-1", 0, False]),
    ],
)
def test_nulls_that_make_no_key_pass(expression: str, found: object) -> None:
    """C19: data may hold nulls, and a key that is missing as a whole is told so."""
    arguments = {"order": {"id": "o-1", "note": None}, "tenant": None}
    assert find(charge, expression)((), arguments) == found


@pytest.mark.parametrize("made", [("a", None), ["a", None], [None, "a"]])
def test_a_null_part_that_a_callable_returns_is_refused(made: Any) -> None:
    """C19: a callable builds keys like an expression."""
    with pytest.raises(MissingKeyError, match=r"part \d of 2 is null"):
        find(charge, lambda order, tenant: made)((1,), {})
    assert find(charge, lambda order, tenant: made, missing_parts="allow")((1,), {}) == made


def test_callables_may_return_what_is_missing_as_a_whole_or_data_with_nulls() -> None:
    """C8: that is the question of `missing_key=`."""
    cases: list[Any] = [(None, None), [], None, {"a": 1, "b": None}, ("a", {"b": None})]
    for made in cases:
        assert find(charge, lambda order, tenant, made=made: made)((1,), {}) == made


def test_a_part_whose_comparison_is_no_truth_value_is_no_null() -> None:
    """C19: an array, say, which compares with None element by element."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    made = ("a", Odd())
    assert find(charge, lambda order, tenant: made)((1,), {}) is made


# Objects


def starlette_request(tenant: str | None) -> Request:
    headers = [] if tenant is None else [(b"x-tenant", tenant.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers})


def aiohttp_request(tenant: str | None) -> Any:
    return make_mocked_request("POST", "/", headers={} if tenant is None else {"X-Tenant": tenant})


async def serve(request: Any, order_id: str = "o-1") -> None: ...


@pytest.mark.parametrize("make", [starlette_request, aiohttp_request])
@pytest.mark.parametrize("expression", ['request.headers."x-tenant"', '[request.headers."X-Tenant", order_id]'])
def test_a_header_of_a_web_request_is_found(make: Any, expression: str) -> None:
    """C19: bert does not get anna's answer."""
    anna, bert = (find(serve, expression)((make(name),), {}) for name in ("anna", "bert"))
    assert [anna, bert] in (["anna", "bert"], [["anna", "o-1"], ["bert", "o-1"]])


@pytest.mark.parametrize("make", [starlette_request, aiohttp_request])
def test_a_header_that_was_not_sent_is_a_missing_part(make: Any) -> None:
    """C19: those who send no header share nothing."""
    with pytest.raises(MissingKeyError, match=r"in key= of shop\.pay"):
        find(serve, '[request.headers."x-tenant", order_id]')((make(None),), {})


def test_an_event_object_is_asked_for_its_attributes() -> None:
    """C19: the second message of a queue is not taken for the first."""
    event = SQSEvent({"Records": [{"messageId": name, "body": "{}"} for name in ("m-1", "m-2")]})

    async def handle(record: Any, queue: str) -> None: ...

    for expression in ("[queue, record.message_id]", "[queue, record.messageId]"):
        found = [find(handle, expression)((record, "q"), {}) for record in event.records]
        assert found == [["q", "m-1"], ["q", "m-2"]]


class Event(Mapping[str, object]):
    """A mapping with attributes of its own."""

    shared = "attribute"
    empty = None

    def __init__(self, **items: object) -> None:
        self._items = items

    def __getitem__(self, name: str) -> object:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def method(self) -> None: ...

    @property
    def broken(self) -> object:
        raise RuntimeError("canary-5f1c")


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("event.shared", "attribute"),
        ("event.items", "an item"),
        ("event.empty", "filled"),
        ("event.plain", 1),
        ("event.lacks", None),
        ("[event.shared, event.items]", ["attribute", "an item"]),
        ("length(event)", 4),
        ("sort(keys(event))", ["empty", "items", "plain", "shared"]),
        ("to_string(event.plain)", "1"),
        ("event.* | length(@)", 4),
        ("event.inner.x", None),
    ],
)
def test_attributes_come_before_items_unless_they_are_methods(expression: str, found: object) -> None:
    """C19: as whoever uses such an object reads it."""

    async def take(event: Any) -> None: ...

    event = Event(shared="item", items="an item", empty="filled", plain=1)
    assert find(take, expression, missing_parts="allow")((event,), {}) == found


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("event.method", "cannot call its method 'method'"),
        ("[event.method]", "cannot call its method 'method'"),
        ("event.broken", "could not be evaluated"),
        ("[event.broken]", "could not be evaluated"),
    ],
)
def test_what_cannot_be_read_of_a_mapping_is_told(expression: str, told: str) -> None:
    """C19: and the error shows no data."""

    async def take(event: Any) -> None: ...

    with pytest.raises(SerializationError, match=told) as caught:
        find(take, expression)((Event(),), {})
    assert "canary" not in str(caught.value)


class Answering:
    """An object that makes up what it is asked for."""

    def __getattr__(self, name: str) -> str:
        return ""


class Proxy:
    """An object that finds attributes in its own way, and has no others."""

    def __getattribute__(self, name: str) -> str:
        if name == "id":
            return "p-1"
        raise AttributeError(name)


@pytest.mark.parametrize("stranger", [Answering(), Mock(), MagicMock(), AsyncMock(), MagicMock(spec_set=None)])
@pytest.mark.parametrize("expression", ["order.id", "[order.id, tenant]"])
def test_an_object_that_answers_every_attribute_is_refused(stranger: Any, expression: str) -> None:
    """C19: a misspelt name has an answer there, too, and all calls one key."""
    with pytest.raises(SerializationError, match="the object answers every name"):
        find(charge, expression)((stranger, 1), {})


def test_a_proxy_that_has_only_its_own_attributes_is_read() -> None:
    """C19: how attributes are found is no reason to refuse."""
    assert find(charge, "order.id")((Proxy(),), {}) == "p-1"


def test_a_mapping_that_answers_every_attribute_is_asked_for_its_items() -> None:
    """C19: items are not made up."""

    class Generous(Event):
        def __getattr__(self, name: str) -> str:
            return "made up"

    assert find(charge, "order.id")((Generous(id="o-1"),), {}) == "o-1"


@pytest.mark.parametrize(
    "make",
    [
        Answering,
        MagicMock,
        lambda: Mock(spec=str),
        lambda: MagicMock(spec=dict),
        lambda: create_autospec(Order),
        lambda: {"order": MagicMock()},
        lambda: [Mock(spec=int)],
        lambda: MagicMock(spec=Model),
    ],
)
def test_a_mock_is_no_key(make: Callable[[], object]) -> None:
    """C19: whatever it says that it is."""
    with pytest.raises(SerializationError, match="cannot hold"):
        digest(make())


class Card:
    """A value that only pydantic knows, by a schema of its own."""

    def __init__(self, number: str) -> None:
        self.number = number

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        masked = core_schema.plain_serializer_function_ser_schema(lambda card: "****" + card.number[-4:])
        return core_schema.no_info_plain_validator_function(cls, serialization=masked)


class Payment(BaseModel):
    card: Card


class Shown(BaseModel):
    number: Annotated[str, PlainSerializer(lambda _: "****")]


def test_a_masked_field_is_no_key() -> None:
    """C19: two cards look alike behind their masks."""
    with pytest.raises(SerializationError, match="Card, which pydantic shows masked"):
        digest(Payment(card="4111111111111234"))  # type: ignore[arg-type] # the validator makes a Card
    assert digest(Shown(number="1")) != digest(Shown(number="2"))
    assert digest("****") != digest("***")


def test_a_number_of_thousands_of_digits_is_told_as_that() -> None:
    """C15: Python writes no integers of over 4,300 digits."""
    with pytest.raises(SerializationError, match="an integer of over 4,300 digits: take a digest"):
        digest(10**5000)


class Raising(Event):
    def items(self) -> Any:
        raise RuntimeError("canary-5f1c")

    __iter__ = items


@dataclass
class Lazy:
    @property
    def id(self) -> str:
        raise RuntimeError("canary-5f1c")

    id: str = "o-1"  # type: ignore[no-redef] # noqa: F811 - a field that is read by a property


@pytest.mark.parametrize("broken", [Raising(a=1), [Raising(a=1)]])
def test_material_that_raises_when_it_is_read_is_told(broken: Any) -> None:
    """C15: by the types alone; the error's text may hold data."""
    with pytest.raises(SerializationError, match="a Raising that raises RuntimeError when it is read") as caught:
        digest(broken)
    assert "canary" not in str(caught.value)
    with pytest.raises(SerializationError):
        find(charge, "[order.id]")((broken,), {})
