"""What can be decorated, what cannot, and what a decorated function still tells about itself."""

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, idempotent
from tests.conftest import MakeStore

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it

Call = Callable[[str], Awaitable[str]]


async def replays(call: Call, bodies: list[str], word: str) -> None:
    """Call twice with one order and once with another: two bodies, and the answer begins with `word`."""
    assert [await call("o-1"), await call("o-1"), await call("o-2")] == [f"{word} o-1", f"{word} o-1", f"{word} o-2"]
    assert bodies == ["o-1", "o-2"]


async def test_class_methods_below_or_above_the_decorator(make_store: MakeStore) -> None:
    """C14: in either order a class method runs once, with the class that it was called on."""
    store = make_store()
    inner: list[str] = []
    outer: list[str] = []

    class Shop:
        @idempotent(store)
        @classmethod
        async def first(cls, order_id: str) -> str:
            inner.append(order_id)
            return f"{cls.__name__} {order_id}"

        @classmethod
        @idempotent(store)
        async def second(cls, order_id: str) -> str:
            outer.append(order_id)
            return f"{cls.__name__} {order_id}"

    class Branch(Shop): ...

    await replays(Branch.first, inner, "Branch")
    await replays(Branch.second, outer, "Branch")
    assert await Branch().first("o-1") == await Branch().second("o-1") == "Branch o-1"
    assert inspect.ismethod(Branch.first)
    assert inspect.ismethod(Branch.second)


async def test_static_methods_below_or_above_the_decorator(make_store: MakeStore) -> None:
    """C14: in either order a static method runs once, called on the class or on an instance."""
    store = make_store()
    inner: list[str] = []
    outer: list[str] = []

    class Shop:
        @idempotent(store)
        @staticmethod
        async def first(order_id: str) -> str:
            inner.append(order_id)
            return f"first {order_id}"

        @staticmethod
        @idempotent(store)
        async def second(order_id: str) -> str:
            outer.append(order_id)
            return f"second {order_id}"

    await replays(Shop.first, inner, "first")
    await replays(Shop().second, outer, "second")
    assert [await Shop().first("o-1"), await Shop.second("o-1")] == ["first o-1", "second o-1"]


class Counter:
    """Callables that are not functions."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    async def method(self, order_id: str) -> str:
        """Count an order."""
        self.bodies.append(order_id)
        return f"method {order_id}"

    async def __call__(self, order_id: str) -> str:
        self.bodies.append(order_id)
        return f"called {order_id}"

    async def many(self, order_id: str) -> AsyncIterator[str]:
        yield order_id

    def plain(self, order_id: str) -> str:
        return order_id


async def test_methods_on_an_instance(make_store: MakeStore) -> None:
    """C14: a method decorated in its class body is bound like any method."""
    store = make_store()

    class Shop(Counter):
        @idempotent(store)
        async def sell(self, order_id: str) -> str:
            return (await self.method(order_id)).replace("method", "sold")

    shop = Shop()
    await replays(shop.sell, shop.bodies, "sold")
    assert await Shop.sell(shop, "o-1") == "sold o-1"


async def test_bound_methods(make_store: MakeStore) -> None:
    """C14: a bound method can be decorated where it is used."""
    counter = Counter()
    await replays(idempotent(make_store())(counter.method), counter.bodies, "method")


async def test_callable_instances(make_store: MakeStore) -> None:
    """C14: an object with `async __call__`, named by its class."""
    counter, store = Counter(), make_store()
    await replays(idempotent(store)(counter), counter.bodies, "called")
    record = await store.get({"order_id": "o-1"}, namespace=f"{__name__}.Counter")
    assert record is not None
    assert record.result == "called o-1"


async def test_partials(make_store: MakeStore) -> None:
    """C14: a `functools.partial` of a function, of a bound method, of a callable instance, of a partial."""
    store = make_store()
    bodies: list[str] = []

    async def greet(word: str, order_id: str, *, mark: str) -> str:
        bodies.append(order_id)
        return f"{word}{mark} {order_id}"

    await replays(idempotent(store)(functools.partial(functools.partial(greet, "hi"), mark="!")), bodies, "hi!")
    for kind, word in (("method", "method"), ("__call__", "called")):
        counter = Counter()
        held = functools.partial(getattr(counter, kind), order_id="o-1")
        decorated = idempotent(store, namespace=kind)(held)
        assert [await decorated(), await decorated()] == [f"{word} o-1"] * 2
        assert counter.bodies == ["o-1"]


async def generator(order_id: str) -> AsyncIterator[str]:
    yield order_id


class Generates:
    async def __call__(self, order_id: str) -> AsyncIterator[str]:
        yield order_id


def plain(order_id: str) -> str:
    return order_id


@pytest.mark.parametrize(
    "refused",
    [generator, functools.partial(generator), Generates(), Counter().many, staticmethod(generator)],
    ids=["function", "partial", "instance", "bound method", "static method"],
)
def test_async_generators_are_refused(refused: Any) -> None:
    """C14: an async generator has many results and a record holds one; it is refused at decoration."""
    with pytest.raises(ConfigurationError, match="is an async generator: it has many results"):
        idempotent(AsyncIdempotencyStore.in_memory())(refused)


@pytest.mark.parametrize(
    "refused",
    [
        plain,
        functools.partial(plain),
        lambda order_id: order_id,
        Counter().plain,
        staticmethod(plain),
        Counter,
        int,
        print,
        object(),
        "charge",
    ],
    ids=["function", "partial", "lambda", "bound", "static", "class", "type", "builtin", "object", "text"],
)
def test_what_cannot_be_awaited_is_refused(refused: Any) -> None:
    """C14: plain functions, classes and things that cannot be called at all are refused at decoration."""
    with pytest.raises(ConfigurationError, match=r"is not a coroutine function: .*`async def`"):
        idempotent(AsyncIdempotencyStore.in_memory())(refused)


async def test_a_decorated_function_tells_about_itself_as_before(make_store: MakeStore) -> None:
    """C14: name, documentation, annotations and signature survive, and it is a coroutine function."""

    async def charge(order_id: str, /, amount: int = 5, *more: int, currency: str = "EUR", **rest: str) -> str:
        """Charge an order."""
        return order_id

    decorated: Any = idempotent(make_store())(charge)
    for name in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
        assert getattr(decorated, name) == getattr(charge, name)
    assert inspect.signature(decorated) == inspect.signature(charge)
    assert inspect.iscoroutinefunction(decorated)
    assert inspect.unwrap(decorated) is charge
    with pytest.raises(TypeError, match="order_id"):
        await decorated()
    with pytest.raises(TypeError, match="amount"):
        await decorated("o-1", 5, amount=3)


def test_other_callables_tell_about_themselves_too() -> None:
    """C14: a partial shows the arguments that are left, a bound method none for its instance."""
    protect = idempotent(AsyncIdempotencyStore.in_memory())
    counter = Counter()
    held: Any = protect(functools.partial(counter.method, order_id="o-1"))
    assert str(inspect.signature(held)) == "(*, order_id: str = 'o-1') -> str"
    bound: Any = protect(counter.method)
    assert str(inspect.signature(bound)) == "(order_id: str) -> str"
    assert (bound.__name__, bound.__doc__) == ("method", "Count an order.")
    called: Any = protect(counter)
    assert str(inspect.signature(called)) == "(order_id: str) -> str"
    assert called.__doc__ == "Callables that are not functions."
