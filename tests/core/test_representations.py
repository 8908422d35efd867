"""U3, O24: no `repr`, error or traceback of the library's shows payloads, results or raw keys.

Each class of the package that has fields is filled with canaries, by the types of its fields, and so is each error.
A class that is new is found by itself. What may be shown is named here, and why.
"""

import asyncio
import base64
import dataclasses
import importlib
import inspect
import pkgutil
import traceback
import types
import typing
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

import anyio
import pytest

import aioidempotency
from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    CustomPartition,
    GroupCommit,
    HashBuckets,
    IdempotencyError,
    MemoryBackend,
)
from aioidempotency import _results as results
from aioidempotency import exceptions as errors
from aioidempotency._backoff import Backoff
from aioidempotency._call import CallOptions
from aioidempotency._core import operations
from aioidempotency._core.conditions import Condition, Unchanged
from aioidempotency._core.model import AttributeNames, Item, Lease, Location, Record, Route, Status, Table
from aioidempotency._core.operations import Delete, Effect, Found, FoundAll, Get, GetAll, Put, Query
from aioidempotency._core.protocol import claim, claim_refused, complete
from aioidempotency._effects import commits, ids, outbox
from aioidempotency._effects.commits import Commit
from aioidempotency._effects.outbox import Outbox
from aioidempotency._effects.pending import PendingWrites
from aioidempotency._effects.store import Effects
from aioidempotency._effects.writes import Items
from aioidempotency._lease import RunningLease
from aioidempotency._namespaces import Functions
from aioidempotency._options import Settings
from aioidempotency._parts import Parts, PartsInUse
from aioidempotency._records import LocalCache, Records
from aioidempotency._result_types import ResultType
from aioidempotency._waiting import RunningCalls
from aioidempotency.codecs import Codec, JsonCodec
from tests.core.playing import NOW, RENAMED, SIMPLE, attempt, held, play

CANARY = "canary"
VALUE: Any = {"S": CANARY}
ITEM: Item = {"pk": VALUE, "data": {"M": {"result": VALUE}}}
DIGEST = "shop#0bafe22156d2"
FOREIGN = Location(table=SIMPLE, partition=f"S:{CANARY}", typed={"pk": VALUE})

SHOWN = {
    # a digest, or random bits
    "key": DIGEST,
    "owner": "0123456789abcdef",
    "fingerprint": "0bafe22156d2",
    "id": "0123456789abcdef-0",
    "token": "0123456789abcdef",
    "event_id": "0123456789abcdef-0",
    "behind": "0bafe22156d2$",
    # the program's and the table's own names
    "namespace": "shop",
    "name": "orders",
    "label": "a host",
    "table_name": "orders",
    "outbox_table": "orders",
    "variable": "AIOIDEMPOTENCY_DISABLED",
    "host": "localhost",
    "partition_attribute": "pk",
    "sort_attribute": "sk",
    "attribute": "pk",
    "prefix": "idempotency",
    "module": "shop.orders",
    "scope": "Orders",
    "handler": "orders.handler",
    "method": "POST",
    "text": "shop.orders",
    "type": "ValueError",
    "encoding": "zlib",
    "code": "ConditionalCheckFailed",
    "kind": "str",
    "operation": "PutItem",
    "shown": "orders",
    "partition": f"bucket#{DIGEST}",
    "sort": DIGEST,
    # words of the library's own; the tests of each error look at what goes into them
    "reason": "it is not stored",
    "trouble": "it is not stored",
    "advice": "do something",
    "source": "the arguments",
    "part": "order_id",
    "subject": "the result",
    "state": "has ended",
    "found": "HashBuckets(2)",
    "wanted": "HashBuckets(2)",
    "message": "an item is too large",
    "value": "a partition of the layout",
    "where": "Receipt.lines[].amount",
    "change": "tuple comes back as list",
}
"""Texts that may be shown, by the name of the field."""

RAW = {("Emitted", "key"), ("OutboxEvent", "key")}
"""Fields whose text is the caller's, though the name says otherwise: the key of an event is given as it is."""

