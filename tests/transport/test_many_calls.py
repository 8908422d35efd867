"""Many calls with cuts, changing credentials and a wrong clock: nothing is lost, and nothing is done twice."""

import asyncio
import datetime as dt
import itertools
import json
import os
import random
import time
from collections import Counter
from email.utils import format_datetime
from typing import Any

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import get_session
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.retries.quota import RetryQuota

from aioidempotency import AsyncIdempotencyStore, GroupCommit
from aioidempotency.backends import Applied
from aioidempotency.backends.dynamodb import Choice
from tests.conftest import store_options
from tests.support.engines import Engine
from tests.support.proxy import Fault, FaultProxy
from tests.support.wire_server import APPLIED, Request, WireServer, error
from tests.transport.conftest import PUT, Backends, fitting, put

NUMBERS = itertools.count()
CALLS = int(os.environ.get("AIOIDEMPOTENCY_CALLS", "1000"))


@pytest.fixture
def no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let botocore repeat as often as the attempts allow: the quota has a test of its own."""
    monkeypatch.setattr(RetryQuota, "acquire", lambda *_: True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("group_commit", [None, GroupCommit()], ids=["plain", "group commit"])
@pytest.mark.usefixtures("no_pauses", "no_quota")
async def test_many_calls_over_connections_that_are_cut(
    transport: Choice, group_commit: GroupCommit | None, ministack: Engine, session: Any
) -> None:
    """T3: each body runs once, and each result is stored, though every eighth request meets a cut."""
    generator = random.Random(3)
    bodies: Counter[str] = Counter()
    config = AioConfig(retries={"total_max_attempts": 12, "mode": "standard"})
    async with FaultProxy(ministack.endpoint_url) as proxy:
        options = {**store_options(ministack, session), "endpoint_url": proxy.url, "config": config}
        name = f"cuts-{os.getpid()}-{next(NUMBERS)}"
        async with AsyncIdempotencyStore(name, **options) as creating:
            await creating.create_table()
        store = AsyncIdempotencyStore(
            name,
            transport=transport,
            group_commit=group_commit,
            verify_layout=False,
            **fitting(options, session),
        )
        async with store:
            # Two requests for a call, or a share of two batches.
            requests = 2 * CALLS if group_commit is None else CALLS // 10
            for _ in range(requests // 8):
                fault = generator.choice([Fault.CUT, Fault.REFUSE])
                proxy.inject(fault, skip=generator.randrange(requests // 2))

            async def call(key: str) -> object:
                async with store.execute(key) as execution:
                    if not execution.replayed:
                        bodies[key] += 1
                        execution.complete({"key": key})
                return execution.result

            room = asyncio.Semaphore(32)

            async def one(number: int) -> None:
                async with room:
                    assert await call(f"k{number}") == {"key": f"k{number}"}

            await asyncio.gather(*(one(number) for number in range(CALLS)))
            assert sum(seen.fault is not None for seen in proxy.requests) > requests // 20
            assert len(bodies) == CALLS
            assert set(bodies.values()) == {1}
            for number in range(0, CALLS, 97):
                record = await store.get(f"k{number}")
                assert record is not None
                assert record.result == {"key": f"k{number}"}


class Verifier:
    """Answers requests that are signed by known credentials at the right time, as DynamoDB does."""

    def __init__(self, *, ahead: float = 0.0) -> None:
        self.secrets: dict[str, tuple[str, str]] = {}
        self.refused = 0
        self._ahead = ahead

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> bytes:
        now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self._ahead)
        date = f"Date: {format_datetime(now.replace(microsecond=0), usegmt=True)}\r\n"
        signed = dt.datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
        if abs(signed - now) > dt.timedelta(minutes=5):
            self.refused += 1
            return error("InvalidSignatureException", more=date)
        name = request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        secret, token = self.secrets[name]
        copied = {
            each: request.headers[each]
            for each in ("x-amz-target", "content-type", "x-amz-date", "x-amz-security-token", "host")
        }
        again = AWSRequest("POST", f"http://{request.headers['host']}/", headers=copied, data=request.body)
        again.context["timestamp"] = request.headers["x-amz-date"]
        auth = SigV4Auth(_Frozen(name, secret, token), "dynamodb", "eu-central-1")
        signature = auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again)
        if signature != request.headers["authorization"].rpartition("Signature=")[2] or (
            token != request.headers["x-amz-security-token"]
        ):
            return error("UnrecognizedClientException")
        return APPLIED


class _Frozen:
    def __init__(self, access_key: str, secret_key: str, token: str) -> None:
        self.access_key, self.secret_key, self.token = access_key, secret_key, token


async def test_credentials_that_change_under_load(transport: str, backends: Backends) -> None:
    """T3: every request carries the credentials of its time, whole: no id with another one's secret or token."""
    verifier = Verifier()
    made = 0

    async def refresh() -> dict[str, str]:
        nonlocal made
        made += 1
        verifier.secrets[f"AKID{made}"] = (f"secret{made}", f"token{made}")
        expiry = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=900)
        return {
            "access_key": f"AKID{made}",
            "secret_key": f"secret{made}",
            "token": f"token{made}",
            "expiry_time": expiry.isoformat(),
        }

    session = get_session()
    session._credentials = credentials = AioRefreshableCredentials.create_from_metadata(
        await refresh(), refresh_using=refresh, method="test"
    )
    async with WireServer(verifier) as server:
        backend = backends(server.url, transport=transport, session=session)
        for _ in range(10):
            calls = [asyncio.ensure_future(backend.execute(put(f"k{number}"))) for number in range(20)]
            await asyncio.sleep(0)
            # What botocore does when the credentials are about to expire.
            credentials._expiry_time = dt.datetime.now(dt.UTC)
            assert await asyncio.gather(*calls) == [Applied()] * 20
        await backend.aclose()
    used = {each.headers["authorization"].partition("Credential=")[2].partition("/")[0] for each in server.requests}
    assert made > 5
    assert len(used) > 5


