"""The service on each front end, served through real sockets in the test's own loop."""

import asyncio
import inspect
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
import hypercorn.asyncio
import hypercorn.config
import uvicorn
from aiohttp import web
from fastapi import Depends, FastAPI, Header
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

import aioidempotency.aiohttp
import aioidempotency.fastapi
from aioidempotency import AsyncIdempotencyStore
from aioidempotency.asgi import IdempotencyMiddleware
from tests.http.service import PATHS, BrokenError, Reply, Service, caller_of

Scope = Any
App = Callable[[Scope, Any, Any], Awaitable[None]]


def header(scope: Scope, name: bytes) -> str | None:
    found = next((value for given, value in scope["headers"] if given == name), None)
    return None if found is None else found.decode("latin-1")


def scope_caller(scope: Scope) -> str:
    return header(scope, b"x-user") or ""


def authenticated(app: App) -> App:
    """Refuse requests without a valid credential, before anything else."""

    async def layer(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and caller_of(header(scope, b"x-user")) is None:
            await Response(status_code=401)(scope, receive, send)
        else:
            await app(scope, receive, send)

    return layer


def bare(service: Service, store: AsyncIdempotencyStore, **options: Any) -> App:
    """An application without a framework."""

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        reply = await service.run(scope["path"], scope_caller(scope), body)
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers]
        if not reply.streamed:
            headers.append((b"content-length", b"%d" % len(b"".join(reply.chunks))))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for number, chunk in enumerate(reply.chunks, 1):
            more_body = number < len(reply.chunks) or reply.breaks_off
            await send({"type": "http.response.body", "body": chunk, "more_body": more_body})
        if reply.breaks_off:
            raise BrokenError

    return authenticated(IdempotencyMiddleware(app, store=store, **{"scope": scope_caller, **options}))


def response_of(reply: Reply) -> Response:
    """Make Starlette's response."""

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in reply.chunks:
            yield chunk
        if reply.breaks_off:
            raise BrokenError

    made = (
        StreamingResponse(chunks(), reply.status) if reply.streamed else Response(b"".join(reply.chunks), reply.status)
    )
    for name, value in reply.headers:
        made.headers.append(name, value)
    return made


def starlette(service: Service, store: AsyncIdempotencyStore, **options: Any) -> App:
    """Starlette, with the middleware among its own."""

    async def endpoint(request: Request) -> Response:
        caller = caller_of(request.headers.get("x-user"))
        assert caller is not None
        return response_of(await service.run(request.url.path, caller, await request.body()))

    routes = [Route(f"/{path}", endpoint, methods=["POST", "PUT"]) for path in [*PATHS, "status/{status}"]]
    given = {"store": store, "scope": scope_caller, **options}
    return Starlette(routes=routes, middleware=[Middleware(authenticated), Middleware(IdempotencyMiddleware, **given)])


def fastapi_middleware(service: Service, store: AsyncIdempotencyStore, **options: Any) -> App:
    """FastAPI, with the middleware for any ASGI application."""
    app = FastAPI()
    _route(app, service, [])
    app.add_middleware(IdempotencyMiddleware, **{"store": store, "scope": scope_caller, **options})
    return authenticated(app)


async def user(x_user: Annotated[str | None, Header()] = None) -> str:
    caller = caller_of(x_user)
    if caller is None:
        raise fastapi.HTTPException(401)
    return caller


async def fastapi_caller(caller: Annotated[str, Depends(user)]) -> str:
    return caller


def fastapi_dependency(service: Service, store: AsyncIdempotencyStore, **options: Any) -> App:
    """FastAPI, with the dependency that claims after authentication."""
    app = FastAPI()
    if callable(given := options.get("scope")):

        async def caller(request: Request) -> str:
            named = given(request.scope)
            answer: str = await named if inspect.isawaitable(named) else named
            return answer

        options["scope"] = caller
    idempotency = aioidempotency.fastapi.Idempotency(store, **{"scope": fastapi_caller, **options})
    idempotency.install(app)
    _route(app, service, [Depends(idempotency())])
    return app


