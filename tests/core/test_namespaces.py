"""Namespaces: one function has one, wherever it runs; two functions that can answer differently have two."""

import functools
import gc
import runpy
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, idempotent, namespace_of
from aioidempotency.exceptions import IdempotencyError

HERE = __name__
Handler = Callable[..., Awaitable[object]]


async def send(channel: str, number: int = 1) -> str:
    return channel


class Base:
    async def pay(self, order: int) -> str:
        return type(self).__name__

    @classmethod
    async def open(cls, order: int) -> str:
        return cls.__name__

    @staticmethod
    async def count(order: int) -> str:
        return "static"


class Sub(Base):
    pass


class Sender:
    def __init__(self, channel: object) -> None:
        self.channel = channel

    async def __call__(self, order: int) -> object:
        return self.channel


@contextmanager
def lambda_named(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("AWS_LAMBDA_FUNCTION_NAME", name)
        yield


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (send, "send"),
        (functools.partial(send, "sms"), "send"),
        (Base().pay, "Base.pay"),
        (Sub().pay, f"Base.pay@{HERE}.Sub"),
        (Base.open, "Base.open"),
        (Sub.open, f"Base.open@{HERE}.Sub"),
        (Sub().open, f"Base.open@{HERE}.Sub"),
        (Sub.count, "Base.count"),
        (Sender("sms"), "Sender"),
    ],
)
def test_a_namespace_names_function_and_receiver(function: Handler, name: str) -> None:
    """C18: an inherited method in two subclasses is two functions; a static method has no receiver."""
    assert namespace_of(function) == f"{HERE}.{name}"


def test_the_namespace_of_a_decorated_function_is_the_one_that_it_has() -> None:
    """C18: what `get` and `forget` are asked with."""
    store = AsyncIdempotencyStore.in_memory()
    assert namespace_of(idempotent(store)(send)) == f"{HERE}.send"
    assert namespace_of(idempotent(store, namespace="v1")(send)) == "v1"
    assert namespace_of(functools.wraps(send)(idempotent(store, namespace="v1")(send))) == "v1"

    class Shop(Base):
        pay = idempotent(store)(Base.pay)
        kept = idempotent(store, namespace="v2")(Base.pay)

    assert namespace_of(Shop().pay) == f"{HERE}.Base.pay@{HERE}.{Shop.__qualname__}"
    assert namespace_of(Shop().kept) == "v2"


def test_two_lambda_functions_with_one_handler_never_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """C18: `app.handler` is what all of them are called."""
    names = []
    for name in ("orders", "refunds"):
        with lambda_named(name, monkeypatch):
            names.append(namespace_of(send))
    assert names == [f"orders.{HERE}.send", f"refunds.{HERE}.send"]


@pytest.mark.parametrize("main", ["__main__", "__mp_main__"])
@pytest.mark.parametrize(
    ("spec", "file", "name"),
    [
        ("shop.handlers", "/srv/shop/handlers.py", "shop.handlers"),
        ("shop.__main__", "/srv/shop/__main__.py", "shop"),
        (None, "/srv/invoices.py", "invoices"),
        ("__main__", "/srv/app.zip/__main__.py", "__main__"),
        (None, None, "__main__"),
    ],
)
def test_a_main_module_has_the_name_of_its_program(main: str, spec: str | None, file: str | None, name: str) -> None:
    """C18: by `-m`, by its file, or by nothing at all, in a notebook."""
    module = ModuleType(main)
    module.__dict__.update(__file__=file, __spec__=None if spec is None else ModuleType(spec))
    if spec is not None:
        module.__spec__.name = spec  # type: ignore[union-attr] # anything with a name
    exec("async def handle(order): ...\nclass Till:\n    async def __call__(self, order): ...\n", module.__dict__)
    assert namespace_of(module.handle) == f"{name}.handle"
    replaced = sys.modules.get(main)
    sys.modules[main] = module
    try:
        assert namespace_of(module.Till()) == f"{name}.Till"
    finally:
        del sys.modules[main]
        if replaced is not None:
            sys.modules[main] = replaced


# Conflicts


def handler_for(customer: object) -> Handler:
    async def handle(order: int) -> object:
        return customer

    return handle


def careless(function: Handler) -> Handler:
    async def wrapper(*args: Any, **kwargs: Any) -> object:
        return await function(*args, **kwargs)

    return wrapper


async def first(order: int) -> str:
    return "first"


async def second(order: int) -> str:
    return "second"


def defaulted(mode: object) -> Handler:
    async def handle(order: int, mode: object = mode) -> object:
        return mode

    return handle


def keyword_defaulted(mode: object) -> Handler:
    async def handle(order: int, *, mode: object = mode) -> object:
        return mode

    return handle


def either(*, one: bool) -> Handler:
    if one:

        async def handle(order: int) -> str:
            return "one"
    else:

        async def handle(order: int) -> str:
            return "another"

    return handle


