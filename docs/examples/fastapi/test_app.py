"""Tests of the service: real requests, and records in memory."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import app
import pytest
import uvicorn

from aioidempotency import MemoryBackend

ORDER = {"article": "chair", "cents": 4200}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app.app, log_level="warning", ws="none"))
    with app.store.override(backend=MemoryBackend()):
        task = asyncio.create_task(server.serve([listener]))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{listener.getsockname()[1]}") as session:
            yield session
        server.should_exit = True
        await task
    app.payments.clear()


async def pay(
    client: aiohttp.ClientSession, key: str = "k-1", user: str = "anna", **changes: Any
) -> tuple[int, Any, bool]:
    headers = {"Idempotency-Key": key, "Authorization": f"Bearer token-of-{user}"}
    async with client.post("/payments", headers=headers, json=ORDER | changes) as response:
        return response.status, await response.json(), "Idempotent-Replayed" in response.headers


async def test_a_repeated_request_is_paid_once(client: aiohttp.ClientSession) -> None:
    receipt = {"number": 1, "payer": "anna", "cents": 4200}
    assert await pay(client) == (201, receipt, False)
    assert await pay(client) == (201, receipt, True)
    assert len(app.payments) == 1


async def test_two_users_may_choose_one_key(client: aiohttp.ClientSession) -> None:
    assert (await pay(client, user="anna"))[1]["payer"] == "anna"
    assert (await pay(client, user="bert"))[1]["payer"] == "bert"


async def test_a_key_belongs_to_one_request(client: aiohttp.ClientSession) -> None:
    await pay(client)
    status, problem, _ = await pay(client, cents=1)
    assert (status, problem["code"]) == (422, "idempotency_key_reused")


async def test_an_expired_token_gets_no_replay(client: aiohttp.ClientSession) -> None:
    await pay(client)
    assert (await pay(client, user="nobody"))[0] == 401
