"""The types of the arguments for DynamoDB. Nothing here loads botocore, so that the store's own module does not."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

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
