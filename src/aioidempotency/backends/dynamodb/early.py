"""A client of botocore's own for the lean transport, in a process that has not loaded aiobotocore.

The lean transport takes AWS's rules from a client, and sends by itself. aiobotocore's client loads aiohttp, whose import
reads every certificate authority of the system, and is a large part of a process's first call. The
rules are botocore's, and aiobotocore's classes are subclasses of botocore's. So in the beginning, a client of botocore
is asked instead. Invariants:

1. botocore's client never sends a request, nor fetches credentials: that would block the event loop. So such a client is
   made only where the credentials are in environment variables, as on Lambda.
2. The beginning ends when anything in the process loads aiobotocore: another client of the application, a tracing
   library, a request about tables. Then a client of aiobotocore is opened, and looked at for obstacles, as if from the
   start. So a library that wraps aiobotocore, at whatever time, sees the calls from then on.
3. Some libraries wait for the import of aiobotocore, and wrap it then. They would wait for ever. So where the import is
   watched, aiobotocore is loaded at once.
"""

import gzip
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, Final, final

from aiobotocore import __version__ as aiobotocore_version
from botocore import __version__ as botocore_version
from botocore.loaders import JSONFileLoader
from msgspec import DecodeError, json

from aioidempotency.backends.dynamodb.configuration import Configuration
from aioidempotency.backends.dynamodb.transport import Transport

OVER: Final = "aiobotocore is loaded by now"
"""The reason why a client of botocore serves no longer."""

_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_EXPIRATION: Final = "AWS_CREDENTIAL_EXPIRATION"

_SINCE: Final = (3, 9)
"""The first version of aiobotocore whose client the lean transport can serve, see `borrowed`."""

_WRAPPED: Final = ("session", "client", "endpoint", "httpsession")
"""The modules of aiobotocore that tracing libraries wrap."""

_OWN_LOADERS: Final = {"_frozen_importlib_external", "zipimport"}
"""Where Python's own loaders are defined."""


@final
class EarlyClient:
    """A client of botocore that is asked for AWS's rules, and never sends.

    Attributes:
        inner: botocore's client.
        meta: The client's settings, where a client of aiobotocore has them.
        full: Opens a client of aiobotocore, and returns what sends from then on.
    """

    def __init__(self, inner: Any, full: Callable[[], Awaitable[Transport]]) -> None:
        self.inner = inner
        self.meta = inner.meta
        self.full = full


async def sending(client: Any) -> Any:
    """Return a client that can send: one of aiobotocore, opened if need be."""
    return (await client.full()).client if isinstance(client, EarlyClient) else client


def is_over() -> bool:
    """Tell whether anything has loaded aiobotocore's client."""
    return "aiobotocore.client" in sys.modules


def is_possible() -> bool:
    """Tell whether a client of botocore can stand for one of aiobotocore in this process, as things are."""
    return (
        not is_over()
        and all(os.environ.get(name) for name in _KEYS)
        # Credentials that expire are renewed by a request.
        and not os.environ.get(_EXPIRATION)
        and _is_recent(aiobotocore_version)
        and not any(map(_is_watched, _WRAPPED))
    )


def session() -> Any:
    """Make a session of botocore."""
    from botocore.session import Session  # noqa: PLC0415 - loads the rest of botocore

    made = Session()
    # As in aiobotocore's sessions: a server's log shows one user agent, before and after the beginning.
    made.user_agent_name = "aiobotocore"
    made.user_agent_version = aiobotocore_version
    made.user_agent_extra = f"botocore/{botocore_version}"
    made.get_component("data_loader").file_loader = _Models()
    return made


@final
class _Models(JSONFileLoader):  # type: ignore[misc] # botocore ships no types
    """Reads botocore's models by `msgspec`, in less time than botocore's own reader."""

    def load_file(self, file_path: str) -> Any:
        """Read a file of JSON, which may be compressed. None if there is none."""
        for ending, opened in (".json", open), (".json.gz", gzip.open):
            with suppress(OSError, DecodeError), opened(file_path + ending, "rb") as file:
                return json.decode(file.read())
        # botocore's reader tells what is wrong with a file.
        return super().load_file(file_path)


def client(
    session: Any, configuration: Configuration, full: Callable[[], Awaitable[Transport]], **options: str | None
) -> EarlyClient | None:
    """Make a client of botocore. None where only aiobotocore's will do, which then says what is wrong, if anything is.

    Args:
        session: A session of botocore.
        full: See `EarlyClient`.
        options: Where requests go.
    """
    from botocore.credentials import Credentials  # noqa: PLC0415 - loaded with the session

    plain: Any = configuration.plain()
    if plain is None:
        return None
    try:
        # This mode may ask the machine for its region, by a request.
        if "auto" in {plain.defaults_mode, session.get_config_variable("defaults_mode")}:
            return None
        made = session.create_client("dynamodb", config=plain, **options)
    except Exception:  # noqa: BLE001 - aiobotocore's session raises the same, and that one is translated
        return None
    # Credentials of another kind are fetched by requests.
    is_static = type(made._request_signer._credentials) is Credentials  # noqa: SLF001 - botocore tells it nowhere else
    return EarlyClient(made, full) if is_static else None


def _is_recent(version: str) -> bool:
    try:
        major, minor = map(int, version.split(".")[:2])
    except ValueError:
        return False
    return (major, minor) >= _SINCE


def _is_watched(module: str) -> bool:
    """Tell whether something does more at the import of a module than to load it."""
    # Libraries that wrap at import, by wrapt or by a finder of their own, put a loader around Python's.
    try:
        spec = find_spec(f"aiobotocore.{module}")
    except (ImportError, ValueError):
        return True
    return spec is None or type(spec.loader).__module__ not in _OWN_LOADERS
