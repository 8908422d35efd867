"""What every front end does with the `Idempotency-Key` header, through real sockets and by a real client."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import pytest

from aioidempotency import AsyncIdempotencyStore, MemoryBackend, Status, Wait
from aioidempotency._core.operations import Operation, Put, Reply, Update
from aioidempotency.asgi import PUBLIC
from aioidempotency.testing import FakeClock
from tests.http.front_ends import FRONT_ENDS, serving
from tests.http.service import Service
from tests.support.gate import GateBackend

PROBLEM = "application/problem+json"


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def code(self) -> str | None:
        """The code of a problem document."""
        if self.headers["Content-Type"] != PROBLEM:
            return None
        document = json.loads(self.body)
        assert (document["status"], set(document)) == (self.status, {"type", "title", "status", "detail", "code"})
        code: str = document["code"]
        return code

    @property
    def replayed(self) -> bool:
        marked: str | None = self.headers.get("Idempotent-Replayed")
        return marked == "true"


class Client:
    """Sends requests as user anna with key k-1, unless a test says otherwise."""

    def __init__(self, session: aiohttp.ClientSession, service: Service, store: AsyncIdempotencyStore) -> None:
        self._session = session
        self.service = service
        self.store = store

    async def post(
        self,
        path: str = "/orders",
        *,
        key: str | None = "k-1",
        user: str = "anna",
        body: bytes = b"{}",
        method: str = "POST",
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
    ) -> Answer:
        given = [("X-User", user), *(dict(headers).items() if isinstance(headers, dict) else headers or [])]
        if key is not None:
            given.append(("Idempotency-Key", key))
        async with self._session.request(method, path, data=body, headers=given) as response:
            return Answer(response.status, response.headers, await response.read())

    async def record_status(self) -> Status | None:
        record = await self.store.get(["anna", "k-1"], namespace="http")
        return None if record is None else record.status


Serve = Callable[..., Any]


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def serve(front_end: str, caplog: pytest.LogCaptureFixture) -> Serve:
    """Serves the service on a front end, with options of the front end."""
    caplog.set_level(logging.CRITICAL, "aiohttp.server")

    @asynccontextmanager
    async def served(store: AsyncIdempotencyStore | None = None, **options: Any) -> AsyncIterator[Client]:
        store = store or AsyncIdempotencyStore.in_memory()
        service = Service()
        app = FRONT_ENDS[front_end](service, store, **options)
        # A server that closes a kept connection after an error would meet the next request.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with serving(app, front_end) as url, aiohttp.ClientSession(url, connector=connector) as session:
            yield Client(session, service, store)

    return served


async def test_a_repetition_gets_the_first_response(serve: Serve) -> None:
    """H5: status, body bytes and repeated headers are exact; what belongs to one client or moment is left out."""
    async with serve() as client:
        first, again = await client.post(), await client.post()
        assert (first.status, first.body, first.replayed) == (201, b'{"run": 1}', False)
        assert first.headers["Set-Cookie"] == "session=secret"
        assert (again.status, again.body, again.replayed) == (201, b'{"run": 1}', True)
        assert again.headers.getall("X-Twice") == ["1", "2"]
        assert again.headers["Content-Type"] == "application/json"
        assert again.headers.getall("Content-Length") == ["10"]
        assert not {"Set-Cookie", "X-Request-ID"} & set(again.headers)
        assert len(client.service.runs) == 1
        assert await client.record_status() is Status.COMPLETED


@pytest.mark.parametrize(("path", "status"), [("/binary", 201), ("/empty", 204), ("/status/302", 302)])
async def test_bodies_of_any_bytes_are_replayed(serve: Serve, path: str, status: int) -> None:
    """H5: also none, and also a redirect."""
    async with serve() as client:
        first, again = await client.post(path), await client.post(path)
        assert (first.status, first.replayed) == (status, False)
        assert (again.status, again.body, again.replayed) == (status, first.body, True)


async def test_a_quoted_key_and_a_bare_one_are_one(serve: Serve) -> None:
    """H1, H2: parameters do not count."""
    async with serve() as client:
        keys = ['"k-1"', "k-1", '"k-1"; v=2']
        assert [(await client.post(key=key)).replayed for key in keys] == [False, True, True]


@pytest.mark.parametrize("key", ['"open', '"bad\\escape"', "a, b", "", '""', "x" * 256, "caf\u00e9"])
async def test_an_invalid_key_is_refused_before_anything_runs(serve: Serve, key: str) -> None:
    """H1, H2, H4: 400, and the key is not in the response."""
    async with serve(AsyncIdempotencyStore("t", backend=Refusing())) as client:
        answer = await client.post(key=key)
        assert (answer.status, answer.code) == (400, "idempotency_key_invalid")
        assert not key or key.encode() not in answer.body
        assert client.service.runs == []


async def test_two_keys_are_refused(serve: Serve) -> None:
    """H2: two header lines, equal or not."""
    async with serve() as client:
        answer = await client.post(headers=[("Idempotency-Key", "k-1")])
        assert (answer.status, answer.code) == (400, "idempotency_key_invalid")
        assert client.service.runs == []


async def test_strict_takes_quoted_keys_alone(serve: Serve) -> None:
    """H1: as the draft demands."""
    async with serve(strict=True) as client:
        assert (await client.post()).code == "idempotency_key_invalid"
        assert (await client.post(key='"k-1"')).status == 201


class Refusing:
    """A backend whose use is the test's failure, or an outage."""

    async def execute(self, operation: Operation) -> Reply:
        """Fail."""
        raise OSError("canary: the network is down")


