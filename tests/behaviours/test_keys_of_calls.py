"""What makes two calls the same call: which arguments count, and under which name."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from aioidempotency import ConfigurationError, idempotent
from tests.behaviours.conftest import Counted
from tests.conftest import MakeStore

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it


async def test_the_way_an_argument_is_passed_does_not_matter(make_store: MakeStore) -> None:
    """C6: positional, by keyword, in another order, or left to its default: one value, one key."""
    bodies = []

    @idempotent(make_store())
    async def charge(order_id: str, amount: int = 5, /, *more: int, currency: str = "EUR", **notes: str) -> None:
        bodies.append((order_id, amount, more, currency, notes))

    await charge("o-1")
    await charge("o-1", 5)
    await charge("o-1", 5, currency="EUR")
    assert len(bodies) == 1

    await charge("o-1", 5, 6, currency="EUR")
    await charge("o-1", note="gift")
    await charge("o-1", 6)
    await charge("o-1", currency="CHF")
    assert len(bodies) == 5


@pytest.mark.parametrize(
    "key",
    [
        None,
        "[order_id, amount]",
        lambda order_id, amount: [order_id, amount],
        "order_id",
        lambda order_id, **_: order_id,
    ],
    ids=["all", "expression", "callable", "expression of one", "callable of one"],
)
async def test_keywords_and_defaults_count_for_every_kind_of_key(
    make_store: MakeStore, key: str | Callable[..., object] | None
) -> None:
    """C6: the same for keys that an expression or a callable finds."""
    bodies = []

    @idempotent(make_store(), key=key)
    async def charge(order_id: str, *, amount: int = 5) -> None:
        bodies.append(order_id)

    await charge("o-1")
    await charge(order_id="o-1")
    await charge(amount=5, order_id="o-1")
    assert bodies == ["o-1"]
    await charge("o-2", amount=5)
    assert bodies == ["o-1", "o-2"]


async def test_two_functions_never_share_a_record(make_store: MakeStore) -> None:
    """C7: one payload, two functions of one name in two scopes: two records."""
    store = make_store()

    def first() -> Callable[[str], Awaitable[str]]:
        @idempotent(store)
        async def charge(order_id: str) -> str:
            return "first"

        return charge

    def second() -> Callable[[str], Awaitable[str]]:
        @idempotent(store)
        async def charge(order_id: str) -> str:
            return "second"

        return charge

    assert [await first()("o-1"), await second()("o-1")] == ["first", "second"]
    assert [await first()("o-1"), await second()("o-1")] == ["first", "second"]


async def test_methods_of_one_name_never_share_a_record(make_store: MakeStore) -> None:
    """C7: one method name in two classes is two functions."""
    store = make_store()

    class Cards:
        @idempotent(store)
        async def charge(self, order_id: str) -> str:
            return "card"

    class Vouchers:
        @idempotent(store)
        async def charge(self, order_id: str) -> str:
            return "voucher"

    assert [await Cards().charge("o-1"), await Vouchers().charge("o-1")] == ["card", "voucher"]
    assert [await Cards().charge("o-1"), await Vouchers().charge("o-1")] == ["card", "voucher"]


async def test_a_namespace_survives_a_renaming(make_store: MakeStore) -> None:
    """C7: `namespace=` stands for the function's name, so that a renamed one finds its records."""
    store = make_store()

    @idempotent(store, namespace="charges")
    async def old_name(order_id: str) -> str:
        return "old"

    @idempotent(store, namespace="charges")
    async def new_name(order_id: str) -> str:
        return "new"

    assert [await old_name("o-1"), await new_name("o-1")] == ["old", "old"]


class Item(NamedTuple):
    number: int


@dataclass
class Tenant:
    """A receiver that key material can hold."""

    name: str


