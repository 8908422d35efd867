"""T2: the bytes that leave say what `requests` and `partiql` say, for any operation, name and text.

However a body is written, as a whole or from parts made before, a server must read the same JSON, with the members in
the same order. A text with half of a surrogate pair has no bytes, so it must end in an error, and never in other text.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from aiobotocore.session import AioSession
from hypothesis import given, settings
from hypothesis import strategies as st

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    CompositeKey,
    ConfigurationError,
    DynamoDBBackend,
    GroupCommit,
    HashBuckets,
    SimpleKey,
)
from aioidempotency._core import model, protocol
from aioidempotency._core.conditions import Absent, Condition, HeldBy, Unchanged
from aioidempotency._core.model import AttributeValue, Lease, Location, Role, SerializedResult, Table
from aioidempotency._core.operations import Applied, Check, Delete, Get, Operation, Put, Transact, Update, Write
from aioidempotency.backends.dynamodb import Choice, partiql, requests
from aioidempotency.backends.dynamodb.batches import Alone
from aioidempotency.backends.dynamodb.configuration import tuned
from aioidempotency.partitioning.key_schemas import KeySchema
from aioidempotency.testing import FakeClock
from tests.support.raw_server import response
from tests.support.values import replace
from tests.support.wire_server import APPLIED, Request, WireServer
from tests.transport.conftest import Backends

# Texts and names


HARD = [
    *"\"\\/'`{}[]:,#?<&% a",
    *"\x00\x01\b\t\n\f\r\x1b\x1f\x7f\x80\x85\xa0\xad",
    *"é€\u0130\u2028\u2029\ufeff\ufffd\uffff\U0001f600\U0010ffff",
    "\\u0022",
    "\\",
    '","',
    "%s",
    "{0}",
]
"""Characters that encoders of JSON escape in different ways, or not at all, and texts that look like parts of a body."""

TEXTS = st.text(max_size=4) | st.lists(st.sampled_from(HARD), max_size=4).map("".join)
NAMES = TEXTS.filter(bool)
HALVES = ["\ud800", "\udfff", "\ude00\ud83d", "\ud83d\ude00", "é\ud800\u2028"]
"""Texts without bytes. Of the last but one, the escapes of JSON are those of one whole character."""

NUMBERS = st.integers(0, 2**53).map(str)
ROLES: list[Role] = [role for role in get_args(Role) if role != "key"]


@st.composite
def tables(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> Table:
    """A table, with or without a sort key, and any name for each attribute."""
    partition, sort, *others = draw(
        st.just(["id", "sort", *ROLES]) | st.lists(names, min_size=13, max_size=13, unique=True)
    )
    has_sort = draw(st.booleans())
    name = draw(st.sampled_from(["orders", 'or"ders', "or'ders", "or\\ders", "örders\u2028"]))
    return Table(name, partition, sort if has_sort else None, AttributeNames(**dict(zip(ROLES, others, strict=True))))


@st.composite
def locations(draw: st.DrawFn, table: Table, number: int = 0) -> Location:
    """A location; two of different numbers differ."""
    sort = f"{draw(TEXTS)}{number}" if table.sort_attribute is not None else None
    partition = f"{draw(TEXTS)}{number}"
    typed = None
    if draw(st.booleans()) and draw(st.booleans()):
        # An item of the caller's own, whose key need not be a text.
        keys: list[AttributeValue] = [{"N": "7"}, {"B": b"\xff\x00"}, {"S": partition}]
        typed = {table.partition_attribute: draw(st.sampled_from(keys))}
    return Location(table, partition, sort, typed)


# Operations


RESULTS = st.builds(SerializedResult, TEXTS, st.none() | TEXTS, st.none() | TEXTS)
VALUES: st.SearchStrategy[AttributeValue] = st.recursive(
    st.fixed_dictionaries({"S": TEXTS})
    | st.fixed_dictionaries({"N": NUMBERS})
    | st.fixed_dictionaries({"B": st.binary(max_size=3)})
    | st.just({"NULL": True}),
    lambda inner: (
        st.fixed_dictionaries({"L": st.lists(inner, max_size=2)})
        | st.fixed_dictionaries({"M": st.dictionaries(TEXTS, inner, max_size=2)})
    ),
    max_leaves=3,
)


@st.composite
def leases(draw: st.DrawFn, location: Location) -> Lease:
    """A lease with any of its optional parts."""
    return Lease(
        location=location,
        route=location,
        owner=draw(TEXTS),
        fencing_token=draw(st.integers(0, 2**53)),
        expires_at=draw(st.floats(0, 1e10)),
        expiration=draw(st.integers(0, 10**10)),
        duration=60.0,
        retention=draw(st.floats(1, 1e7)),
        fingerprint=draw(st.none() | TEXTS),
        claimed_by=draw(st.none() | TEXTS),
        freed_by=draw(st.none() | TEXTS),
    )


@st.composite
def usual(draw: st.DrawFn, location: Location) -> Operation:
    """An operation as a procedure makes it."""
    lease, result = draw(leases(location)), draw(RESULTS)
    attempt = protocol.Claim(
        route=location,
        owner=lease.owner,
        now=draw(st.floats(0, 1e10)),
        lease=draw(st.floats(0.001, 1e5)),
        retention=lease.retention,
        clock_skew=1.0,
        fingerprint=lease.fingerprint,
        label=lease.claimed_by,
    )
    return draw(
        st.sampled_from(
            [
                protocol.first_put(attempt)[1],
                protocol.first_put(attempt)[1],
                protocol.first_update(lease, result, now=attempt.now)[1],
                protocol.first_update(lease, result, now=attempt.now)[1],
                next(protocol.renew(lease, now=attempt.now, clock_skew=1.0)),
                next(protocol.release(lease)),
                next(protocol.take_back(lease)),
                Put(location, model.finished(lease, result, expiration=5), Absent()),
            ]
        )
    )


@st.composite
def unusual(draw: st.DrawFn, location: Location) -> Operation:
    """An operation that no procedure makes: any attributes, values and conditions."""
    names = location.table.names
    roles = st.sampled_from(ROLES)
    item = {**location.item, **draw(st.dictionaries(roles.map(names.__getitem__) | NAMES, VALUES, max_size=3))}
    changes = draw(st.dictionaries(roles, VALUES, min_size=1, max_size=3))
    held: st.SearchStrategy[Condition] = st.builds(HeldBy, TEXTS, st.none() | st.integers(0))
    conditions = held | held | st.just(Absent()) | st.just(Unchanged(item))
    return draw(
        st.one_of(
            st.builds(Put, st.just(location), st.just(item), conditions),
            st.builds(Update, st.just(location), st.just(changes), conditions),
            st.builds(Delete, st.just(location), conditions),
            st.just(Get(location)),
            st.builds(
                lambda first, second, token: Transact((Put(location, item, first), Check(location, second)), (), token),
                conditions,
                conditions,
                TEXTS,
            ),
        )
    )


def operations(table: Table, number: int = 0) -> st.SearchStrategy[Operation]:
    return locations(table, number).flatmap(lambda location: usual(location) | usual(location) | unusual(location))


def batched(table: Table, number: int) -> st.SearchStrategy[Operation]:
    return operations(table, number).filter(partiql.has_statement)


# The wire


def ordered(text: str | bytes) -> Any:
    """Read JSON with the members of each object as pairs: their order counts, and so does a member that comes twice."""
    return json.loads(text, object_pairs_hook=lambda pairs: ("object", tuple(pairs)))


def written(parameters: object) -> str:
    """Write parameters as JSON, by Python's own encoder. DynamoDB takes bytes in base64."""
    return json.dumps(parameters, default=lambda raw: base64.b64encode(raw).decode())