async def test_a_request_without_a_key_passes_untouched(serve: Serve) -> None:
    """H3, H12: and costs no request to the store."""
    async with serve(AsyncIdempotencyStore("t", backend=Refusing())) as client:
        answers = [await client.post(key=None) for _ in range(2)]
        assert [answer.body for answer in answers] == [b'{"run": 1}', b'{"run": 2}']


async def test_a_key_can_be_required(serve: Serve) -> None:
    """H3: 400 with its own code."""
    async with serve(required=True) as client:
        answer = await client.post(key=None)
        assert (answer.status, answer.code) == (400, "idempotency_key_missing")
        assert client.service.runs == []
        assert (await client.post()).status == 201


async def test_a_key_on_another_method_is_ignored(serve: Serve) -> None:
    """H3, H12: PUT is idempotent by itself; with `methods=`, it is covered."""
    async with serve(required=True) as client:
        answers = [await client.post(method="PUT") for _ in range(2)]
        assert [answer.replayed for answer in answers] == [False, False]
    async with serve(methods=["put"]) as client:
        answers = [await client.post(method="PUT") for _ in range(2)]
        assert [answer.replayed for answer in answers] == [False, True]


async def test_a_duplicate_of_a_running_request_is_refused(serve: Serve) -> None:
    """H4: 409 with `Retry-After`, and the record is unchanged."""
    async with serve() as client:
        first = asyncio.create_task(client.post("/gate"))
        await client.service.entered.wait()
        duplicate = await client.post("/gate")
        assert (duplicate.status, duplicate.code) == (409, "idempotency_request_in_progress")
        assert duplicate.headers["Retry-After"] == "1"
        client.service.gate.set()
        assert (await first).status == 201
        assert (await client.post("/gate")).replayed


async def test_a_duplicate_can_wait_for_the_response(serve: Serve) -> None:
    """H4: `Wait` replays."""
    async with serve(on_in_progress=Wait(20)) as client:
        first = asyncio.create_task(client.post("/gate"))
        await client.service.entered.wait()
        duplicate = asyncio.create_task(client.post("/gate"))
        await asyncio.sleep(0)
        client.service.gate.set()
        assert (await first).body == (await duplicate).body
        assert (await duplicate).replayed


@pytest.mark.parametrize("waits", [False, True])
async def test_of_200_identical_requests_one_runs(serve: Serve, waits: bool) -> None:
    """H4, O1: 199 are refused with `Retry-After: 1`, or 199 are replays with `Wait`."""
    async with serve(**({"on_in_progress": Wait(50)} if waits else {})) as client:
        requests = [asyncio.create_task(client.post("/gate")) for _ in range(200)]
        await client.service.entered.wait()
        if not waits:
            pending: set[asyncio.Task[Answer]] = set(requests)
            while len(pending) > 1:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        client.service.gate.set()
        answers = await asyncio.gather(*requests)
        assert len(client.service.runs) == 1
        duplicates = [answer for answer in answers if answer.replayed or answer.status == 409]
        assert len(duplicates) == 199
        assert all(answer.replayed if waits else answer.headers["Retry-After"] == "1" for answer in duplicates)


