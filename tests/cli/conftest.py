"""A table of the test's own on MiniStack, and the command on it."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any

import pytest
from aiobotocore.session import AioSession
from typer.testing import CliRunner, Result

from aioidempotency import AsyncIdempotencyStore, CompositeKey
from aioidempotency._cli.app import app
from aioidempotency.partitioning import Partitioning
from tests.conftest import store_options
from tests.support.engines import Engine

Command = Callable[..., Result]
OpenStore = Callable[..., AsyncIdempotencyStore]


@pytest.fixture
def table_name() -> str:
    return f"test-{secrets.token_hex(6)}"


@pytest.fixture
def command(ministack: Engine, table_name: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a sub-command on the test's table."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")

    def run(*arguments: str) -> Result:
        options = ["--table-name", table_name, "--endpoint-url", ministack.endpoint_url, "--region", "eu-central-1"]
        return CliRunner().invoke(app, [*arguments, *options], env={"COLUMNS": "200"})

    return run


@pytest.fixture
def open_store(ministack: Engine, session: AioSession, table_name: str) -> OpenStore:
    """Makes a store on the test's table."""

    def make(partitioning: Partitioning, **options: Any) -> AsyncIdempotencyStore:
        given = {**store_options(ministack, session), "layout": CompositeKey(partitioning=partitioning), **options}
        return AsyncIdempotencyStore(table_name, **given)

    return make


async def created(store: AsyncIdempotencyStore) -> None:
    async with store:
        await store.create_table()


async def run(command: Command, *arguments: str) -> Result:
    """Run a command, which has an event loop of its own, in a thread."""
    return await asyncio.to_thread(command, *arguments)
