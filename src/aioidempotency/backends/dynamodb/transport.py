"""The port between the backend and the wire, and the choice of what serves it.

`ClientTransport` (`client`) sends by aiobotocore's client, and does all that the client can. `LeanTransport` (`lean`)
signs and sends by itself.
"""

from collections.abc import Awaitable, Mapping
from typing import Any, ClassVar, Final, Literal, Protocol

import msgspec

Choice = Literal["auto", "lean", "client"]

DEFAULT: Final[Choice] = "auto"
"""The transport of a backend that is given none."""

encode: Final = msgspec.json.Encoder().encode
"""Write parameters, or a part of them, as JSON text."""


class Transport(Protocol):
    """Sends requests to DynamoDB."""

    takes_bodies: ClassVar[bool]
    """Whether a body that is given is sent. Else the parameters count alone, and must be whole."""

    @property
    def client(self) -> Any:
        """The aiobotocore client, for requests about tables."""
        ...

    def send(
        self, operation: str, parameters: Mapping[str, Any], body: bytes | None = None
    ) -> Awaitable[Mapping[str, Any]]:
        """Send a request, with the client's retries.

        Args:
            operation: The operation's name in DynamoDB's API.
            parameters: The parameters; beside a body, the names of the tables are enough.
            body: The parameters as JSON text, if written already.

        Raises:
            ClientError: DynamoDB refused the request.
            BotoCoreError: There was no answer.
        """
        ...
