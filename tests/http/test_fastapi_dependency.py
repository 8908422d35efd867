"""The dependency for FastAPI: when it claims, what it gives back, and what the OpenAPI document says."""

import io
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Annotated, Any

import aiohttp
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Request,
    WebSocket,
)
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from openapi_spec_validator import validate
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, IdempotencyError, idempotent
from aioidempotency.asgi import IdempotencyMiddleware
from aioidempotency.fastapi import PUBLIC, Idempotency
from tests.http.front_ends import serving

RAN: list[str] = []


@pytest.fixture(autouse=True)
def ran() -> list[str]:
    """What has run in this test."""
    RAN.clear()
    return RAN


@pytest.fixture
def store() -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore.in_memory()


@pytest.fixture
def app() -> FastAPI:
    return FastAPI()


@pytest.fixture
def idempotency(store: AsyncIdempotencyStore, app: FastAPI) -> Idempotency:
    made = Idempotency(store, scope=PUBLIC)
    made.install(app)
    return made


class Order(BaseModel):
    cents: int


Client = Callable[..., Any]


def client_of(app: Any) -> AbstractAsyncContextManager[Client]:
    """Serve an application, and send requests with key k-1: `(status, replayed, content)`."""

    @asynccontextmanager
    async def made() -> AsyncIterator[Client]:
        connector = aiohttp.TCPConnector(force_close=True)
        async with serving(app) as url, aiohttp.ClientSession(url, connector=connector) as session:

            async def post(path: str = "/pay", **given: Any) -> tuple[int, bool, Any]:
                headers = {"Idempotency-Key": "k-1", **given.pop("headers", {})}
                async with session.post(path, headers=headers, **given) as response:
                    replayed = "Idempotent-Replayed" in response.headers
                    return response.status, replayed, await response.json(content_type=None)

            yield post

    return made()


async def test_a_request_that_fails_its_validation_gives_the_key_back(app: FastAPI, idempotency: Idempotency) -> None:
    """H6: dependencies run even then; the corrected request runs with the same key."""

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay(order: Order) -> str:
        return f"{order.cents}"

    async with client_of(app) as post:
        assert (await post(json={"cents": "many"}))[:2] == (422, False)
        assert (await post(json={"cents": "many"}))[:2] == (422, False)
        assert await post(json={"cents": 7}) == (200, False, "7")
        assert await post(json={"cents": 7}) == (200, True, "7")


async def test_a_request_that_is_no_json_claims_nothing(app: FastAPI, idempotency: Idempotency) -> None:
    """H6: FastAPI reads the body before all dependencies."""

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay(order: Order) -> str:
        return f"{order.cents}"

    async with client_of(app) as post:
        answer = await post(data=b"{", headers={"Content-Type": "application/json"})
        assert answer[:2] == (422, False)
        assert (await post(json={"cents": 7}))[0] == 200


@pytest.mark.parametrize("sync", [False, True])
async def test_a_later_dependency_that_refuses_gives_the_key_back(
    app: FastAPI, idempotency: Idempotency, sync: bool
) -> None:
    """H6: a rate limit that stands after the claim, in a thread or not."""

    def limited() -> None:
        RAN.append("limited")
        if len(RAN) == 1:
            raise HTTPException(403)

    async def limited_too() -> None:
        limited()

    @app.post("/pay", dependencies=[Depends(idempotency()), Depends(limited if sync else limited_too)])
    async def pay() -> str:
        return "paid"

    async with client_of(app) as post:
        assert (await post())[:2] == (403, False)
        assert await post() == (200, False, "paid")
        assert await post() == (200, True, "paid")
        assert RAN == ["limited", "limited"]


async def test_a_replay_runs_only_what_stands_before_the_claim(app: FastAPI, idempotency: Idempotency) -> None:
    """H9: authentication runs again; a later dependency and the endpoint do not."""

    async def user(x_user: Annotated[str, Header()]) -> str:
        RAN.append("user")
        if x_user == "expired":
            raise HTTPException(401)
        return x_user

    async def later() -> None:
        RAN.append("later")

    @app.post("/pay", dependencies=[Depends(idempotency(scope=user)), Depends(later)])
    async def pay(caller: Annotated[str, Depends(user)]) -> str:
        RAN.append("pay")
        return caller

    async with client_of(app) as post:
        assert await post(headers={"X-User": "anna"}) == (200, False, "anna")
        assert await post(headers={"X-User": "anna"}) == (200, True, "anna")
        assert (await post(headers={"X-User": "expired"}))[:2] == (401, False)
        assert RAN == ["user", "later", "pay", "user", "user"]


