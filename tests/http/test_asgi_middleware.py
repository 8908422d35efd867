"""The middleware for ASGI, message by message."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, Execution, MemoryBackend
from aioidempotency._core.operations import Update
from aioidempotency.asgi import PUBLIC, IdempotencyMiddleware
from tests.support.gate import GateBackend

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}


def body(content: bytes, *, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


def request(content: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def scope(**changes: Any) -> Message:
    return {
        "type": "http",
        "method": "POST",
        "path": "/orders",
        "raw_path": b"/orders",
        "query_string": b"",
        "headers": [(b"idempotency-key", b"k-1")],
        **changes,
    }


def answering(*messages: Message, then: Exception | None = None) -> App:
    """Make an application that sends these messages."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)
        if then is not None:
            raise then

    return app


class Server:
    """Calls an application as a server does, and keeps what the application sends."""

    def __init__(self, *messages: Message) -> None:
        self.sent: list[Message] = []
        self._messages = list(messages) or [request()]

    async def receive(self) -> Message:
        return self._messages.pop(0) if self._messages else await asyncio.Event().wait() and {}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def call(self, app: App, **changes: Any) -> list[Message]:
        await app(scope(**changes), self.receive, self.send)
        return self.sent

    @property
    def code(self) -> bytes | None:
        """The code of the problem document that was sent."""
        whole = b"".join(message.get("body", b"") for message in self.sent)
        return whole.partition(b'"code": "')[2].partition(b'"')[0] or None


@pytest.fixture
def store() -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore.in_memory()


def test_a_middleware_without_a_scope_is_refused(store: AsyncIdempotencyStore) -> None:
    """H7: the message names the danger, and the way out."""
    with pytest.raises(ConfigurationError, match=r"another client.*PUBLIC"):
        IdempotencyMiddleware(answering(), store=store)
    with pytest.raises(ConfigurationError, match="PUBLIC"):
        IdempotencyMiddleware(answering(), store=store, scope="public")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [{"type": "lifespan"}, {"type": "websocket"}, {"method": "GET"}, {"method": "PUT"}, {"headers": []}],
)
async def test_what_is_not_covered_reaches_the_application_untouched(
    store: AsyncIdempotencyStore, changes: Message
) -> None:
    """H12: the same scope, the same receive, the same send."""
    seen: list[tuple[Any, ...]] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    server, given = Server(), scope(**changes)
    receive, send = server.receive, server.send
    await IdempotencyMiddleware(app, store=store, scope=PUBLIC)(given, receive, send)
    assert [[id(each) for each in call] for call in seen] == [[id(given), id(receive), id(send)]]


async def test_the_application_reads_the_messages_again_and_then_the_servers_own(store: AsyncIdempotencyStore) -> None:
    """H12: chunk by chunk, and a disconnect after them."""
    messages = [request(b"one", more=True), request(b"two"), {"type": "http.disconnect"}]
    seen: list[Message] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend([await receive() for _ in range(3)])
        await answering(START, body(b"done"))(scope, receive, send)

    server = Server(*messages)
    await server.call(IdempotencyMiddleware(app, store=store, scope=PUBLIC))
    assert seen == messages
    assert server.sent == [START, body(b"done")]


async def test_half_a_request_runs_nothing(store: AsyncIdempotencyStore) -> None:
    """H12: the client goes away while it sends its body."""
    server = Server(request(b"half", more=True), {"type": "http.disconnect"})
    assert await server.call(IdempotencyMiddleware(answering(START), store=store, scope=PUBLIC)) == []
    assert await store.get([PUBLIC, "k-1"], namespace="http") is None


@pytest.mark.parametrize(
    "messages",
    [
        [START, {"type": "http.response.pathsend", "path": "/canary"}],
        [START, {"type": "http.response.zerocopysend", "file": 3}],
        [{**START, "trailers": True}, body(b"x"), {"type": "http.response.trailers", "headers": []}],
        [START, body(b"x" * 300_000, more=True), body(b"y")],
    ],
    ids=["by path", "by file", "with trailers", "too large"],
)
async def test_what_cannot_be_stored_is_sent_whole_and_not_again(
    store: AsyncIdempotencyStore, messages: list[Message]
) -> None:
    """H10: a tombstone keeps repetitions out."""
    app = IdempotencyMiddleware(answering(*messages), store=store, scope=PUBLIC)
    assert await Server().call(app) == messages
    await (again := Server()).call(app)
    assert (again.sent[0]["status"], again.code) == (410, b"idempotency_result_unavailable")


@pytest.mark.parametrize(
    "messages",
    [
        [{**START, "status": 503}, {"type": "http.response.pathsend", "path": "/canary"}],
        [{**START, "status": 503, "trailers": True}, body(b"x")],
        [{**START, "status": 503}, body(b"x" * 300_000, more=True), body(b"y")],
    ],
    ids=["by path", "with trailers", "too large"],
)
async def test_what_the_policy_does_not_store_leaves_no_tombstone(
    store: AsyncIdempotencyStore, messages: list[Message]
) -> None:
    """H6, H10: the key is free again, whatever the form of the response."""
    app = IdempotencyMiddleware(answering(*messages), store=store, scope=PUBLIC)
    for _ in range(2):
        assert await Server().call(app) == messages


async def test_a_stream_passes_chunk_by_chunk(store: AsyncIdempotencyStore) -> None:
    """H10, H11: only the end waits for the record."""
    sent: list[int] = []
    server = Server()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in [START, body(b"one", more=True), body(b"two", more=True), body(b"")]:
            await send(message)
            sent.append(len(server.sent))

    await server.call(IdempotencyMiddleware(app, store=store, scope=PUBLIC))
    assert sent == [0, 2, 3, 4]


