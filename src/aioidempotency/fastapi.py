"""The `Idempotency-Key` header for FastAPI: a dependency, which claims after authentication.

```python
from typing import Annotated

from fastapi import Depends, FastAPI, Header

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.fastapi import Idempotency

async def caller(x_user: Annotated[str, Header()]) -> str:
    return x_user  # stands for your authentication

app = FastAPI()
idempotency = Idempotency(AsyncIdempotencyStore("idempotency"), scope=caller)
idempotency.install(app)

@app.post("/payments", dependencies=[Depends(idempotency(required=True))])
async def pay() -> dict[str, bool]:
    return {"paid": True}
```

A replay runs only the dependencies before this one, and those that `scope` depends on. All that authorises a request
must be among them.
"""

# Absolute imports only: this module has the name of the package that it serves. FastAPI reads the annotations of the
# dependency at run time, so they are no texts.
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Annotated, Any, Final, Unpack, final

from fastapi import Depends, FastAPI, Header, routing
from fastapi.dependencies.utils import solve_dependencies
from fastapi.exceptions import RequestValidationError
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

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
)
from aioidempotency._http.openapi import documented, note
from aioidempotency._http.options import (
    PUBLIC,
    REFUSED,
    HttpOptions,
    HttpSettings,
    Public,
    check_caller,
    check_scope,
)
from aioidempotency._http.requests import RequestFacts
from aioidempotency._http.responses import HttpResponse
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.exceptions import ConfigurationError, IdempotencyError

__all__ = ["PUBLIC", "HttpSettings", "Idempotency", "RequestFacts"]

Dependency = Callable[..., Awaitable[None]]
CallerDependency = Callable[..., Any]

_STACK: Final = "fastapi_inner_astack"
"""The name under which FastAPI puts the exit stack of its dependencies with `yield` into the ASGI scope."""

_LAYER: Final = "aioidempotency.layer"
"""The name under which the layer puts its `_Exchange` into the ASGI scope."""


class _Answered(Exception):  # noqa: N818 - not an error: the layer sends the answer
    """Ends a request that has its answer already. No handler of the user's knows this class."""


@final
class _Exchange:
    """One request on its way through the layer: the dependency reads the body here, and leaves its call or answer."""

    __slots__ = ("body", "recorder")

    def __init__(self, body: RequestBody, recorder: ResponseRecorder) -> None:
        self.body = body
        self.recorder = recorder


async def _unused(*_: object) -> Any:
    raise AssertionError("a request without a key has no answer of the layer's")


_UNUSED: Final = _Exchange(RequestBody(_unused, 0), ResponseRecorder({}, _unused))
"""Marks a request without a key in an application where no route requires one."""


