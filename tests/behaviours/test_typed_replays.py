"""What a replay is: the first answer again, with the type that the function promises."""

import datetime as dt
import functools
import secrets
import sys
import types
from decimal import Decimal
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, ResultUnavailableError, idempotent
from tests.behaviours.conftest import Counted
from tests.behaviours.shapes import SHAPES, Invoice, Money, Receipt
from tests.conftest import MakeStore

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it


async def test_a_replay_has_the_type_of_the_annotation(make_store: MakeStore) -> None:
    """C4: a replay equals the first answer, its members, too, and has its type; for every shape in `SHAPES`."""
    store, wrong = make_store(), {}
    for annotation, value in SHAPES:
        first, replayed = await answers(store, annotation, value)
        assert first is value
        if replayed != value or type(replayed) is not type(value) or repr(replayed) != repr(value):
            wrong[repr(value)] = replayed
    assert wrong == {}


async def answers(store: AsyncIdempotencyStore, annotation: object, value: object) -> list[object]:
    """Call a function with this return annotation twice; its body runs once."""
    bodies = []

    async def answer(call: int) -> object:
        bodies.append(call)
        return value

    answer.__annotations__["return"] = annotation
    decorated = idempotent(store, namespace=secrets.token_hex(6))(answer)
    both = [await decorated(1), await decorated(1)]
    assert bodies == [1]
    return both


async def test_run_replays_with_the_type_of_the_functions_annotation(make_store: MakeStore) -> None:
    """C4: `run` reads the annotation of the function that it is given."""

    async def pay(amount: str) -> Money:
        return Money(Decimal(amount))

    store = make_store()
    assert [await store.run("k", pay, "1.10"), await store.run("k", pay, "9")] == [Money(Decimal("1.10"))] * 2


class Shop:
    @classmethod
    async def sell(cls, amount: str) -> Money:
        return Money(Decimal(amount))

    async def __call__(self, amount: str, times: int) -> list[Money]:
        return [Money(Decimal(amount))] * times


async def test_callables_of_every_kind_replay_with_their_type(make_store: MakeStore) -> None:
    """C4: bound methods, callable instances and partials have a return annotation, too."""
    store, one = make_store(), Money(Decimal("1.10"))
    sell, many = idempotent(store)(Shop.sell), idempotent(store, namespace="many")(Shop())
    two = idempotent(store, namespace="two")(functools.partial(Shop(), times=2))
    assert [await sell("1.10"), await sell("1.10")] == [one] * 2
    assert [await many("1.10", 3), await many("1.10", 3)] == [[one] * 3] * 2
    assert [await two("1.10"), await two("1.10")] == [[one] * 2] * 2


DEFINED_LATER = """
from dataclasses import dataclass

@idempotent(store)
async def charge(order_id: str) -> {annotation}:
    return Receipt(order_id, Part(1))

@dataclass
class Receipt:
    order_id: str
    part: "Part"

@dataclass
class Part:
    number: int
"""


@pytest.mark.parametrize(
    "source",
    [
        DEFINED_LATER.format(annotation='"Receipt"'),
        "from __future__ import annotations\n" + DEFINED_LATER.format(annotation="Receipt"),
    ],
    ids=["quoted", "all annotations are strings"],
)
async def test_a_type_may_be_defined_after_the_function(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """C4: an annotation that is a text is looked up when the function is first called."""
    module: Any = types.ModuleType("defined_later")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(store=make_store(), idempotent=idempotent)
    exec(compile(source, "defined_later.py", "exec", dont_inherit=True), vars(module))
    first, replayed = await module.charge("o-1"), await module.charge("o-1")
    assert replayed == first == module.Receipt("o-1", module.Part(1))
    assert isinstance(replayed.part, module.Part)


async def test_without_an_annotation_a_replay_is_plain_json(make_store: MakeStore) -> None:
    """C4: where nothing is promised, a replay is what JSON makes of the first answer."""

    @idempotent(make_store())
    async def charge(order_id: str):  # type: ignore[no-untyped-def]
        return (order_id, Money(Decimal("1.10")))

    assert await charge("o-1") == ("o-1", Money(Decimal("1.10")))
    assert await charge("o-1") == ["o-1", {"amount": "1.10", "currency": "EUR"}]


async def test_an_annotation_that_cannot_be_found_is_refused_before_anything_is_written(counted: Counted) -> None:
    """C4: a name that is there for type checkers only: the first call says so, and its body does not run."""
    bodies = []

    async def charge(order_id: str) -> object:
        bodies.append(order_id)
        return Money(Decimal(1))

    charge.__annotations__["return"] = "OnlyForTypeCheckers"
    decorated = idempotent(counted.store)(charge)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"charge.*'OnlyForTypeCheckers'.*result_type="):
            await decorated("o-1")
    assert (bodies, counted.operations) == ([], [])

    typed = idempotent(counted.store, result_type=Money)(charge)
    assert [await typed("o-1"), await typed("o-1")] == [Money(Decimal(1))] * 2
    assert bodies == ["o-1"]


async def test_result_type_wins_over_the_annotation(make_store: MakeStore) -> None:
    """C4: `result_type=` says what a replay is, where the annotation says less."""

    @idempotent(make_store(), result_type=tuple[Money, ...])
    async def charge(order_id: str) -> Any:
        return (Money(Decimal(1)),)

    assert [await charge("o-1"), await charge("o-1")] == [(Money(Decimal(1)),)] * 2


@pytest.mark.parametrize("annotation", [list[dt.datetime | str], list[Receipt | Invoice]], ids=str)
def test_a_type_that_json_cannot_tell_is_refused_at_decoration(annotation: object) -> None:
    """C4: a union of look-alikes inside a list is refused when decorating: no class is stored for each member."""

    async def charge(order_id: str) -> None: ...

    charge.__annotations__["return"] = annotation
    with pytest.raises(ConfigurationError, match=r"cannot be read back.*result_type="):
        idempotent(AsyncIdempotencyStore.in_memory())(charge)


async def test_a_result_that_does_not_fit_the_annotation_any_more_is_not_run_again(make_store: MakeStore) -> None:
    """C4: after a deployment that changed the return type, a replay says so; the record stays."""
    store, bodies = make_store(), []

    @idempotent(store, namespace="charge")
    async def before(order_id: str) -> str:
        return "paid"

    @idempotent(store, namespace="charge")
    async def after(order_id: str) -> Money:
        bodies.append(order_id)
        return Money(Decimal(1))

    await before("o-1")
    with pytest.raises(ResultUnavailableError, match="another type than Money"):
        await after("o-1")
    assert await before("o-1") == "paid"
    assert bodies == []
