"""T3: what goes wrong on the wire has the outcome that botocore's standard mode has, on both transports."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from aiobotocore.config import AioConfig

from aioidempotency import ConfigurationError, StoreError
from aioidempotency.backends import Applied, Found, Transact
from tests.support.raw_server import response
from tests.support.wire_server import APPLIED, Handler, Request, WireServer, error, scripted
from tests.transport.conftest import GET, PUT, Backends

BUSY = error("ThrottlingException")
ITEM = b'{"Item": {"id": {"S": "order-1"}, "blob": {"B": "AP8="}, "blobs": {"BS": ["AA=="]}}}'
STORED = Found({"id": {"S": "order-1"}, "blob": {"B": b"\x00\xff"}, "blobs": {"BS": [b"\x00"]}})


def chunked(body: bytes, *, size: int = 7, more: str = "") -> bytes:
    """Write a response in chunks."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    sent = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nTransfer-Encoding: chunked\r\n{more}\r\n"
    return head.encode() + sent


def in_drips(answer: bytes) -> Handler:
    """Send an answer byte by byte."""

    async def handler(_: Request, writer: asyncio.StreamWriter) -> bytes:
        for each in answer:
            writer.write(bytes([each]))
            await asyncio.sleep(0)
        return b""

    return handler


async def half_closed(_: Request, writer: asyncio.StreamWriter) -> bytes:
    """End the answers, and read on."""
    writer.write_eof()
    return b""


async def silent(_: Request, writer: asyncio.StreamWriter) -> bytes:
    """Answer nothing."""
    return b""


def crc(body: bytes) -> str:
    return f"x-amz-crc32: {zlib.crc32(body)}\r\n"


def cut_after(answer: bytes, count: int) -> Handler:
    """Send the first bytes of an answer, and close."""

    async def handler(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answer[:count])
        await writer.drain()

    return handler


def failing(status: str, body: bytes = b"") -> bytes:
    return response(body, status=status, kind="text/html")


ANSWER = response(ITEM)
ENDED_BY_CLOSING = ANSWER.replace(b"Content-Length: %d\r\n" % len(ITEM), b"Connection: close\r\n")
ANSWERED: dict[str, tuple[Callable[[], Handler], int]] = {
    "as usual": (lambda: scripted(response(ITEM, more=crc(ITEM))), 1),
    "in chunks": (lambda: scripted(chunked(ITEM, more=crc(ITEM))), 1),
    "byte by byte": (lambda: in_drips(ANSWER), 1),
    "chunks byte by byte": (lambda: in_drips(chunked(ITEM)), 1),
    "a cut before": (lambda: scripted(None, ANSWER), 2),
    "two cuts before": (lambda: scripted(None, None, ANSWER), 3),
    "a cut in the head before": (lambda: scripted(cut_after(ANSWER, 20), ANSWER), 2),
    "a cut in the body before": (lambda: scripted(cut_after(ANSWER, len(ANSWER) - 3), ANSWER), 2),
    "a cut in a chunk before": (lambda: scripted(cut_after(chunked(ITEM), 120), ANSWER), 2),
    "half closed before": (lambda: scripted(half_closed, ANSWER), 2),
    "no HTTP before": (lambda: scripted(b"SSH-2.0-OpenSSH_9.6\r\n", ANSWER), 2),
    "500 before": (lambda: scripted(failing("500 Internal Server Error"), ANSWER), 2),
    "502 before": (lambda: scripted(failing("502 Bad Gateway", b"<html>"), ANSWER), 2),
    "503 twice before": (lambda: scripted(failing("503 Slow Down"), failing("503 Slow Down"), ANSWER), 3),
    "throttled twice before": (lambda: scripted(BUSY, BUSY, ANSWER), 3),
    "a wrong CRC32 before": (lambda: scripted(response(ITEM, more="x-amz-crc32: 1\r\n"), ANSWER), 2),
    "connections that close": (lambda: scripted(response(ITEM, more="Connection: close\r\n")), 1),
    "HTTP/1.0": (lambda: scripted(ANSWER.replace(b"1.1", b"1.0", 1)), 1),
    "ended by closing": (lambda: scripted(ENDED_BY_CLOSING), 1),
    "many headers": (lambda: scripted(response(ITEM, more="X-More: 1\r\n" * 100)), 1),
}


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("case", ANSWERED)
async def test_what_is_answered_in_the_end(case: str, transport: str, backends: Backends) -> None:
    """The answer is whole, after as many requests as botocore sends; and the next call is answered as well."""
    handler, requests = ANSWERED[case]
    async with WireServer(handler()) as server:
        backend = backends(server.url, transport=transport)
        assert await backend.execute(GET) == STORED
        assert len(server.requests) == requests
        assert await backend.execute(GET) == STORED
        await backend.aclose()
    assert len({request.body for request in server.requests}) == 1
    if transport == "lean":
        calls = [request.headers["amz-sdk-invocation-id"] for request in server.requests]
        assert len(set(calls)) == 2, "all attempts of one call have one id"
        attempts = [request.headers["amz-sdk-request"].rpartition("attempt=")[2][0] for request in server.requests]
        assert attempts == [str(number + 1) for number in range(requests)] + ["1"]


