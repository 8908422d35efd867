"""The middleware and the decorator for aiohttp's server."""

import asyncio
import io
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from aioidempotency import AsyncIdempotencyStore, ConfigurationError
from aioidempotency.aiohttp import PUBLIC, Idempotency
from tests.http.front_ends import serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def store() -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore.in_memory()


@pytest.fixture
def idempotency(store: AsyncIdempotencyStore) -> Idempotency:
    return Idempotency(store, scope=PUBLIC)


@asynccontextmanager
async def client_of(
    *middlewares: Any, handler: Any = None, app: web.Application | None = None
) -> AsyncIterator[Callable[..., Any]]:
    """Serve a handler, and send requests with key k-1: `(status, replayed, body)`."""
    app = app or web.Application(middlewares=middlewares)
    if handler is not None:
        app.router.add_route("POST", "/pay", handler)
    async with serving(app) as url, aiohttp.ClientSession(url) as session:

        async def post(path: str = "/pay", **given: Any) -> tuple[int, bool, bytes]:
            headers = {"Idempotency-Key": "k-1", **given.pop("headers", {})}
            async with session.request(given.pop("method", "POST"), path, headers=headers, **given) as response:
                replayed = "Idempotent-Replayed" in response.headers
                return response.status, replayed, await response.read()

        yield post


def form() -> aiohttp.MultipartWriter:
    made = aiohttp.MultipartWriter("form-data")
    made.append(b"first part")
    made.append(b"second part" * 1000)
    return made


async def test_a_multipart_handler_keeps_working(idempotency: Idempotency) -> None:
    """H13: the parts are read from a stream that the fingerprint has not emptied."""
    runs = []

    async def pay(request: web.Request) -> web.Response:
        parts = [
            await part.read() async for part in await request.multipart() if isinstance(part, aiohttp.BodyPartReader)
        ]
        runs.append(parts)
        return web.Response(text="paid")

    async with client_of(idempotency.middleware, handler=pay) as post:
        assert [await post(data=form()) for _ in range(2)] == [(200, False, b"paid"), (200, True, b"paid")]
    assert runs == [[b"first part", b"second part" * 1000]]


async def test_the_content_stream_keeps_working(idempotency: Idempotency) -> None:
    """H13: chunk by chunk; also after an earlier middleware has read the body."""
    runs: list[bytes] = []

    @web.middleware
    async def reads(request: web.Request, handler: Handler) -> web.StreamResponse:
        assert not request.content.at_eof()
        if "X-Read" in request.headers:
            await request.read()
        return await handler(request)

    async def pay(request: web.Request) -> web.Response:
        if "X-Read" in request.headers:
            runs.append(await request.read())
        else:
            runs.append(b"".join([chunk async for chunk in request.content.iter_chunked(1000)]))
        return web.Response(text="paid")

    async with client_of(reads, idempotency.middleware, handler=pay) as post:
        body = b"x" * 500_000
        for headers in ({"Idempotency-Key": "k-1"}, {"Idempotency-Key": "k-2", "X-Read": "1"}):
            for replayed in (False, True):
                assert (await post(data=body, headers=headers))[:2] == (200, replayed)
    assert [len(run) for run in runs] == [500_000, 500_000]


async def test_a_raised_response_is_stored_and_raised_as_itself(idempotency: Idempotency) -> None:
    """H13: `HTTPException` is a response; an outer middleware sees the same object."""
    raised, seen = [web.HTTPFound("/elsewhere"), web.HTTPConflict()], []

    @web.middleware
    async def outer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            seen.append(error)
            raise

    async def pay(request: web.Request) -> web.Response:
        raise raised[len(seen)]

    async with client_of(outer, idempotency.middleware, handler=pay) as post:
        for replayed in (False, True):
            assert (await post(allow_redirects=False))[:2] == (302, replayed)
        assert seen == raised[:1]
        assert (await post(headers={"Idempotency-Key": "k-2"}))[:2] == (409, False)
    assert seen == raised


async def test_a_file_leaves_a_tombstone(idempotency: Idempotency, tmp_path: Path) -> None:
    """H10: the first caller gets the file; a payload that is read once counts as a file."""
    tmp_path.joinpath("receipt").write_bytes(b"receipt")

    async def pay(request: web.Request) -> web.StreamResponse:
        if "X-Payload" in request.headers:
            return web.Response(body=io.BytesIO(b"receipt"))
        return web.FileResponse(tmp_path / "receipt")

    async with client_of(idempotency.middleware, handler=pay) as post:
        for headers in ({}, {"Idempotency-Key": "k-2", "X-Payload": "1"}):
            assert await post(headers=headers) == (200, False, b"receipt")
            status, _, body = await post(headers=headers)
            assert (status, b"idempotency_result_unavailable" in body) == (410, True)


async def test_a_response_that_its_handler_has_sent_is_stored(idempotency: Idempotency) -> None:
    """H5: the body of a whole response is known, whoever sends it."""

    async def pay(request: web.Request) -> web.StreamResponse:
        response = web.json_response({"paid": True}, headers={"X-Mine": "caf\u00e9"})
        await response.prepare(request)
        await response.write_eof()
        return response

    async with client_of(idempotency.middleware, handler=pay) as post:
        assert [await post() for _ in range(2)] == [(200, replayed, b'{"paid": true}') for replayed in (False, True)]


