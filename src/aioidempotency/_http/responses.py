"""Responses: which ones are stored, their stored form, replays, and problem documents. Pure.

1. A stored response holds nothing that belongs to one client, one connection or one moment.
2. No problem document quotes the request: neither key nor body nor scope.
"""

import base64
import json
from collections.abc import Callable, Collection, Mapping
from typing import Final, Literal, TypedDict, final

from msgspec import Struct

from aioidempotency._http.requests import Headers

Policy = Callable[[int, Headers], bool]
"""Tells from status and headers whether a response is stored."""

PASSING: Final = frozenset({401, 407, 408, 409, 421, 423, 424, 425, 429})
"""Statuses below 500 that a later repetition of the same request may change."""


def _terminal(status: int, _: Headers) -> bool:
    return 200 <= status < 500 and status not in PASSING  # noqa: PLR2004 - classes of statuses


def _stripe(_: int, __: Headers) -> bool:
    return True


def _success(status: int, _: Headers) -> bool:
    return 200 <= status < 300  # noqa: PLR2004 - a class of statuses


POLICIES: Final[Mapping[str, Policy]] = {"terminal": _terminal, "stripe": _stripe, "success": _success}


@final
class HttpResponse(Struct, frozen=True):
    """A whole response. The names of headers are in lower case."""

    status: int
    headers: Headers
    body: bytes

    # A response is the caller's data.
    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}>"


SERVER_ERROR: Final = HttpResponse(500, [(b"content-type", b"text/plain; charset=utf-8")], b"Internal Server Error")
"""Stands for the response that a server makes of an exception."""


class StoredResponse(TypedDict):
    """A response as the result of a record: plain JSON, so any codec of a store can write it."""

    status: int
    headers: list[list[str]]
    body: str
    encoding: Literal["text", "base64"]


# Of one connection, of the moment, or of one client. `Set-Cookie` would log a second client in as the first one.
NOT_STORED: Final = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
        *(b"proxy-authenticate", b"proxy-authorization", b"proxy-authentication-info"),
        *(b"set-cookie", b"set-cookie2", b"www-authenticate", b"authentication-info"),
        *(b"date", b"server", b"traceparent", b"tracestate", b"x-request-id"),
        *(b"ratelimit", b"x-ratelimit", b"x-rate-limit"),
    }
)
NOT_STORED_PREFIXES: Final = (b"access-control-", b"ratelimit-", b"x-ratelimit-", b"x-rate-limit-")


def stored_form(response: HttpResponse, excluded: Collection[bytes]) -> StoredResponse:
    """Make the stored form of a response. `excluded` names further headers to leave out."""
    # Headers that `Connection` names belong to the connection, too.
    named = {
        name.strip().lower()
        for header, value in response.headers
        if header.lower() == b"connection"
        for name in value.split(b",")
    }
    headers = [
        [name.decode("latin-1"), value.decode("latin-1")]
        for name, value in response.headers
        if not (
            (lower := name.lower()) in NOT_STORED
            or lower in excluded
            or lower in named
            or lower.startswith(NOT_STORED_PREFIXES)
        )
    ]
    try:
        return {"status": response.status, "headers": headers, "body": response.body.decode(), "encoding": "text"}
    except UnicodeDecodeError:
        body = base64.b64encode(response.body).decode()
        return {"status": response.status, "headers": headers, "body": body, "encoding": "base64"}


def replay(stored: StoredResponse, replay_header: bytes | None) -> HttpResponse:
    """Make the response of a replay from the stored form."""
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in stored["headers"]]
    if replay_header is not None:
        headers.append((replay_header, b"true"))
    body = stored["body"].encode()
    return HttpResponse(stored["status"], headers, base64.b64decode(body) if stored["encoding"] == "base64" else body)


Code = Literal[
    "idempotency_key_missing",
    "idempotency_key_invalid",
    "idempotency_request_in_progress",
    "idempotency_key_reused",
    "idempotency_result_unavailable",
    "idempotency_store_unavailable",
    "idempotency_body_too_large",
]

STATUSES: Final[Mapping[Code, int]] = {
    "idempotency_key_missing": 400,
    "idempotency_key_invalid": 400,
    "idempotency_request_in_progress": 409,
    "idempotency_key_reused": 422,
    "idempotency_result_unavailable": 410,
    "idempotency_store_unavailable": 503,
    "idempotency_body_too_large": 413,
}

TITLES: Final[Mapping[Code, str]] = {
    "idempotency_key_missing": "The idempotency key is missing",
    "idempotency_key_invalid": "The idempotency key is invalid",
    "idempotency_request_in_progress": "A request with this idempotency key is in progress",
    "idempotency_key_reused": "The idempotency key was used for another request",
    "idempotency_result_unavailable": "The response to this idempotency key is not available",
    "idempotency_store_unavailable": "Idempotency keys cannot be checked at the moment",
    "idempotency_body_too_large": "The request body is too large",
}

DETAILS: Final[Mapping[Code, str]] = {
    "idempotency_key_missing": "Send the request with an idempotency key in the header.",
    "idempotency_key_invalid": "Send a valid idempotency key in the header.",
    "idempotency_request_in_progress": "Send the same request with the same key again later.",
    "idempotency_key_reused": "Send a new request with a new key. Send a repetition exactly like the first request.",
    "idempotency_result_unavailable": (
        "The first request was executed, and its response was not stored. Do not send the request again; "
        "look up its effect instead."
    ),
    "idempotency_store_unavailable": "Nothing was executed. Send the same request with the same key again later.",
    "idempotency_body_too_large": "A request with an idempotency key needs a smaller body.",
}


def problem(
    code: Code, *, status: int, base_url: str | None, detail: str | None = None, retry_after: int | None = None
) -> HttpResponse:
    """Make a problem document (RFC 9457). `base_url` and the code make its `type`."""
    document = {
        "type": "about:blank" if base_url is None else f"{base_url}{code}",
        "title": TITLES[code],
        "status": status,
        "detail": DETAILS[code] if detail is None else detail,
        "code": code,
    }
    body = json.dumps(document).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % retry_after))
    return HttpResponse(status, headers, body)