async def test_another_request_with_a_used_key_is_refused(serve: Serve) -> None:
    """H4, H8: another body, query, content type or path."""
    async with serve() as client:
        first = await client.post()
        others = [
            await client.post(body=b"{ }"),
            await client.post("/orders?x=1"),
            await client.post(headers={"Content-Type": "text/plain"}),
            await client.post("/stream"),
        ]
        assert {(answer.status, answer.code) for answer in others} == {(422, "idempotency_key_reused")}
        again = await client.post()
        assert (again.body, again.replayed) == (first.body, True)
        assert len(client.service.runs) == 1


async def test_statuses_of_refusals_can_be_chosen(serve: Serve) -> None:
    """H4: for clients that expect other ones, with the base URL of the documents."""
    given = {"in_progress_status": 425, "mismatch_status": 400, "retry_after": 3, "problem_type": "https://p.example"}
    async with serve(**given) as client:
        first = asyncio.create_task(client.post("/gate"))
        await client.service.entered.wait()
        running, other = await client.post("/gate"), await client.post("/gate", body=b"other")
        client.service.gate.set()
        await first
        assert (running.status, running.headers["Retry-After"], other.status) == (425, "3", 400)
        assert json.loads(other.body)["type"] == "https://p.example/idempotency_key_reused"


async def test_two_callers_with_one_key_never_meet(serve: Serve) -> None:
    """H7: neither sees the other's status, body, 409 or 422."""
    async with serve() as client:
        first = asyncio.create_task(client.post("/gate"))
        await client.service.entered.wait()
        other = await client.post("/orders", user="bert", body=b"other")
        assert (other.status, other.body, other.replayed) == (201, b'{"run": 2}', False)
        client.service.gate.set()
        await first
        assert (await client.post("/orders", user="bert", body=b"other")).body == b'{"run": 2}'
        assert (await client.post("/gate")).body == b'{"run": 1}'


async def test_public_callers_share_their_keys(serve: Serve) -> None:
    """H7: as the user has decided."""
    async with serve(scope=PUBLIC) as client:
        assert (await client.post()).body == (await client.post(user="bert")).body
        assert await client.store.get([PUBLIC, "k-1"], namespace="http") is not None


async def test_an_expired_credential_with_a_known_key_is_refused(serve: Serve) -> None:
    """H9: 401, not a replay."""
    async with serve() as client:
        assert (await client.post()).status == 201
        refused = await client.post(user="expired")
        assert (refused.status, refused.replayed) == (401, False)


@pytest.mark.parametrize("scope", [lambda _: "", lambda _: None, lambda _: 7, lambda _: 1 / 0])
async def test_without_a_scope_nothing_runs(serve: Serve, scope: Callable[[Any], Any]) -> None:
    """H7: an empty scope, none, no text, and an error are errors of the service."""
    async with serve(scope=scope) as client:
        answer = await client.post()
        assert (answer.status, client.service.runs) == (500, [])
        # A keyless request needs no scope, but a dependency has one all the same.
        assert await client.record_status() is None


async def test_a_scope_may_be_a_coroutine_function(serve: Serve) -> None:
    """H7: a look into a session, for example."""

    async def caller(scope: Any) -> str:
        await asyncio.sleep(0)
        return "somebody"

    async with serve(scope=caller) as client:
        assert (await client.post()).status == 201
        assert (await client.post()).replayed
        assert await client.store.get(["somebody", "k-1"], namespace="http") is not None


@pytest.mark.parametrize(
    ("policy", "stored"),
    [
        ("terminal", [200, 302, 404, 422]),
        ("stripe", [200, 302, 404, 409, 422, 429, 500, 503]),
        ("success", [200]),
        (lambda status, headers: status == 418 and isinstance(headers[0], tuple), [418]),
    ],
)
async def test_a_policy_says_what_is_stored(serve: Serve, policy: Any, stored: list[int]) -> None:
    """H6: what is not stored runs again."""
    async with serve(policy=policy) as client:
        for status in [200, 302, 404, 409, 418, 422, 429, 500, 503]:
            answers = [await client.post(f"/status/{status}", key=f"k-{status}") for _ in range(2)]
            assert [answer.status for answer in answers] == [status, status]
            expected = status in stored or (policy == "terminal" and status == 418) or policy == "stripe"
            assert answers[1].replayed == expected, status


