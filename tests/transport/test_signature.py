"""T2: signature, headers and body equal botocore's, byte for byte."""

import asyncio
import datetime as dt
import json
import string
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import botocore.auth
import pytest
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession, get_session
from botocore.auth import SIGNED_HEADERS_BLACKLIST, SigV4Auth
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency.backends.dynamodb.borrowed import Borrowed, retry_header
from aioidempotency.backends.dynamodb.configuration import tuned
from aioidempotency.backends.dynamodb.signature import Signer

WORDS = st.text(string.ascii_letters + string.digits + "/+=", min_size=1, max_size=60)
TOKENS = st.none() | st.text(string.ascii_letters + string.digits + "/+= ", min_size=1, max_size=300).filter(
    lambda text: text == text.strip() and bool(text)
)
INSTANTS = st.datetimes(dt.datetime(1990, 1, 1), dt.datetime(2100, 1, 1)).map(  # noqa: DTZ001 - botocore's are naive
    lambda each: each.replace(microsecond=0)
)
HOSTS = st.sampled_from(
    [
        "dynamodb.eu-central-1.amazonaws.com",
        "111122223333.ddb.us-gov-west-1.amazonaws.com",
        "localhost:8000",
        "[::1]:8000",
    ]
)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "X-Amz-Target",
            "Content-Type",
            "User-Agent",
            "X-Amz-Meta",
            "X-Amz-Zone",
            "Accept",
            "X-Amz-F",
            "X-Amzn-Trace-Id",
        ]
    ),
    st.text(string.ascii_letters + string.digits + " ;=/.", min_size=1, max_size=30),
)


def stamped(instant: dt.datetime) -> float:
    return instant.replace(tzinfo=dt.UTC).timestamp()


def head_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines)


@given(access_key=WORDS, secret=WORDS, tokens=st.lists(TOKENS, min_size=1, max_size=3), instants=st.lists(INSTANTS, min_size=1, max_size=3),
       region=st.sampled_from(["eu-central-1", "us-gov-west-1", "local"]), host=HOSTS, headers=HEADERS, body=st.binary(max_size=200))  # fmt: skip
def test_a_signature_is_botocores(  # noqa: PLR0917 - hypothesis gives them by name
    access_key: str,
    secret: str,
    tokens: list[str | None],
    instants: list[dt.datetime],
    region: str,
    host: str,
    headers: dict[str, str],
    body: bytes,
) -> None:
    """One signer signs with changing tokens, at changing instants, and keeps nothing that was another's."""
    signer = Signer(
        host=host,
        path="/",
        canonical_path="/",
        region=region,
        service="dynamodb",
        headers=headers,
        unsigned=frozenset(SIGNED_HEADERS_BLACKLIST),
    )
    for token in tokens:
        for instant in instants:
            credentials = SimpleNamespace(access_key=access_key, secret_key=secret, token=token)
            theirs = AWSRequest("POST", f"http://{host}/", headers=headers, data=body)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(botocore.auth, "get_current_datetime", lambda instant=instant: instant)
                SigV4Auth(credentials, "dynamodb", region).add_auth(theirs)
            ours = head_of(signer.request(credentials, stamped(instant), body))
            sent = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")
            assert {name: ours.get(name) for name in sent} == {name: theirs.headers.get(name) for name in sent}


