"""Refused credentials: renewed once, where they can be renewed.

A role's credentials are renewed ahead of their end. AWS may refuse them all the same: somebody has revoked the
session, or the credentials' source has handed out old ones. botocore sends a request with refused credentials no
second time, and goes on using them until their own end. So each client watches its answers: after a refusal, the
credentials are renewed, and botocore signs and sends the request again, once.

Static credentials cannot be renewed. A refusal of them is a wrong setting.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, final
from weakref import WeakKeyDictionary

from botocore.credentials import RefreshableCredentials
from botocore.hooks import BaseEventHooks

LOGGER: Final = logging.getLogger("aioidempotency")

REFUSED: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationTokenException",
        "UnrecognizedClientException",
    }
)
"""The error codes of refused credentials."""

RENEWABLE: Final = "aioidempotency.renewable"
"""The member of an error's response that marks credentials that can be renewed."""

ONCE_WITHIN: Final = 10.0
"""Seconds after a renewal in which other refusals lead to no further one: they may be for the credentials before."""

_RENEWED: Final = "aioidempotency.renewed"
"""The member of a request's context that marks a request sent again."""

_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)


def watch(client: Any) -> None:
    """Renew the credentials of a client after a refusal. Static credentials, and stubs of clients, are left alone."""
    events = getattr(getattr(client, "meta", None), "events", None)
    # botocore has no public way from a client to its credentials.
    credentials = getattr(getattr(client, "_request_signer", None), "_credentials", None)
    if isinstance(events, BaseEventHooks) and isinstance(credentials, RefreshableCredentials):
        events.register("needs-retry.dynamodb", _Renewal(credentials).after, unique_id=RENEWABLE)


_renewed_at: Final[WeakKeyDictionary[Any, float]] = WeakKeyDictionary()
"""When credentials were renewed, by the monotonic clock. Clients of one session share their credentials."""


@final
class _Renewal:
    """Renews the credentials of one client."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    async def after(self, response: Any, request_dict: dict[str, Any], **_: object) -> float | None:
        """Renew refused credentials. Return the pause before the request is sent again, or None for no repetition."""
        answer = None if response is None else response[1]
        if answer is None or answer.get("Error", {}).get("Code") not in REFUSED:
            return None
        answer[RENEWABLE] = True
        context = request_dict["context"]
        if context.get(_RENEWED):
            return None
        context[_RENEWED] = True
        return 0.0 if await renewed(self._credentials) else None


async def renewed(credentials: Any) -> bool:
    """Renew credentials before their end. False if that fails: the refusal then stands."""
    last = _renewed_at.get(credentials)
    if last is not None and monotonic() - last < ONCE_WITHIN:
        return True
    before = credentials._expiry_time  # noqa: SLF001 - botocore renews credentials at their end alone
    credentials._expiry_time = _LONG_AGO  # noqa: SLF001
    fetch: Callable[[], Awaitable[object]] = credentials.get_frozen_credentials
    try:
        await fetch()
    except Exception as error:  # noqa: BLE001 - the source of credentials may be the user's, and raise anything
        LOGGER.warning("refused credentials could not be renewed (%s)", type(error).__name__)
        return False
    finally:
        # After a failure, the old ones are worth another try: AWS may have refused them by mistake.
        if credentials._expiry_time == _LONG_AGO:  # noqa: SLF001
            credentials._expiry_time = before  # noqa: SLF001
    _renewed_at[credentials] = monotonic()
    return True
