"""T4: `auto` takes the lean transport where it can serve, and else the client by itself, with one event."""

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

import pytest
from aiobotocore.client import AioBaseClient
from aiobotocore.config import AioConfig
from aiobotocore.endpoint import AioEndpoint
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession, get_session
from aws_lambda_powertools.shared.user_agent import register_feature_to_botocore_session
from botocore import UNSIGNED

from aioidempotency import AsyncIdempotencyStore, ConfigurationError, DynamoDBBackend
from aioidempotency.backends import Applied, Get
from aioidempotency.backends.dynamodb.client import ClientTransport
from aioidempotency.backends.dynamodb.lean import LeanTransport
from aioidempotency.events import Event, TransportFellBack
from tests.support.engines import Engine
from tests.support.raw_server import response
from tests.support.wire_server import APPLIED, WireServer, scripted
from tests.transport.conftest import GET, PUT, Backends


@pytest.fixture
def fresh() -> AioSession:
    """A session whose hooks and settings a test may change."""
    made = get_session()
    made.set_credentials("testing", "testing")
    return made


async def chosen(backend: DynamoDBBackend) -> object:
    return type(await backend._ready("orders"))


async def test_auto_takes_the_lean_transport(backends: Backends) -> None:
    """T4: a session as users have it, and the settings of the library, are no obstacle."""
    told: list[str] = []
    backend = backends("http://127.0.0.1:1", transport="auto", fell_back=told.append)
    assert await chosen(backend) is LeanTransport
    assert told == []


@pytest.mark.parametrize("endpoint", [None, "https://example.org"])
async def test_auto_takes_the_lean_transport_on_aws(endpoint: str | None, backends: Backends) -> None:
    """The same without an endpoint of one's own."""
    assert await chosen(backends(endpoint, transport="lean")) is LeanTransport


OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "a proxy": (
        {"config": AioConfig(proxies={"http": "http://127.0.0.1:2", "https": "http://127.0.0.1:2"})},
        "a proxy",
    ),
    "a client certificate": ({"config": AioConfig(client_cert="/nowhere.pem")}, "client certificate"),
    "no signature": ({"config": AioConfig(signature_version=UNSIGNED)}, "signed in another way"),
    "another signature": ({"config": AioConfig(signature_version="v4a")}, "signed in another way"),
    "the legacy mode": ({"config": AioConfig(retries={"mode": "legacy"})}, "retry mode is legacy"),
    "the adaptive mode": ({"config": AioConfig(retries={"mode": "adaptive"})}, "retry mode is adaptive"),
    "a connector's setting": ({"config": AioConfig(connector_args={"use_dns_cache": False})}, "use_dns_cache"),
}


@pytest.mark.parametrize("case", OBSTACLES)
async def test_what_only_the_client_can_do(case: str, backends: Backends) -> None:
    """T4: `auto` says once why the client is taken, and `lean` refuses for the same reason."""
    options, reason = OBSTACLES[case]
    told: list[str] = []
    backend = backends("http://127.0.0.1:1", transport="auto", fell_back=told.append, **options)
    assert await chosen(backend) is ClientTransport
    await backend.aclose()
    assert await chosen(backend) is ClientTransport
    assert len(told) == 1
    assert reason in told[0]
    refusing = backends("http://127.0.0.1:1", transport="lean", **options)
    with pytest.raises(ConfigurationError, match=reason):
        await refusing.execute(PUT)
    assert "not open" in repr(refusing)