async def test_what_no_route_takes_is_not_stored(front_end: str, serve: Serve) -> None:
    """H6: 404 and 405 of a router; a bare application has none."""
    if front_end.startswith("bare"):
        return
    async with serve(policy="stripe", methods=["POST", "DELETE"]) as client:
        answers = [
            await client.post(path, method=method)
            for path, method in [("/nowhere", "POST"), ("/orders", "DELETE")]
            for _ in range(2)
        ]
        assert [(answer.status, answer.replayed) for answer in answers] == [(404, False)] * 2 + [(405, False)] * 2
        assert await client.record_status() is None


async def test_a_handler_that_raises_runs_again(serve: Serve) -> None:
    """H6: under `terminal`, the key is given back."""
    async with serve() as client:
        assert [(await client.post("/fails")).status for _ in range(2)] == [500, 500]
        assert len(client.service.runs) == 2
        assert await client.record_status() is None


async def test_a_handler_that_raises_is_done_under_stripe(serve: Serve) -> None:
    """H6: a plain 500 is stored, and the error passes on to the server."""
    async with serve(policy="stripe") as client:
        first, again = await client.post("/fails"), await client.post("/fails")
        assert (first.status, first.replayed) == (500, False)
        assert (again.status, again.body, again.replayed) == (500, b"Internal Server Error", True)
        assert len(client.service.runs) == 1


@pytest.mark.parametrize(("path", "size"), [("/large", 300_000), ("/large-stream", 300_000)])
async def test_a_response_over_the_limit_is_sent_whole_and_not_stored(serve: Serve, path: str, size: int) -> None:
    """H10: a tombstone keeps repetitions out, with its own code."""
    async with serve() as client:
        first, again = await client.post(path), await client.post(path)
        assert (first.status, len(first.body)) == (201, size)
        assert (again.status, again.code, again.replayed) == (410, "idempotency_result_unavailable", False)
        assert len(client.service.runs) == 1
        record = await client.store.get(["anna", "k-1"], namespace="http")
        assert record is not None
        assert record.encoding == "tombstone"


async def test_a_stream_within_the_limit_is_stored_by_asgi(front_end: str, serve: Serve) -> None:
    """H10: aiohttp's streams are sent by their handlers, and leave a tombstone."""
    async with serve() as client:
        first, again = await client.post("/stream"), await client.post("/stream")
        assert first.body == b'one two {"run": 1}'
        if front_end.startswith("aiohttp"):
            assert again.code == "idempotency_result_unavailable"
        else:
            assert (again.body, again.replayed) == (first.body, True)


async def test_a_response_that_breaks_off_does_not_run_again(serve: Serve) -> None:
    """H10: the handler has run."""
    async with serve() as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.post("/broken-stream")
        assert (await client.post("/broken-stream")).code == "idempotency_result_unavailable"
        assert len(client.service.runs) == 1


@pytest.mark.parametrize("path", ["/orders", "/stream"])
async def test_the_record_is_complete_before_the_last_byte_leaves(front_end: str, serve: Serve, path: str) -> None:
    """H11: a completion that is held holds back the end of the response."""
    gate = GateBackend(MemoryBackend(), Update, "before")
    async with serve(AsyncIdempotencyStore("t", backend=gate)) as client:
        first = asyncio.create_task(client.post(path))
        await gate.reached.wait()
        duplicate = await client.post(path)
        assert (duplicate.status, first.done()) == (409, False)
        gate.open()
        assert (await first).status == 201
        if not (path == "/stream" and front_end.startswith("aiohttp")):
            assert (await client.post(path)).replayed