MADE: dict[object, Callable[[], Any]] = {
    Item: lambda: ITEM,
    AsyncIdempotencyStore: AsyncIdempotencyStore.in_memory,
    # Settings are words of the program.
    ("HttpOptions", "methods"): lambda: frozenset({"POST"}),
    ("HttpOptions", "header"): lambda: b"idempotency-key",
    ("HttpOptions", "replay_header"): lambda: b"idempotent-replayed",
    ("HttpOptions", "problem_type"): lambda: "https://example.org/problems/",
    ("HttpOptions", "excluded"): lambda: frozenset({b"x-id"}),
    # The program gives the names of its tasks.
    ("TasksLeftBehind", "tasks"): lambda: ("Task-1",),
    Table: lambda: SIMPLE,
    Location: lambda: FOREIGN,
    Route: lambda: FOREIGN,
    Lease: held,
    Codec: JsonCodec,
    AttributeNames: AttributeNames,
    Status: lambda: Status.COMPLETED,
    Settings: lambda: store()._parts.settings,
    CallOptions: lambda: CallOptions.of(store()._in_use),
    PartsInUse: lambda: store()._in_use,
    Parts: lambda: store()._parts,
    inspect.Signature: lambda: inspect.signature(made),
    types.CodeType: lambda: made.__code__,
    aioidempotency.partitioning.Partitioning: lambda: HashBuckets(2),
    RunningLease: lambda: None,
    anyio.Event: lambda: None,
    asyncio.Future[operations.Reply]: lambda: None,
    asyncio.Task[Any]: lambda: None,
    ResultType: lambda: ResultType(Any, JsonCodec()),
    PendingWrites: lambda: None,
    RunningCalls: lambda: None,
    Backoff: lambda: Backoff(1.0, 2.0),
    typing.Self: lambda: None,
    Condition: lambda: Unchanged(ITEM),
    BaseException: lambda: errors.StoreError("PutItem", "orders", "down"),
    IdempotencyError: lambda: errors.StoreError("PutItem", "orders", "down"),
    errors.StoreError: lambda: errors.StoreError("PutItem", "orders", "down"),
    Records: lambda: store()._parts.records,
    Effects: lambda: store()._parts.effects,
    CustomPartition: lambda: CustomPartition(lambda key: key),
    Functions: Functions,
    ("Effect", "parameters"): lambda: {"TableName": "orders", "Item": ITEM, "Key": {"pk": VALUE}},
    ("Template", "parameters"): lambda: {"TableName": "orders", "Item": ITEM, "Key": {"pk": VALUE}},
    # A strategy, as the table describes it.
    ("TableLayout", "description"): lambda: {"strategy": "HashBuckets", "n": 2},
    ("TableLayout", "before"): lambda: None,
    ("TableLayout", "beside"): lambda: ("a partition of the layout",),
    ("WantedLayout", "description"): lambda: {"strategy": "HashBuckets", "n": 2},
    # The names of tables and of attributes.
    ("Items", "names"): lambda: frozenset({"pk"}),
    ("WriteSet", "keys"): lambda: {"orders": frozenset({"pk"})},
    ("WriteSet", "tables"): lambda: {"orders": instance(Items)},
    # The names of a function's parameters.
    ("Parameters", "receiver"): lambda: "self",
    ("Parameters", "keywords"): lambda: "kwargs",
    ("Call", "_key"): lambda: DIGEST,
    ("_Queued", "followers"): lambda: (),
    ("PlainParameters", "by_position"): lambda: ("order_id",),
    ("PlainParameters", "after"): lambda: ((frozenset({"order_id"}), frozenset({"order_id"})),),
    ("_Queues", "reads"): lambda: None,
    ("_Queues", "writes"): lambda: None,
}
"""How to make a value of a type, or of one field."""


def store() -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore("orders", backend=MemoryBackend(), layout=CompositeKey())


def classes() -> Iterator[type]:
    """Find all classes of the package, but those of the command: it shows what its user asks for."""
    seen = set()
    for module in pkgutil.walk_packages(aioidempotency.__path__, "aioidempotency."):
        if "_cli" in module.name or module.name.endswith("__main__"):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and kind.__module__.startswith("aioidempotency") and kind not in seen:
                seen.add(kind)
                yield kind


def fields_of(kind: Any) -> tuple[str, ...]:
    """List the fields of a dataclass, a `Struct` or a named tuple."""
    if dataclasses.is_dataclass(kind):
        return tuple(each.name for each in dataclasses.fields(kind) if each.init)
    named: tuple[str, ...] = getattr(kind, "__struct_fields__", ()) or getattr(kind, "_fields", ())
    return named