async def applied(request: Request, writer: asyncio.StreamWriter) -> bytes:
    """Answer that everything was applied. The probe of a batch is refused, as DynamoDB refuses it."""
    if request.operation != "BatchExecuteStatement":
        return APPLIED
    statements = request.parameters["Statements"]
    answers: list[dict[str, Any]] = [{} for _ in statements]
    if any({"S": "aioidempotency#partiql"} in each["Parameters"] for each in statements):
        answers = [{"Error": {"Code": "ConditionalCheckFailed", "Message": "no"}}]
    return response(json.dumps({"Responses": answers}).encode())


@pytest.fixture
def server(runner: asyncio.Runner) -> Iterator[WireServer]:
    """A server for all examples of a property."""
    made = WireServer(applied)
    runner.run(made.__aenter__())
    yield made
    runner.run(made.__aexit__(None, None, None))


@pytest.fixture
def backend(
    runner: asyncio.Runner, server: WireServer, session: AioSession, transport: Choice
) -> Iterator[DynamoDBBackend]:
    """A backend on the server, by each transport."""
    made = Backends(session)
    yield made(server.url, transport=transport)
    runner.run(made.aclose())


def test_a_body_says_what_the_request_says(
    runner: asyncio.Runner, server: WireServer, backend: DynamoDBBackend
) -> None:
    """T2: several operations in one table, so that what was made for one may be used for the next."""

    @settings(max_examples=150)
    @given(tables().flatmap(lambda table: st.lists(operations(table), min_size=1, max_size=4)))
    def says_so(given_ones: list[Operation]) -> None:
        for operation in given_ones:
            server.requests.clear()
            runner.run(backend.execute(operation))
            (request,) = server.requests
            expected = requests.request(operation)
            parameters = dict(expected.parameters)
            if isinstance(operation, Transact) and operation.token is None:
                parameters["ClientRequestToken"] = request.parameters["ClientRequestToken"]
            assert request.operation == expected.operation
            assert ordered(request.body) == ordered(written(parameters))

    says_so()