class Client:
    """Neither data nor a function."""


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: (handler_for("anna"), handler_for("bert")), "differ in variable 'customer'"),
        (lambda: (handler_for([1, {"a": "x"}]), handler_for([1, {"a": "y"}])), "differ in variable 'customer'"),
        (lambda: (handler_for(Base), handler_for(Sub)), "differ in variable 'customer'"),
        (lambda: (handler_for({"a"}), handler_for({"b"})), "differ in variable 'customer'"),
        (lambda: (handler_for(first), handler_for(second)), "differ in variable 'customer'"),
        (lambda: (handler_for(print), handler_for(len)), "differ in variable 'customer'"),
        (lambda: (handler_for(Base().pay), handler_for(Base().open)), "differ in variable 'customer'"),
        (lambda: (careless(first), careless(second)), "differ in variable 'function'"),
        (lambda: (careless(handler_for(1)), careless(handler_for(2))), "differ in variable 'function'"),
        (lambda: (defaulted("a"), defaulted("b")), "differ in default 'mode'"),
        (lambda: (keyword_defaulted("a"), keyword_defaulted("b")), "differ in default 'mode'"),
        (lambda: (functools.partial(send, "sms"), functools.partial(send, "mail")), "differ in argument 'channel'"),
        (lambda: (functools.partial(send, channel="a"), functools.partial(send, channel="b")), "argument 'channel'"),
        (lambda: (Sender("sms"), Sender("mail")), "differ in attribute 'channel'"),
        (lambda: (either(one=True), either(one=False)), "one is defined at"),
    ],
)
def test_two_living_functions_of_one_namespace_conflict(make: Callable[[], tuple[Handler, Handler]], told: str) -> None:
    """C18: one would be answered with the other's results."""
    store = AsyncIdempotencyStore.in_memory()
    one, other = make()
    key = "number" if "channel" in told and "argument" in told else "order"
    key = key if "wrapper" not in namespace_of(one) else "args[0]"
    kept = idempotent(store, key=key)(one)
    with pytest.raises(ConfigurationError, match="Give each a name of its own") as caught:
        idempotent(store, key=key)(other)
    assert told in str(caught.value)
    assert namespace_of(one) in str(caught.value)
    idempotent(store, key=key, namespace="other")(other)
    idempotent(AsyncIdempotencyStore.in_memory(), key=key)(other)
    del kept


@pytest.mark.parametrize(
    "make",
    [
        lambda: (handler_for(Client()), handler_for(Client())),
        lambda: (handler_for("anna"), handler_for("anna")),
        lambda: (handler_for([Client()]), handler_for([Client()])),
        lambda: (careless(handler_for(Client())), careless(handler_for(Client()))),
        lambda: (Sender(Client()), Sender(Client())),
        lambda: (Sender("a").__call__, Sender("b").__call__),
        lambda: (Base().pay, Base().pay),
        lambda: (first, first),
    ],
)
def test_functions_that_hold_the_same_do_not_conflict(make: Callable[[], tuple[Handler, Handler]]) -> None:
    """C18: an application factory may be called twice, and a method bound to each instance."""
    store = AsyncIdempotencyStore.in_memory()
    made = make()
    assert len([idempotent(store)(function) for function in made]) == 2


def test_a_function_that_is_gone_conflicts_with_none() -> None:
    """C18: only the living can be called."""
    store = AsyncIdempotencyStore.in_memory()
    idempotent(store)(handler_for("anna"))
    gc.collect()
    idempotent(store)(handler_for("bert"))


def test_functions_that_share_a_variable_do_not_conflict() -> None:
    """C18: they see one value when they run."""
    store = AsyncIdempotencyStore.in_memory()
    made = []
    for number in range(3):

        async def handle(order: int) -> int:
            return number  # noqa: B023 - that is the question

        made.append(idempotent(store)(handle))
    assert len(made) == 3


def test_arguments_in_the_key_do_not_conflict() -> None:
    """C6: two partials whose held arguments are in the key share no record."""
    store = AsyncIdempotencyStore.in_memory()
    for source in (None, "[channel, number]", "@"):
        made = [idempotent(store, key=source)(functools.partial(send, name)) for name in ("sms", "mail")]
        assert len(made) == 2
        made.clear()
        gc.collect()


RELOADED = """
from aioidempotency import idempotent

@idempotent(store)
async def handle(order, mode={mode!r}):
    return mode

def factory():
{padding}    @idempotent(store)
    async def inner(order):
        return {mode!r}
    return inner

class Till:
    @idempotent(store)
    async def pay(self, order):
        return {mode!r}

made = factory()
"""


def test_a_definition_replaces_its_predecessor(tmp_path: Path) -> None:
    """C18: a module that is loaded again, and a notebook's cell that is run again, are no conflict."""
    store = AsyncIdempotencyStore.in_memory()
    file = tmp_path / "shop.py"
    namespace: dict[str, Any] = {"store": store, "__name__": "shop"}
    living = []
    for mode in ("a", "b"):
        code = RELOADED.format(mode=mode, padding="\n" if mode == "b" else "")
        exec(compile(code, str(file), "exec"), namespace)
        living.append([namespace["handle"], namespace["made"], namespace["Till"]])
    assert len(living) == 2
    file.write_text(code)
    assert len([runpy.run_path(str(file), {"store": store}, run_name="shop") for _ in range(2)]) == 2