@final
class Idempotency:
    """Executes each keyed request once, and answers repetitions with the stored response.

    `install` puts a layer around the application, and `idempotency(...)` makes a dependency for a route or a router.

    Args:
        store: The store of the records. The caller closes the store.
        scope: A dependency that names the authenticated caller: a text. Two callers never meet in one key. `PUBLIC` has
            all callers share all keys.
        defaults: Options of all routes, see `HttpSettings`.

    Raises:
        ConfigurationError: An option makes no sense.
    """

    def __init__(
        self,
        store: AsyncIdempotencyStore,
        *,
        scope: CallerDependency | Public | None = None,
        **defaults: Unpack[HttpSettings],
    ) -> None:
        if scope is not None:
            check_scope(scope)
        self._store = store
        self._scope = scope
        self._defaults = defaults
        self._common = HttpOptions.of(store, defaults)
        self._installed = False
        # Of all dependencies: the layer does not know the route of a request.
        self._methods: set[str] = set()
        self._headers: set[bytes] = set()
        self._requires = False
        self._largest_body = 0

    def install(self, app: FastAPI) -> None:
        """Put the layer around an application, inside all its other middleware, and add the error handlers.

        Call `install` before the first request. CORS and compression then apply to replays afresh, wherever they are
        added. The error handlers turn errors of decorated functions into problem documents. The OpenAPI document gets
        the header and the refusals.

        Raises:
            ConfigurationError: The application has served a request already.
        """
        if app.middleware_stack is not None:
            raise ConfigurationError("install(app) comes too late: call it before the application's first request")
        self._installed = True
        app.user_middleware.append(Middleware(self._layer))
        for kind in REFUSED:
            app.exception_handlers.setdefault(kind, self._refuse)
        original = app.openapi
        app.openapi = lambda: documented(original())  # type: ignore[method-assign] # as FastAPI's own docs do

    def __call__(
        self, *, scope: CallerDependency | Public | None = None, **overrides: Unpack[HttpSettings]
    ) -> Dependency:
        """Make a dependency: `dependencies=[Depends(idempotency(required=True))]`, of a route or a router.

        Args:
            scope: The scope, in place of the common one.
            overrides: Options in place of the common ones.

        Raises:
            ConfigurationError: There is no scope, or an option makes no sense.
        """
        caller_dependency = self._scope if scope is None else scope
        check_scope(caller_dependency)
        settings: HttpSettings = {**self._defaults, **overrides}
        options = HttpOptions.of(self._store, settings)
        self._methods |= options.methods
        self._headers.add(options.header)
        self._requires = self._requires or options.required
        if options.fingerprint is not None:
            self._largest_body = max(self._largest_body, options.max_request_body)
        # For the OpenAPI document alone: the raw header is read, because two headers with a key are a fault.
        key = Header(alias=settings.get("header", "Idempotency-Key"), json_schema_extra=note(options))

        # No dependency with `yield`: each request without a key would pay for the generator.
        if isinstance(caller_dependency, Public):

            async def claim_public_key(
                connection: HTTPConnection,
                key: Annotated[str | None, key] = None,  # noqa: ARG001 - see above
            ) -> None:
                await self._claim(options, connection.scope, PUBLIC)

            return claim_public_key

        async def claim_key(
            connection: HTTPConnection,
            caller: Annotated[Any, Depends(caller_dependency)],
            key: Annotated[str | None, key] = None,  # noqa: ARG001 - see above
        ) -> None:
            await self._claim(options, connection.scope, caller)

        return claim_key

    async def _claim(self, options: HttpOptions, scope: Scope, caller: object) -> None:
        """Claim the key of a request, if the request has one and its method is covered.

        Raises:
            _Answered: The client has its answer, and the endpoint must not run.
            ConfigurationError: The application lacks the layer.
        """
        if not self._installed:
            raise ConfigurationError("the application lacks the layer of Idempotency: call install(app) first")
        if scope["type"] != "http" or scope["method"] not in options.methods:
            return
        exchange: _Exchange | None = scope.get(_LAYER)
        if exchange is None:
            raise ConfigurationError("this application lacks the layer of Idempotency: call install(app) first")
        stack: AsyncExitStack = scope[_STACK]  # before the claim: without the stack, nothing is claimed
        # Of two dependencies around one endpoint, the outer one claims.
        if exchange.recorder.call is None and (call := await _claimed(options, exchange, scope, caller)) is not None:
            exchange.recorder.call = call

            async def leave(_: object, error: BaseException | None, __: object) -> None:
                if error is not None and exchange.recorder.call is call and _before_the_endpoint(error):
                    exchange.recorder.call = None
                    await call.release(error)

            stack.push_async_exit(leave)

    def _layer(self, app: ASGIApp) -> ASGIApp:
        async def layer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["method"] not in self._methods:
                await app(scope, receive, send)
                return
            # Without a key nothing is claimed, so nothing of the body need be kept.
            keyed = any(name in self._headers for name, _ in scope["headers"])
            if not keyed and not self._requires:
                scope[_LAYER] = _UNUSED
                await app(scope, receive, send)
                return
            body = RequestBody(receive, self._largest_body if keyed else 0)
            exchange = scope[_LAYER] = _Exchange(body, ResponseRecorder(scope, send))
            with suppress(_Answered):
                await exchange.recorder.run(app, body.receive if keyed else receive)

        return layer

    async def _refuse(self, request: Request, error: Exception) -> Response:  # noqa: ARG002 - FastAPI gives the request
        refusal = self._common.refusal(error) if isinstance(error, IdempotencyError) else None
        if refusal is None:
            raise error
        return _response(refusal)


async def _claimed(options: HttpOptions, exchange: _Exchange, scope: Scope, caller: object) -> KeyedCall | None:
    """Claim the key of a request. None without a key. Raises `_Answered` if the endpoint must not run."""
    values = [value for name, value in scope["headers"] if name == options.header]
    if not values and not options.required:
        return None
    key = options.read_key(values)
    if not isinstance(key, str):
        raise await _answered(exchange, key)
    named = check_caller(caller)
    fingerprint = None
    if options.fingerprint is not None:
        body, limit = exchange.body, options.max_request_body
        too_large = max(declared_length(scope["headers"]) or 0, body.size) > limit
        content = None if too_large else await body.read(limit)
        if too_large or body.size > limit:
            raise await _answered(exchange, options.problem("idempotency_body_too_large"))
        if content is None:
            exchange.recorder.answered = True  # the client is gone, with half of its request
            raise _Answered
        fingerprint = options.fingerprint_of(facts_of(scope), content)
    claimed = await claim(options, named, key, fingerprint=fingerprint)
    if not isinstance(claimed, KeyedCall):
        raise await _answered(exchange, claimed)
    return claimed


async def _answered(exchange: _Exchange, answer: HttpResponse) -> _Answered:
    await exchange.recorder.answer(answer)
    return _Answered()


def _before_the_endpoint(error: BaseException) -> bool:
    """Tell whether a later dependency, or the validation of the request, has failed: the endpoint has not begun."""
    trace, last = error.__traceback__, None
    while trace is not None:
        last = trace.tb_frame.f_code
        if last is solve_dependencies.__code__:
            return True
        trace = trace.tb_next
    # FastAPI raises this error itself, after it has solved all dependencies. An endpoint may raise the same class.
    return isinstance(error, RequestValidationError) and last is not None and last.co_filename == routing.__file__


def _response(response: HttpResponse) -> Response:
    made = Response(response.body, response.status)
    made.raw_headers = response.headers
    return made