@pytest.mark.parametrize(
    ("key", "instances_count"),
    [
        (None, False),
        ("order_id", False),
        (lambda order_id: order_id, False),
        (lambda order_id, *_: order_id, False),
        ("[self.name, order_id]", True),
        (lambda self, order_id: [self.name, order_id], True),
        (lambda self, **_: self.name, True),
    ],
    ids=["all", "expression", "callable", "callable with rest", "expression self", "callable self", "self alone"],
)
async def test_the_instance_counts_only_where_the_key_names_it(
    make_store: MakeStore, key: str | Callable[..., object] | None, instances_count: bool
) -> None:
    """C7: `self` is no part of the key, unless the expression or the callable asks for it by name."""
    bodies, store = [], make_store()

    class Shop(Tenant):
        @idempotent(store, key=key)
        async def charge(self, *, order_id: str) -> None:
            bodies.append(self.name)

    for name in ("anna", "bert", "anna"):
        await Shop(name).charge(order_id="o-1")
    assert bodies == (["anna", "bert"] if instances_count else ["anna"])


async def test_a_class_method_belongs_to_the_class_that_it_is_called_on(make_store: MakeStore) -> None:
    """C18: an inherited class method answers for its own class, whether the key names the class or not."""
    bodies, store = [], make_store()

    class Shop:
        currency = "EUR"

        @classmethod
        @idempotent(store)
        async def open(cls, city: str) -> None:
            bodies.append(("open", cls.currency))

        @classmethod
        @idempotent(store, key=lambda cls, city: [cls.currency, city])
        async def close(cls, city: str) -> None:
            bodies.append(("close", cls.currency))

    class SwissShop(Shop):
        currency = "CHF"

    for shop in (Shop, SwissShop, Shop, SwissShop):
        await shop.open("Basel")
        await shop.close(city="Basel")
    assert bodies == [("open", "EUR"), ("close", "EUR"), ("open", "CHF"), ("close", "CHF")]


async def test_a_functions_own_self_is_an_argument(make_store: MakeStore) -> None:
    """C7: in a plain function `self` is a name like any other."""
    bodies = []

    @idempotent(make_store())
    async def visit(self: str) -> None:
        bodies.append(self)

    await visit("a")
    await visit("b")
    assert bodies == ["a", "b"]


async def test_the_arguments_that_a_partial_holds_count(make_store: MakeStore) -> None:
    """C6: two partials of one function share a record exactly where all their arguments are equal."""
    bodies, store = [], make_store()

    async def charge(tenant: str, order_id: str, *, currency: str = "EUR") -> None:
        bodies.append((tenant, order_id, currency))

    anna, bert, again = (idempotent(store)(functools.partial(charge, name)) for name in ("anna", "bert", "anna"))
    francs = idempotent(store)(functools.partial(functools.partial(charge, currency="CHF"), "anna"))
    for each in (anna, bert, again, francs):
        await each("o-1")
    await francs("o-1", currency="EUR")
    await idempotent(store)(charge)("anna", "o-1")
    assert bodies == [("anna", "o-1", "EUR"), ("bert", "o-1", "EUR"), ("anna", "o-1", "CHF")]


async def test_an_expression_looks_into_the_arguments(make_store: MakeStore) -> None:
    """C6: JMESPath reaches into dataclasses, named tuples as lists, JSON texts and nested mappings."""
    bodies = []

    @idempotent(make_store(), key="[tenant.name, powertools_json(event.body).id, item[0]]")
    async def charge(tenant: Tenant, event: dict[str, str], item: Any) -> None:
        bodies.append(tenant.name)

    await charge(Tenant("anna"), {"body": '{"id": 1, "sent": "today"}'}, Item(3))
    await charge(Tenant("anna"), {"body": '{"id": 1, "sent": "tomorrow"}'}, Item(3))
    await charge(Tenant("bert"), {"body": '{"id": 1}'}, Item(3))
    await charge(Tenant("anna"), {"body": '{"id": 2}'}, Item(3))
    await charge(Tenant("anna"), {"body": '{"id": 1}'}, Item(4))
    assert bodies == ["anna", "bert", "anna", "anna"]


@pytest.mark.parametrize("key", ["order[", 5, b"order", Tenant("anna")], ids=repr)
def test_a_key_that_is_neither_expression_nor_callable_is_refused(counted: Counted, key: Any) -> None:
    """C6: a mistake in `key=` is found when decorating."""

    async def charge(order: object) -> None: ...

    with pytest.raises(ConfigurationError):
        idempotent(counted.store, key=key)(charge)
