"""One small service, which each front end serves in its own way."""

import asyncio
from dataclasses import dataclass, field
from typing import final


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The response of the service: whole, or as a stream of chunks, which may break off."""

    status: int = 201
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes]
    streamed: bool = False
    breaks_off: bool = False


class BrokenError(Exception):
    """Raised by the service itself."""


@final
class Service:
    """Answers by path, and notes each run.

    Attributes:
        runs: The path, the caller and the body of each run.
        entered: Set when a run of `/gate` has begun.
        gate: A run of `/gate` waits for this.
    """

    def __init__(self) -> None:
        self.runs: list[tuple[str, str, bytes]] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()

    async def run(self, path: str, caller: str, body: bytes) -> Reply:  # noqa: C901, PLR0911 - one case for each path
        """Run one request."""
        self.runs.append((path, caller, body))
        number = len(self.runs)
        whole = b'{"run": %d}' % number
        match path.strip("/").split("/"):
            case ["orders"]:
                headers = [
                    *(("Content-Type", "application/json"), ("X-Twice", "1"), ("X-Twice", "2")),
                    *(("Set-Cookie", "session=secret"), ("X-Request-ID", str(number))),
                ]
                return Reply(headers=headers, chunks=[whole])
            case ["status", status]:
                return Reply(status=int(status), chunks=[whole])
            case ["binary"]:
                return Reply(chunks=[bytes(range(256))])
            case ["empty"]:
                return Reply(status=204, chunks=[b""])
            case ["gate"]:
                self.entered.set()
                await self.gate.wait()
                return Reply(chunks=[whole])
            case ["fails"]:
                raise BrokenError("canary in an error")
            case ["large"]:
                return Reply(chunks=[b"x" * 300_000])
            case ["stream"]:
                return Reply(chunks=[b"one ", b"two ", whole], streamed=True)
            case ["large-stream"]:
                return Reply(chunks=[b"x" * 100_000] * 3, streamed=True)
            case ["broken-stream"]:
                return Reply(chunks=[b"one ", b"two "], streamed=True, breaks_off=True)
            case _:
                raise AssertionError(path)


PATHS = ["orders", "binary", "empty", "gate", "fails", "large", "stream", "large-stream", "broken-stream"]


def caller_of(user: str | None) -> str | None:
    """Authenticate: None for a missing or an expired credential."""
    return None if user in {None, "expired"} else user
