"""The `Idempotency-Key` header for any ASGI application.

```python
from aioidempotency import AsyncIdempotencyStore
from aioidempotency.asgi import IdempotencyMiddleware

async def caller(scope) -> str:
    return scope["user"].identity  # set by your authentication

async def service(scope, receive, send):
    ...

store = AsyncIdempotencyStore("idempotency")
app = IdempotencyMiddleware(service, store=store, scope=caller)
```

The middleware sees requests and responses, and no endpoint: it stores a deterministic refusal by the application, such
as a failed validation, like any other response. For FastAPI, `aioidempotency.fastapi` claims after authentication and
stores responses of endpoints alone.
"""

from collections.abc import Awaitable, Callable
from typing import Unpack, final

from aioidempotency._http.keyed_call import KeyedCall, claim
from aioidempotency._http.messages import (
    ASGIApp,
    Receive,
    RequestBody,
    ResponseRecorder,
    Scope,
    Send,
    declared_length,
    facts_of,
    send_whole,
)
from aioidempotency._http.options import (
    PUBLIC,
    HttpOptions,
    HttpSettings,
    Public,
    check_scope,
    name_of_caller,
)
from aioidempotency._http.requests import RequestFacts
from aioidempotency._store import AsyncIdempotencyStore

__all__ = ["PUBLIC", "HttpSettings", "IdempotencyMiddleware", "RequestFacts"]

CallerOfScope = Callable[[Scope], str | Awaitable[str]]


@final
class IdempotencyMiddleware:
    """Executes each keyed request once, and answers repetitions with the stored response.

    Requests without a key, and requests with a method that is not covered, pass untouched. So do `lifespan` and
    `websocket`.

    Args:
        app: The application.
        store: The store of the records. The caller closes the store.
        scope: A function that names the authenticated caller, given the ASGI scope; may be a coroutine function. Two
            callers never meet in one key. `PUBLIC` has all callers share all keys.
        options: See `HttpSettings`.

    Raises:
        ConfigurationError: There is no scope, or an option makes no sense.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        store: AsyncIdempotencyStore,
        scope: CallerOfScope | Public | None = None,
        **options: Unpack[HttpSettings],
    ) -> None:
        check_scope(scope)
        assert scope is not None  # noqa: S101 - checked above
        self.app = app
        self._caller: CallerOfScope | Public = scope
        self._options = HttpOptions.of(store, options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        options = self._options
        # A keyless request costs one look at its headers.
        if scope["type"] != "http" or scope["method"] not in options.methods:
            return await self.app(scope, receive, send)
        header = options.header
        values = [value for name, value in scope["headers"] if name == header]
        if not values and not options.required:
            return await self.app(scope, receive, send)
        return await self._keyed(values, scope, receive, send)

    async def _keyed(self, values: list[bytes], scope: Scope, receive: Receive, send: Send) -> None:
        options = self._options
        key = options.read_key(values)
        if not isinstance(key, str):
            return await send_whole(send, key)
        caller = await name_of_caller(self._caller, scope)
        body, fingerprint = RequestBody(receive, options.max_request_body), None
        if options.fingerprint is not None:
            content: bytes | None = b""
            too_large = (declared_length(scope["headers"]) or 0) > options.max_request_body
            if not too_large:
                content = await body.read(options.max_request_body)
            if content is None:
                return None  # the client is gone, with half of its request
            if too_large or body.size > options.max_request_body:
                return await send_whole(send, options.problem("idempotency_body_too_large"))
            fingerprint = options.fingerprint_of(facts_of(scope), content)
        claimed = await claim(options, caller, key, fingerprint=fingerprint)
        if not isinstance(claimed, KeyedCall):
            return await send_whole(send, claimed)
        return await ResponseRecorder(scope, send, claimed).run(self.app, body.receive)
