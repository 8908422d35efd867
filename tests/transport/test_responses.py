"""Reading responses, without a socket: only DynamoDB's answers count, and errors are botocore's."""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from botocore.exceptions import HTTPClientError
from hypothesis import example, given
from hypothesis import strategies as st

from aioidempotency import DynamoDBBackend
from aioidempotency.backends import Applied
from aioidempotency.backends.dynamodb import responses
from aioidempotency.backends.dynamodb.answers import NoAnswerError
from aioidempotency.backends.dynamodb.connections import LARGEST_BODY, Connection, Connections, Origin, Response
from tests.support.wire_server import APPLIED, WireServer, scripted
from tests.transport.conftest import PUT, Backends

MEMBERS = frozenset({"Item", "ConsumedCapacity"})
DATE = b"Sun, 29 Nov 2026 12:00:00 GMT"
NOON = 1795953600.0


def raw(body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> Response:
    return Response(status, list(headers), body)


@given(st.binary(max_size=300), st.booleans())
def test_a_body_is_what_was_sent(body: bytes, is_compressed: bool) -> None:
    """The CRC32 is that of the bytes on the wire, before they are decompressed."""
    sent = gzip.compress(body) if is_compressed else body
    headers = [(b"X-Amz-Crc32", b"%d" % zlib.crc32(sent))] + [(b"Content-Encoding", b"GZIP")] * is_compressed
    assert responses.body_of(raw(sent, *headers)) == body
    with pytest.raises(HTTPClientError, match="CRC32"):
        responses.body_of(raw(sent + b"x", *headers))


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"{}", b"gzip"),
        (gzip.compress(b'{"Item": {}}')[:-9], b"gzip"),
        (gzip.compress(b"{}"), b"br"),
        (b"{}", b"deflate"),
        (gzip.compress(b"\0" * (LARGEST_BODY + 1)), b"gzip"),
    ],
    ids=["plain", "cut", "brotli", "deflate", "a bomb"],
)
def test_a_body_that_cannot_be_read_is_no_answer(body: bytes, encoding: bytes) -> None:
    """Neither is one that would fill memory."""
    with pytest.raises(HTTPClientError):
        responses.body_of(raw(body, (b"content-encoding", encoding)))


@given(st.binary(max_size=60) | st.text(max_size=30).map(str.encode))
@example(b"null")
@example(b"[]")
@example(b'{"Item": ')
@example(b'{"status": "ok"}')
@example(b"[" * 100_000)
def test_what_is_no_answer_never_counts_as_applied(body: bytes) -> None:
    """Only an object of nothing, or with a member of DynamoDB's answer, is an answer."""
    try:
        found = responses.answer(200, body, MEMBERS)
    except NoAnswerError:
        return
    assert json.loads(body) == found
    assert not found or found.keys() & MEMBERS


@given(st.integers(300, 399))
def test_a_redirection_is_no_answer(status: int) -> None:
    """Whatever its body says."""
    with pytest.raises(NoAnswerError):
        responses.answer(status, b"{}", MEMBERS)