VALUES = sorted((kind for kind in classes() if fields_of(kind)), key=lambda kind: kind.__qualname__)
ERRORS = sorted(
    (kind for kind in classes() if issubclass(kind, IdempotencyError) and kind.__module__ == errors.__name__),
    key=lambda kind: kind.__qualname__,
)


def made(annotation: Any, owner: str, name: str) -> Any:  # noqa: C901, PLR0911, PLR0912 - one for each kind of type
    """Make a value of a type, with a canary in each place that may hold the caller's data."""
    for known in ((owner, name), annotation):
        if known in MADE:
            return MADE[known]()
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is str:
        return CANARY if (owner, name) in RAW else SHOWN.get(name, CANARY)
    if annotation in {int, float}:
        return 5
    if annotation is bool:
        return True
    if annotation is bytes:
        return CANARY.encode()
    if annotation in {object, Any}:
        return (CANARY,)
    if origin is Literal:
        return arguments[0]
    if origin in {Union, types.UnionType}:
        return made(next(each for each in arguments if each is not type(None)), owner, name)
    if origin in {tuple, list, Sequence, set, frozenset, type, Iterator}:
        if origin is type:
            return ValueError
        members = [made(each, owner, name) for each in arguments if each is not ...]
        return (
            tuple(members)
            if origin in {tuple, Sequence}
            else frozenset(members)
            if origin in {set, frozenset}
            else members
        )
    if origin in {dict, Mapping}:
        return {CANARY if arguments[0] is str else made(arguments[0], owner, name): made(arguments[1], owner, name)}
    if origin is not None and inspect.isclass(origin) and issubclass(origin, Callable):  # type: ignore[arg-type]
        return made
    if inspect.isclass(annotation) and fields_of(annotation):
        return instance(annotation)
    raise AssertionError(f"{owner}.{name}: no value for {annotation!r}; tell MADE how to make one")


def instance(kind: Any) -> Any:
    """Make an object of a class, full of canaries."""
    if kind in MADE:
        return MADE[kind]()
    # Names that are quoted, or imported for the type checker alone.
    around = {**vars(operations), "Record": Record, "BatchQueue": object, "GroupCommit": GroupCommit}
    hints = typing.get_type_hints(kind, vars(importlib.import_module(kind.__module__)) | around)
    given = {name: made(hints[name], kind.__name__, name) for name in fields_of(kind)}
    try:
        return kind(**given)
    except IdempotencyError:
        # Settings are checked when they are made, and hold no data of a call.
        return None


def error_of(kind: Any) -> IdempotencyError:
    parameters = inspect.signature(kind.__init__).parameters
    hints = typing.get_type_hints(kind.__init__, vars(errors) | {"Record": Record})
    if "self" not in parameters or "args" in parameters:
        return kind("the library's own words")  # type: ignore[no-any-return]
    positional = [
        made(hints[name], kind.__name__, name)
        for name, each in parameters.items()
        if name != "self" and each.kind is each.POSITIONAL_OR_KEYWORD
    ]
    return kind(*positional)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__qualname__)
def test_a_value_shows_no_data(kind: type) -> None:
    shown = instance(kind)
    assert CANARY not in repr(shown)
    assert CANARY not in str(shown)
    assert CANARY not in repr([shown])


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__qualname__)
def test_an_error_shows_no_data(kind: type) -> None:
    """Neither alone, nor in a traceback with all that led to it."""
    error = error_of(kind)
    error.result = {CANARY: CANARY}
    with pytest.raises(kind) as told:
        raise error from errors.StoreError("PutItem", "orders", "down")
    assert CANARY not in f"{error!r} {error} {''.join(traceback.format_exception(told.value))}"


def test_the_walk_finds_what_it_should() -> None:
    """And the canaries are where data would be: a `repr` of the fields alone would show them."""
    assert {Put, Effect, Found, Lease, Record, Commit, Outbox, *operations.Operation.__args__[:4]} <= set(VALUES)
    assert len(VALUES) > 70
    assert len(ERRORS) == 13
    for kind in (Put, Found, FoundAll, Effect, Record):
        fields = [getattr(instance(kind), name) for name in fields_of(kind)]
        assert CANARY in repr(fields)