def _route(app: FastAPI, service: Service, dependencies: list[Any]) -> None:
    async def endpoint(request: Request, caller: Annotated[str, Depends(user)]) -> Response:
        return response_of(await service.run(request.url.path, caller, await request.body()))

    for path in [*PATHS, "status/{status}"]:
        app.api_route(f"/{path}", methods=["POST", "PUT"], dependencies=dependencies)(endpoint)


def _aiohttp_caller(options: dict[str, Any]) -> dict[str, Any]:
    given = options.pop("scope", scope_caller)
    scope = given if not callable(given) else lambda request: given({"headers": _lower(request.raw_headers)})
    return {"scope": scope, **options}


def _lower(headers: Any) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in headers]


@web.middleware
async def authenticate(request: web.Request, handler: Any) -> web.StreamResponse:
    if caller_of(request.headers.get("x-user")) is None:
        raise web.HTTPUnauthorized
    response: web.StreamResponse = await handler(request)
    return response


def _aiohttp_handler(service: Service) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        reply = await service.run(request.path, request.headers["x-user"], await request.read())
        if not reply.streamed:
            return web.Response(status=reply.status, headers=reply.headers, body=b"".join(reply.chunks))
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        await response.prepare(request)
        for chunk in reply.chunks:
            await response.write(chunk)
        if reply.breaks_off:
            raise BrokenError
        return response

    return handler


def _aiohttp_app(handler: Any, *middlewares: Any) -> web.Application:
    app = web.Application(middlewares=[authenticate, *middlewares], client_max_size=10 * 1024**2)
    for path in [*PATHS, "status/{status}"]:
        app.router.add_post(f"/{path}", handler)
        app.router.add_put(f"/{path}", handler)
    return app


def aiohttp_middleware(service: Service, store: AsyncIdempotencyStore, **options: Any) -> web.Application:
    """aiohttp, with the middleware."""
    idempotency = aioidempotency.aiohttp.Idempotency(store, **_aiohttp_caller(options))
    return _aiohttp_app(_aiohttp_handler(service), idempotency.middleware)


def aiohttp_handler(service: Service, store: AsyncIdempotencyStore, **options: Any) -> web.Application:
    """aiohttp, with the decorated handler."""
    idempotency = aioidempotency.aiohttp.Idempotency(store, **_aiohttp_caller(options))
    return _aiohttp_app(idempotency.handler()(_aiohttp_handler(service)))


FRONT_ENDS: dict[str, Callable[..., Any]] = {
    "bare": bare,
    "bare on hypercorn": bare,
    "starlette": starlette,
    "fastapi, middleware": fastapi_middleware,
    "fastapi, dependency": fastapi_dependency,
    "fastapi, dependency, on hypercorn": fastapi_dependency,
    "aiohttp, middleware": aiohttp_middleware,
    "aiohttp, handler": aiohttp_handler,
}


@asynccontextmanager
async def serving(app: Any, name: str = "") -> AsyncIterator[str]:
    """Serve an application on a loopback port, by the server of the front end's name, until the block ends."""
    if isinstance(app, web.Application):
        server = _by_aiohttp(app)
    elif "hypercorn" in name:
        server = _by_hypercorn(app)
    else:
        server = _by_uvicorn(app)
    async with server as url:
        yield url


def listen() -> socket.socket:
    """Listen on a free loopback port."""
    # With its protocol: asyncio spares only such a socket the delay of small packets.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(512)
    return listener


@asynccontextmanager
async def _by_uvicorn(app: App) -> AsyncIterator[str]:
    listener = listen()
    config = uvicorn.Config(app, log_level=logging.CRITICAL, ws="none", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    # Without the handlers of signals, which belong to the test's own process.
    task = asyncio.create_task(server._serve([listener]))
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        listener.close()


@asynccontextmanager
async def _by_hypercorn(app: App) -> AsyncIterator[str]:
    listener = listen()
    port = listener.getsockname()[1]
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = None
    config.graceful_timeout = 1.0
    ended = asyncio.Event()
    task = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=ended.wait))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        ended.set()
        await task


@asynccontextmanager
async def _by_aiohttp(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