@pytest.mark.parametrize(
    ("code", "date", "now", "expected"),
    [
        ("InvalidSignatureException", DATE, NOON - 600, 600.0),
        ("RequestTimeTooSkewed", DATE, NOON + 600, -600.0),
        ("InvalidSignatureException", DATE, NOON - 30, None),
        ("ValidationException", DATE, NOON - 600, None),
        ("InvalidSignatureException", b"yesterday", NOON - 600, None),
        ("InvalidSignatureException", None, NOON - 600, None),
    ],
    ids=["behind", "ahead", "right", "another code", "no date", "none"],
)
def test_a_wrong_clock_is_told(code: str, date: bytes | None, now: float, expected: float | None) -> None:
    """T3: by the header `Date` of a refusal that a wrong clock may have caused."""
    headers = [] if date is None else [(b"Date", date)]
    assert responses.skew(raw(b"", *headers, status=400), code, now) == expected


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["__type", "message", "Message", "Item", "x"]), VALUES) | VALUES)
def test_an_error_is_read_whatever_its_body(body: Any) -> None:
    """It has a code and a message, and raises nothing else."""

    def members(_: str) -> frozenset[str]:
        return MEMBERS

    response = raw(json.dumps(body).encode(), (b"X-Amzn-RequestId", b"R1"), status=503)
    found: Mapping[str, Any] = responses.failure(response, response.body, members)
    assert isinstance(found["Error"]["Code"], str)
    assert found["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert found["ResponseMetadata"]["RequestId"] == "R1"
    assert found.keys() <= {"Error", "ResponseMetadata", *MEMBERS}


class Transport(asyncio.Transport):
    """Takes what is written, and remembers that it was closed."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False

    def write(self, data: Any) -> None:
        """Take."""

    def abort(self) -> None:
        """Close."""
        self.closed = True

    def is_closing(self) -> bool:
        """Tell."""
        return self.closed

    def get_write_buffer_size(self) -> int:
        """Everything is gone."""
        return 0


PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"Content-Length: 2\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"\r\n",
        b"{}",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\n",
        b"\0",
    ]
)


@given(parts=st.lists(PIECES | st.binary(max_size=20), max_size=8), split=st.integers(1, 40), ends=st.booleans())
@example(parts=[APPLIED], split=1, ends=False)
@example(parts=[APPLIED, APPLIED], split=1000, ends=True)
def test_any_bytes_end_or_wait(parts: list[bytes], split: int, ends: bool) -> None:
    """A response is whole, an error, or still to come; a connection with bytes behind its response is not kept."""

    async def main() -> None:
        pool = Connections(limit=1, connect_timeout=1, read_timeout=1, keep=1, tls=None)  # type: ignore[arg-type] # not asked
        connection, transport = Connection(pool, Origin("h", 1, False)), Transport()
        connection.connection_made(transport)
        waiter = connection.exchange(b"")
        data = b"".join(parts)
        for start in range(0, len(data), split):
            if transport.closed:
                break
            connection.data_received(data[start : start + split])
        if ends and not transport.closed:
            connection.eof_received()
            connection.connection_lost(None)
            assert waiter.done()
        if waiter.done():
            if waiter.exception() is None:
                assert waiter.result().status >= 200
                assert data.startswith((b"HTTP/1.1 2", b"HTTP/1.0 2", b"\r", b"\n")) or b"HTTP/" in data
        else:
            waiter.cancel()
        assert not (connection.is_free() and ends)

    asyncio.run(main())


async def test_random_answers_neither_hang_nor_count(backends: Backends, no_pauses: None) -> None:
    """T3: bytes of a seed as answers; what counts as applied was a whole answer of DynamoDB's."""
    generator = random.Random(16)
    answers = [_mutated(generator) for _ in range(150)]
    config = AioConfig(read_timeout=0.05, retries={"total_max_attempts": 1, "mode": "standard"})
    async with WireServer(scripted(b"")) as server:
        backend: DynamoDBBackend = backends(server.url, transport="lean", config=config, time_limit=10)
        send = (await backend._ready("orders")).send
        parameters = {"TableName": "orders", "Item": PUT.item}
        for answer in answers:
            server.handler = scripted(answer)
            outcome = (await asyncio.gather(send("PutItem", parameters), return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                body = answer.partition(b"\r\n\r\n")[2]
                assert outcome == {} or outcome.keys() & {"Attributes", "ConsumedCapacity", "ItemCollectionMetrics"}
                assert b"{" in body
        server.handler = scripted(APPLIED)
        assert await backend.execute(PUT) == Applied()
        await backend.aclose()


def _mutated(generator: Any) -> bytes:
    """Change, drop or insert some bytes of a good answer."""
    answer = bytearray(APPLIED)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(answer))
        match generator.randrange(3):
            case 0:
                answer[at] = generator.randrange(256)
            case 1:
                del answer[at : at + generator.randint(1, 5)]
            case _:
                answer[at:at] = generator.randbytes(generator.randint(1, 5))
    return bytes(answer)
