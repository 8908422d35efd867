"""The `Idempotency-Key` header for aiohttp's server.

```python
from aiohttp import web

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.aiohttp import Idempotency

async def caller(request: web.Request) -> str:
    return request["user"]  # set by your authentication

store = AsyncIdempotencyStore("idempotency")
idempotency = Idempotency(store, scope=caller)

@idempotency.handler(required=True)
async def pay(request: web.Request) -> web.Response:
    return web.json_response({"paid": True})

app = web.Application()
app.router.add_post("/payments", pay)
app.cleanup_ctx.append(idempotency.lifespan)
```
"""

# Absolute imports only: this module has the name of the package that it serves.
import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, ParamSpec, Unpack, final

from aiohttp import StreamReader, web
from aiohttp.payload import BytesPayload, Payload
from aiohttp.typedefs import Handler

from aioidempotency._concurrency import CLEANUP_LIMIT
from aioidempotency._http.keyed_call import KeyedCall, claim
from aioidempotency._http.options import (
    PUBLIC,
    HttpOptions,
    HttpSettings,
    Public,
    check_scope,
    name_of_caller,
)
from aioidempotency._http.requests import Headers, RequestFacts
from aioidempotency._http.responses import HttpResponse
from aioidempotency._signatures import check_awaitable
from aioidempotency._store import AsyncIdempotencyStore

__all__ = ["PUBLIC", "HttpSettings", "Idempotency", "RequestFacts"]

P = ParamSpec("P")
CallerOfRequest = Callable[[web.Request], str | Awaitable[str]]

_CLAIMED: Final = web.RequestKey("aioidempotency_claimed", bool)
"""Marks a request whose key is claimed: a middleware and a decorator around one handler claim once."""

_DECORATED: Final = "__aioidempotency_handler__"
"""Marks a decorated handler, whose options come before those of the middleware."""


@final
class Idempotency:
    """Executes each keyed request once, and answers repetitions with the stored response.

    Use `middleware` for all handlers of an application, or decorate single handlers with `handler`.

    Args:
        store: The store of the records. `lifespan` closes the store.
        scope: A function that names the authenticated caller, given the request; may be a coroutine function. Two
            callers never meet in one key. `PUBLIC` has all callers share all keys.
        options: See `HttpSettings`.

    Raises:
        ConfigurationError: There is no scope, or an option makes no sense.
    """

    def __init__(
        self,
        store: AsyncIdempotencyStore,
        *,
        scope: CallerOfRequest | Public | None = None,
        **options: Unpack[HttpSettings],
    ) -> None:
        check_scope(scope)
        assert scope is not None  # noqa: S101 - checked above
        self._store = store
        self._scope: CallerOfRequest | Public = scope
        self._settings = options
        self._options = HttpOptions.of(store, options)
        self._header = self._options.header.decode()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Protect all handlers: `web.Application(middlewares=[authenticate, idempotency.middleware])`.

        Requests without a key, with a method that is not covered, and without a route pass untouched.
        """
        options = self._options
        # A keyless request costs one look at its headers.
        if request.method not in options.methods or (self._header not in request.headers and not options.required):
            return await handler(request)
        match_info = request.match_info
        # Neither a 404 nor a 405 is the response of a handler.
        if match_info.http_exception is not None or hasattr(match_info.handler, _DECORATED):
            return await handler(request)
        return await _serve(options, self._scope, request, lambda: handler(request))

    def handler(
        self, *, scope: CallerOfRequest | Public | None = None, **overrides: Unpack[HttpSettings]
    ) -> Callable[[Callable[P, Awaitable[web.StreamResponse]]], Callable[P, Awaitable[web.StreamResponse]]]:
        """Protect one handler: a coroutine function of a request, or a method of a `web.View`.

        Args:
            scope: The scope of this handler, in place of the common one.
            overrides: Options of this handler, in place of the common ones.

        Raises:
            ConfigurationError: An option makes no sense, or the handler is no coroutine function.
        """
        caller = self._scope if scope is None else scope
        check_scope(caller)
        options = HttpOptions.of(self._store, {**self._settings, **overrides})

        def decorate(
            function: Callable[P, Awaitable[web.StreamResponse]],
        ) -> Callable[P, Awaitable[web.StreamResponse]]:
            check_awaitable(function)

            @functools.wraps(function)
            async def protected(*args: P.args, **kwargs: P.kwargs) -> web.StreamResponse:
                return await _serve(options, caller, _request_of(args), lambda: function(*args, **kwargs))

            setattr(protected, _DECORATED, True)
            return protected

        return decorate

    async def lifespan(self, app: web.Application) -> AsyncIterator[None]:  # noqa: ARG002 - aiohttp gives the app
        """Close the store with the application: `app.cleanup_ctx.append(idempotency.lifespan)`."""
        yield
        # Handlers that aiohttp has just cancelled still give their keys back.
        await self._store.aclose(drain=CLEANUP_LIMIT)


def _request_of(args: tuple[object, ...]) -> web.Request:
    """Find the request among a handler's arguments: the last one, or an attribute of a `web.View`."""
    last: object = args[-1] if args else None
    request = last.request if isinstance(last, web.View) else last
    if not isinstance(request, web.Request):
        raise TypeError("a decorated handler is called with a request, or as a method of a web.View")
    return request


