"""The types of the arguments for DynamoDB. Nothing here loads botocore, so that the store's own module does not."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, final

from aioidempotency.exceptions import ConfigurationError

LARGEST_BATCH: Final = 25
"""The most statements in one request, by DynamoDB's limit for `BatchExecuteStatement`."""

Call = Callable[..., Awaitable[Mapping[str, Any]]]


class Session(Protocol):
    """An aiobotocore session, reduced to what makes clients."""

    @property
    def create_client(self) -> Callable[..., Any]:
        """Make a client, to be entered as an asynchronous context manager."""
        ...


class DynamoDBClient(Protocol):
    """An open aiobotocore client for DynamoDB, reduced to the operations of the library."""

    @property
    def put_item(self) -> Call:
        """Send PutItem."""
        ...

    @property
    def get_item(self) -> Call:
        """Send GetItem."""
        ...

    @property
    def update_item(self) -> Call:
        """Send UpdateItem."""
        ...

    @property
    def delete_item(self) -> Call:
        """Send DeleteItem."""
        ...

    @property
    def transact_write_items(self) -> Call:
        """Send TransactWriteItems."""
        ...

    @property
    def transact_get_items(self) -> Call:
        """Send TransactGetItems."""
        ...


class Config(Protocol):
    """A botocore or aiobotocore configuration."""

    def merge(self, other_config: Any) -> Any:
        """Merge two configurations. The other one wins."""
        ...


@final
@dataclass(frozen=True, slots=True)
class GroupCommit:
    """Settings of group commit: concurrent operations share requests, and cost less processor time each.

    ```python
    from aioidempotency import AsyncIdempotencyStore, GroupCommit

    store = AsyncIdempotencyStore("idempotency", group_commit=GroupCommit(max_in_flight=8))
    ```

    A lone call is sent as without group commit. Batches cost the same write units as plain calls. Besides
    the permissions of plain calls, batches need `dynamodb:PartiQLInsert`, `PartiQLUpdate`, `PartiQLDelete` and
    `BatchGetItem`. A batch is no transaction: each operation succeeds or fails alone.

    Args:
        max_batch: The most operations in one request, 25 at the most, by DynamoDB's limit.
        max_in_flight: The most requests under way at a time, for reads and for writes each; one more for owners.
        max_waiting: The most claims, or reads, waiting to be sent. Further callers wait until there is room.
        fallback: Whether to send claims and reads as plain calls where batches cannot be had, because permissions are
            missing or the engine has no PartiQL. Without the fallback, that is a `ConfigurationError`. Completions,
            renewals and releases always fall back. An event says so, and why.

    Raises:
        ConfigurationError: A number is out of bounds.
    """

    max_batch: int = LARGEST_BATCH
    max_in_flight: int = 4
    max_waiting: int = field(default=10_000, kw_only=True)
    fallback: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        bounds = {"max_batch": LARGEST_BATCH, "max_in_flight": 1000, "max_waiting": 10_000_000}
        for name, most in bounds.items():
            given = getattr(self, name)
            if not isinstance(given, int) or isinstance(given, bool) or not 1 <= given <= most:
                raise ConfigurationError(f"GroupCommit takes {name}= as a whole number from 1 to {most}: not {given!r}")
        if not isinstance(self.fallback, bool):
            raise ConfigurationError(f"GroupCommit takes fallback= as True or False: not {self.fallback!r}")