async def test_a_proxy_of_the_environment(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """As botocore reads the environment: `NO_PROXY` leaves hosts out."""
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    assert await chosen(backends("http://example.org", transport="auto")) is ClientTransport
    assert await chosen(backends("https://example.org", transport="auto")) is LeanTransport
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert await chosen(backends("http://example.org", transport="auto")) is LeanTransport


def hook(**_: object) -> None:
    """Do nothing."""


class Hook:
    """A hook that is an object."""

    def __call__(self, **_: object) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "event",
    ["before-call", "before-call.dynamodb", "before-send.dynamodb.PutItem", "request-created.*.GetItem", "after-call"],
)
@pytest.mark.parametrize(
    "handler",
    [hook, Hook(), functools.partial(hook), lambda **_: None],
    ids=["a function", "an object", "a partial", "a lambda"],
)
async def test_hooks_are_called(
    event: str, handler: Callable[..., None], fresh: AioSession, backends: Backends
) -> None:
    """T4: a hook of the session's on an event of a call goes through the client."""
    fresh.register(event, handler)
    assert await chosen(backends("http://127.0.0.1:1", transport="auto", session=fresh)) is ClientTransport


@pytest.mark.parametrize("event", ["before-call.s3", "creating-client-class", "before-call.dynamodb.ListTables"])
async def test_hooks_on_other_events_are_no_obstacle(event: str, fresh: AioSession, backends: Backends) -> None:
    """Of other services, other requests, and of the making of a client."""
    fresh.register(event, hook)
    assert await chosen(backends("http://127.0.0.1:1", transport="auto", session=fresh)) is LeanTransport


async def test_powertools_is_no_obstacle(fresh: AioSession, backends: Backends) -> None:
    """Its import adds a hook to all sessions, and the hook only names Powertools in the user agent."""
    register_feature_to_botocore_session(fresh, "idempotency")
    assert await chosen(backends("http://127.0.0.1:1", transport="auto", session=fresh)) is LeanTransport


async def test_a_hook_that_is_registered_later(backends: Backends) -> None:
    """The next call after it goes through the client, and the hook sees the call."""
    seen: list[str] = []
    told: list[str] = []

    def note(model: Any, **_: object) -> None:
        seen.append(model.name)

    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="auto", fell_back=told.append)
        assert await backend.execute(PUT) == Applied()
        client = (await backend._ready("orders")).client
        client.meta.events.register("before-call.s3", note)
        assert await backend.execute(PUT) == Applied()
        assert await chosen(backend) is LeanTransport
        client.meta.events.register("before-call.dynamodb", note)
        assert await backend.execute(PUT) == Applied()
        assert (seen, len(told), await chosen(backend)) == (["PutItem"], 1, ClientTransport)
        assert "note" in told[0]
        await backend.aclose()


def traced(seen: list[str]) -> Callable[[Any], Any]:
    """Wrap `_make_api_call` as tracing libraries do."""

    def wrap(wrapped: Any) -> Any:
        @functools.wraps(wrapped)
        async def call(*arguments: Any) -> Any:
            seen.append(arguments[-2])
            return await wrapped(*arguments)

        return call

    return wrap


class Proxy:
    """Wraps like wrapt: an object that shows the attributes of what it wraps."""

    def __init__(self, wrapped: Any, seen: list[str], owner: Any = None) -> None:
        self._wrapped, self._seen, self._owner = wrapped, seen, owner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return Proxy(self._wrapped.__get__(owner, kind), self._seen, owner)

    async def __call__(self, *arguments: Any) -> Any:
        """Note a call."""
        self._seen.append(arguments[0])
        return await self._wrapped(*arguments)


