"""The backend on DynamoDB, through aiobotocore.

The backend loads botocore, in tens of milliseconds. So the backend is loaded at its first use, and the types of its
arguments, `GroupCommit` among them, at once.
"""

from typing import TYPE_CHECKING

from aioidempotency.backends.dynamodb.arguments import Config, DynamoDBClient, GroupCommit, Session
from aioidempotency.backends.dynamodb.transport import Choice

if TYPE_CHECKING:
    from aioidempotency.backends.dynamodb.backend import DynamoDBBackend
else:  # unseen by type checkers, which would take any name for one of this module

    def __getattr__(name: str) -> object:
        """Load a name at its first use."""
        if name != "DynamoDBBackend":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from aioidempotency.backends.dynamodb import backend  # noqa: PLC0415 - it loads botocore

        found = globals()[name] = backend.DynamoDBBackend  # only once
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = ["Choice", "Config", "DynamoDBBackend", "DynamoDBClient", "GroupCommit", "Session"]
