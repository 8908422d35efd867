"""What can go wrong with the batches of a real client: nobody else's call changes, and no finished body runs again."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from aiobotocore.session import AioSession
from aiohttp import payload

from aioidempotency import (
    AsyncIdempotencyStore,
    AttributeNames,
    Claimed,
    ConfigurationError,
    DynamoDBBackend,
    GroupCommit,
    Replay,
    idempotent,
)
from aioidempotency._core.conditions import HeldBy
from aioidempotency._core.operations import Applied, Delete, Found, Get, Operation, Put, Update
from aioidempotency.backends import Absent, Location, Table
from aioidempotency.backends.dynamodb.arguments import LARGEST_BATCH
from aioidempotency.backends.dynamodb.batches import LARGEST_SHARED, Alone
from aioidempotency.events import CompletionFailed, Event, GroupCommitUnavailable, ResultDropped
from tests.batches.test_on_engines import CALLS, RECEIPTS, grouped
from tests.support.engines import Engine, client_options
from tests.support.proxy import Fault, FaultProxy
from tests.support.raw_server import RawServer, response

BATCHES = ("BatchExecuteStatement", "BatchGetItem")


def told(events: list[Event]) -> list[str]:
    return [str(each.cause) for each in events if isinstance(each, GroupCommitUnavailable)]


@pytest.mark.parametrize("fault", [Fault.BREAK_DOWN, Fault.INVALID, Fault.UNKNOWN_CREDENTIALS])
async def test_whatever_is_answered_before_the_first_batch_changes_nobodys_call(
    ministack: Engine, session: AioSession, fault: Fault
) -> None:
    """G6: it is no verdict on the engine: the batch at hand goes out as plain calls, and the next one as a batch."""
    events: list[Event] = []
    async with grouped(ministack, session, on_event=events.append) as crowd:
        store = crowd.make()
        # botocore makes three attempts after an internal error, and some batches come at once.
        crowd.proxy.inject(fault, operation="BatchExecuteStatement", times=9 if fault is Fault.BREAK_DOWN else 1)
        assert await crowd.charge_all(store) == RECEIPTS
        assert set(crowd.ran.values()) == {1}
        assert len(told(events)) == 1
        before = crowd.sent()
        assert await crowd.charge_all(crowd.make()) == RECEIPTS
        assert crowd.sent()["PutItem"] - before["PutItem"] <= 2


@pytest.mark.parametrize("fault", [Fault.DENY, Fault.UNKNOWN_OPERATION, Fault.BREAK_DOWN, Fault.INVALID, Fault.REFUSE])
async def test_finished_bodies_keep_their_results_when_batches_end(
    ministack: Engine, session: AioSession, fault: Fault
) -> None:
    """G6: a permission is revoked between claim and completion, or the engine changes its mind; no fallback is asked for."""
    events: list[Event] = []
    async with grouped(ministack, session, on_event=events.append) as crowd:
        store = crowd.make()
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        @idempotent(store, namespace="charge")
        async def charge(order_id: str) -> str:
            crowd.ran[order_id] += 1
            begun.release()
            await go_on.wait()
            return f"receipt {order_id}"

        calls = [asyncio.ensure_future(charge(f"order-{number}")) for number in range(CALLS)]
        for _ in calls:
            await begun.acquire()
        crowd.proxy.inject(fault, operation="BatchExecuteStatement", times=1000)
        go_on.set()
        assert await asyncio.gather(*calls) == RECEIPTS
        assert not any(isinstance(each, CompletionFailed) for each in events)
        assert set(crowd.ran.values()) == {1}
        assert await crowd.charge_all(crowd.make(group_commit=None)) == RECEIPTS
        assert set(crowd.ran.values()) == {1}


@pytest.mark.parametrize("fallback", [False, True])
async def test_an_engine_without_partiql_stores_every_result(
    moto: Engine, session: AioSession, *, fallback: bool
) -> None:
    """G6: ten lone claims, and ten completions at once: no body has to run again."""
    events: list[Event] = []
    options = {"group_commit": GroupCommit(fallback=fallback), "on_event": events.append}
    async with grouped(moto, session, **options) as crowd:
        store = crowd.make()
        claimed = [await store.claim(number) for number in range(10)]
        leases = [each.lease for each in claimed if isinstance(each, Claimed)]
        await asyncio.gather(*(store.complete(lease, "done") for lease in leases))
        assert [type(await store.claim(number)) for number in range(10)] == [Replay] * 10
        assert ["needs an engine with PartiQL" in each for each in told(events)] == [True]


@pytest.mark.parametrize("engine_of", ["moto", "unknown operation"])
async def test_an_engine_without_partiql_takes_every_call_with_a_fallback(
    moto: Engine, session: AioSession, engine_of: str
) -> None:
    """G6: dynalite and Alternator do not know the request, moto answers it wrongly."""
    async with grouped(moto, session, group_commit=GroupCommit(fallback=True)) as crowd:
        if engine_of == "unknown operation":
            for each in BATCHES:
                crowd.proxy.inject(Fault.UNKNOWN_OPERATION, operation=each, times=1000)
        store = crowd.make()
        assert await crowd.charge_all(store, calls=20) == RECEIPTS[:20]
        assert await crowd.charge_all(store, calls=20) == RECEIPTS[:20]
        assert set(crowd.ran.values()) == {1}


async def test_an_engine_that_does_not_know_batches_is_named(ministack: Engine, session: AioSession) -> None:
    """G6: claims and reads have no plain call where none is asked for."""
    async with grouped(ministack, session) as crowd:
        for each in BATCHES:
            crowd.proxy.inject(Fault.UNKNOWN_OPERATION, operation=each, times=1000)
        store = crowd.make()
        for calls in (store.claim, store.get):
            first, *others = await asyncio.gather(*(calls(number) for number in range(5)), return_exceptions=True)
            assert not isinstance(first, BaseException)
            for error in others:
                assert isinstance(error, ConfigurationError)
                assert "needs an engine with PartiQL" in str(error)


class Unescaped:
    """A codec that writes texts as they are."""

    def encode(self, result: object) -> str:
        return json.dumps(result, ensure_ascii=False)

    def decode(self, text: str, result_type: object) -> object:
        return json.loads(text)


@pytest.mark.parametrize("compress_over", [None, 10])
async def test_a_result_that_is_no_text_harms_nobody(
    ministack: Engine, session: AioSession, compress_over: int | None
) -> None:
    """G6, O10: it leaves a tombstone, and its body does not run again."""
    events: list[Event] = []
    options = {"codec": Unescaped(), "on_event": events.append, "compress_over": compress_over}
    async with grouped(ministack, session, **options) as crowd:
        store = crowd.make()

        @idempotent(store)
        async def name(number: int) -> str:
            crowd.ran[str(number)] += 1
            return "half of a character: \udcff" if number == 5 else f"Zoë {number}"

        names = await asyncio.gather(*map(name, range(20)))
        assert names[5] == "half of a character: \udcff"
        assert [type(each).__name__ for each in events if isinstance(each, ResultDropped)] == ["ResultDropped"]
        again = await asyncio.gather(*map(name, range(20)), return_exceptions=True)
        assert again[:5] + again[6:] == names[:5] + names[6:]
        assert type(again[5]).__name__ == "ResultUnavailableError"
        assert set(crowd.ran.values()) == {1}


TABLE = Table("orders", "id", None, AttributeNames())


def at(key: str) -> Location:
    return Location(table=TABLE, partition=key)


def update(key: str, data: str) -> Update:
    return Update(at(key), {"data": {"S": data}}, HeldBy("me"))


@pytest.mark.parametrize("whose", ["own", "given"])
async def test_a_statement_that_cannot_be_written_fails_alone(session: AioSession, whose: str) -> None:
    """G6: with an error that names the request and the trouble, and no data."""
    statements: list[int] = []

    def answer(operation: str, body: dict[str, Any]) -> bytes:
        if operation != "BatchExecuteStatement":
            return response(b"{}")
        statements.append(len(body["Statements"]))
        return response(json.dumps({"Responses": answers_of(body)}).encode())

    async with RawServer(answer) as server:
        options: Any = {"region_name": "eu-central-1", "endpoint_url": server.url}
        async with session.create_client("dynamodb", **options) as client:
            backend = DynamoDBBackend(client) if whose == "given" else DynamoDBBackend(session=session, **options)
            sent: list[Operation] = [update("a", "1"), update("b", "\udcff"), Delete(at("c"), HeldBy("\udcff"))]
            outcomes = await backend.execute_many([*sent, update("d", "4")])
            assert outcomes == [Applied(), Alone(), Alone(), Applied()]
            assert statements == [1, 2], "the harmless one, and those that could be written"
            assert await backend.execute_many(sent[1:]) == [Alone(), Alone()]
            assert len(statements) == 2, "nothing was left to be sent"
            if whose == "own":
                for operation in sent[1:]:
                    with pytest.raises(
                        ConfigurationError, match=r"could not be written as JSON: .* let codec="
                    ) as told:
                        await backend.execute(operation)
                    assert told.value.__cause__ is None, "Python's own error holds the text"
            await backend.aclose()


def answers_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Answer statements as DynamoDB does; the harmless one is refused."""
    refused = {"Error": {"Code": "ConditionalCheckFailed"}}
    return [refused if {"S": "nobody"} in each["Parameters"] else {} for each in body["Statements"]]


