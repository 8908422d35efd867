"""Calls without a key, and calls whose key material has no canonical form."""

import logging
import math
from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, MemoryBackend, MissingKeyError, SerializationError, idempotent
from aioidempotency._core.operations import Operation, Reply
from aioidempotency.events import Event, KeyMissing
from tests.behaviours.conftest import Counted
from tests.conftest import MakeStore
from tests.support.counting import CountingBackend

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it

MISSING: list[Any] = [None, "", [], (), {}, [None, None], {"id": None}]
PRESENT: list[Any] = [0, False, 0.0, " ", [0], {"id": False}]
REFUSED: list[tuple[object, str]] = [
    (b"abc", "bytes"),
    (bytearray(b"abc"), "bytearray"),
    ({"id": [b"abc"]}, "bytes"),
    ({1, 2}, "set"),
    ([frozenset({1})], "frozenset"),
    (object(), "object"),
    ({"deep": {"er": [object()]}}, "object"),
    ({1: "a"}, "int keys"),
    (math.nan, "NaN"),
    ([math.inf], "NaN or an infinity"),
    (1j, "complex"),
    (len, "builtin_function_or_method"),
    (int, "type"),
]


@pytest.fixture
def in_memory() -> Counted:
    """A store that nothing reaches in these tests, wherever it keeps its records."""
    counting = CountingBackend[Operation, Reply](MemoryBackend())
    return Counted(AsyncIdempotencyStore("calls", backend=counting), counting.operations)


@pytest.mark.parametrize("value", MISSING, ids=repr)
async def test_a_call_without_a_key_is_refused(in_memory: Counted, value: object) -> None:
    """C8: `missing_key="raise"`, the default: nothing is sent, the body does not run."""
    bodies = []

    @idempotent(in_memory.store, key="order_id")
    async def charge(order_id: object) -> None:
        bodies.append(order_id)

    with pytest.raises(MissingKeyError) as raised:
        await charge(value)
    assert raised.value.status_hint == 400
    assert not raised.value.retryable
    with pytest.raises(MissingKeyError):
        await in_memory.store.claim(value)
    with pytest.raises(MissingKeyError):
        async with in_memory.store.execute(value):
            bodies.append(value)
    assert (bodies, in_memory.operations) == ([], [])


async def test_values_that_are_false_are_keys(counted: Counted) -> None:
    """C8: `0` and `False` are keys; only what holds nothing is none."""
    bodies = []

    @idempotent(counted.store, key=lambda order_id: order_id)
    async def charge(order_id: object) -> None:
        bodies.append(order_id)

    for value in PRESENT:
        await charge(value)
        await charge(value)
    assert [repr(body) for body in bodies] == [repr(value) for value in PRESENT]


@pytest.mark.parametrize("key", ["order.nothing", lambda order: order.get("nothing")], ids=["expression", "callable"])
async def test_calls_without_a_key_run_unprotected_where_asked_for(
    counted: Counted,
    make_store: MakeStore,
    caplog: pytest.LogCaptureFixture,
    key: str | Callable[..., object],
) -> None:
    """C8: `missing_key="run"`: the body runs each time, nothing is sent, one warning is logged."""
    bodies = []

    @idempotent(counted.store, key=key, missing_key="run", namespace="charge")
    async def charge(order: dict[str, Any]) -> int:
        bodies.append(order)
        return len(bodies)

    with caplog.at_level(logging.DEBUG, "aioidempotency"):
        assert [await charge({"amount": 1}) for _ in range(3)] == [1, 2, 3]
    assert counted.operations == []
    (warning,) = (record for record in caplog.records if record.name.startswith("aioidempotency"))
    assert warning.levelno == logging.WARNING
    assert "charge" in warning.getMessage()

    assert await charge({"nothing": "here"}) == await charge({"nothing": "here"}) == 4


async def test_the_event_of_a_missing_key_is_reported_once_for_each_function(make_store: MakeStore) -> None:
    """C8: each decorated function warns once."""
    events: list[Event] = []
    store = make_store(on_event=events.append)

    @idempotent(store, missing_key="run", namespace="one")
    async def one(order_id: str | None) -> None: ...

    @idempotent(store, missing_key="run", namespace="two")
    async def two(order_id: str | None) -> None: ...

    for each in (one, two, one, two):
        await each(None)
    assert events == [KeyMissing("one"), KeyMissing("two")]


async def test_an_error_of_an_unprotected_call_passes_on(counted: Counted) -> None:
    """C8: nothing stands between the body of such a call and its caller."""
    error = ValueError("declined")

    @idempotent(counted.store, missing_key="run")
    async def charge(order_id: str | None) -> None:
        raise error

    with pytest.raises(ValueError, match="declined") as raised:
        await charge(None)
    assert raised.value is error
    assert counted.operations == []


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=[kind for _, kind in REFUSED])
async def test_key_material_without_a_canonical_form_is_refused(in_memory: Counted, value: object, kind: str) -> None:
    """C15: the error names the type, and comes before anything is sent or run."""
    bodies = []

    @idempotent(in_memory.store)
    async def charge(order: object) -> None:
        bodies.append(order)

    @idempotent(in_memory.store, key=lambda order: "k", fingerprint=lambda order: order)
    async def fingerprinted(order: object) -> None:
        bodies.append(order)

    with pytest.raises(SerializationError, match=f"the key material cannot hold .*{kind}"):
        await charge(value)
    with pytest.raises(SerializationError, match=f"the key material cannot hold .*{kind}"):
        await in_memory.store.claim(value)
    with pytest.raises(SerializationError, match=f"the fingerprint cannot hold .*{kind}"):
        await fingerprinted(value)
    assert (bodies, in_memory.operations) == ([], [])


async def test_material_that_holds_itself_is_refused(counted: Counted) -> None:
    """C15: a list inside itself has no end, and is no key."""
    endless: list[object] = [1]
    endless.append(endless)
    with pytest.raises(SerializationError):
        await counted.store.claim(endless)
    assert counted.operations == []


async def test_an_expression_that_fails_is_refused(counted: Counted) -> None:
    """C15: arguments on which the expression cannot be evaluated are named, and nothing is sent."""

    @idempotent(counted.store, key="powertools_json(body).id")
    async def charge(body: object) -> None: ...

    for body in ("{no JSON", 5):
        with pytest.raises(SerializationError, match=r"powertools_json\(body\)"):
            await charge(body)
    assert counted.operations == []