def test_objects_at_work_show_no_data() -> None:
    """The store, its parts, an execution with a transaction, a backend with records."""
    made_store = store()

    async def work() -> list[object]:
        async with made_store.execute(CANARY, namespace="shop", fingerprint=CANARY) as execution:
            execution.transaction.emit({CANARY: CANARY}, key=CANARY)
            execution.complete({CANARY: CANARY})
            shown: list[object] = [execution, execution.lease, execution.transaction, execution._pending, made_store]
            shown += [made_store._parts, made_store._parts.records, made_store._parts.records.backend]
            said = repr(shown)
        return [said, repr(execution), repr(made_store), await made_store.get(CANARY, namespace="shop")]

    assert CANARY not in repr(asyncio.run(work()))
    cache = LocalCache(1)
    cache.put(DIGEST, instance(Record))
    assert CANARY not in repr([cache, MemoryBackend()])


def answered_wrongly() -> list[Callable[[], object]]:
    """Procedures whose backend answers what is no reply."""
    result = instance(aioidempotency._core.model.SerializedResult)
    wrong = FoundAll((ITEM,))
    refused = operations.ConditionFailed(ITEM)
    return [
        lambda: play(claim(attempt(route=FOREIGN)), wrong),
        lambda: play(claim(attempt(read_first=True)), refused),
        lambda: play(claim_refused(attempt(), Put(FOREIGN, ITEM, Unchanged(ITEM)), Found(ITEM))),
        lambda: play(complete(held(), result, now=NOW), Found(ITEM)),
        lambda: play(ids.put_if_absent(FOREIGN, ITEM), Found(ITEM)),
        lambda: play(ids.put_if_absent(FOREIGN, ITEM), operations.ConditionFailed(None), refused),
        lambda: play(outbox.page(Outbox(RENAMED, "shop"), 3), Found(ITEM)),
        lambda: play(commits.commit(instance(Commit)), Found(ITEM)),
    ]


@pytest.mark.parametrize("ask", answered_wrongly())
def test_an_answer_that_is_none_is_not_quoted(ask: Callable[[], object]) -> None:
    """The error of a backend that answers wrongly names types, the operation and a digest."""
    with pytest.raises(TypeError) as told:
        ask()
    assert CANARY not in "".join(traceback.format_exception(told.value))


@pytest.mark.parametrize(
    "operation", [Get(FOREIGN), Delete(FOREIGN, Unchanged(ITEM)), GetAll((FOREIGN,)), Query(FOREIGN, 5)]
)
async def test_a_backend_that_answers_wrongly_is_named_without_its_answer(operation: Any) -> None:
    class Wrong:
        async def execute(self, operation: object) -> Any:
            return {CANARY: CANARY}

    records = AsyncIdempotencyStore("orders", backend=Wrong(), layout=CompositeKey())._parts.records
    with pytest.raises(IdempotencyError) as told:
        await records.ask(operation)
    assert CANARY not in "".join(traceback.format_exception(told.value))


class Quoting:
    """A codec whose errors quote what they were given, as those of most validators do."""

    def encode(self, result: object) -> str:
        """Fail."""
        raise ValueError(result)

    def decode(self, text: str, result_type: object) -> object:
        """Fail."""
        raise ValueError(text)


@pytest.mark.parametrize("data", [CANARY, base64.b64encode(zlib.compress(CANARY.encode()) + b"!").decode()])
@pytest.mark.parametrize("encoding", [None, "zlib", "error"])
@pytest.mark.parametrize("codec", [Quoting(), JsonCodec()])
def test_a_result_that_cannot_be_read_is_not_quoted_by_what_led_to_the_error(
    data: str, encoding: str | None, codec: Codec
) -> None:
    """The validator's own error is no cause: a logged traceback would show the result."""
    record = Record(key=DIGEST, status=Status.COMPLETED, expiration=NOW, data=data, encoding=encoding)
    with pytest.raises(IdempotencyError) as told:
        results.decode(record, ResultType(int, codec))
    assert told.value.__cause__ is None or isinstance(told.value.__cause__, IdempotencyError)
    assert CANARY not in "".join(traceback.format_exception(told.value))
    assert data not in "".join(traceback.format_exception(told.value))