def test_a_batch_says_what_the_statements_say(
    runner: asyncio.Runner, server: WireServer, backend: DynamoDBBackend
) -> None:
    """T2, G3: one statement for each operation, in their order."""

    @settings(max_examples=100)
    @given(tables().flatmap(lambda table: st.tuples(*(batched(table, number) for number in range(3)))))
    def says_so(given_ones: tuple[Operation, ...]) -> None:
        runner.run(backend.execute_many(given_ones))
        request = server.requests[-1]
        assert request.operation == "BatchExecuteStatement"
        assert ordered(request.body) == ordered(written({"Statements": [*map(partiql.statement, given_ones)]}))

    says_so()


def test_a_client_of_the_callers_is_given_the_same(
    runner: asyncio.Runner, server: WireServer, session: AioSession
) -> None:
    """T4: that client writes the bodies, in the order of its own model."""
    creating = session.create_client(
        "dynamodb", region_name="eu-central-1", endpoint_url=server.url, config=tuned(10.0)
    )
    client = runner.run(creating.__aenter__())
    backend = DynamoDBBackend(client)

    @settings(max_examples=50)
    @given(tables().flatmap(operations))
    def says_so(operation: Operation) -> None:
        server.requests.clear()
        runner.run(backend.execute(operation))
        expected = dict(requests.request(operation).parameters)
        if isinstance(operation, Transact):
            expected["ClientRequestToken"] = server.requests[0].parameters["ClientRequestToken"]
        assert [each.parameters for each in server.requests] == [json.loads(written(expected))]

    try:
        says_so()
    finally:
        runner.run(creating.__aexit__(None, None, None))


# Half of a character


def with_half(half: str) -> dict[str, Write]:
    """The writes of the usual calls, each with a text without bytes in one place."""
    table, text = Table("orders", "id", "sort", AttributeNames()), f"before{half}after"
    location = Location(table, "part", "key")
    named = Table("orders", text, None, AttributeNames(owner=f"o{text}", data=f"d{text}"))
    lease = Lease(
        location=location,
        route=location,
        owner="me",
        fencing_token=1,
        expires_at=5.0,
        expiration=7,
        duration=60.0,
        retention=60.0,
    )

    def put(**changes: Any) -> Put:
        changed = replace(lease, **changes)
        return Put(changed.location, model.running(changed), Absent())

    def update(result: SerializedResult, **changes: Any) -> Update:
        changed = replace(lease, **changes)
        return Update(changed.location, model.completed(result, expiration=7), HeldBy(changed.owner))

    plain = SerializedResult("1")
    return {
        "the partition of a put": put(location=Location(table, text, "key")),
        "the sort key of a put": put(location=Location(table, "part", text)),
        "the owner of a put": put(owner=text),
        "the fingerprint": put(fingerprint=text),
        "who claimed": put(claimed_by=text),
        "who freed": put(freed_by=text),
        "a name of a put": put(location=Location(named, "part")),
        "the partition of an update": update(plain, location=Location(table, text, "key")),
        "the sort key of an update": update(plain, location=Location(table, "part", text)),
        "the owner of an update": update(plain, owner=text),
        "the result": update(SerializedResult(text)),
        "the encoding": update(SerializedResult("1", text)),
        "the class of the result": update(SerializedResult("1", None, text)),
        "a name of an update": update(plain, location=Location(named, "part")),
        "the sort key of a delete": Delete(Location(table, "part", text), HeldBy("me")),
        "the owner of a delete": Delete(location, HeldBy(text, 5)),
        "the owner of a renewal": Update(location, model.renewed(lease), HeldBy(text, 5)),
    }


@pytest.mark.parametrize("place", with_half(""))
def test_half_of_a_character_is_never_sent(
    place: str, runner: asyncio.Runner, server: WireServer, backend: DynamoDBBackend
) -> None:
    """T2: two halves in Python are no whole character, though their escapes in JSON would be one."""
    whole = with_half("")[place]
    for half in HALVES:
        write = with_half(half)[place]
        # What was made for a write of the same form is not used for a text that it cannot hold, and not spoiled by it.
        runner.run(backend.execute(whole))
        server.requests.clear()
        with pytest.raises(ConfigurationError, match="a text holds half of a character") as caught:
            runner.run(backend.execute(write))
        assert caught.value.__cause__ is None, "Python's error holds the whole text"
        assert "before" not in str(caught.value)
        assert not server.requests
        runner.run(backend.execute(whole))
        assert ordered(server.requests[-1].body) == ordered(written(requests.request(whole).parameters))