async def test_one_denied_delete_loses_nothing(session: AioSession) -> None:
    """G6: the role lacks PartiQLDelete alone: the other 24 are answered as they were executed."""
    plain: Counter[str] = Counter()

    def answer(operation: str, body: dict[str, Any]) -> bytes:
        if operation != "BatchExecuteStatement":
            plain[operation] += 1
            return response(b"{}")
        answers = answers_of(body)
        for index, each in enumerate(body["Statements"]):
            if each["Statement"].startswith("DELETE"):
                answers[index] = {"Error": {"Code": "AccessDenied", "Message": "not authorized"}}
        return response(json.dumps({"Responses": answers}).encode())

    async with RawServer(answer) as server:
        options: Any = {"session": session, "region_name": "eu-central-1", "endpoint_url": server.url}
        events: list[Event] = []
        store = AsyncIdempotencyStore(
            "orders", group_commit=GroupCommit(), verify_layout=False, on_event=events.append, **options
        )
        backend = store._parts.records.backend
        operations: list[Operation] = [Put(at(f"k{n}"), {**at(f"k{n}").item}, Absent()) for n in range(23)]
        operations += [Delete(at("gone"), HeldBy("me")), update("done", "1")]
        first = asyncio.ensure_future(backend.execute(Put(at("first"), at("first").item, Absent())))
        await asyncio.sleep(0)
        assert await asyncio.gather(*map(backend.execute, operations)) == [Applied()] * 25
        await first
        assert plain == {"PutItem": 1, "DeleteItem": 1}
        statements = [len(body["Statements"]) for operation, body in server.requests if operation == BATCHES[0]]
        assert statements == [1, 25], "the harmless one, and each other one once"
        assert len(told(events)) == 1
        await store.aclose()