async def test_a_request_over_the_limit_is_refused(serve: Serve) -> None:
    """413 before the handler, with nothing claimed; by its length, and by its bytes."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 500

    async with serve(max_request_body=1000) as client:
        for body in (b"x" * 1001, chunks()):
            answer = await client.post(body=body)
            assert (answer.status, answer.code) == (413, "idempotency_body_too_large")
        assert client.service.runs == []
        assert await client.record_status() is None
        assert (await client.post(body=b"x" * 1000)).status == 201
        assert (await client.post(key=None, body=b"x" * 1001)).status == 201


async def test_the_handler_gets_the_whole_body(serve: Serve) -> None:
    """H12: what the fingerprint has read is read again, sent at once or in chunks."""

    async def chunks() -> AsyncIterator[bytes]:
        for number in range(10):
            yield b"%d" % number * 10_000

    async with serve() as client:
        expected = b"".join(b"%d" % number * 10_000 for number in range(10))
        assert (await client.post(body=chunks())).status == 201
        assert (await client.post(body=expected)).replayed
        assert client.service.runs == [("/orders", "anna", expected)]


async def test_without_a_fingerprint_the_body_is_neither_read_nor_limited(serve: Serve) -> None:
    """H8: the key alone counts."""
    async with serve(fingerprint=None, max_request_body=10) as client:
        assert (await client.post(body=b"x" * 1000)).status == 201
        assert (await client.post(body=b"other")).replayed
        assert client.service.runs == [("/orders", "anna", b"x" * 1000)]


async def test_a_fingerprint_of_the_users_own(serve: Serve) -> None:
    """H8: the path and the body, for example."""
    async with serve(fingerprint=lambda facts, body: [facts.path, body.decode()]) as client:
        assert (await client.post("/orders?x=1")).status == 201
        assert (await client.post("/orders?x=2")).replayed
        assert (await client.post(body=b"other")).status == 422


async def test_the_store_is_down(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """H14: 503 with `Retry-After`, nothing runs, and no word of the cause."""
    async with serve(AsyncIdempotencyStore("t", backend=Refusing())) as client:
        answer = await client.post()
        assert (answer.status, answer.code) == (503, "idempotency_store_unavailable")
        assert answer.headers["Retry-After"] == "1"
        assert b"canary" not in answer.body
        assert client.service.runs == []


async def test_a_request_that_lost_its_lease_is_refused(serve: Serve) -> None:
    """H4: 409 in place of its response, and the new owner's record stays."""
    clock = FakeClock()
    async with serve(AsyncIdempotencyStore.in_memory(clock=clock)) as client:
        first = asyncio.create_task(client.post("/gate"))
        await client.service.entered.wait()
        await client.store.forget(["anna", "k-1"], namespace="http", running=True)
        client.service.gate.set()
        answer = await first
        assert (answer.status, answer.code) == (409, "idempotency_request_in_progress")
        assert (await client.post("/gate")).status == 201
        assert len(client.service.runs) == 2


async def test_a_client_that_goes_away_is_served_when_it_comes_back(serve: Serve) -> None:
    """H11: no server here cancels the handler, so its response is stored."""
    async with serve(on_in_progress=Wait(20)) as client:
        first = asyncio.create_task(client.post("/gate"))
        await client.service.entered.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        again = asyncio.create_task(client.post("/gate"))
        await asyncio.sleep(0)
        client.service.gate.set()
        assert (await again).body == b'{"run": 1}'
        assert len(client.service.runs) == 1


async def test_a_completion_that_is_lost_is_not_the_clients_loss(serve: Serve) -> None:
    """H11: the answer of the completion is lost, and the response is sent all the same."""
    async with serve(AsyncIdempotencyStore("t", backend=Forgetful(), lease=0.2)) as client:
        answer = await client.post()
        assert answer.status == 201


class Forgetful:
    """A backend whose table is gone after the claim."""

    def __init__(self) -> None:
        self._inner = MemoryBackend()

    async def execute(self, operation: Operation) -> Reply:
        """Carry out puts alone."""
        if not isinstance(operation, Put):
            raise OSError("the table is gone")
        return await self._inner.execute(operation)


async def test_no_log_and_no_response_shows_key_scope_or_body(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """U3: canaries in the key, the caller and the body are nowhere, whatever happens."""
    caplog.set_level(logging.DEBUG, "aioidempotency")
    async with serve() as client:
        for path in ("/orders", "/orders", "/fails", "/large", "/large"):
            answer = await client.post(path, key="canary-key", user="canary-user", body=b"canary-body")
            assert b"canary" not in answer.body
    told = "".join(str(record.getMessage()) for record in caplog.records if record.name == "aioidempotency")
    assert told
    assert "canary" not in told
