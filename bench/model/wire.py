"""HTTP/1.1 for one kind of client: keep-alive, and bodies of a declared length. No framework, for speed."""

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast, final

from bench.model.service import REPORT, Service

_END_OF_HEAD: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_TARGET: Final = re.compile(rb"\r\nx-amz-target:[ \t]*([\w.]+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_REPORT: Final = b"GET /report"
_HEAD: Final = "HTTP/1.1 {} {}\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: "
_HEADS: Final = {status.value: _HEAD.format(status.value, status.phrase).encode() for status in HTTPStatus}


@final
class Connection(asyncio.Protocol):
    """One client's connection; its requests are answered one after the other, at once."""

    def __init__(self, service: Service, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._waiting = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to answer on."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete by now."""
        self._waiting = self._waiting + data if self._waiting else data
        answers = []
        while (answer := self._next_answer()) is not None:
            answers.append(answer)
        if answers:
            self._transport.write(b"".join(answers))

    def _next_answer(self) -> bytes | None:
        end = self._waiting.find(_END_OF_HEAD)
        if end < 0:
            return None
        head, start = self._waiting[:end], end + len(_END_OF_HEAD)
        if _CHUNKED.search(head):
            return self._refused()
        length = _LENGTH.search(head)
        end = start + (int(length[1]) if length else 0)
        if len(self._waiting) < end:
            return None
        body, self._waiting = self._waiting[start:end], self._waiting[end:]
        return self._answered(head, body)

    def _answered(self, head: bytes, body: bytes) -> bytes:
        target = _TARGET.search(head)
        if target is None and head.startswith(_REPORT):
            status, answer = self._service.answer(REPORT, b"{}", self._clock())
        else:
            name = target[1].decode() if target else ""
            status, answer = self._service.answer(name, body, self._clock())
        return b"%s%d\r\n\r\n%s" % (_HEADS[status], len(answer), answer)

    def _refused(self) -> bytes:
        """Give up a connection whose next request cannot be found."""
        self._waiting = b""
        self._transport.write(_HEADS[HTTPStatus.NOT_IMPLEMENTED] + b"0\r\n\r\n")
        self._transport.close()
        return b""
