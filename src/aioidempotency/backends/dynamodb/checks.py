"""Checks of the arguments for DynamoDB: client, session, configuration, endpoint and the table's name.

A wrong argument is no outage: after a `StoreError`, a store with `fail_open=True` would run every call unprotected.
So each check raises `ConfigurationError`, when the store is made where possible. Some faults of a client show only at
a call, because the client was closed later, or because its event loop has ended: `trouble_of` finds these.

Wrappers and stubs of a client pass: a check asks for the operations, and refuses only known kinds of wrong objects.

No check loads botocore or aiobotocore: an object of theirs cannot exist before its module is loaded, see `is_a`.
"""

import inspect
import re
import sys
from math import inf
from typing import Any, Final
from urllib.parse import urlsplit

from aioidempotency._concurrency import running_loop
from aioidempotency.exceptions import ConfigurationError

OPEN: Final = (
    'open one with `async with aiobotocore.session.get_session().create_client("dynamodb") as client`, '
    "or leave client= out"
)
"""What to do instead of giving a wrong client."""

PER_LOOP: Final = (
    "a client belongs to the event loop that opened it: open one client for each loop and keep it open, or leave "
    "client= out, and the store opens one for each loop"
)

_CLIENT: Final = "botocore.client", "BaseClient"
_AIO_CLIENT: Final = "aiobotocore.client", "AioBaseClient"
_AIO_SESSION: Final = "aiobotocore.session", "AioSession"

_TABLE: Final = re.compile(r"(arn:[a-z-]+:dynamodb:[a-z0-9-]*:[0-9]*:table/)?[A-Za-z0-9_.-]{3,255}")
"""A table's name, or an ARN that ends with the name."""


def check_client(client: Any) -> None:
    """Require an open aiobotocore client for DynamoDB, or an object with the client's operations.

    Raises:
        ConfigurationError: The client cannot work.
    """
    trouble: str | None = None
    if inspect.iscoroutine(client):
        client.close()  # else Python warns that nobody has awaited the coroutine
        trouble = "is a coroutine, and no client"
    elif is_a(client, *_CLIENT) and not is_a(client, *_AIO_CLIENT):
        # Its call would write inside the event loop, and fail only when the answer is awaited.
        trouble = "is a client of boto3, which blocks the event loop; this library needs a client of aiobotocore"
    elif (service := _service(client)) not in {None, "dynamodb"}:
        trouble = f"is a client of {service}, and not of DynamoDB"
    elif _is_resource(client):
        trouble = "is a resource, whose items are plain Python values; give its meta.client"
    elif not callable(getattr(client, "put_item", None)):
        opened = hasattr(client, "__aenter__")
        trouble = "is not opened" if opened else f"takes an open client of aiobotocore: not {type(client).__name__}"
    elif _is_closed(client):
        trouble = "is not open"
    if trouble is not None:
        raise ConfigurationError(f"client= {trouble}; {OPEN}")


def check_session(session: Any) -> None:
    """Require an aiobotocore session, or an object that makes its clients.

    Raises:
        ConfigurationError: The session is another library's.
    """
    if is_a(session, *_AIO_SESSION):
        return
    inner = getattr(session, "_session", None)
    if is_a(inner, *_AIO_SESSION):  # aioboto3's
        raise ConfigurationError(
            'session= takes a session of aiobotocore; with aioboto3, open a client by `async with session.client("dynamodb") '
            "as client`, and give client="
        )
    is_blocking = any(is_a(each, "botocore.session", "Session") for each in (session, inner))
    if is_blocking or isinstance(session, type) or not callable(getattr(session, "create_client", None)):
        raise ConfigurationError(
            "session= takes a session of aiobotocore, as from aiobotocore.session.get_session(): "
            f"not {_kind(session)}{', whose clients block the event loop' if is_blocking else ''}"
        )


def check_config(config: Any) -> None:
    """Require a configuration of botocore or aiobotocore."""
    if not is_a(config, "botocore.config", "Config"):
        raise ConfigurationError(
            f"config= takes aiobotocore.config.AioConfig(...) or botocore.config.Config(...): not {_kind(config)}"
        )


