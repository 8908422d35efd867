"""Who claims, for people: the text of a record's `claimed_by`.

The text names this process: host and process id, or function and log stream on Lambda. It is made once for a
process, at the first claim, because a claim has no time to spare; a forked child makes its own.
"""

import os
import socket
from contextvars import ContextVar
from typing import Final

LONGEST: Final = 256
"""Bytes of UTF-8. A record is billed by its size, and the text is in every record."""

REQUEST_ID: ContextVar[str | None] = ContextVar("aioidempotency_request_id", default=None)
"""The id of the invocation that runs on Lambda; None where nobody has set one."""

_BEFORE_AN_ID: Final = LONGEST - 64
"""Where a request id follows, the process's name leaves room for it: log streams may have long names."""


def automatic() -> str:
    """Name this process, and the invocation that runs."""
    global process  # noqa: PLW0603 - one for the process
    if process is None:
        process = _named()
    request = REQUEST_ID.get()
    return process if request is None else cut(f"{cut(process, _BEFORE_AN_ID)} {request}")


def cut(text: str, longest: int = LONGEST) -> str:
    """Cut a text at a whole character. Half of a surrogate pair, which has no bytes, becomes a question mark."""
    return text.encode(errors="replace")[:longest].decode(errors="ignore")


def _named() -> str:
    function = os.environ.get("AWS_LAMBDA_FUNCTION_NAME")
    if function:
        return cut(f"{function} {os.environ.get('AWS_LAMBDA_LOG_STREAM_NAME', '')}".rstrip())
    return cut(f"{socket.gethostname()} {os.getpid()}")


def forget() -> None:
    """Forget the process's name, since this process is another one now."""
    global process  # noqa: PLW0603 - one for the process
    process = None


process: str | None = None
"""The process's name, once a claim has asked for it."""
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