DECORATED = """
import functools
from aioidempotency import idempotent

@idempotent(store)
@retrying
async def handle(order):
    return {mode!r}

@idempotent(store)
@careless
async def other(order):
    return {mode!r}
"""


def retrying(function: Handler) -> Handler:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> object:
        return await function(*args, **kwargs)

    return wrapper


def test_a_definition_under_another_decorator_replaces_its_predecessor() -> None:
    """C18: the wrapper's code is always the same, and the function inside is a new one, at another place."""
    store = AsyncIdempotencyStore.in_memory()
    names: dict[str, Any] = {"store": store, "retrying": retrying, "careless": careless, "__name__": "shop"}
    living = []
    for number, mode in enumerate(("a", "b")):
        exec(compile(DECORATED.format(mode=mode), f"<cell {number}>", "exec"), names)
        living.append([names["handle"], names["other"]])
    assert len(living) == 2


def test_a_function_under_another_decorator_belongs_to_its_own_program() -> None:
    """C18: the wrapper was made in another module; the function inside says which program's main module it is from."""
    module = ModuleType("__main__")
    module.__dict__.update(__file__="/srv/invoices.py", __spec__=None, retrying=retrying)
    exec("@retrying\nasync def handle(order): ...", module.__dict__)
    assert namespace_of(module.handle) == "invoices.handle"


async def test_run_never_refuses() -> None:
    """C18: closures over what a call needs are how `run` is used."""
    store = AsyncIdempotencyStore.in_memory()
    assert [await store.run(name, handler_for(name), 1) for name in ("anna", "bert")] == ["anna", "bert"]
    assert await store.run("o-1", functools.partial(send, "sms")) == "sms"
    assert await store.run("o-2", functools.partial(send, "mail")) == "mail"


async def test_two_functions_under_run_never_share_a_key() -> None:
    """C18: `run("invoice-42", send)` and `run("invoice-42", archive)` are two calls."""
    store = AsyncIdempotencyStore.in_memory()
    assert [await store.run("invoice-42", function, 1) for function in (first, second)] == ["first", "second"]
    record = await store.get("invoice-42", namespace=namespace_of(second))
    assert record is not None
    assert record.result == "second"


async def test_an_inherited_method_answers_for_each_class() -> None:
    """C18: and `super()` does not meet its own key."""
    store = AsyncIdempotencyStore.in_memory()

    class Till:
        @idempotent(store)
        async def pay(self, order: int) -> str:
            return type(self).__name__

    class One(Till):
        pass

    class Two(Till):
        @idempotent(store)
        async def pay(self, order: int) -> str:
            return "two, over " + await super().pay(order)

    assert [await kind().pay(1) for kind in (Till, One, Two, One)] == ["Till", "One", "two, over Two", "One"]


async def test_the_receiver_that_a_partial_holds_counts() -> None:
    """C18: and the first argument of a call is not taken for it."""
    store = AsyncIdempotencyStore.in_memory()
    assert namespace_of(functools.partial(Base.pay, Base())) == f"{HERE}.Base.pay"
    assert namespace_of(functools.partial(Base.pay, Sub())) == f"{HERE}.Base.pay@{HERE}.Sub"
    base, sub = (idempotent(store, key="order")(functools.partial(Base.pay, each)) for each in (Base(), Sub()))
    assert [await base(1), await sub(1), await base(order=1), await sub(order=1)] == ["Base", "Sub", "Base", "Sub"]
    record = await store.get(1, namespace=namespace_of(functools.partial(Base.pay, Sub())))
    assert record is not None
    assert record.result == "Sub"


# Pairs of functions that can answer differently


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2), st.text(max_size=2), st.lists(st.integers(0, 1), max_size=2)
)


def _instance_method(value: object) -> Handler:
    class Local:
        async def pay(self, order: int) -> object:
            return value

    return Local().pay


MAKERS: list[Callable[[object], Handler]] = [
    handler_for,
    defaulted,
    keyword_defaulted,
    lambda value: careless(handler_for(value)),
    lambda value: functools.partial(defaulted("m"), mode=value),
    Sender,
    lambda value: functools.partial(careless(handler_for(value))),
    _instance_method,
]


PAIRS = st.one_of(
    st.sampled_from(MAKERS).map(lambda make: (make, make)), st.tuples(st.sampled_from(MAKERS), st.sampled_from(MAKERS))
)


@given(PAIRS, VALUES, VALUES)
async def test_two_functions_that_can_answer_differently_never_share_a_record(
    pair: tuple[Callable[[object], Handler], Callable[[object], Handler]], value: object, another: object
) -> None:
    """C18: of any two functions, the second one is refused, or has records of its own."""
    store = AsyncIdempotencyStore.in_memory()
    functions = pair[0](value), pair[1](another)
    try:
        first_one, second_one = (idempotent(store, key=lambda *_, **__: "k")(function) for function in functions)
    except IdempotencyError:
        return
    await first_one(1)
    assert await second_one(1) == another
