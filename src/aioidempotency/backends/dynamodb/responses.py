"""Reading a response without botocore: the body as sent, the answer in the body, and botocore's form of an error. Pure.

botocore's parser walks every value by the service's model, to decode binary values and to leave out members that the
model has not. The library reads few members, and knows their form. So only an answer with binary values goes through
botocore's parser.
"""

import zlib
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from botocore.exceptions import HTTPClientError

from aioidempotency.backends.dynamodb.answers import NoAnswerError, json_object
from aioidempotency.backends.dynamodb.connections import LARGEST_BODY, Response

SKEWED: Final = frozenset(
    {
        "AuthFailure",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
"""The codes of a refusal that a wrong clock may have caused."""

LEAST_SKEW: Final = 60.0
"""Seconds between two clocks that count as a wrong clock. DynamoDB accepts five minutes and more."""

ERROR: Final = 400
"""The lowest HTTP status of an error."""

_NOTHING: Final = b"{}"
_REDIRECT: Final = 300
_GZIP: Final = zlib.MAX_WBITS | 16


def body_of(response: Response) -> bytes:
    """Return the body of a response, checked against its CRC32 and decompressed.

    Raises:
        HTTPClientError: The body is not what the server sent.
    """
    body, compression = response.body, b"identity"
    for name, value in response.headers:
        lower = name.lower()
        if lower == b"x-amz-crc32":
            # As in botocore, the sum is that of the bytes on the wire.
            if value != b"%d" % zlib.crc32(body):
                raise HTTPClientError(error="the body does not have the CRC32 that the server sent")
        elif lower == b"content-encoding":
            compression = value.lower()
    if compression == b"identity" or not body:
        return body
    if compression != b"gzip":
        raise HTTPClientError(error="the body is compressed in another way than gzip")
    try:
        reading = zlib.decompressobj(_GZIP)
        read = reading.decompress(body, LARGEST_BODY)
    except zlib.error as error:
        raise HTTPClientError(error=error) from error
    if not reading.eof:
        raise HTTPClientError(error="the compressed body is cut, or larger than any of DynamoDB's")
    return read


def answer(status: int, body: bytes, members: AbstractSet[str]) -> Mapping[str, Any]:
    """Read the answer in the body of a response without error.

    Args:
        members: The members that the operation's answer may have.

    Raises:
        NoAnswerError: The response is no answer of DynamoDB.
    """
    # A redirection leads away from DynamoDB: a proxy or a login page answers.
    if status >= _REDIRECT:
        raise NoAnswerError
    if body == _NOTHING:
        return {}
    found = json_object(body)
    # An object without any member of DynamoDB's answer is somebody else's, such as `{"status": "ok"}`.
    if found is None or (found and members.isdisjoint(found)):
        raise NoAnswerError
    return found


def failure(response: Response, body: bytes, members: Callable[[str], AbstractSet[str]]) -> dict[str, Any]:
    """Read the error in a response, in the form that botocore gives to `ClientError.response`.

    Args:
        members: Names the members that the model gives to the error of a code.
    """
    found = json_object(body) or {}
    code = str(found.get("__type", response.status)).partition(":")[0].rpartition("#")[2]
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    metadata: dict[str, Any] = {"HTTPStatusCode": response.status, "HTTPHeaders": headers}
    if "x-amzn-requestid" in headers:
        metadata["RequestId"] = headers["x-amzn-requestid"]
    return {
        "Error": {"Message": found.get("message", found.get("Message", "")), "Code": code},
        "ResponseMetadata": metadata,
        **{name: found[name] for name in members(code) if found.get(name) is not None},
    }


def skew(response: Response, code: str, now: float) -> float | None:
    """Return how far the server's clock is ahead of ours, if that may be why the server refused a request.

    Args:
        now: The instant, by our clock as corrected so far.
    """
    if code not in SKEWED:
        return None
    for name, value in response.headers:
        if name.lower() == b"date":
            try:
                theirs = parsedate_to_datetime(value.decode("latin-1")).replace(tzinfo=UTC).timestamp()
            except ValueError:
                return None
            return theirs - now if abs(theirs - now) >= LEAST_SKEW else None
    return None


def has_binaries(body: bytes) -> bool:
    """Tell whether a body may hold a binary value, whose type is `B` or `BS`."""
    return b'"B"' in body or b'"BS"' in body
