"""What the lean transport takes from inside aiobotocore. A test that fails here names what a new version has changed."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Any

import botocore.utils
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.retries.standard import AioRetryHandler
from aiobotocore.session import AioSession, get_session
from botocore.exceptions import NoCredentialsError
from botocore.retries.standard import RetryQuotaChecker

from aioidempotency.backends.dynamodb import borrowed
from aioidempotency.backends.dynamodb.borrowed import CALLED, READ, Borrowed, obstacle, parts_of
from aioidempotency.backends.dynamodb.configuration import tuned
from aioidempotency.backends.dynamodb.connections import Origin

PARTS = [(owner, name) for group in (CALLED, READ) for owner, names in group.items() for name in names]


@pytest.fixture
async def client(session: AioSession) -> AsyncIterator[Any]:
    """A client as the library opens it."""
    async with session.create_client("dynamodb", region_name="eu-central-1", config=tuned(10.0)) as made:
        yield made


async def test_nothing_is_in_the_way(client: Any) -> None:
    """The installed aiobotocore is one that the library knows: else all calls would go by the client."""
    assert obstacle(client) is None


@pytest.mark.parametrize(("owner", "name"), PARTS)
async def test_a_part_is_there(owner: str, name: str, client: Any) -> None:
    """Each part exists, and the client is taken where it does not."""
    part = parts_of(client)[owner]
    assert hasattr(part, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(borrowed, "READ", {**READ, owner: (*READ[owner], f"not{name}")})
        assert "another inside" in str(obstacle(client))


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        ("client", "_resolve_endpoint_ruleset", ["operation_model", "params", "request_context"]),
        ("client", "_convert_to_request_dict", ["api_params", "operation_model", "endpoint_url", "context", "headers"]),
        ("endpoint", "_needs_retry", ["attempts", "operation_model", "request_dict", "response", "caught_exception"]),
        ("endpoint", "_update_retries_context", ["context", "attempt", "success_response"]),
        ("session", "_build_ssl_contexts", ["proxy_url"]),
    ],
)
async def test_a_method_takes_what_it_is_given(owner: str, name: str, parameters: list[str], client: Any) -> None:
    """The first parameters are those that the library gives."""
    method = getattr(parts_of(client)[owner], name)
    assert list(inspect.signature(method).parameters)[: len(parameters)] == parameters


async def test_the_hooks_of_a_call_are_known(client: Any) -> None:
    """The two hooks of the retries are what `is_to_repeat` and `succeeded` reach."""
    handlers = client.meta.events._emitter._handlers
    (released,) = handlers.prefix_search("after-call.dynamodb.PutItem")
    assert type(released.__self__) is RetryQuotaChecker
    assert not inspect.iscoroutinefunction(released)
    asked = list(handlers.prefix_search("needs-retry.dynamodb.PutItem"))
    assert [type(each.__self__) for each in asked] == [AioRetryHandler]


async def test_limits_are_the_configurations(session: AioSession) -> None:
    """Time limits, pool size and idleness, as the library sets them and as a caller does."""
    config = AioConfig(
        connect_timeout=1.5, read_timeout=None, max_pool_connections=7, connector_args={"keepalive_timeout": 5}
    )
    for given, expected in ((AioConfig(), (1.0, 3.0, 256, 60)), (config, (1.5, None, 7, 5))):
        options: dict[str, Any] = {"region_name": "eu-central-1", "config": tuned(10.0).merge(given)}
        async with session.create_client("dynamodb", **options) as client:
            found = Borrowed(client)
            assert (found.connect_timeout, found.read_timeout, found.limit, found.keep) == expected


@pytest.mark.parametrize(
    ("options", "account", "table", "origin", "region"),
    [
        ({}, None, "orders", Origin("dynamodb.eu-central-1.amazonaws.com", 443, True), "eu-central-1"),
        (
            {},
            "111122223333",
            "orders",
            Origin("111122223333.ddb.eu-central-1.amazonaws.com", 443, True),
            "eu-central-1",
        ),
        (
            {},
            "111122223333",
            "arn:aws:dynamodb:eu-central-1:444455556666:table/orders",
            Origin("444455556666.ddb.eu-central-1.amazonaws.com", 443, True),
            "eu-central-1",
        ),
        (
            {"account_id_endpoint_mode": "disabled"},
            "111122223333",
            "orders",
            Origin("dynamodb.eu-central-1.amazonaws.com", 443, True),
            "eu-central-1",
        ),
        (
            {"use_dualstack_endpoint": True},
            None,
            "orders",
            Origin("dynamodb.eu-central-1.api.aws", 443, True),
            "eu-central-1",
        ),
        ({"region_name": "local"}, None, "orders", Origin("localhost", 8000, False), "us-east-1"),
    ],
    ids=["region", "account", "another account's table", "no accounts", "dual stack", "local"],
)
async def test_endpoints_follow_the_clients_rules(
    options: dict[str, Any], account: str | None, table: str, origin: Origin, region: str
) -> None:
    """T2: nothing of the rules is stated again here, and the table's account counts."""
    session = get_session()
    session.set_credentials("a", "b", account_id=account)
    options = dict(options)
    name = options.pop("region_name", "eu-central-1")
    config = tuned(10.0).merge(AioConfig(**options))
    async with session.create_client("dynamodb", region_name=name, config=config) as client:
        route = await Borrowed(client).route("GetItem", {"TableName": table, "Key": {"id": {"S": "x"}}})
        assert not isinstance(route, str)
        assert (route.origin, route.signer.region) == (origin, region)


async def test_no_credentials_are_botocores_error(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the client signs."""
    monkeypatch.setattr(client._request_signer, "_credentials", None)
    with pytest.raises(NoCredentialsError):
        await Borrowed(client).credentials()


async def test_an_endpoint_that_carries_more_goes_by_the_client(session: AioSession) -> None:
    """A query, or a user's name in the URL, is the client's to write."""
    options: dict[str, Any] = {"region_name": "eu-central-1", "endpoint_url": "http://user:word@127.0.0.1:1"}
    async with session.create_client("dynamodb", config=tuned(10.0), **options) as client:
        found = await Borrowed(client).route("GetItem", {"TableName": "orders", "Key": {}})
    assert "user name" in str(found)


async def test_tls_settings_are_made_once(client: Any) -> None:
    """They read files, so a hundred first calls share them."""
    found = Borrowed(client)
    contexts = await asyncio.gather(*(found.tls() for _ in range(10)))
    assert len({id(each) for each in contexts}) == 1


def test_a_path_is_normalized_as_botocore_does() -> None:
    """The function that the canonical path comes from."""
    assert botocore.utils.normalize_url_path("/a/./b//../c") == "/a/c"
