"""A service process is killed, or told to end, in the middle of a keyed request; another one serves the repetition."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from signal import SIGKILL, SIGTERM
from typing import NamedTuple

import aiohttp
import pytest
from aiobotocore.session import AioSession, get_session

from aioidempotency import AsyncIdempotencyStore, Status
from tests.conftest import store_options
from tests.support.engines import Engine

FRONT_ENDS = ["bare", "fastapi, dependency", "aiohttp, middleware"]
HEADERS = {"X-User": "anna", "Idempotency-Key": "k-1"}
LEASE = 1.0


class Office(NamedTuple):
    process: asyncio.subprocess.Process
    url: str

    async def post(self, path: str = "/gate") -> tuple[int, bool]:
        async with aiohttp.ClientSession(self.url) as session, session.post(path, headers=HEADERS) as response:
            await response.read()
            return response.status, "Idempotent-Replayed" in response.headers

    async def said(self) -> str:
        assert self.process.stdout is not None
        return (await self.process.stdout.readline()).decode().strip()

    def open_gate(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")


@pytest.fixture(params=FRONT_ENDS)
def front_end(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def store(ministack: Engine, session: AioSession) -> AsyncIterator[AsyncIdempotencyStore]:
    """A fresh table, as this process sees it."""
    name = f"test-{token_hex(6)}"
    async with AsyncIdempotencyStore(name, **store_options(ministack, session)) as made:
        await made.create_table()
        yield made


@asynccontextmanager
async def office(
    front_end: str, engine: Engine, store: AsyncIdempotencyStore, *, lease: float = 60, grace: int = 1
) -> AsyncIterator[Office]:
    """A service process on the table of a store."""
    table_name = store._parts.settings.table.name
    arguments = (front_end, engine.endpoint_url, table_name, str(lease), str(grace))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.http.process", *arguments),
        env={**os.environ, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        port = (await process.stdout.readline()).decode().strip()
        yield Office(process, f"http://127.0.0.1:{port}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def status_of(store: AsyncIdempotencyStore) -> Status | None:
    record = await store.get(["anna", "k-1"], namespace="http")
    return None if record is None else record.status


async def test_a_process_that_is_killed_in_a_handler_holds_its_key_for_the_lease(
    front_end: str, ministack: Engine, store: AsyncIdempotencyStore
) -> None:
    """O6, H4: a repetition elsewhere is refused until then, and runs afterwards."""
    async with office(front_end, ministack, store, lease=LEASE) as first, office(front_end, ministack, store) as second:
        request = asyncio.create_task(first.post())
        assert await first.said() == "entered"
        first.process.send_signal(SIGKILL)
        with pytest.raises(aiohttp.ClientError):
            await request
        second.open_gate()
        while (answer := await second.post())[0] == 409:  # noqa: ASYNC110 - each look is a request
            await asyncio.sleep(0.1)
        assert answer == (201, False)
        assert await second.post() == (201, True)


async def test_a_process_that_ends_with_grace_completes_its_record(
    front_end: str, ministack: Engine, store: AsyncIdempotencyStore
) -> None:
    """H11: SIGTERM lets the handler finish, and its client gets the response."""
    async with office(front_end, ministack, store, grace=30) as first:
        request = asyncio.create_task(first.post())
        assert await first.said() == "entered"
        first.process.send_signal(SIGTERM)
        first.open_gate()
        assert await request == (201, False)
        await first.process.wait()
    assert await status_of(store) is Status.COMPLETED


async def test_a_process_that_ends_without_grace_gives_its_key_back(
    front_end: str, ministack: Engine, store: AsyncIdempotencyStore
) -> None:
    """O5: the server cancels the handler, and the end of the application waits for the release."""
    async with office(front_end, ministack, store, grace=0) as first:
        request = asyncio.create_task(first.post())
        assert await first.said() == "entered"
        assert await status_of(store) is Status.INPROGRESS
        first.process.send_signal(SIGTERM)
        await first.process.wait()
        with pytest.raises(aiohttp.ClientError):
            await request
    assert await status_of(store) is None


async def test_a_table_that_is_gone_in_the_middle_costs_nobody_the_response(
    front_end: str, ministack: Engine, store: AsyncIdempotencyStore
) -> None:
    """H11, H14: the running request is answered after the lease, and later ones get 503."""
    async with office(front_end, ministack, store, lease=LEASE) as first:
        request = asyncio.create_task(first.post())
        assert await first.said() == "entered"
        session = get_session()
        session.set_credentials("testing", "testing")
        options = {"endpoint_url": ministack.endpoint_url, "region_name": "eu-central-1"}
        async with session.create_client("dynamodb", **options) as client:
            await client.delete_table(TableName=store._parts.settings.table.name)
        first.open_gate()
        assert await request == (201, False)
        assert (await first.post())[0] == 503
