"""Settings as users give them, checked when they are given."""

import math
import re
from datetime import timedelta

from aioidempotency.exceptions import ConfigurationError

Duration = float | timedelta

LONGEST_NAMESPACE = 400
"""Bytes of one namespace: two of them and a digest fit into a sort key, which takes 1,024 bytes."""


def seconds(duration: Duration, name: str) -> float:
    """Read a duration.

    Raises:
        ConfigurationError: It is not a finite number above 0.
    """
    value = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConfigurationError(f"{name}= takes seconds or a timedelta, above 0: not {duration!r}")
    return float(value)


def time_limit(lease: float) -> float:
    """Bound one operation well below the lease, but leave it the time that a slow answer takes."""
    return max(1.0, min(10.0, lease / 4))


def check_table_name(table_name: str) -> None:
    """Refuse what cannot be the name of a table, or its ARN."""
    if not isinstance(table_name, str) or not re.fullmatch(r"[A-Za-z0-9_.:/-]{1,1024}", table_name):
        raise ConfigurationError(f"{table_name!r} is not a table's name: letters, digits, _, . and -, or an ARN")


def check_namespace(namespace: str) -> None:
    """Refuse namespaces that could make two functions' keys alike, or a key longer than DynamoDB takes."""
    if not isinstance(namespace, str) or "#" in namespace:
        raise ConfigurationError(f"a namespace is a text without '#', which ends it in a key: not {namespace!r}")
    if len(namespace.encode()) > LONGEST_NAMESPACE:
        raise ConfigurationError(
            f"a namespace has {LONGEST_NAMESPACE} bytes at the most: {namespace[:40]!r}... has more"
        )