FAILED: dict[str, tuple[Callable[[], Handler], type[Exception], str, int]] = {
    "cuts": (lambda: scripted(None), StoreError, "ConnectionClosedError", 3),
    "cuts in the body": (lambda: cut_after(ANSWER, len(ANSWER) - 3), StoreError, "ConnectionClosedError", 3),
    "half closed": (lambda: half_closed, StoreError, "ConnectionClosedError", 3),
    "silence": (lambda: silent, StoreError, "ReadTimeoutError", 3),
    "500": (lambda: scripted(failing("500 Internal Server Error")), StoreError, "500", 3),
    "503": (lambda: scripted(failing("503 Slow Down", b"<html>")), StoreError, "503", 3),
    "InternalServerError": (
        lambda: scripted(error("InternalServerError", status="500 Internal Server Error")),
        StoreError,
        "InternalServerError",
        3,
    ),
    "throttling": (lambda: scripted(BUSY), StoreError, "ThrottlingException", 3),
    "a validation": (lambda: scripted(error("ValidationException")), ConfigurationError, "ValidationException", 1),
    "no such table": (
        lambda: scripted(error("ResourceNotFoundException")),
        ConfigurationError,
        "ResourceNotFoundException",
        1,
    ),
    "a head without end": (lambda: scripted(ANSWER.replace(b"\r\n\r\n", b"\r\nX: " + b"x" * 1_000_000, 1)), StoreError, "HTTPClientError", 3),
    "a page": (lambda: scripted(response(b"<html>", kind="text/html")), StoreError, "without an answer", 3),
}  # fmt: skip


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize("case", FAILED)
async def test_what_fails_in_the_end(case: str, transport: str, backends: Backends) -> None:
    """The error, and the number of attempts, are botocore's; and a later call is not harmed."""
    handler, kind, words, requests = FAILED[case]
    async with WireServer(handler()) as server:
        backend = backends(server.url, transport=transport, config=AioConfig(read_timeout=0.2))
        with pytest.raises(kind, match=words):
            await backend.execute(PUT)
        assert len(server.requests) == requests
        server.handler = scripted(APPLIED)
        assert await backend.execute(PUT) == Applied()
        await backend.aclose()


@pytest.mark.parametrize("left", [4, 5])
@pytest.mark.usefixtures("no_pauses")
async def test_a_quota_bounds_repetitions(transport: str, left: int, backends: Backends) -> None:
    """T3: throttling with and without quota left; a repetition takes five of it, and both transports the same ones."""
    async with WireServer(scripted(BUSY)) as server:
        backend = backends(server.url, transport=transport)
        client: Any = (await backend._ready("orders")).client
        handlers = client.meta.events._emitter._handlers.prefix_search("after-call.dynamodb.PutItem")
        handlers[0].__self__._quota._available_capacity = left
        with pytest.raises(StoreError, match="ThrottlingException"):
            await backend.execute(PUT)
        assert len(server.requests) == (2 if left == 5 else 1)
        server.handler = scripted(APPLIED)
        await backend.execute(PUT)
        assert handlers[0].__self__._quota.available_capacity == left % 5 + 1, "a success gives one back"
        await backend.aclose()


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.usefixtures("no_pauses")
async def test_the_callers_attempts_count(transport: str, attempts: int, backends: Backends) -> None:
    """As many as `retries=` says, and the last error says how many there were."""
    config = AioConfig(retries={"total_max_attempts": attempts, "mode": "standard"})
    async with WireServer(scripted(BUSY)) as server:
        backend = backends(server.url, transport=transport, config=config)
        with pytest.raises(StoreError) as met:
            await backend.execute(PUT)
        cause: Any = met.value.__cause__
        assert cause.response["ResponseMetadata"]["RetryAttempts"] == attempts - 1
        assert cause.response["ResponseMetadata"]["MaxAttemptsReached"]
        assert len(server.requests) == attempts
        await backend.aclose()


