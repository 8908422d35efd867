"""Tests of the service: real requests, and records in memory."""

from collections.abc import AsyncIterator
from typing import Any

import app
import pytest
from aiohttp.test_utils import TestClient, TestServer

from aioidempotency import MemoryBackend

ORDER = {"article": "chair", "cents": 4200}


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    with app.store.override(backend=MemoryBackend()):
        async with TestClient(TestServer(app.make_app())) as made:
            yield made
    app.payments.clear()


async def pay(
    client: TestClient[Any, Any], key: str = "k-1", user: str = "anna", **changes: Any
) -> tuple[int, Any, bool]:
    headers = {"Idempotency-Key": key, "Authorization": f"Bearer token-of-{user}"}
    async with client.post("/payments", headers=headers, json=ORDER | changes) as response:
        content = await response.json(content_type=None) if "json" in response.content_type else None
        return response.status, content, "Idempotent-Replayed" in response.headers


async def test_a_repeated_request_is_paid_once(client: TestClient[Any, Any]) -> None:
    receipt = {"number": 1, "payer": "anna", "cents": 4200}
    assert await pay(client) == (201, receipt, False)
    assert await pay(client) == (201, receipt, True)
    assert len(app.payments) == 1


async def test_two_users_may_choose_one_key(client: TestClient[Any, Any]) -> None:
    assert (await pay(client, user="anna"))[1]["payer"] == "anna"
    assert (await pay(client, user="bert"))[1]["payer"] == "bert"


async def test_a_key_belongs_to_one_request(client: TestClient[Any, Any]) -> None:
    await pay(client)
    status, problem, _ = await pay(client, cents=1)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")


async def test_an_expired_token_gets_no_replay(client: TestClient[Any, Any]) -> None:
    await pay(client)
    assert (await pay(client, user="nobody"))[0] == 401