async def _serve(
    options: HttpOptions,
    scope: CallerOfRequest | Public,
    request: web.Request,
    handler: Callable[[], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Run a handler once for the key of its request."""
    if request.method not in options.methods or _CLAIMED in request:
        return await handler()
    if options.header.decode() not in request.headers and not options.required:
        return await handler()
    claimed = await _claim(options, scope, request)
    if not isinstance(claimed, KeyedCall):
        return _response(claimed)
    request[_CLAIMED] = True
    return await _run(claimed, request, handler)


async def _claim(
    options: HttpOptions, scope: CallerOfRequest | Public, request: web.Request
) -> KeyedCall | HttpResponse:
    """Claim the key of a request, or make the response that the client gets instead."""
    headers = [(name.lower(), value) for name, value in request.raw_headers]
    key = options.read_key([value for name, value in headers if name == options.header])
    if not isinstance(key, str):
        return key
    caller = await name_of_caller(scope, request)
    fingerprint = None
    if options.fingerprint is not None:
        body = await _read_ahead(request, options.max_request_body)
        if body is None:
            return options.problem("idempotency_body_too_large")
        fingerprint = options.fingerprint_of(_facts_of(request, headers), body)
    return await claim(options, caller, key, fingerprint=fingerprint)


async def _run(
    call: KeyedCall, request: web.Request, handler: Callable[[], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Run the handler of a claimed key, and end the call."""
    raised: web.HTTPException | None = None
    try:
        response = await handler()
    except web.HTTPException as error:
        response = raised = error
    except BaseException as error:
        # The bytes on the wire tell of a response whose handler has failed: nobody else holds the response.
        began = request.writer.output_size > 0
        refusal = await (call.bury(_BROKEN) if began else call.fail(error))
        if refusal is None or began:
            raise
        return _response(refusal)
    if not isinstance(response, web.StreamResponse):
        await call.release()  # aiohttp makes an error of it
        return response
    refusal = await _end(call, response)
    if refusal is not None and not response.prepared:
        return _response(refusal)
    if raised is not None:
        raise raised
    return response


_BROKEN: Final = "the handler failed after its response had begun"


async def _end(call: KeyedCall, response: web.StreamResponse) -> HttpResponse | None:
    """End the call of a handler that answered."""
    headers = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in response.headers.items()]
    if not call.options.stores(response.status, headers):
        return await call.release()
    body = await _body_of(response)
    if body is None:
        return await call.bury("the response is a stream or a file")
    return await call.store(HttpResponse(response.status, headers, body))


async def _body_of(response: web.StreamResponse) -> bytes | None:
    """Read the body of a response. None if the body is a stream or a file."""
    if not isinstance(response, web.Response):
        return None
    body: bytes | bytearray | Payload | None = response.body
    if body is None:
        return b""
    if isinstance(body, Payload):
        # Other payloads are read while they are sent, and some can be read once only.
        return await body.as_bytes() if isinstance(body, BytesPayload) else None
    return bytes(body)


async def _read_ahead(request: web.Request, limit: int) -> bytes | None:
    """Read the body, and give the handler a stream with the same content. None if the body exceeds the limit."""
    known = request._read_bytes  # noqa: SLF001 - what an earlier middleware has read is gone from the stream
    if known is None:
        if (request.content_length or 0) > limit:
            return None
        known = b""
        if request.can_read_body:
            chunks: list[bytes] = []
            size, stream = 0, request._payload  # noqa: SLF001 - `request.content` keeps the stream that it shows
            while not stream.at_eof() and size <= limit:
                chunks.append(await stream.readany())
                size += len(chunks[-1])
            known = b"".join(chunks)
            # A stream in the place of the one that is empty now: parts of a form, and `request.content`, still work.
            # The limit keeps the reader from pausing a connection that has nothing more to read.
            again = StreamReader(request.protocol, limit=max(size, 2**16), loop=asyncio.get_running_loop())
            again.feed_data(known)
            again.feed_eof()
            request._payload = again  # noqa: SLF001 - aiohttp has no other way to put a body back
            request._cache.pop("content", None)  # noqa: SLF001 - an earlier middleware may have looked at it
    return None if len(known) > limit else known


def _facts_of(request: web.Request, headers: Headers) -> RequestFacts:
    path, _, query = request.raw_path.partition("?")
    content_type = next((value for name, value in headers if name == b"content-type"), b"")
    return RequestFacts(
        method=request.method,
        path=path.encode("utf-8", "surrogateescape").decode("latin-1"),
        query=query.encode("utf-8", "surrogateescape").decode("latin-1"),
        content_type=content_type.decode("latin-1"),
        headers=headers,
    )


def _response(response: HttpResponse) -> web.Response:
    headers: list[tuple[str, Any]] = [
        (name.decode("latin-1"), value.decode("utf-8", "surrogateescape")) for name, value in response.headers
    ]
    return web.Response(status=response.status, headers=headers, body=response.body)