async def test_large_statements_are_requests_of_their_own(ministack: Engine, session: AioSession) -> None:
    """G3, G6: a batch stays under 1 MB, of which aiohttp does not warn; the others share their requests."""
    async with grouped(ministack, session, compress_over=None) as crowd:
        store = crowd.make()
        leases = [each.lease for each in await store.claim_many(range(26)) if isinstance(each, Claimed)]
        large, small = LARGEST_SHARED + 1, LARGEST_SHARED - 1000
        sizes = [large if number in {5, 7} else small for number in range(26)]
        begun = len(crowd.proxy.requests)
        await asyncio.gather(*(store.complete(lease, "x" * size) for lease, size in zip(leases, sizes, strict=True)))
        sent = [(seen.operation, json.dumps(seen.body)) for seen in crowd.proxy.requests[begun:]]
        shared = [body for operation, body in sent if operation == "BatchExecuteStatement"]
        assert [body.count("x" * small) for body in shared] == [23], "the first one was alone"
        assert not any("x" * large in body for body in shared)
        assert sum("x" * large in body for operation, body in sent if operation == "UpdateItem") == 2
        replayed = [await store.claim(number) for number in range(26)]
        assert [len(str(each.result)) for each in replayed if isinstance(each, Replay)] == sizes


def test_a_full_batch_is_no_large_body() -> None:
    """G3: 1 MB is where aiohttp warns."""
    assert LARGEST_BATCH * (LARGEST_SHARED + 1) + len('{"Statements":[]}') < payload.TOO_LARGE_BYTES_BODY