@pytest.mark.parametrize("error", [HTTPException(404), HTTPException(503), RequestValidationError([])])
async def test_an_error_of_the_endpoint_is_a_response(app: FastAPI, idempotency: Idempotency, error: Exception) -> None:
    """H6: the policy decides, also on an error that FastAPI itself raises before endpoints."""

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay() -> str:
        RAN.append("pay")
        raise error

    async with client_of(app) as post:
        first, again = await post(), await post()
        assert first[0] == again[0]
        stored = first[0] != 503
        assert (again[1], len(RAN)) == (stored, 1 if stored else 2)


async def test_a_sync_endpoint_is_run_once(app: FastAPI, idempotency: Idempotency) -> None:
    """H5: FastAPI runs it in a thread."""

    @app.post("/pay", dependencies=[Depends(idempotency())])
    def pay(order: Annotated[Order, Body()]) -> Order:
        RAN.append("pay")
        if order.cents < 0:
            raise HTTPException(400)
        return order

    async with client_of(app) as post:
        assert await post(json={"cents": 7}) == (200, False, {"cents": 7})
        assert await post(json={"cents": 7}) == (200, True, {"cents": 7})
        for replayed in (False, True):
            assert (await post(json={"cents": -1}, headers={"Idempotency-Key": "k-2"}))[:2] == (400, replayed)
        assert RAN == ["pay", "pay"]


async def test_a_form_with_a_new_boundary_is_the_same_request(app: FastAPI, idempotency: Idempotency) -> None:
    """H8, H12: clients make a boundary for each attempt, and the endpoint gets the form as sent."""

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay(request: Request) -> int:
        return (await request.body()).count(b"anna")

    def form(content: bytes) -> aiohttp.FormData:
        made = aiohttp.FormData()
        made.add_field("name", "anna")
        made.add_field("file", content, filename="order.txt")
        return made

    async with client_of(app) as post:
        assert await post(data=form(b"one")) == (200, False, 1)
        assert await post(data=form(b"one")) == (200, True, 1)
        assert (await post(data=form(b"two")))[0] == 422


async def test_options_belong_to_a_route(app: FastAPI, idempotency: Idempotency) -> None:
    """Overrides come before the common options; a router's dependency covers its routes."""
    router = APIRouter(dependencies=[Depends(idempotency(required=True, header="X-Key", max_request_body=2_000_000))])

    @router.post("/pay")
    async def pay(request: Request) -> int:
        return len(await request.body())

    @app.post("/other", dependencies=[Depends(idempotency(max_request_body=10))])
    async def other(request: Request) -> int:
        return len(await request.body())

    @app.post("/free")
    async def free() -> None: ...

    app.include_router(router)
    async with client_of(app) as post:
        assert (await post(json={}))[2]["code"] == "idempotency_key_missing"
        for replayed in (False, True):
            large = io.BytesIO(b"x" * 1_500_000)
            assert await post(data=large, headers={"X-Key": "1"}) == (200, replayed, 1_500_000)
        assert (await post("/other", data=b"x" * 11))[2]["code"] == "idempotency_body_too_large"
        assert [(await post("/free"))[:2] for _ in range(2)] == [(200, False)] * 2


async def test_of_two_dependencies_around_an_endpoint_one_claims(app: FastAPI, idempotency: Idempotency) -> None:
    """H4: the second one would meet the claim of the first."""

    @app.post("/pay", dependencies=[Depends(idempotency()), Depends(idempotency())])
    async def pay() -> str:
        return "paid"

    async with client_of(app) as post:
        assert [(await post())[:2] for _ in range(2)] == [(200, False), (200, True)]


async def test_a_mounted_application_may_have_a_layer_of_its_own(
    store: AsyncIdempotencyStore, app: FastAPI, idempotency: Idempotency
) -> None:
    """H4: the inner layer serves the inner application."""
    inner = FastAPI()
    own = Idempotency(store, scope=PUBLIC)
    own.install(inner)

    @inner.post("/own", dependencies=[Depends(own())])
    async def pay() -> str:
        return "paid"

    @inner.post("/outer", dependencies=[Depends(idempotency())])
    async def refund() -> str:
        return "refunded"

    app.mount("/inner", inner)
    async with client_of(app) as post:
        for path in ("/inner/own", "/inner/outer"):
            headers = {"Idempotency-Key": path}
            assert [(await post(path, headers=headers))[:2] for _ in range(2)] == [(200, False), (200, True)]


async def test_a_websocket_passes(app: FastAPI, idempotency: Idempotency) -> None:
    """H12: a router's dependency stands before its websockets, too."""
    router = APIRouter(dependencies=[Depends(idempotency(required=True))])

    @router.websocket("/feed")
    async def feed(socket: WebSocket) -> None:
        RAN.append("feed")
        await socket.close()

    app.include_router(router)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope: dict[str, Any] = {
        "type": "websocket",
        "path": "/feed",
        "raw_path": b"/feed",
        "root_path": "",
        "scheme": "ws",
        "query_string": b"",
        "headers": [],
        "subprotocols": [],
        "client": None,
        "server": None,
    }
    await app(scope, receive, send)
    assert (RAN, sent[0]["type"]) == (["feed"], "websocket.close")