def check_address(endpoint_url: Any, region_name: Any) -> None:
    """Require a URL with scheme and host, and a region's name. None stands for AWS's own settings."""
    if endpoint_url is not None and not _is_url(endpoint_url):
        raise ConfigurationError(f"endpoint_url= takes a URL, such as 'http://localhost:8000': not {endpoint_url!r}")
    if region_name is not None and (not isinstance(region_name, str) or not region_name):
        raise ConfigurationError(
            f"region_name= takes the name of a region, such as 'eu-central-1': not {region_name!r}"
        )


def check_time_limit(time_limit: Any) -> None:
    """Require seconds, above 0."""
    is_number = isinstance(time_limit, int | float) and not isinstance(time_limit, bool)
    if not is_number or not 0 < time_limit < inf:
        raise ConfigurationError(f"time_limit= takes seconds above 0: not {time_limit!r}")


def check_table_name(table_name: str, name: str = "table_name") -> None:
    """Require a table's name as DynamoDB takes it: 3 to 255 characters, or an ARN."""
    if not isinstance(table_name, str) or not _TABLE.fullmatch(table_name):
        raise ConfigurationError(
            f"{name}= {table_name!r} is not a table's name; DynamoDB takes 3 to 255 letters, digits, _, . and -, "
            "or an ARN of a table"
        )


def is_dynamodb(backend: object) -> bool:
    """Tell whether a backend is the library's own for DynamoDB, alone or with group commit."""
    ours = f"{__package__}."
    return any(kind.__module__.startswith(ours) for kind in type(backend).__mro__)


def trouble_of(client: Any, error: BaseException) -> str | None:
    """Say why a call of the caller's client failed, if the fault is the client's use. None for every other failure."""
    loop = running_loop()
    if _is_closed(client):
        return f"client= was closed; {PER_LOOP}"
    for http in _http_sessions(client):
        if getattr(http, "_loop", None) not in {None, loop}:
            return f"client= was opened in another event loop; {PER_LOOP}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, RuntimeError) and re.search(r"loop is closed|different (event )?loop", str(cause)):
            return f"client= was opened in another event loop; {PER_LOOP}"
        cause = cause.__cause__ or cause.__context__
    # Python's own errors come from the client, or from its answer, and not from DynamoDB.
    if isinstance(error, TypeError | AttributeError):
        return f"client= is no client of aiobotocore: its call raised {type(error).__name__}; {OPEN}"
    return None


def is_mocked() -> bool:
    """Tell whether moto's `mock_aws` is active in this process. Its answers cannot be awaited."""
    models: Any = sys.modules.get("moto.core.models")
    return bool(getattr(getattr(models, "botocore_stubber", None), "enabled", False))


def _service(client: Any) -> str | None:
    """Name the service of a client. None for a stub."""
    if not is_a(client, *_CLIENT):
        return None
    name = client.meta.service_model.service_name
    return name if isinstance(name, str) else None


def _is_resource(client: Any) -> bool:
    """Tell whether an object is a resource of boto3 or aioboto3, such as a `Table`."""
    return is_a(client, "boto3.resources.base", "ServiceResource")


def _is_closed(client: Any) -> bool:
    """Tell whether a client of aiobotocore has no HTTP session: the client was never opened, or was closed."""
    # aiobotocore has no public way to ask. Where a version keeps its sessions otherwise, the client passes.
    return is_a(client, *_AIO_CLIENT) and getattr(_http(client), "_sessions", "") is None


def _http_sessions(client: Any) -> list[Any]:
    """List the open HTTP sessions of a client, one for each proxy. Empty for a stub, and before the first request."""
    sessions = getattr(_http(client), "_sessions", None)
    return list(sessions.values()) if isinstance(sessions, dict) else []


def _http(client: Any) -> Any:
    return getattr(getattr(client, "_endpoint", None), "http_session", None)


def _is_url(given: Any) -> bool:
    if not isinstance(given, str):
        return False
    try:
        parts = urlsplit(given)
        # The port is parsed when asked for, and may be none.
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def is_a(value: object, module: str, name: str) -> bool:
    """Tell whether a value is an instance of a class, without loading the module of the class."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(value, kind)


def _kind(value: object) -> str:
    """Name the type of a value with the type's package. The value itself may hold credentials."""
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