@pytest.mark.parametrize("how", ["function", "proxy"])
@pytest.mark.parametrize("when", ["before", "while open"])
async def test_a_wrapped_class_sees_its_calls(
    how: str, when: str, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T4: as Datadog, X-Ray and OpenTelemetry wrap the class, at any time."""
    seen: list[str] = []
    original = AioBaseClient._make_api_call
    wrapped = traced(seen)(original) if how == "function" else Proxy(original, seen)
    told: list[str] = []
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="auto", fell_back=told.append)
        if when == "while open":
            assert await backend.execute(PUT) == Applied()
        monkeypatch.setattr(AioBaseClient, "_make_api_call", wrapped)
        assert await backend.execute(PUT) == Applied()
        assert await backend.execute(PUT) == Applied()
        assert seen == ["PutItem", "PutItem"]
        assert len(told) == 1
        assert "_make_api_call" in told[0]
        await backend.aclose()


async def test_a_wrapped_instance_sees_its_calls(backends: Backends) -> None:
    """The same for one client."""
    seen: list[str] = []
    async with WireServer(scripted(APPLIED)) as server:
        backend = backends(server.url, transport="auto")
        client = (await backend._ready("orders")).client
        client._make_api_call = traced(seen)(client._make_api_call)
        assert await backend.execute(PUT) == Applied()
        assert seen == ["PutItem"]
        refusing = backends(server.url, transport="lean")
        client = (await refusing._ready("orders")).client
        client._make_api_call = traced(seen)(client._make_api_call)
        with pytest.raises(ConfigurationError, match="_make_api_call"):
            await refusing.execute(PUT)
        await backend.aclose()
        await refusing.aclose()


@pytest.mark.parametrize(
    ("owner", "name"), [(AioEndpoint, "prepare_request"), (AioEndpoint, "_send_request"), (AIOHTTPSession, "send")]
)
async def test_other_wrapped_methods(
    owner: type, name: str, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X-Ray and OpenTelemetry also wrap what writes the headers."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(*arguments: Any) -> Any:
        return original(*arguments)

    monkeypatch.setattr(owner, name, wrapper)
    assert await chosen(backends("http://127.0.0.1:1", transport="auto")) is ClientTransport


async def test_a_given_client_serves_itself(ministack: Engine, session: AioSession) -> None:
    """`client=` is the client, and `lean` beside it a contradiction."""
    options = {"region_name": "eu-central-1", "endpoint_url": ministack.endpoint_url}
    async with session.create_client("dynamodb", **options) as client:
        given: Any = await DynamoDBBackend(client, transport="auto")._ready("orders")
        assert given.client is client
        with pytest.raises(ConfigurationError, match='transport="lean"'):
            DynamoDBBackend(client, transport="lean")
    unknown: Any = "fast"
    with pytest.raises(ConfigurationError, match="'auto' or 'lean' or 'client'"):
        AsyncIdempotencyStore("orders", transport=unknown)


async def test_a_store_tells_the_event_once(fresh: AioSession, caplog: pytest.LogCaptureFixture) -> None:
    """T4: one event for the store, whatever the number of calls, and a line in the log."""
    fresh.register("before-call.dynamodb", hook)
    events: list[Event] = []
    missing = response(b"{}")
    caplog.set_level(logging.INFO, "aioidempotency")
    async with WireServer(scripted(missing)) as server:
        options: Any = {"session": fresh, "region_name": "eu-central-1", "endpoint_url": server.url}
        store = AsyncIdempotencyStore(
            "orders", transport="auto", verify_layout=False, on_event=events.append, **options
        )
        async with store:
            assert await store.get("a") is None
            await store.aclose()
            assert await store.get("a") is None
        backend = DynamoDBBackend(transport="auto", **options)
        await backend.execute(GET)
        await backend.aclose()
    assert [each for each in events if isinstance(each, TransportFellBack)] == [
        TransportFellBack("orders", "event hooks are registered (tests.transport.test_choice.hook)")
    ]
    assert [record.getMessage() for record in caplog.records][-1].startswith("requests go through aiobotocore's client")


async def test_concurrent_calls_fall_back_together(backends: Backends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls under way end on the lean transport, and later ones go by the client; all are answered."""
    seen: list[str] = []
    told: list[str] = []
    async with WireServer(scripted(response(b'{"Item": {"id": {"S": "order-1"}}}'))) as server:
        backend = backends(server.url, transport="auto", fell_back=told.append)
        await backend.execute(GET)
        calls = [asyncio.ensure_future(backend.execute(Get(GET.location))) for _ in range(20)]
        await asyncio.sleep(0)
        original = AioBaseClient._make_api_call
        monkeypatch.setattr(AioBaseClient, "_make_api_call", traced(seen)(original))
        calls += [asyncio.ensure_future(backend.execute(Get(GET.location))) for _ in range(20)]
        await asyncio.gather(*calls)
        assert (len(seen), len(told)) == (20, 1)
        await backend.aclose()