async def test_a_dependency_that_swallows_errors_changes_no_replay(app: FastAPI, idempotency: Idempotency) -> None:
    """H5: the answer is sent before the user's code sees how the request ends."""

    async def swallows() -> AsyncIterator[None]:
        with suppress(Exception):
            yield

    @app.post("/pay", dependencies=[Depends(swallows), Depends(idempotency())])
    async def pay() -> str:
        return "paid"

    async with client_of(app) as post:
        assert [await post() for _ in range(2)] == [(200, False, "paid"), (200, True, "paid")]


async def test_a_handler_of_all_errors_sees_no_replay(app: FastAPI, idempotency: Idempotency) -> None:
    """H5: neither one of all HTTP errors."""

    async def handler(request: Request, error: Exception) -> JSONResponse:
        RAN.append(type(error).__name__)
        return JSONResponse("handled", 500)

    app.add_exception_handler(Exception, handler)
    app.add_exception_handler(HTTPException, handler)

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay() -> str:
        return "paid"

    async with client_of(app) as post:
        assert [await post() for _ in range(2)] == [(200, False, "paid"), (200, True, "paid")]
        assert RAN == []


async def test_background_tasks_run_after_the_record_is_complete(
    store: AsyncIdempotencyStore, app: FastAPI, idempotency: Idempotency
) -> None:
    """H11: once, and their failure changes nothing."""

    async def later() -> None:
        record = await store.get([PUBLIC, "k-1"], namespace="http")
        RAN.append("none" if record is None else record.status.value)
        raise ValueError("late")

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay(tasks: BackgroundTasks) -> str:
        tasks.add_task(later)
        return "paid"

    async with client_of(app) as post:
        assert [await post() for _ in range(2)] == [(200, False, "paid"), (200, True, "paid")]
        assert RAN == ["COMPLETED"]


async def test_a_stream_within_the_limit_is_stored(app: FastAPI, idempotency: Idempotency) -> None:
    """H10: and its exit code runs after the record is complete."""

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"[1,"
            yield b"2]"

        return StreamingResponse(chunks(), media_type="application/json")

    async with client_of(app) as post:
        assert [await post() for _ in range(2)] == [(200, False, [1, 2]), (200, True, [1, 2])]


@pytest.mark.parametrize("before", [True, False])
async def test_cors_and_compression_apply_to_replays_afresh(
    store: AsyncIdempotencyStore, app: FastAPI, before: bool
) -> None:
    """H5: whenever they are added, the layer is inside them."""
    idempotency = Idempotency(store, scope=PUBLIC)
    if before:
        idempotency.install(app)
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(CORSMiddleware, allow_origins=["https://a.example", "https://b.example"])
    if not before:
        idempotency.install(app)

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay() -> str:
        return "paid" * 100

    connector = aiohttp.TCPConnector(force_close=True)
    async with serving(app) as url, aiohttp.ClientSession(url, connector=connector, auto_decompress=False) as session:
        for origin, encoding in [("https://a.example", "gzip"), ("https://b.example", "identity")]:
            headers = {"Idempotency-Key": "k-1", "Origin": origin, "Accept-Encoding": encoding}
            async with session.post("/pay", headers=headers) as response:
                assert response.headers["Access-Control-Allow-Origin"] == origin
                assert response.headers.get("Content-Encoding", "identity") == encoding
                assert int(response.headers["Content-Length"]) == len(await response.read())
        assert "Idempotent-Replayed" in response.headers


async def test_around_compression_the_middleware_replays_compressed_bytes(store: AsyncIdempotencyStore) -> None:
    """H5: why the docs put compression outside: the second client did not ask for gzip."""
    app = FastAPI()

    @app.post("/pay")
    async def pay() -> str:
        return "paid" * 100

    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(IdempotencyMiddleware, store=store, scope=PUBLIC)
    connector = aiohttp.TCPConnector(force_close=True)
    async with serving(app) as url, aiohttp.ClientSession(url, connector=connector, auto_decompress=False) as session:
        for encoding in ("gzip", "identity"):
            headers = {"Idempotency-Key": "k-1", "Accept-Encoding": encoding}
            async with session.post("/pay", headers=headers) as response:
                assert response.headers["Content-Encoding"] == "gzip"