async def test_statements_of_long_names_are_requests_of_their_own(ministack: Engine, session: AioSession) -> None:
    """G3: DynamoDB bounds the text of a statement; plain calls have placeholders for names."""
    names = AttributeNames(data="d" * 5000, owner="o" * 5000)
    async with grouped(ministack, session, attributes=names) as crowd:
        store = crowd.make()
        assert await crowd.charge_all(store, calls=10) == RECEIPTS[:10]
        statements = [
            statement["Statement"]
            for seen in crowd.proxy.requests
            if seen.operation == "BatchExecuteStatement"
            for statement in seen.body["Statements"]
        ]
        assert max(map(len, statements), default=0) <= 8192 or statements == statements[:1]


@pytest.mark.parametrize(
    "body",
    [
        b'{"Responses": []}',
        b'{"Responses": [{}]}',
        b'{"Responses": [{}, {}, {}]}',
        b'{"Responses": [null, {}]}',
        b"{}",
        b'{"Resp',
    ],
)
async def test_a_batch_with_another_number_of_answers_is_not_answered(session: AioSession, body: bytes) -> None:
    """O25: no answer is taken for another statement's."""

    def answer(operation: str, given: dict[str, Any]) -> bytes:
        if operation == "BatchExecuteStatement" and len(given["Statements"]) == 1:
            return response(json.dumps({"Responses": answers_of(given)}).encode())
        return response(body)

    async with RawServer(answer) as server:
        backend = DynamoDBBackend(session=session, region_name="eu-central-1", endpoint_url=server.url)
        with pytest.raises(Exception, match="HTTP 200 without an answer of DynamoDB"):
            await backend.execute_many([update("a", "1"), update("b", "2")])
        await backend.aclose()


@pytest.mark.parametrize(
    ("code", "expected"),
    [("ThrottlingError", "ThrottlingError"), ("InternalServerError", "InternalServerError"), ("ValidationError", None)],
)
async def test_what_the_harmless_statement_comes_to_is_no_verdict(
    session: AioSession, code: str, expected: str | None
) -> None:
    """G6: it is asked again before the next batch."""
    codes = iter([code])

    def answer(_: str, body: dict[str, Any]) -> bytes:
        answers = answers_of(body)
        if answers[0] and (now := next(codes, None)):
            answers = [{"Error": {"Code": now}}]
        return response(json.dumps({"Responses": answers}).encode())

    async with RawServer(answer) as server:
        backend = DynamoDBBackend(session=session, region_name="eu-central-1", endpoint_url=server.url)
        updates = [update("a", "1"), update("b", "2")]
        outcomes = await backend.execute_many(updates)
        if expected is None:
            assert all(isinstance(each, Alone) and code in str(each.cause) for each in outcomes)
        else:
            assert outcomes == [expected, expected]
        assert await backend.execute_many(updates) == [Applied(), Applied()]
        await backend.aclose()


async def test_a_given_client_reads_and_writes_the_same_batches(ministack: Engine, session: AioSession) -> None:
    """G1: botocore writes the request there."""
    async with (
        FaultProxy(ministack.endpoint_url) as proxy,
        session.create_client("dynamodb", **{**client_options(ministack), "endpoint_url": proxy.url}) as client,
    ):
        backend = DynamoDBBackend(client)
        await backend.create_table(TABLE)
        puts: list[Operation] = [Put(at(key), {**at(key).item, "owner": {"S": "me"}}, Absent()) for key in "ab"]
        assert await backend.execute_many(puts) == [Applied(), Applied()]
        found = await backend.execute_many([Get(at("a")), Get(at("z"))])
        assert found == [Found({"id": {"S": "a"}, "owner": {"S": "me"}}), Found(None)]
