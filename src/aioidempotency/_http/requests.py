"""Reading a request: the key in the header, and the fingerprint. Pure: bytes in, values out.

1. A key is read before anything else happens: a header that breaks the rules costs no digest and no request.
2. The fingerprint frames each part by its length, so two different requests never give the same bytes to digest.
3. No reason of a refusal quotes the header, because reasons reach clients and logs.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, final

from msgspec import Struct

Headers = list[tuple[bytes, bytes]]

LONGEST_KEY: Final = 255
"""The most characters of a key, after its quotes and escapes are removed."""

_CHARACTERS: Final = rb'(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*'
# Visible characters without the quote, the comma and the semicolon.
_BARE: Final = rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x7e]+"
_PARAMETERS: Final = rb'(?:[ \t]*;[ \t]*[A-Za-z*][A-Za-z0-9_.*-]*(?:=(?:"' + _CHARACTERS + rb'"|' + _BARE + rb"))?)*"

_QUOTED_KEY: Final = re.compile(rb'"(?P<quoted>' + _CHARACTERS + rb')"' + _PARAMETERS)
_ANY_KEY: Final = re.compile(rb'(?:"(?P<quoted>' + _CHARACTERS + rb')"|(?P<bare>' + _BARE + rb"))" + _PARAMETERS)
_ESCAPED: Final = re.compile(rb"\\(.)")
_BOUNDARY: Final = re.compile(rb';[ \t]*boundary=(?:"([^"]+)"|([^\s;"]+))', re.IGNORECASE)


@final
class InvalidKey(Struct, frozen=True):
    """The header holds no key, for a reason that the client may read."""

    reason: str


def read_key(values: Sequence[bytes], *, strict: bool) -> str | InvalidKey:
    """Read the key from the values of all headers with the key's name. There is at least one.

    The value is a string of RFC 8941, such as `"8e03978e"`. Without `strict`, the quotes may be missing. Parameters
    after the string are ignored.
    """
    if len(values) > 1:
        return InvalidKey("The request has more than one header with a key.")
    found = (_QUOTED_KEY if strict else _ANY_KEY).fullmatch(values[0].strip(b" \t"))
    if found is None:
        form = "in double quotes" if strict else "with or without double quotes"
        return InvalidKey(f"The header must hold one key of printable ASCII characters, {form}.")
    quoted: bytes | None = found["quoted"]
    key = found["bare"] if quoted is None else _ESCAPED.sub(rb"\1", quoted)
    if not 0 < len(key) <= LONGEST_KEY:
        return InvalidKey(f"The key must have 1 to {LONGEST_KEY} characters.")
    return key.decode("ascii")


@final
class RequestFacts(Struct, frozen=True, kw_only=True):
    """The facts of a request for a `fingerprint=` of your own.

    Attributes:
        method: The method, such as `POST`.
        path: The path, percent-encoded as sent.
        query: The query without the question mark, percent-encoded as sent.
        content_type: The header `Content-Type`, empty without one.
        headers: All headers, with names in lower case.
    """

    method: str
    path: str
    query: str
    content_type: str
    headers: Headers

    # The facts of a request are the client's data, and a `repr` ends in logs.
    def __repr__(self) -> str:
        return f"<RequestFacts {self.method}>"


Fingerprint = Callable[[RequestFacts, bytes], object]


def request_fingerprint(facts: RequestFacts, body: bytes) -> str:
    """Digest method, path, query, content type and body. The boundary of a multipart body does not count."""
    content_type, parts = facts.content_type.encode("latin-1", "replace"), [body]
    if content_type[:10].lower() == b"multipart/" and (found := _BOUNDARY.search(content_type)) is not None:
        # Clients make a new boundary for each attempt. The empty parameter stays, so that a body without boundary and
        # a body without delimiters differ.
        content_type = content_type[: found.start()] + b"; boundary=" + content_type[found.end() :]
        parts = _delimiter(found[1] or found[2]).split(body)
    return _framed([facts.method.encode(), facts.path.encode(), facts.query.encode(), content_type, *parts])


def _delimiter(boundary: bytes) -> re.Pattern[bytes]:
    # Only a whole line is a delimiter. The same bytes inside of a line are data, which must count.
    return re.compile(rb"(?:\A|\r\n)--" + re.escape(boundary) + rb"(?=--|[ \t]*(?:\r\n|\Z))")


def _framed(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def custom_fingerprint(function: Fingerprint, facts: RequestFacts, body: bytes) -> object:
    """Ask a user's function for the fingerprint. An answer of None is a value like any other."""
    answer = function(facts, body)
    if isinstance(answer, bytes | bytearray):
        return hashlib.sha256(answer).hexdigest()
    return [answer]