@pytest.mark.parametrize("place", with_half(""))
def test_half_of_a_character_leaves_the_batch_alone(
    place: str, runner: asyncio.Runner, server: WireServer, backend: DynamoDBBackend
) -> None:
    """T2, G6: the statement that cannot be written goes alone, and its neighbours are sent."""
    others = [with_half("")["the fingerprint"], with_half("")["the result"]]
    for half in HALVES:
        write = with_half(half)[place]
        outcomes = runner.run(backend.execute_many([others[0], write, others[1]]))
        assert outcomes == [Applied(), Alone(), Applied()]
        assert server.requests[-1].parameters == {"Statements": [*map(partiql.statement, others)]}


# A store


@st.composite
def stores(draw: st.DrawFn) -> dict[str, Any]:
    """Options of a store, with any names."""
    names = draw(st.lists(NAMES, min_size=13, max_size=13, unique=True))
    layout: KeySchema = SimpleKey(names[0])
    if draw(st.booleans()):
        layout = CompositeKey(names[0], names[1], partitioning=HashBuckets(4))
    return {
        "layout": layout,
        "attributes": AttributeNames(**dict(zip(ROLES, names[2:], strict=True))),
        "namespace": draw(TEXTS).replace("#", ""),
        "label": draw(st.none() | NAMES.filter(str.strip)),
    }


@pytest.fixture
def make_store(
    runner: asyncio.Runner, server: WireServer, session: AioSession, transport: Choice
) -> Callable[..., AsyncIdempotencyStore]:
    """Make a store on the server, by each transport."""

    def make(**options: Any) -> AsyncIdempotencyStore:
        where = {"session": session, "region_name": "eu-central-1", "endpoint_url": server.url, "transport": transport}
        return AsyncIdempotencyStore("orders", clock=FakeClock(), verify_layout=False, **where, **options)

    return make


CALLS = st.tuples(
    TEXTS.filter(bool), st.none() | TEXTS, st.none() | TEXTS | st.lists(TEXTS, max_size=2) | st.integers()
)
"""Key, fingerprint and result of a call."""


async def called(store: AsyncIdempotencyStore, key: str, fingerprint: object, result: object) -> list[Operation]:
    """Claim a key and complete the call: the operations that the procedures say, by what the caller was given."""
    decision = await store.claim(key, fingerprint=fingerprint)
    assert isinstance(decision, Claimed)
    lease = decision.lease
    record = await store.complete(lease, result)
    assert record.data is not None
    stored = SerializedResult(record.data, record.encoding, record.result_class)
    now = record.expiration - lease.retention
    return [Put(lease.location, model.running(lease), Absent()), protocol.first_update(lease, stored, now=now)[1]]


def test_a_call_of_a_store_sends_what_the_procedures_say(
    runner: asyncio.Runner, server: WireServer, make_store: Callable[..., AsyncIdempotencyStore]
) -> None:
    """C1, T2: the claim by the lease that it grants, and the completion by the record that it leaves."""

    async def call(options: dict[str, Any], *given_one: Any) -> None:
        server.requests.clear()
        async with make_store(**options) as store:
            expected = [*map(requests.request, await called(store, *given_one))]
        assert [each.operation for each in server.requests] == [each.operation for each in expected]
        for request, said in zip(server.requests, expected, strict=True):
            assert ordered(request.body) == ordered(written(said.parameters))

    @settings(max_examples=25)
    @given(options=stores(), given_one=CALLS)
    def says_so(options: dict[str, Any], given_one: tuple[Any, ...]) -> None:
        runner.run(call(options, *given_one))

    says_so()


def test_a_group_commit_sends_what_the_procedures_say(
    runner: asyncio.Runner, server: WireServer, make_store: Callable[..., AsyncIdempotencyStore]
) -> None:
    """G2, T2: each operation once, as a plain request or as a statement, whichever way it goes."""

    async def call(options: dict[str, Any], calls: list[tuple[Any, ...]]) -> int:
        server.requests.clear()
        async with make_store(group_commit=GroupCommit(), **options) as store:
            made = await asyncio.gather(*(called(store, *each) for each in calls))
        left = [operation for operations in made for operation in operations]
        batched = 0
        for request in server.requests:
            parameters = request.parameters
            for statement in parameters.get("Statements", ()):
                if {"S": "aioidempotency#partiql"} not in statement["Parameters"]:
                    left.remove(next(each for each in left if partiql.statement(each) == statement))
                    batched += 1
            if "Statements" not in parameters:
                left.remove(next(each for each in left if requests.request(each).parameters == parameters))
        assert not left
        return batched

    batched = 0

    @settings(max_examples=25)
    @given(options=stores(), calls=st.lists(CALLS, min_size=4, max_size=6, unique_by=lambda each: each[0]))
    def says_so(options: dict[str, Any], calls: list[tuple[Any, ...]]) -> None:
        nonlocal batched
        batched += runner.run(call(options, calls))

    says_so()
    assert batched > 50