async def test_an_error_is_botocores(backends: Backends) -> None:
    """The same class, code, message, members and metadata, for errors with and without an item."""
    item = {"id": {"S": "order-1"}, "blob": {"B": "AP8="}}
    reasons = [{"Code": "ConditionalCheckFailed", "Item": item, "Message": "no"}, {"Code": "None"}]
    answers = [
        error("ConditionalCheckFailedException", Item=item, Foreign=1),
        error("ConditionalCheckFailedException", Item={"id": {"S": "order-1"}}),
        error("TransactionCanceledException", Message="cancelled", CancellationReasons=reasons),
        error("ProvisionedThroughputExceededException", ThrottlingReasons=[{"reason": "x", "resource": "y"}]),
        error("UnknownCode", Item=item),
        error("ValidationException", more="x-amzn-RequestId: R1\r\n"),
        response(b"<html>", status="403 Forbidden", kind="text/html"),
        response(b"[]", status="413 Too Large"),
    ]
    for answer in answers:
        met: list[Any] = []
        async with WireServer(scripted(answer)) as server:
            for transport in ("client", "lean"):
                backend = backends(
                    server.url,
                    transport=transport,
                    config=AioConfig(retries={"total_max_attempts": 1, "mode": "standard"}),
                )
                with pytest.raises(Exception) as raised:  # noqa: PT011 - compared below
                    await (await backend._ready("orders")).send("PutItem", {"TableName": "orders", "Item": PUT.item})
                met.append(raised.value)
                await backend.aclose()
        client, lean = met
        assert type(lean).__name__ == type(client).__name__
        assert lean.response == client.response
        assert str(lean) == str(client)


async def test_a_wrong_checksum_in_each_attempt_is_no_answer(backends: Backends, no_pauses: None) -> None:
    """Better than botocore's standard mode, which takes the last body all the same."""
    async with WireServer(scripted(response(b"{}", more="x-amz-crc32: 1\r\n"))) as server:
        backend = backends(server.url, transport="lean")
        with pytest.raises(StoreError, match="HTTPClientError"):
            await backend.execute(PUT)
        assert len(server.requests) == 3
        await backend.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        response(b"", status="302 Found", more="Location: /login\r\n"),
        response(b"{}", status="307 Temporary Redirect", more="Location: /x\r\n"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + APPLIED,
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + APPLIED,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/2 200\r\n\r\n{}",
    ],
    ids=["found", "redirect", "continue", "early hints", "upgrade", "two lengths", "length and chunks", "HTTP/2"],
)
async def test_what_was_not_asked_for_is_no_answer(answer: bytes, backends: Backends, no_pauses: None) -> None:
    """Redirections, responses before the response, and upgrades do not count as applied."""
    async with WireServer(scripted(answer)) as server:
        backend = backends(server.url, transport="lean")
        with pytest.raises(StoreError):
            await backend.execute(PUT)
        assert len(server.requests) == 3
        assert len({request.connection for request in server.requests}) == (
            1 if answer.startswith(b"HTTP/1.1 30") else 3
        )
        await backend.aclose()


async def test_one_token_serves_all_attempts_of_a_transaction(
    transport: str, backends: Backends, no_pauses: None
) -> None:
    """A transaction that was applied before its answer was lost is answered, and not applied again."""
    cancelled = error("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}])
    async with WireServer(scripted(None, response(b"<html>"), cancelled, APPLIED)) as server:
        backend = backends(server.url, transport=transport)
        assert await backend.execute(Transact((PUT,))) == Applied()
        assert await backend.execute(Transact((PUT,))) == Applied()
        tokens = [request.parameters["ClientRequestToken"] for request in server.requests]
        assert len(set(tokens[:4])) == 1
        assert (len(tokens), len(set(tokens))) == (5, 2)
        await backend.aclose()


async def test_a_function_of_aws_lambda_names_its_trace(
    transport: str, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda finds functions that call themselves by this header, which changes with each invocation."""
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "charge")
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport=transport)
        for trace in ("Root=1-a;Parent=b\r\n", "Root=2"):
            monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
            await backend.execute(PUT)
        monkeypatch.delenv("_X_AMZN_TRACE_ID")
        await backend.execute(PUT)
        found = [request.headers.get("x-amzn-trace-id") for request in server.requests]
        assert found == ["Root=1-a;Parent=b%0D%0A", "Root=2", None]
        await backend.aclose()
