"""What is stored of a response, what is replayed, and problem documents, without a server."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, JsonCodec
from aioidempotency._http import responses
from aioidempotency._http.options import HttpOptions
from aioidempotency._http.responses import POLICIES, HttpResponse, StoredResponse, replay, stored_form
from aioidempotency.exceptions import ConfigurationError, SerializationError

STATUSES = range(200, 600)


@pytest.mark.parametrize(
    ("policy", "stored"),
    [
        ("stripe", set(STATUSES)),
        ("terminal", set(range(200, 500)) - {401, 407, 408, 409, 421, 423, 424, 425, 429}),
        ("success", set(range(200, 300))),
    ],
)
def test_each_policy_stores_its_statuses(policy: str, stored: set[int]) -> None:
    """H6: the table of all statuses from 200 to 599."""
    assert {status for status in STATUSES if POLICIES[policy](status, [])} == stored


HEADERS = st.lists(
    st.tuples(
        st.from_regex(rb"x-[a-z]{1,4}", fullmatch=True), st.from_regex(rb"[\x20-\x7e\x80-\xff]{0,8}", fullmatch=True)
    ),
    max_size=4,
)


@given(st.sampled_from(STATUSES), HEADERS, st.binary(max_size=40))
def test_a_replay_equals_the_first_response(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    """H5: status, body bytes and repeated headers, through the JSON of a record."""
    codec = JsonCodec()
    text = codec.encode(stored_form(HttpResponse(status, headers, body), ()))
    replayed = replay(codec.decode(text, StoredResponse), b"idempotent-replayed")  # type: ignore[arg-type]
    assert replayed == HttpResponse(status, [*headers, (b"idempotent-replayed", b"true")], body)


def test_headers_of_one_client_connection_or_moment_are_not_stored() -> None:
    """H5: whatever their case, and those that `Connection` names."""
    dropped = [
        *("Set-Cookie", "WWW-Authenticate", "Date", "Server", "Connection", "Keep-Alive", "Transfer-Encoding"),
        *("Access-Control-Allow-Origin", "traceparent", "X-Request-ID", "RateLimit", "RateLimit-Policy"),
        *("X-RateLimit-Remaining", "X-Hop", "X-Mine"),
    ]
    values = {"Connection": b"close, x-hop"}
    headers = [(name.encode(), values.get(name, b"1")) for name in dropped]
    kept = [(b"Content-Type", b"text/plain"), (b"Vary", b"Origin"), (b"Vary", b"Accept")]
    stored = stored_form(HttpResponse(200, [*headers, *kept], b""), {b"x-mine"})
    assert replay(stored, None).headers == kept


def test_a_damaged_stored_response_is_no_response() -> None:
    """H5: the codec reads a record of another shape as unavailable, not as half a response."""
    with pytest.raises(SerializationError):
        JsonCodec().decode('{"status": 200}', StoredResponse)


def options(**given: object) -> HttpOptions:
    return HttpOptions.of(AsyncIdempotencyStore.in_memory(), given)  # type: ignore[arg-type]


@pytest.mark.parametrize("code", responses.STATUSES)
def test_a_problem_document_has_a_code_and_no_part_of_the_request(code: responses.Code) -> None:
    """H4: `application/problem+json`, with the status and the code inside."""
    made = options(problem_type="https://problems.example", retry_after=7).problem(code)
    document = json.loads(made.body)
    assert document == {
        "type": f"https://problems.example/{code}",
        "title": responses.TITLES[code],
        "status": responses.STATUSES[code],
        "detail": responses.DETAILS[code],
        "code": code,
    }
    headers = dict(made.headers)
    assert (made.status, headers[b"content-type"]) == (document["status"], b"application/problem+json")
    retried = code in {"idempotency_request_in_progress", "idempotency_store_unavailable"}
    assert headers.get(b"retry-after") == (b"7" if retried else None)


def test_statuses_of_refusals_can_be_chosen() -> None:
    """H4: for clients that expect other ones."""
    made = options(in_progress_status=425, mismatch_status=409)
    assert made.problem("idempotency_request_in_progress").status == 425
    assert made.problem("idempotency_key_reused").status == 409
    assert json.loads(made.problem("idempotency_key_reused").body)["type"] == "about:blank"


@pytest.mark.parametrize(
    "given",
    [
        {"methods": "POST"},
        {"methods": ["PO ST"]},
        {"header": "Idempotency Key"},
        {"policy": "everything"},
        {"on_in_progress": "raise"},
        {"on_in_progress": 5},
        {"in_progress_status": 200},
        {"mismatch_status": True},
        {"retry_after": -1},
        {"retry_after": 1.5},
        {"retention": 0},
        {"lease": -1},
        {"max_request_body": "1 MiB"},
        {"max_response_body": -1},
        {"replay_header": ""},
        {"problem_type": ""},
        {"fingerprint": "body"},
        {"exclude_headers": "X-Mine"},
        {"exclude_headers": ["X Mine"]},
        {"retries": 3},
    ],
)
def test_an_option_that_makes_no_sense_is_refused(given: dict[str, object]) -> None:
    """At construction, not at the first request."""
    with pytest.raises(ConfigurationError):
        options(**given)


def test_the_first_argument_is_a_store() -> None:
    """A table's name in its place is refused at construction."""
    with pytest.raises(ConfigurationError):
        HttpOptions.of("idempotency", {})  # type: ignore[arg-type]


def test_a_policy_that_raises_stores_the_response(caplog: pytest.LogCaptureFixture) -> None:
    """H6: the handler has run, and must not run again; the log names the class of the error alone."""

    def fails(status: int, headers: object) -> bool:
        raise ValueError("canary")

    assert options(policy=fails).stores(200, [])
    assert "ValueError" in caplog.text
    assert "canary" not in caplog.text


def test_responses_show_nothing_of_themselves() -> None:
    """U3: the representation of a response may end in a log."""
    assert "canary" not in repr(HttpResponse(200, [(b"canary", b"canary")], b"canary"))