async def test_middleware_and_decorator_claim_once(idempotency: Idempotency) -> None:
    """H4: and the options of the decorator count."""

    @idempotency.handler(required=True, max_request_body=10)
    async def pay(request: web.Request) -> web.Response:
        return web.Response(text="paid")

    class Pay(web.View):
        @idempotency.handler()
        async def post(self) -> web.StreamResponse:
            return web.Response(text="viewed")

    async def wrapped(request: web.Request) -> web.StreamResponse:
        return await pay(request)

    app = web.Application(middlewares=[idempotency.middleware])
    app.router.add_post("/pay", pay)
    app.router.add_view("/view", Pay)
    app.router.add_post("/wrapped", wrapped)
    async with client_of(app=app) as post:
        for path, body in [("/pay", b"paid"), ("/view", b"viewed"), ("/wrapped", b"paid")]:
            headers = {"Idempotency-Key": path.strip("/")}
            assert [await post(path, headers=headers) for _ in range(2)] == [(200, False, body), (200, True, body)]
        assert (await post(data=b"x" * 11))[0] == 413


async def test_a_decorated_method_of_an_object_finds_its_request(idempotency: Idempotency) -> None:
    """H13: the request is the last argument; without one, the error says so."""

    class Payments:
        @idempotency.handler()
        async def pay(self, request: web.Request) -> web.Response:
            return web.Response(text="paid")

    async with client_of(handler=Payments().pay) as post:
        assert [(await post())[:2] for _ in range(2)] == [(200, False), (200, True)]
    with pytest.raises(TypeError, match="request"):
        await Payments().pay(None)  # type: ignore[arg-type]


def test_a_plain_function_is_no_handler(idempotency: Idempotency) -> None:
    """C2: as with the decorator of functions."""

    def pay(request: web.Request) -> Any: ...

    with pytest.raises(ConfigurationError, match="async def"):
        idempotency.handler()(pay)


def test_a_scope_must_be_given(store: AsyncIdempotencyStore, idempotency: Idempotency) -> None:
    """H7: the message names the danger, and the way out."""
    with pytest.raises(ConfigurationError, match=r"another client.*PUBLIC"):
        Idempotency(store)
    with pytest.raises(ConfigurationError):
        idempotency.handler(scope="public")  # type: ignore[arg-type]


async def test_a_handler_may_have_a_scope_of_its_own(store: AsyncIdempotencyStore, idempotency: Idempotency) -> None:
    """H7: a shop, for example, where others have persons."""

    async def shop(request: web.Request) -> str:
        return request.headers["X-Shop"]

    @idempotency.handler(scope=shop)
    async def pay(request: web.Request) -> web.Response:
        return web.Response(text="paid")

    async with client_of(handler=pay) as post:
        for name in ("a", "b"):
            assert (await post(headers={"X-Shop": name}))[:2] == (200, False)
        assert await store.get(["b", "k-1"], namespace="http") is not None


async def test_a_cancelled_handler_gives_the_key_back(store: AsyncIdempotencyStore, idempotency: Idempotency) -> None:
    """O5: with `handler_cancellation`, a client that goes away cancels its handler; the next one runs."""
    entered, ended = asyncio.Event(), asyncio.Event()
    runs = []

    @idempotency.handler()
    async def pay(request: web.Request) -> web.Response:
        runs.append(1)
        entered.set()
        if len(runs) == 1:
            await asyncio.Event().wait()
        return web.Response(text="paid")

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        finally:
            ended.set()

    app = web.Application(middlewares=[watch])
    app.router.add_post("/pay", pay)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    headers = {"Idempotency-Key": "k-1"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{runner.addresses[0][1]}") as session:
        first = asyncio.create_task(session.post("/pay", headers=headers))
        await entered.wait()
        first.cancel()
        await ended.wait()
        assert await store.get([PUBLIC, "k-1"], namespace="http") is None
        async with session.post("/pay", headers=headers) as response:
            assert (response.status, len(runs)) == (200, 2)
    await runner.cleanup()


async def test_a_handler_that_answers_nothing_gives_the_key_back(
    idempotency: Idempotency, caplog: pytest.LogCaptureFixture
) -> None:
    """H6: aiohttp makes a 500 of it."""
    caplog.set_level(logging.CRITICAL, "aiohttp.server")
    runs = []

    async def pay(request: web.Request) -> web.Response:
        runs.append(1)
        return None  # type: ignore[return-value]

    async with client_of(idempotency.middleware, handler=pay) as post:
        assert [(await post())[0] for _ in range(2)] == [500, 500]
    assert len(runs) == 2


async def test_headers_of_cross_origin_requests_are_made_afresh(idempotency: Idempotency) -> None:
    """H5: `on_response_prepare` runs for replays, too."""

    async def pay(request: web.Request) -> web.Response:
        return web.Response(text="paid")

    async def allow(request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]

    app = web.Application(middlewares=[idempotency.middleware])
    app.router.add_post("/pay", pay)
    app.on_response_prepare.append(allow)
    async with serving(app) as url, aiohttp.ClientSession(url) as session:
        for origin in ("https://a.example", "https://b.example"):
            async with session.post("/pay", headers={"Idempotency-Key": "k-1", "Origin": origin}) as response:
                assert response.headers.getall("Access-Control-Allow-Origin") == [origin]


async def test_the_application_closes_the_store(store: AsyncIdempotencyStore, idempotency: Idempotency) -> None:
    """`cleanup_ctx` owns the store."""
    app = web.Application()
    app.cleanup_ctx.append(idempotency.lifespan)
    runner = web.AppRunner(app)
    await runner.setup()
    async with store.execute("order-1"):
        await runner.cleanup()
        assert "0 leases kept" in repr(store)
