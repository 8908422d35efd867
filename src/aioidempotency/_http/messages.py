"""The messages of ASGI: reading a request's body ahead, and recording a response on its way.

A response passes at once, chunk by chunk, but for its end: the last chunk waits until the record is complete. A start
without a body waits, too, because a lost lease can still change the response.
"""

from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, final
from urllib.parse import quote

from aioidempotency._http.keyed_call import KeyedCall
from aioidempotency._http.requests import RequestFacts
from aioidempotency._http.responses import HttpResponse

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_CONTENT_TYPE: Final = b"content-type"
_CONTENT_LENGTH: Final = b"content-length"


def facts_of(scope: Scope) -> RequestFacts:
    """Collect the facts of a request for the fingerprint."""
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    # The path before decoding, because `/a%2Fb` and `/a/b` are two resources.
    path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return RequestFacts(
        method=scope["method"],
        path=path.decode("latin-1"),
        query=scope.get("query_string", b"").decode("latin-1"),
        content_type=next((value for name, value in headers if name == _CONTENT_TYPE), b"").decode("latin-1"),
        headers=headers,
    )


def declared_length(headers: list[tuple[bytes, bytes]]) -> int | None:
    """Read the header `Content-Length`. None without a valid one."""
    value = next((value for name, value in headers if name.lower() == _CONTENT_LENGTH), b"")
    return int(value) if value.isdigit() else None


@final
class RequestBody:
    """The body of a request: read ahead for the fingerprint, and given to the application all the same.

    Args:
        receive: The server's `receive`.
        limit: The most bytes to keep.

    Attributes:
        complete: Whether the whole body was received.
        size: The number of bytes received.
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._chunks: list[bytes] = []
        self._ahead: deque[Message] = deque()
        self.size = 0
        self.complete = False

    async def receive(self) -> Message:
        """Give the application its next message: the messages read ahead, then the server's own."""
        return self._ahead.popleft() if self._ahead else self._noted(await self._receive())

    async def read(self, limit: int) -> bytes | None:
        """Read the body to its end, or until it exceeds the limit. None if the client is gone."""
        while not self.complete and self.size <= limit:
            message = self._noted(await self._receive())
            self._ahead.append(message)
            if message["type"] == "http.disconnect":
                return None
        return b"".join(self._chunks)

    def _noted(self, message: Message) -> Message:
        if message["type"] == "http.request":
            chunk = message.get("body", b"")
            self.size += len(chunk)
            # An application may read gigabytes without a key. Only as much is kept as a fingerprint may need.
            if self.size <= self._limit:
                self._chunks.append(chunk)
            self.complete = not message.get("more_body", False)
        return message


async def send_whole(send: Send, response: HttpResponse) -> None:
    """Send a whole response."""
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send({"type": "http.response.body", "body": response.body})


@final
class ResponseRecorder:
    """Records the response of a call on its way to the server, and ends the call before the last byte.

    Args:
        scope: The request's ASGI scope.
        send: The server's `send`.
        call: The call, once there is one. Without a call, messages pass untouched.

    Attributes:
        call: The call, until its end.
        answered: Whether the client has a response in place of the application's, whose messages are dropped.
    """

    def __init__(self, scope: Scope, send: Send, call: KeyedCall | None = None) -> None:
        self.call = call
        self.answered = False
        self._scope = scope
        self._send = send
        self._start: Message | None = None
        self._sent = False
        self._kept = False
        self._held: list[Message] = []
        self._chunks: list[bytes] = []
        self._size = 0
        self._length: int | None = None

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        """Run the application, and end the call whatever happens."""
        try:
            await app(self._scope, receive, self.send)
        except BaseException as error:
            if await self._failed(error):
                raise
        else:
            await self._returned()

    async def answer(self, response: HttpResponse) -> None:
        """Send a response in place of the application's."""
        self.answered = True
        self._held.clear()
        await send_whole(self._send, response)

    async def send(self, message: Message) -> None:
        """Take a message from the application."""
        if self.call is None:
            if not self.answered:
                await self._send(message)
            return
        match message["type"]:
            case "http.response.start":
                # Made a list of tuples: an application may give any iterable of pairs, which can be read once.
                headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
                self._start = {**message, "headers": headers}
                self._kept = self._reached_endpoint() and self.call.options.stores(message["status"], headers)
                self._length = declared_length(headers)
                self._held.append(self._start)
            case "http.response.body":
                await self._body(message)
            case "http.response.pathsend" | "http.response.zerocopysend":
                await self._end(message, "the response is sent by file")
            case _:
                await self._send(message)

    async def _body(self, message: Message) -> None:
        assert self.call is not None  # noqa: S101 - `send` has asked
        assert self._start is not None  # noqa: S101 - as ASGI has it, a start comes before a body
        chunk = message.get("body", b"")
        self._size += len(chunk)
        if self._start.get("trailers"):
            await self._end(message, "the response has trailers")
        elif self._kept and self._size > self.call.options.max_response_body:
            await self._end(message, "the response exceeds max_response_body")
        elif not message.get("more_body", False):
            self._chunks.append(chunk)
            await self._end(message)
        else:
            if self._kept:
                self._chunks.append(chunk)
            self._held.append(message)
            # A client takes a response for complete when it has all the bytes that were declared.
            if self._length is None or self._size < self._length:
                await self._pass()

    async def _end(self, message: Message, unstorable: str | None = None) -> None:
        """End the call, then send the message and all that waited."""
        call, self.call = self.call, None
        assert call is not None  # noqa: S101 - `send` has asked
        assert self._start is not None  # noqa: S101 - as ASGI has it, a start comes before a body
        if not self._kept:
            refusal = await call.release()
        elif unstorable is not None:
            # At once, and not at the end: should the process die meanwhile, the handler has run all the same.
            refusal = await call.bury(unstorable)
        else:
            refusal = await call.store(
                HttpResponse(self._start["status"], self._start["headers"], b"".join(self._chunks))
            )
        self._chunks.clear()
        self._held.append(message)
        if refusal is not None and not self._sent:
            await self.answer(refusal)
            return
        await self._pass()

    async def _failed(self, error: BaseException) -> bool:
        """End the call of an application that raised. Tells whether the error goes on to the server."""
        call, self.call = self.call, None
        if call is None:
            return True
        if self._start is None:
            refusal = await call.fail(error)
        elif self._kept:
            refusal = await call.bury("the handler failed after its response had begun")
        else:
            refusal = await call.release(error)
        if refusal is None or self._sent:
            return True
        await self.answer(refusal)
        return False

    async def _returned(self) -> None:
        """End the call of an application that returned without the end of its response."""
        call, self.call = self.call, None
        if call is None:
            return
        if self._start is not None and self._kept:
            await call.bury("the handler ended in the middle of its response")
        else:
            await call.release()
        await self._pass()

    async def _pass(self) -> None:
        """Send the messages that waited."""
        held, self._held = self._held, []
        self._sent = True
        for message in held:
            await self._send(message)

    def _reached_endpoint(self) -> bool:
        """Tell whether a route has taken the request, as far as the application says.

        Routers of Starlette name the endpoint in the scope. Other applications say nothing.
        """
        if "router" not in self._scope:
            return True
        return "endpoint" in self._scope and (self._start is None or self._start["status"] != 405)  # noqa: PLR2004