async def test_errors_of_decorated_functions_become_problem_documents(
    store: AsyncIdempotencyStore, app: FastAPI, idempotency: Idempotency
) -> None:
    """H4: `install` adds the handlers; a handler of the user's own stays."""

    @idempotent(store, key="key", fingerprint="cents")
    async def charge(key: str, cents: int) -> str:
        return "charged"

    @app.post("/pay")
    async def pay(order: Order, idempotency_key: Annotated[str, Header()]) -> str:
        return await charge(idempotency_key, order.cents)

    async with client_of(app) as post:
        assert await post(json={"cents": 7}) == (200, False, "charged")
        status, _, problem = await post(json={"cents": 8})
        assert (status, problem["code"]) == (422, "idempotency_key_reused")


async def test_a_handler_of_the_users_own_stays(store: AsyncIdempotencyStore, app: FastAPI) -> None:
    """H4: `install` replaces no error handler."""

    async def refuse(request: Request, error: IdempotencyError) -> JSONResponse:
        return JSONResponse("mine", error.status_hint)

    from aioidempotency import MismatchError

    app.add_exception_handler(MismatchError, refuse)  # type: ignore[arg-type]
    idempotency = Idempotency(store, scope=PUBLIC)
    idempotency.install(app)
    assert app.exception_handlers[MismatchError] is refuse


def test_a_dependency_without_a_scope_is_refused(store: AsyncIdempotencyStore) -> None:
    """H7: when the route is declared; the scope may stand in either place."""
    idempotency = Idempotency(store)
    with pytest.raises(ConfigurationError, match=r"another client.*PUBLIC"):
        idempotency()
    idempotency(scope=PUBLIC)
    with pytest.raises(ConfigurationError):
        Idempotency(store, scope="public")  # type: ignore[arg-type]


async def test_an_application_without_the_layer_refuses_its_first_request(
    store: AsyncIdempotencyStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Also without a key: a forgotten `install` shows in the first test."""
    app, other = FastAPI(), FastAPI()
    caplog.set_level(logging.CRITICAL + 1, "uvicorn.error")
    idempotency = Idempotency(store, scope=PUBLIC)

    @app.post("/pay", dependencies=[Depends(idempotency())])
    async def pay() -> None:
        RAN.append("pay")

    async def called() -> None:
        async def nothing(*_: Any) -> Any:
            return {"type": "http.request"}

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/pay",
            "raw_path": b"/pay",
            "root_path": "",
            "scheme": "http",
            "query_string": b"",
            "headers": [],
            "client": None,
            "server": None,
        }
        await app(scope, nothing, nothing)

    with pytest.raises(ConfigurationError, match="install"):
        await called()
    idempotency.install(other)  # the layer of another application does not help
    with pytest.raises(ConfigurationError, match="install"):
        await called()
    with pytest.raises(ConfigurationError, match="too late"):
        idempotency.install(app)
    assert RAN == []


def test_the_openapi_document_has_the_header_and_the_refusals(app: FastAPI, idempotency: Idempotency) -> None:
    """H3, H4: beside FastAPI's own 422; routes without the dependency, and methods that are not covered, have none."""
    pays = Depends(idempotency(required=True))

    @app.post("/pay", dependencies=[pays])
    async def pay(order: Order) -> None: ...

    @app.put("/pay", dependencies=[pays])
    async def replace(order: Order) -> None: ...

    @app.post("/optional", dependencies=[Depends(idempotency(in_progress_status=425))])
    async def optional() -> None: ...

    @app.post("/free")
    async def free() -> None: ...

    document = app.openapi()
    assert app.openapi() is document
    validate(document)
    operation = document["paths"]["/pay"]["post"]
    [parameter] = operation["parameters"]
    assert (parameter["name"], parameter["in"], parameter["required"]) == ("Idempotency-Key", "header", True)
    assert {"400", "409", "410", "413", "422", "503"} <= operation["responses"].keys()
    assert operation["responses"]["422"]["content"].keys() == {"application/json", "application/problem+json"}
    assert not document["paths"]["/pay"]["put"].get("parameters")
    [parameter] = document["paths"]["/optional"]["post"]["parameters"]
    assert parameter["required"] is False
    assert "425" in document["paths"]["/optional"]["post"]["responses"]
    assert document["paths"]["/free"]["post"]["responses"].keys() == {"200"}
    assert "x-aioidempotency" not in str(document)


async def test_a_dependency_can_be_overridden_in_tests(app: FastAPI, idempotency: Idempotency) -> None:
    """FastAPI's own way to replace authentication works for the scope, too."""

    async def user() -> str:
        raise HTTPException(401)

    @app.post("/pay", dependencies=[Depends(idempotency(scope=user))])
    async def pay() -> str:
        return "paid"

    async def tester() -> str:
        return "tester"

    app.dependency_overrides[user] = tester
    async with client_of(app) as post:
        assert [(await post())[:2] for _ in range(2)] == [(200, False), (200, True)]
