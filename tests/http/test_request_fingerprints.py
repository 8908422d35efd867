"""Fingerprints of requests, without a server."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aioidempotency import AsyncIdempotencyStore, SerializationError
from aioidempotency._http.options import HttpOptions
from aioidempotency._http.requests import RequestFacts, request_fingerprint

PARTS = ("method", "path", "query", "content_type")


def facts(**given: Any) -> RequestFacts:
    return RequestFacts(
        **{"method": "POST", "path": "/orders", "query": "", "content_type": "", "headers": [], **given}
    )


TEXTS = st.text(st.sampled_from("ab/?;="), max_size=4)
REQUESTS = st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, st.binary(max_size=4))


@given(REQUESTS, REQUESTS)
def test_two_different_requests_have_two_fingerprints(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    """H8: each part is framed by its length, so no byte can move from one part to the next."""
    assume(one != other)
    fingerprints = {
        request_fingerprint(facts(**dict(zip(PARTS, request[:4], strict=True))), request[4]) for request in (one, other)
    }
    assert len(fingerprints) == 2


def form(boundary: str, *contents: bytes) -> tuple[RequestFacts, bytes]:
    delimiter = b"--" + boundary.encode()
    body = b"".join(delimiter + b"\r\n\r\n" + content + b"\r\n" for content in contents) + delimiter + b"--\r\n"
    return facts(content_type=f"multipart/form-data; boundary={boundary}"), body


def test_a_new_boundary_of_the_same_form_changes_nothing() -> None:
    """H8: clients make a new boundary for each attempt."""
    assert request_fingerprint(*form("one", b"x", b"y")) == request_fingerprint(*form("other-2", b"x", b"y"))
    quoted, body = form("one", b"x", b"y")
    quoted = facts(content_type=quoted.content_type.replace("one", '"one"'))
    assert request_fingerprint(quoted, body) == request_fingerprint(*form("other-2", b"x", b"y"))


CONTENTS = st.lists(st.text(st.sampled_from("ab-\r\n"), max_size=6).map(str.encode), max_size=3)


@given(st.sampled_from(["a", "b", "ab"]), CONTENTS, st.sampled_from(["a", "b", "ab"]), CONTENTS)
def test_two_different_forms_have_two_fingerprints(
    one: str, ones_contents: list[bytes], other: str, others_contents: list[bytes]
) -> None:
    """H8: whatever the boundaries, as long as no content holds a line that is its own delimiter."""
    for boundary, contents in ((one, ones_contents), (other, others_contents)):
        delimiter = b"--" + boundary.encode()
        assume(not any(line.startswith(delimiter) for content in contents for line in content.split(b"\r\n")))
    assume(ones_contents != others_contents)
    assert request_fingerprint(*form(one, *ones_contents)) != request_fingerprint(*form(other, *others_contents))


def test_a_boundary_without_delimiters_is_not_a_missing_boundary() -> None:
    """H8: two malformed requests that differ in their content type alone."""
    with_one = facts(content_type="multipart/form-data; boundary=b")
    assert request_fingerprint(with_one, b"x") != request_fingerprint(facts(content_type="multipart/form-data"), b"x")


def options(fingerprint: Any) -> HttpOptions:
    return HttpOptions.of(AsyncIdempotencyStore.in_memory(), {"fingerprint": fingerprint})


def test_a_users_fingerprint_sees_facts_and_body() -> None:
    """H8: bytes are digested, other values are compared as they are, and None is a value."""
    made = options(lambda seen, body: (seen.path, body.decode()))
    assert made.fingerprint_of(facts(), b"x") == [("/orders", "x")]
    assert isinstance(options(lambda _, body: body).fingerprint_of(facts(), b"x"), str)
    assert options(lambda *_: None).fingerprint_of(facts(), b"x") is not None
    assert options(None).fingerprint_of(facts(), b"x") is None


def test_a_users_fingerprint_without_a_canonical_form_is_an_error() -> None:
    """H8: of the programmer, before anything is claimed."""
    made = options(lambda *_: object())
    with pytest.raises(SerializationError):
        made.block("caller", "key", fingerprint=made.fingerprint_of(facts(), b""))


def test_the_facts_show_nothing_of_the_request() -> None:
    """U3: the representation of the facts may end in a log."""
    shown = repr(facts(path="/canary", query="canary", headers=[(b"canary", b"canary")]))
    assert "canary" not in shown