async def test_the_last_declared_byte_waits_for_the_record() -> None:
    """H11: an application that declares a length may send an empty end, which no client waits for."""
    gate = GateBackend(MemoryBackend(), Update, "before")
    app = IdempotencyMiddleware(
        answering(
            {**START, "headers": [(b"Content-Length", b"6")]},
            body(b"one", more=True),
            body(b"two", more=True),
            body(b""),
        ),
        store=AsyncIdempotencyStore("t", backend=gate),
        scope=PUBLIC,
    )
    server = Server()
    call = asyncio.create_task(server.call(app))
    await gate.reached.wait()
    assert b"".join(message.get("body", b"") for message in server.sent) == b"one"
    gate.open()
    await call
    assert b"".join(message.get("body", b"") for message in server.sent) == b"onetwo"


async def test_other_messages_pass_at_once(store: AsyncIdempotencyStore) -> None:
    """H12: early hints, for example."""
    hint = {"type": "http.response.early_hint", "links": []}
    app = IdempotencyMiddleware(answering(hint, START, body(b"x")), store=store, scope=PUBLIC)
    assert await Server().call(app) == [hint, START, body(b"x")]


async def test_an_application_that_fails_after_its_response_changes_nothing(store: AsyncIdempotencyStore) -> None:
    """H11: a background task, for example; the error passes on, and the response is stored."""
    app = IdempotencyMiddleware(answering(START, body(b"x"), then=KeyError("late")), store=store, scope=PUBLIC)
    server = Server()
    with pytest.raises(KeyError, match="late"):
        await server.call(app)
    assert server.sent == [START, body(b"x")]
    assert (await Server().call(app))[0]["headers"] == [(b"x-a", b"1"), (b"idempotent-replayed", b"true")]


@pytest.mark.parametrize("messages", [[START], [START, body(b"x", more=True)]], ids=["start", "first chunk"])
@pytest.mark.parametrize("fails", [True, False])
async def test_a_response_that_began_and_does_not_end_is_not_run_again(
    store: AsyncIdempotencyStore, messages: list[Message], fails: bool
) -> None:
    """H10: the handler has run; a tombstone keeps repetitions out."""
    app = IdempotencyMiddleware(
        answering(*messages, then=KeyError("late") if fails else None), store=store, scope=PUBLIC
    )
    server = Server()
    if fails:
        with pytest.raises(KeyError):
            await server.call(app)
    else:
        assert await server.call(app) == messages
    await (again := Server()).call(app)
    assert again.code == b"idempotency_result_unavailable"


@pytest.mark.parametrize("then", [KeyError("late"), None])
async def test_a_response_that_is_not_stored_and_does_not_end_gives_the_key_back(
    store: AsyncIdempotencyStore, then: Exception | None
) -> None:
    """H6: a 503 that breaks off may be tried again, and so may an application that says nothing."""
    for messages in ([{**START, "status": 503}, body(b"x", more=True)], []):
        app = IdempotencyMiddleware(answering(*messages, then=then), store=store, scope=PUBLIC)
        for _ in range(2):
            server = Server()
            if then is not None:
                with pytest.raises(KeyError):
                    await server.call(app)
            else:
                await server.call(app)
            assert server.sent == messages


async def test_a_cancelled_handler_gives_the_key_back(store: AsyncIdempotencyStore) -> None:
    """O5: a server that stops cancels the request."""
    entered = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        entered.set()
        await asyncio.Event().wait()

    call = asyncio.create_task(Server().call(IdempotencyMiddleware(app, store=store, scope=PUBLIC)))
    await entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await store.get([PUBLIC, "k-1"], namespace="http") is None


async def test_the_execution_is_the_current_one_in_the_handler(store: AsyncIdempotencyStore) -> None:
    """A handler can derive keys for other systems from the request's own."""
    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(Execution.current().derive_key("charge"))
        await answering(START, body(b"x"))(scope, receive, send)

    await Server().call(IdempotencyMiddleware(app, store=store, scope=PUBLIC))
    assert len(found[0]) == 64
    with pytest.raises(LookupError):
        Execution.current()


async def test_a_path_is_taken_as_sent(store: AsyncIdempotencyStore) -> None:
    """H8: an encoded slash is another resource; a server without `raw_path` gives the decoded path alone."""
    app = IdempotencyMiddleware(answering(START, body(b"x")), store=store, scope=PUBLIC)
    await Server().call(app, raw_path=b"/a%2Fb", path="/a/b")
    await (other := Server()).call(app, raw_path=b"/a/b", path="/a/b")
    assert other.code == b"idempotency_key_reused"
    await (other := Server()).call(app, raw_path=None, path="/a/b")
    assert other.code == b"idempotency_key_reused"


async def test_headers_may_be_any_pairs(store: AsyncIdempotencyStore) -> None:
    """H5: lists, and an iterator, which can be read once."""
    start = {**START, "headers": iter([[b"X-A", b"1"]])}
    app = IdempotencyMiddleware(answering(start, body(b"x")), store=store, scope=PUBLIC, replay_header=None)
    assert (await Server().call(app))[0]["headers"] == [(b"X-A", b"1")]
    assert (await Server().call(app))[0]["headers"] == [(b"X-A", b"1")]


async def test_a_replay_of_another_service_is_marked_once(store: AsyncIdempotencyStore) -> None:
    """H5: a gateway passes on the header of the service behind it."""
    start = {**START, "headers": [(b"Idempotent-Replayed", b"true")]}
    app = IdempotencyMiddleware(answering(start, body(b"x")), store=store, scope=PUBLIC)
    await Server().call(app)
    assert (await Server().call(app))[0]["headers"] == [(b"idempotent-replayed", b"true")]
