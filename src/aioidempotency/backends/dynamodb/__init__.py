"""The backend on DynamoDB, through aiobotocore.

The backend and group commit load botocore, in tens of milliseconds. So both are loaded at their first use, and the
types of their arguments at once.
"""

from typing import TYPE_CHECKING

from aioidempotency.backends.dynamodb.arguments import Config, DynamoDBClient, Session
from aioidempotency.backends.dynamodb.transport import Choice

if TYPE_CHECKING:
    from aioidempotency.backends.dynamodb.backend import DynamoDBBackend
    from aioidempotency.backends.dynamodb.group_commit import GroupCommit
else:  # unseen by type checkers, which would take any name for one of this module

    def __getattr__(name: str) -> object:
        """Load a name at its first use."""
        if name not in {"DynamoDBBackend", "GroupCommit"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from aioidempotency.backends.dynamodb import backend, group_commit  # noqa: PLC0415 - they load botocore

        found = backend.DynamoDBBackend if name == "DynamoDBBackend" else group_commit.GroupCommit
        globals()[name] = found  # only once
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})


__all__ = ["Choice", "Config", "DynamoDBBackend", "DynamoDBClient", "GroupCommit", "Session"]