class Captured:
    """A client whose requests are kept, and answered without a socket."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.sent: Any = None
        client.meta.events.register("before-send.dynamodb", self._take)

    async def _take(self, request: Any, **_: object) -> Any:
        self.sent = request

        async def read() -> bytes:
            return b"{}"

        return AioAWSResponse(request.url, 200, {}, SimpleNamespace(read=read))


SETTINGS: dict[str, dict[str, Any]] = {
    "a region": {"region_name": "eu-west-3"},
    "an account's endpoint": {"region_name": "us-east-1", "account": "111122223333"},
    "dual stack": {"region_name": "eu-west-1", "config": AioConfig(use_dualstack_endpoint=True)},
    "FIPS": {"region_name": "us-west-2", "config": AioConfig(use_fips_endpoint=True)},
    "the region local": {"region_name": "local"},
    "an emulator": {"region_name": "eu-west-1", "endpoint_url": "http://127.0.0.1:8000"},
    "a path": {"region_name": "eu-west-1", "endpoint_url": "http://127.0.0.1:8000/some/./x//~y/"},
    "IPv6": {"region_name": "eu-west-1", "endpoint_url": "http://[::1]:8000"},
    "the scheme's port": {"region_name": "eu-west-1", "endpoint_url": "https://example.org:443"},
    "another signing name": {"region_name": "eu-west-1", "config": AioConfig(signature_version="v4")},
}
ARN = "arn:aws:dynamodb:us-east-1:444455556666:table/orders"
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("PutItem", "put_item", {"TableName": "orders", "Item": {"id": {"S": "é\u2028\\"}}}),
    ("PutItem", "put_item", {"TableName": ARN, "Item": {"id": {"S": "x"}}}),
    ("UpdateItem", "update_item", {"TableName": "orders", "Key": {"id": {"S": "x"}}, "UpdateExpression": "SET a = :b"}),
    ("DeleteItem", "delete_item", {"TableName": "orders", "Key": {"id": {"S": "x"}}}),
    ("GetItem", "get_item", {"TableName": "orders", "Key": {"id": {"S": "x"}}, "ConsistentRead": True}),
    ("Query", "query", {"TableName": "orders", "Limit": 3}),
    ("BatchGetItem", "batch_get_item", {"RequestItems": {"orders": {"Keys": [{"id": {"S": "x"}}]}}}),
    ("BatchExecuteStatement", "batch_execute_statement", {"Statements": [{"Statement": "SELECT"}]}),
    (
        "TransactWriteItems",
        "transact_write_items",
        {"TransactItems": [{"Put": {"TableName": ARN, "Item": {"id": {"S": "x"}}}}], "ClientRequestToken": "t"},
    ),
    ("TransactGetItems", "transact_get_items", {"TransactItems": [{"Get": {"TableName": "orders", "Key": {}}}]}),
]


@pytest.fixture(scope="module")
def one_session() -> AioSession:
    """One session for all settings: the first client of a session takes long."""
    return get_session()


@pytest.fixture(params=SETTINGS, ids=str)
def captured(request: pytest.FixtureRequest, one_session: AioSession, runner: asyncio.Runner) -> Iterator[Captured]:
    """A client for each kind of endpoint."""
    options = dict(SETTINGS[request.param])
    one_session.set_credentials("AKIDEXAMPLE", "secret", "a token", account_id=options.pop("account", None))
    options["config"] = tuned(10.0).merge(options.get("config", AioConfig()))
    creating = one_session.create_client("dynamodb", **options)
    yield Captured(runner.run(creating.__aenter__()))
    runner.run(creating.__aexit__(None, None, None))


def test_a_request_is_botocores(captured: Captured, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every header in its order and with its value, the endpoint and the body; for each operation and endpoint."""
    now = dt.datetime(2026, 11, 29, 23, 59, 59)  # noqa: DTZ001 - botocore's are naive
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    borrowed = Borrowed(captured.client)
    for operation, method, parameters in REQUESTS:
        runner.run(getattr(captured.client, method)(**parameters))
        theirs = captured.sent
        route = runner.run(borrowed.route(operation, parameters))
        assert not isinstance(route, str)
        invocation = theirs.headers["amz-sdk-invocation-id"].decode()
        more = f"amz-sdk-invocation-id: {invocation}\r\namz-sdk-request: {retry_header({})}\r\n"
        ours = route.signer.request(runner.run(borrowed.credentials()), stamped(now), theirs.body, more=more)
        expected = {
            name: value.decode() if isinstance(value, bytes) else str(value) for name, value in theirs.headers.items()
        }
        found = head_of(ours)
        host = found.pop("Host")
        assert found.pop("Accept-Encoding") == "identity", "aiobotocore adds it as it sends"
        assert list(found.items()) == list(expected.items())
        scheme = "https" if route.origin.secure else "http"
        path = ours.split(b" ", 2)[1].decode()
        assert f"{scheme}://{host}{path}" == theirs.url.replace(":443/", "/")
        assert ours.endswith(b"\r\n\r\n" + theirs.body)
        assert json.loads(theirs.body) == parameters


def test_credentials_cannot_write_headers() -> None:
    """A token with a line's end is refused: it would end its header and begin another one."""
    signer = Signer(
        host="h", path="/", canonical_path="/", region="r", service="dynamodb", headers={}, unsigned=frozenset()
    )
    for name in ("access_key", "token"):
        given = {"access_key": "a", "secret_key": "s", "token": None, name: "x\r\nX-Evil: 1"}
        with pytest.raises(ValueError, match="line's end"):
            signer.request(SimpleNamespace(**given), 0.0, b"")
