"""A replay equals the first answer, or the first call says that it will not."""

import asyncio
import dataclasses
import datetime as dt
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pydantic
import pytest

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    Codec,
    ConfigurationError,
    JsonCodec,
    ResultUnavailableError,
    SerializationError,
    Wait,
    idempotent,
)
from aioidempotency.events import Event, RecordReleased, ResultDiffers, ResultDropped, StoreIfFailed
from tests.behaviours.conftest import Counted
from tests.conftest import MakeStore
from tests.support.results import ROWS, Animal, Client, Created, Dog, Note, Price, Receipt, Row, Updated

pytestmark = pytest.mark.backends("memory")  # no engine has a part in it

TABLE = [pytest.param(row, id=f"{row.annotation}: {row.value}".strip(": ")) for row in ROWS]


def returning(annotation: object, *results: object) -> Callable[..., Any]:
    """Make a function with this return annotation that gives one result after the other."""
    left = list(results)

    async def answer(key: str) -> object:
        return left.pop(0)

    answer.__annotations__["return"] = annotation
    return answer


class Told:
    """A store, and its events about results."""

    def __init__(self, make: Callable[..., AsyncIdempotencyStore], **options: Any) -> None:
        self.events: list[Event] = []
        self.store = make(on_event=self._hear, **options)

    def _hear(self, event: Event) -> None:
        if isinstance(event, ResultDiffers | ResultDropped | StoreIfFailed):
            self.events.append(event)

    def decorated(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return idempotent(self.store, namespace=secrets.token_hex(6), **options)(function)


@pytest.mark.parametrize("row", TABLE)
async def test_a_result_comes_back_as_the_table_says(make_store: MakeStore, row: Row) -> None:
    """C16, C17: in value and class, or with an event, or not at all."""
    told = Told(make_store)
    if row.verdict == "refused":
        with pytest.raises(ConfigurationError, match="cannot be read back"):
            told.decorated(returning(row.type))
        return
    charge = told.decorated(returning(row.type, row.result))
    assert await charge("1") is row.result
    if row.verdict == "dropped":
        assert [type(event) for event in told.events] == [ResultDropped]
        with pytest.raises(ResultUnavailableError):
            await charge("1")
        return
    replay = await charge("1")
    if row.verdict == "told":
        assert [type(event) for event in told.events] == [ResultDiffers]
        assert (type(replay), repr(replay)) != (type(row.result), repr(row.result))
        return
    assert told.events == []
    if row.annotation == "Sequence[int]":
        assert replay == list(row.result)
        return
    assert type(replay) is type(row.result)
    assert replay == row.result or row.annotation == "list[Receipt]"
    assert shown(replay) == shown(row.result)


def shown(result: object) -> str:
    """Show a result with its fields, but without the name of a time zone."""
    return result.isoformat() if isinstance(result, dt.datetime) else repr(result)


@pytest.mark.parametrize("row", [row for row in TABLE if row.values[0].verdict == "refused"])  # type: ignore[union-attr]
async def test_blocks_and_run_refuse_the_same_types_before_anything_is_written(counted: Counted, row: Row) -> None:
    """C17: `run`, `execute(result_type=)`, `commit_once(result_type=)` and the outbox, at the call."""
    store = counted.store
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        await store.run("1", returning(row.type))
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        store.execute("1", result_type=row.type)
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        await store.commit_once("1", None, [], result_type=row.type)
    assert counted.operations == []


def test_a_web_response_is_refused_with_the_way_out() -> None:
    """C17: the message says what to return, and which page shows how."""
    response = next(row for row in ROWS if row.annotation == "JSONResponse")
    with pytest.raises(
        ConfigurationError, match=r"return the data, and let the path operation make the response.*page"
    ):
        idempotent(AsyncIdempotencyStore.in_memory())(returning(response.type))


class Gives:
    """A codec that gives what it is told to."""

    def __init__(self, gives: object) -> None:
        self.gives, self.asked = gives, 0

    def encode(self, result: object) -> Any:
        self.asked += 1
        return self.gives

    def decode(self, text: str, result_type: object) -> object:
        return text


@pytest.mark.parametrize("gives", [b"null", None, 5, {"a": 1}])
async def test_a_codec_without_text_is_refused_before_the_body(make_store: MakeStore, gives: object) -> None:
    """C17: by the first call of any kind; nothing is written, and the body does not run."""
    bodies: list[str] = []

    async def charge(key: str) -> str:
        bodies.append(key)
        return "paid"

    store = make_store(codec=Gives(gives))
    calls: list[Callable[[], Any]] = [
        lambda: decorated("1"),
        lambda: store.run("1", charge, "1"),
        lambda: store.execute("1").__aenter__(),
        lambda: store.claim("1"),
        lambda: store.commit_once("1", "paid", []),
    ]
    decorated = idempotent(store)(charge)
    for call in calls:
        with pytest.raises(ConfigurationError, match=r"the codec Gives gives \w+, and records hold text"):
            await call()
    assert bodies == []


async def test_a_codec_is_asked_once_and_not_by_each_call(make_store: MakeStore) -> None:
    """C17: a call encodes its own result, and nothing else."""
    codec = Gives('"x"')
    store = make_store(codec=codec)
    charge = idempotent(store)(returning(str, "x", "x", "x"))
    await charge("1")
    first = codec.asked
    await charge("2")
    await charge("3")
    assert codec.asked == first + 2


class Pickled(msgspec.Struct):
    """What a codec of one's own reads."""

    number: int


class Lossy:
    """A codec that reads every number as 0."""

    def encode(self, result: object) -> str:
        return "0"

    def decode(self, text: str, result_type: object) -> object:
        return Pickled(0)


async def test_a_codec_of_ones_own_is_compared_by_what_it_reads(make_store: MakeStore) -> None:
    """C16: another value is dropped, an equal one is not."""
    codec: Codec = Lossy()
    told = Told(make_store, codec=codec)
    charge = told.decorated(returning(Pickled, Pickled(0), Pickled(7)))
    await charge("equal")
    assert (await charge("equal"), told.events) == (Pickled(0), [])
    await charge("other")
    assert [type(event) for event in told.events] == [ResultDropped]


async def test_a_function_without_an_annotation_is_told_once(make_store: MakeStore) -> None:
    """C16: the first difference of a function is an event; another function has its own."""
    told = Told(make_store)
    for _ in range(2):
        charge = told.decorated(returning(Any, (1,), (2,), (3,)))
        for key in "abc":
            await charge(key)
    assert [type(event) for event in told.events] == [ResultDiffers] * 2
    assert all("annotate the function" in event.reason for event in told.events if isinstance(event, ResultDiffers))


async def test_three_results_are_compared_where_nothing_is_promised(make_store: MakeStore) -> None:
    """C16: the fourth unlike result is not looked at. Results of JSON's own types do not count."""
    plain: list[object] = [{"a": 1}, [1], "text", None, 5] * 2
    nested: list[object] = [{"a": [n]} for n in range(3)]
    late, early = Told(make_store), Told(make_store)
    charge = late.decorated(returning(None, *plain, *nested, (1,)), result_type=Any)
    for key in range(len(plain) + len(nested) + 1):
        await charge(str(key))
    assert late.events == []
    charge = early.decorated(returning(None, *plain, *nested[:2], (1,)), result_type=Any)
    for key in range(len(plain) + 3):
        await charge(str(key))
    assert [type(event) for event in early.events] == [ResultDiffers]


async def test_a_promised_class_is_told_each_time(make_store: MakeStore) -> None:
    """C16: each call that gives an `int` for a `float` says so."""
    told = Told(make_store)
    charge = told.decorated(returning(float, 1, 2.0, 3))
    for key in "abc":
        await charge(key)
    assert len(told.events) == 2


async def test_events_name_places_and_never_data(make_store: MakeStore) -> None:
    """U3: classes and fields are named; keys of dictionaries and extra values of models are data."""

    class Open(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(extra="allow")

    told = Told(make_store)
    results = [
        (dict[str, int], {"canary": True}),
        (dict[str, list[Animal]], {"canary": [Dog("canary")]}),
        (Any, {"canary": (1,)}),
        (Note, Note(1, {"canary": ("canary",)})),
        (Open, Open.model_validate({"canary": ("canary",)})),
        (Price, Price(1.5)),
    ]
    for annotation, result in results:
        await told.decorated(returning(annotation, result))("1")
    assert len(told.events) == len(results)
    assert "canary" not in repr(told.events)
    assert [event.where for event in told.events if isinstance(event, ResultDiffers)] == [
        "dict[]",
        "Note.extra[]",
        "Open[]",
    ]


async def test_a_strict_store_raises_in_place_of_both_events(make_store: MakeStore) -> None:
    """C16: for tests; the key is free again."""
    told = Told(make_store)
    object.__setattr__(told.store._parts.settings, "strict_results", True)
    for annotation, results in (
        (float, (1, 1.0)),
        (Price, (Price(1.5), Price(0.0))),
        (Any, ((1,), [1])),
        (str, ("\ud800", "")),
    ):
        charge = told.decorated(returning(annotation, *results))
        with pytest.raises(SerializationError):
            await charge("1")
        await asyncio.sleep(0)
        assert await charge("1") is results[1]
    assert told.events == []


SIMPLE: list[tuple[Any, Any]] = [
    (str, "paid"),
    (int, 5),
    (float, 0.5),
    (bool, True),
    (None, None),
    (bytes, b"x"),
    (int | None, 5),
    (list[str], ["a"] * 3),
    (tuple[int, ...], (1, 2)),
    (dict[str, int], {"a": 1}),
    (dict, {"a": 1}),
    (Any, {"a": None}),
    (Any, "paid"),
]


@pytest.mark.parametrize(("annotation", "result"), SIMPLE, ids=str)
async def test_a_simple_result_costs_no_function_of_its_own(
    make_store: MakeStore, annotation: object, result: object
) -> None:
    """C16: one look at its class, in line: no function that reads types or compares is called."""
    charge = idempotent(make_store(), namespace="n")(returning(annotation, result, result))
    await charge("warm")
    called: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "aioidempotency" in frame.f_code.co_filename:
            called.append(Path(frame.f_code.co_filename).name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        await charge("1")
    finally:
        sys.setprofile(before)
    assert "_results.py" in called
    assert {"_result_types.py", "_comparison.py", "_annotations.py"}.isdisjoint(called)
    assert called.count("_results.py") == 1
    # A text with `null` is converted again, as msgspec writes NaN as null.
    assert called.count("codecs.py") == 1 + ("null" in JsonCodec().encode(result))


# The class of a result beside the data.


@pytest.mark.backends("memory", "ministack", "batched")
async def test_the_class_of_a_result_is_an_attribute_of_its_own(make_store: MakeStore) -> None:
    """C16: `result_class`, which can be renamed, by the name that the namespaces of functions have."""
    store = make_store(attributes=AttributeNames(result_class="kind"))
    charge = idempotent(store, namespace="n", key="key")(returning(Created | Updated, Updated(id=1)))
    await charge("1")
    record = await store.get("1", namespace="n")
    assert record is not None
    assert record.result_class == f"{Updated.__module__}.Updated"
    assert record.result == {"id": 1}
    assert "Updated" not in repr(record)


async def test_a_class_that_the_annotation_does_not_have_is_not_looked_up(make_store: MakeStore) -> None:
    """C16: a stored name chooses among the annotation's own classes; it imports nothing, and `BaseModel` is none."""
    store = make_store()

    @dataclasses.dataclass
    class Cat(Animal):
        lives: int = 9

    for written, result, read in (
        (Created | Updated, Updated(id=1), Created),
        (Animal, Cat("Tom"), Dog),
        (Created | Updated, Updated(id=1), Animal),
    ):
        key = secrets.token_hex(4)
        await idempotent(store, namespace="n", key="key")(returning(written, result))(key)
        with pytest.raises(ResultUnavailableError, match="a class unknown to the return annotation"):
            await idempotent(store, namespace="n", key="key")(returning(read))(key)


async def test_two_classes_of_one_name_are_ambiguous(make_store: MakeStore) -> None:
    """C16: then no one can tell which was meant."""

    def made() -> type[Animal]:
        @dataclasses.dataclass
        class Cat(Animal):
            lives: int = 9

        return Cat

    first, second = made(), made()
    store = make_store()
    charge = idempotent(store, namespace="n")(returning(Animal, first("Tom")))
    await charge("1")
    with pytest.raises(ResultUnavailableError):
        await charge("1")
    assert first is not second


async def test_a_class_that_slots_have_copied_is_one(make_store: MakeStore) -> None:
    """C16: `slots=True` makes a second class, and the first one may live on for a while."""

    @dataclasses.dataclass(slots=True)
    class Cat(Animal):
        lives: int = 9

    charge = idempotent(make_store(), namespace="n")(returning(Animal, Cat("Tom", 3)))
    assert [await charge("1"), await charge("1")] == [Cat("Tom", 3)] * 2


async def test_a_module_that_was_loaded_again_finds_its_present_class(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C16: the class before the reload is still there, and is not the one that the module has."""
    store, module = make_store(), sys.modules[__name__]

    def define() -> type[Animal]:
        @dataclasses.dataclass
        class Horse(Animal):
            legs: int = 4

        Horse.__qualname__ = "Horse"
        monkeypatch.setattr(module, "Horse", Horse, raising=False)
        return Horse

    before, after = define(), define()
    charge = idempotent(store, namespace="n")(returning(Animal, after("Fury")))
    await charge("1")
    assert type(await charge("1")) is after
    assert before is not after


async def test_a_result_stored_by_commit_once_has_its_class(make_store: MakeStore) -> None:
    """C16: also in a transaction. A result that would differ is an error there, because nothing has run."""
    store = make_store()
    for _ in range(2):
        assert await store.commit_once("1", Dog("Rex", 3), [], result_type=Animal) == Dog("Rex", 3)
    with pytest.raises(SerializationError, match=r"a replay cannot hold Price.cents as it is"):
        await store.commit_once("2", Price(1.5), [], result_type=Price)
    assert await store.get("2") is None


# `store_if`


async def test_a_result_that_is_not_wanted_is_given_and_not_stored(make_store: MakeStore) -> None:
    """C21: the caller has it, the next call runs, and a wanted one is kept."""
    charge = idempotent(make_store(), store_if=lambda result: result != "try again")(
        returning(str, "try again", "paid", "never")
    )
    assert [await charge("1") for _ in range(3)] == ["try again", "paid", "paid"]


async def test_who_waits_for_a_result_that_is_not_wanted_runs(make_store: MakeStore) -> None:
    """C21: one after the other, until one is wanted."""
    bodies = []

    @idempotent(make_store(), store_if=lambda result: result >= 2, on_in_progress=Wait(5))
    async def charge(key: str) -> int:
        bodies.append(key)
        await asyncio.sleep(0)
        return len(bodies)

    assert sorted(await asyncio.gather(*(charge("1") for _ in range(4)))) == [1, 2, 2, 2]


async def test_a_result_is_asked_about_before_it_is_written(make_store: MakeStore) -> None:
    """C21: so a result that cannot be stored need not be."""
    told = Told(make_store)
    charge = told.decorated(returning(Any, Client(), "paid"), store_if=lambda result: isinstance(result, str))
    assert isinstance(await charge("1"), Client)
    assert (await charge("1"), told.events) == ("paid", [])


async def test_a_predicate_that_fails_counts_as_yes(make_store: MakeStore) -> None:
    """C21, U3: the body has run, so the result is kept; the event names the class of the error alone."""

    def fails(result: object) -> bool:
        raise LookupError(result)

    told = Told(make_store)
    charge = told.decorated(returning(str, "canary"), store_if=fails)
    assert [await charge("1"), await charge("1")] == ["canary"] * 2
    (event,) = told.events
    assert isinstance(event, StoreIfFailed)
    assert (event.reason, "canary" in repr(event)) == ("LookupError", False)


async def test_a_replay_is_not_asked_about(make_store: MakeStore) -> None:
    """C21: what is stored stays."""
    asked: list[object] = []

    def wanted(result: object) -> bool:
        asked.append(result)
        return True

    charge = idempotent(make_store(), store_if=wanted)(returning(str, "paid"))
    await charge("1")
    await charge("1")
    assert asked == ["paid"]


async def _later(result: object) -> bool:
    return True


class _Later:
    async def __call__(self, result: object) -> bool:
        return True


@pytest.mark.parametrize("given", [_later, _Later(), "yes"])
@pytest.mark.parametrize("name", ["store_if", "upgrade"])
def test_a_predicate_that_would_be_awaited_is_refused(given: Any, name: str) -> None:
    """C21: a coroutine is true, whatever it would answer."""
    with pytest.raises(ConfigurationError, match=f"{name}= takes a plain function"):
        idempotent(AsyncIdempotencyStore.in_memory(), **{name: given})


async def test_an_unwanted_result_gives_the_key_back_by_a_release(make_store: MakeStore) -> None:
    """C21: as an error in the body does."""
    events: list[Event] = []
    store = make_store(on_event=events.append)
    await idempotent(store, namespace="n", key="key", store_if=lambda result: False)(returning(str, "x"))("1")
    assert isinstance(events[-1], RecordReleased)
    assert isinstance(await store.claim("1", namespace="n"), Claimed)


# `upgrade`


@dataclasses.dataclass
class NewReceipt:
    number: int
    currency: str


async def test_an_old_result_is_upgraded(make_store: MakeStore) -> None:
    """C21: for the retention after a deployment that changed the type; by JSON, or by the new type itself."""
    store = make_store()

    def upgrades(old: Any) -> object:
        return {**old, "currency": "EUR"}

    await idempotent(store, namespace="n", key="key")(returning(Receipt, Receipt(7)))("1")
    for upgrade in (upgrades, lambda old: NewReceipt(old["number"], "EUR")):
        charge = idempotent(store, namespace="n", key="key", upgrade=upgrade)(returning(NewReceipt))
        assert await charge("1") == NewReceipt(7, "EUR")
        async with store.execute("1", namespace="n", result_type=NewReceipt, upgrade=upgrade) as execution:
            assert execution.result == NewReceipt(7, "EUR")


async def test_a_result_that_fits_is_not_upgraded(make_store: MakeStore) -> None:
    """C21: nor is a tombstone."""
    asked: list[object] = []
    charge = idempotent(make_store(), upgrade=asked.append)(returning(Price, Price(0.0), Price(1.5)))
    assert [await charge("fits"), await charge("fits")] == [Price(0.0)] * 2
    await charge("dropped")
    with pytest.raises(ResultUnavailableError, match="could not be stored"):
        await charge("dropped")
    assert asked == []


@pytest.mark.parametrize("answer", [lambda old: old["canary"], lambda old: {"canary": old}, lambda old: object()])
async def test_an_upgrade_that_fails_leaves_the_result_unavailable(
    make_store: MakeStore, answer: Callable[[Any], object]
) -> None:
    """C21, U3: the body does not run, and no message shows the result."""
    store = make_store()
    await idempotent(store, namespace="n", key="key")(returning(Receipt, Receipt(7)))("1")
    with pytest.raises(ResultUnavailableError, match="upgrading it raised") as caught:
        await idempotent(store, namespace="n", key="key", upgrade=answer)(returning(NewReceipt))("1")
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_member_that_left_the_union_is_upgraded(make_store: MakeStore) -> None:
    """C21: a class that the annotation does not have any more counts as a result that does not fit."""
    store = make_store()
    await idempotent(store, namespace="n", key="key")(returning(Created | Updated, Updated(id=1)))("1")
    charge = idempotent(store, namespace="n", key="key", upgrade=lambda old: Receipt(old["id"]))(
        returning(Created | Receipt)
    )
    replay = await charge("1")
    assert isinstance(replay, Receipt)
    assert replay.number == 1
