"""AWS Signature Version 4 for the requests of one kind, and the bytes of a request. Pure: no clock, no socket.

The signature is the only rule of AWS that the library states again: botocore derives the signing key by four digests
in each request, and builds the canonical request from objects. A `Signer` keeps what all requests of one kind share,
and the signing key of a day. `tests/transport/test_signature.py` compares the bytes with botocore's.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable, Mapping
from typing import Final, Protocol, final

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_DATE, _TOKEN, _HOST = "x-amz-date", "x-amz-security-token", "host"
_BLOCK: Final = 64
"""Bytes of a block of SHA-256, to which HMAC fills its key up."""

_BREAKING: Final = frozenset("\r\n\0")
"""The characters that would end a header, and begin another one."""


class Credentials(Protocol):
    """Credentials at one instant, as botocore freezes them."""

    @property
    def access_key(self) -> str:
        """The key's id."""
        ...

    @property
    def secret_key(self) -> str:
        """The secret, which only the signing key is derived from."""
        ...

    @property
    def token(self) -> str | None:
        """The token of a session, for temporary credentials."""
        ...


@final
class Signer:
    """Signs the requests of one kind: one operation on one endpoint.

    Args:
        host: The value of the header `Host`: the name, and the port unless it is the scheme's own.
        path: The path on the wire, without a query.
        canonical_path: The path as the signature has it.
        region: The region of the signature, which the endpoint rules may set.
        service: The service's name in the signature.
        headers: The headers of each request, in their order.
        unsigned: The lower-case names of headers that the signature leaves out.
    """

    __slots__ = (
        "_after",
        "_auth",
        "_before",
        "_between",
        "_credentials",
        "_day",
        "_head",
        "_inner",
        "_names",
        "_outer",
        "_scope",
        "_second",
        "_service",
        "_stamp",
        "_token",
        "_token_line",
        "region",
    )

    def __init__(
        self,
        *,
        host: str,
        path: str,
        canonical_path: str,
        region: str,
        service: str,
        headers: Mapping[str, str],
        unsigned: frozenset[str],
    ) -> None:
        self.region = region
        self._service = service
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\n{lines}"
        signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
        signed = {name: value for name, value in signed.items() if name not in unsigned} | {_HOST: host}
        # The canonical headers are sorted. Only the date and the token differ from request to request.
        ordered = sorted(signed.items())
        self._before = f"POST\n{canonical_path}\n\n" + _canonical(each for each in ordered if each[0] < _DATE)
        self._between = _canonical(each for each in ordered if _DATE < each[0] < _TOKEN)
        self._after = _canonical(each for each in ordered if each[0] > _TOKEN)
        self._names = sorted([*signed, _DATE])
        self._second = -1
        self._stamp = self._day = self._scope = self._auth = self._token = self._token_line = ""
        self._credentials: tuple[str, str, str | None, str] | None = None
        self._inner = self._outer = hashlib.sha256()

    def request(self, credentials: Credentials, now: float, body: bytes, *, more: str = "") -> bytes:
        """Write a signed request.

        Args:
            now: Epoch seconds.
            more: Header lines behind the signed ones, each with its end of line. The signature leaves these out.

        Raises:
            ValueError: The credentials hold a line's end.
        """
        second = int(now)
        if second != self._second:
            self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._second = second
        stamp = self._stamp
        given = (credentials.access_key, credentials.secret_key, credentials.token, stamp[:8])
        if given != self._credentials:
            self._derive(*given)
        digest = hashlib.sha256(
            f"{self._before}{_DATE}:{stamp}\n{self._between}{self._token_line}{self._after}"
            f"{self._auth}\n{hashlib.sha256(body).hexdigest()}".encode()
        ).hexdigest()
        text = f"{_ALGORITHM}\n{stamp}\n{self._scope}\n{digest}"
        # HMAC of the day's key, whose two halves are kept: half of the work of `hmac.digest`.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(text.encode())
        outer.update(inner.digest())
        signature = outer.hexdigest()
        head = (
            f"{self._head}X-Amz-Date: {stamp}\r\n{self._token}{signature}\r\n{more}"
            f"Content-Length: {len(body)}\r\nAccept-Encoding: identity\r\n\r\n"
        )
        return head.encode() + body

    def _derive(self, access_key: str, secret_key: str, token: str | None, day: str) -> None:
        """Derive the signing key of a day, and the texts that depend on the credentials."""
        if not _BREAKING.isdisjoint(access_key + (token or "")):
            raise ValueError("the credentials hold a line's end, which no header can carry")
        key = f"AWS4{secret_key}".encode()
        for part in (day, self.region, self._service, "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        names = sorted([*self._names, _TOKEN]) if token else self._names
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(each ^ 0x36 for each in padded))
        self._outer = hashlib.sha256(bytes(each ^ 0x5C for each in padded))
        self._scope = f"{day}/{self.region}/{self._service}/aws4_request"
        self._token_line = f"{_TOKEN}:{' '.join(token.split())}\n" if token else ""
        # The canonical request has an empty line between the headers and their names.
        self._auth = "\n" + ";".join(names)
        self._token = (
            (f"X-Amz-Security-Token: {token}\r\n" if token else "")
            + f"Authorization: {_ALGORITHM} Credential={access_key}/{self._scope}, SignedHeaders={';'.join(names)}, "
            + "Signature="
        )
        self._credentials = (access_key, secret_key, token, day)


def _canonical(headers: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{name}:{value}\n" for name, value in headers)