@pytest.mark.parametrize("ahead", [600.0, -600.0])
async def test_a_clock_that_is_off_by_ten_minutes(ahead: float, backends: Backends) -> None:
    """T3: the first refusal corrects the clock, for this call and for all later ones."""
    verifier = Verifier(ahead=ahead)
    verifier.secrets["testing"] = ("testing", "token")
    session = get_session()
    session.set_credentials("testing", "testing", "token")
    async with WireServer(verifier) as server:
        backend = backends(server.url, transport="lean", session=session)
        for _ in range(3):
            assert await backend.execute(PUT) == Applied()
        assert (verifier.refused, len(server.requests)) == (1, 4)
        await backend.aclose()
        # Calls of one moment are refused together, and correct the clock once.
        backend = backends(server.url, transport="lean", session=session)
        calls = [backend.execute(put(f"k{number}")) for number in range(20)]
        assert await asyncio.gather(*calls) == [Applied()] * 20
        refused = verifier.refused
        assert await backend.execute(PUT) == Applied()
        assert verifier.refused == refused <= 21
        await backend.aclose()


async def test_a_refusal_that_no_clock_mends(backends: Backends) -> None:
    """A server that is never content is asked twice, and the refusal is told."""

    async def handler(_: Request, writer: asyncio.StreamWriter) -> bytes:
        later = dt.datetime.fromtimestamp(time.time() + 1e6 * len(server.requests), dt.UTC)
        return error("InvalidSignatureException", more=f"Date: {format_datetime(later, usegmt=True)}\r\n")

    async with WireServer(handler) as server:
        backend = backends(server.url, transport="lean")
        with pytest.raises(Exception, match="clock is"):
            await backend.execute(PUT)
        assert len(server.requests) == 2
        assert json.loads(server.requests[0].body) == json.loads(server.requests[1].body)
        await backend.aclose()
