"""What the tests of the transports share."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff

from aioidempotency import AttributeNames, DynamoDBBackend
from aioidempotency.backends import Absent, Get, HeldBy, Location, Put, Table, Update
from aioidempotency.backends.dynamodb import Choice

TABLE = Table("orders", "id", None, AttributeNames())
HERE = Location(table=TABLE, partition="order-1")
PUT = Put(HERE, {**HERE.item, "owner": {"S": "me"}}, Absent())
UPDATE = Update(HERE, {"data": {"S": "1"}}, HeldBy("me"))
GET = Get(HERE)


def put(key: str) -> Put:
    location = Location(table=TABLE, partition=key)
    return Put(location, {**location.item, "owner": {"S": "me"}}, Absent())


@pytest.fixture(params=["client", "lean", "lean without aiobotocore"])
def transport(request: pytest.FixtureRequest) -> Choice:
    """Each transport, the lean one also as in a process that has not loaded aiobotocore."""
    if request.param == "lean without aiobotocore":
        request.getfixturevalue("without_aiobotocore")
        return "lean"
    chosen: Choice = request.param
    return chosen


@pytest.fixture
def without_aiobotocore(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the process look as it does before anything loads aiobotocore's client, with credentials as on Lambda."""
    monkeypatch.delitem(sys.modules, "aiobotocore.client")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_CREDENTIAL_EXPIRATION", raising=False)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore repeat at once: its pauses are random, up to seconds."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.0)


def fitting(options: dict[str, Any], session: AioSession) -> dict[str, Any]:
    """Leave the tests' session and aiobotocore's class of configurations out, in a process without aiobotocore."""
    if "aiobotocore.client" in sys.modules or options["session"] is not session:
        return options
    config = options.get("config")
    if isinstance(config, AioConfig):
        config = Config(**config._user_provided_options)
    return {**options, "session": None, "config": config}


class Backends:
    """Makes backends, and closes them at the end."""

    def __init__(self, session: AioSession) -> None:
        self._session = session
        self._made: list[DynamoDBBackend] = []

    def __call__(self, url: str | None, **options: Any) -> DynamoDBBackend:
        given = {"session": self._session, "region_name": "eu-central-1", "endpoint_url": url, **options}
        self._made.append(DynamoDBBackend(**fitting(given, self._session)))
        return self._made[-1]

    async def aclose(self) -> None:
        for each in self._made:
            await each.aclose()


@pytest.fixture
async def backends(session: AioSession) -> AsyncIterator[Backends]:
    """Make a backend on an endpoint."""
    made = Backends(session)
    yield made
    await made.aclose()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One loop for many examples of a property."""
    with asyncio.Runner() as made:
        yield made
