"""The lean transport: signs and sends requests by itself, over kept connections.

A call of aiobotocore's client takes about half a millisecond of processor time, nearly all of it for things that a
request of the library does not need. The lean transport takes from the client whatever is a rule of AWS (`borrowed`),
and does the rest by itself. A call reads top to bottom in `send`.

Two things are better than the client's. After a refusal because of a wrong clock, the transport corrects its clock by
the server's. And a body that has another CRC32 than the server says in each attempt is an error, not an answer.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, final

from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.exceptions import HTTPClientError
from botocore.handlers import add_recursion_detection_header

from aioidempotency.backends.dynamodb import responses
from aioidempotency.backends.dynamodb.borrowed import Borrowed, Route, obstacle, retry_header
from aioidempotency.backends.dynamodb.connections import Connections, Response
from aioidempotency.backends.dynamodb.responses import ERROR
from aioidempotency.backends.dynamodb.transport import Transport, encode

MOST_ROUTES: Final = 1024
"""The most routes in memory; a table has about nine. Without a limit, a new table for each call would fill memory."""

_REPEATABLE: Final = (HTTPClientError, BotoConnectionError)
"""The errors that may be met in sending, and that botocore's standard mode repeats."""

_NOTHING_FAILED: Final[Mapping[str, Any]] = {}


@final
class LeanTransport:
    """Sends requests without aiobotocore's client, for one event loop.

    Attributes:
        client: The client whose settings count.
        skew: Seconds by which the server's clock is ahead of ours, as far as a refusal has told.

    Args:
        client: The client whose settings count.
        instead: Returns the transport to send by, once something is in the way, and takes the reason. May raise.
        clock: Returns epoch seconds.
    """

    takes_bodies: ClassVar[bool] = True

    def __init__(
        self, client: Any, instead: Callable[[str], Transport], *, clock: Callable[[], float] = time.time
    ) -> None:
        self.client = client
        self._borrowed = borrowed = Borrowed(client)
        self._instead = instead
        self._clock = clock
        self.skew = 0.0
        self._connections = Connections(
            limit=borrowed.limit,
            connect_timeout=borrowed.connect_timeout,
            read_timeout=borrowed.read_timeout,
            keep=borrowed.keep,
            tls=borrowed.tls,
        )
        self._routes: dict[object, Route] = {}
        self._in_lambda = "AWS_LAMBDA_FUNCTION_NAME" in os.environ

    async def send(  # noqa: C901 - a request is read in one piece
        self, operation: str, parameters: Mapping[str, Any], body: bytes | None = None
    ) -> Mapping[str, Any]:
        """Send a request.

        Raises:
            ClientError: DynamoDB refused the request.
            BotoCoreError: There was no answer.
        """
        if self._borrowed.has_changed():
            if (reason := obstacle(self.client)) is not None:
                return await self._instead(reason).send(operation, parameters, body)
            self._borrowed = Borrowed(self.client)
        borrowed = self._borrowed
        if body is None:
            body = encode(parameters)
        tables = _tables(parameters)
        # The service tells the attempts of one call by this header: a random UUID, written in line.
        bits = os.urandom(16).hex()
        call = f"amz-sdk-invocation-id: {bits[:8]}-{bits[8:12]}-4{bits[13:16]}-8{bits[17:20]}-{bits[20:]}\r\n"
        if self._in_lambda:
            call += self._trace()
        failures: _Failures | None = None
        while True:
            # Credentials may change between two attempts.
            credentials = await borrowed.credentials()
            key = operation, tables, getattr(credentials, "account_id", None)
            route = self._routes.get(key) or await self._route(key, parameters)
            if isinstance(route, str):
                return await self._instead(route).send(operation, parameters, body)
            skew = self.skew
            now = self._clock() + skew
            attempt = "attempt=1" if failures is None else retry_header(failures.context)
            request = route.signer.request(credentials, now, body, more=f"{call}amz-sdk-request: {attempt}\r\n")
            met: Exception | tuple[Response, bytes]
            try:
                response = await self._connections.exchange(route.origin, request)
                received = responses.body_of(response)
            except _REPEATABLE as error:
                if self._connections.closed:
                    raise
                met = error
            else:
                if response.status < ERROR:
                    answer = responses.answer(response.status, received, route.members)
                    borrowed.succeeded(_NOTHING_FAILED if failures is None else failures.context)
                    return borrowed.parsed(received, route) if responses.has_binaries(received) else answer
                met = response, received
            failures = failures or _Failures(self, borrowed, operation)
            await failures.after(met, route, now, skew)

    async def aclose(self) -> None:
        """Close the connections. Requests under way fail."""
        await self._connections.aclose()

    async def _route(self, key: tuple[str, object, object], parameters: Mapping[str, Any]) -> Route | str:
        found = await self._borrowed.route(key[0], parameters)
        if isinstance(found, Route):
            if len(self._routes) >= MOST_ROUTES:
                self._routes.clear()
            self._routes[key] = found
        return found

    def _trace(self) -> str:
        """Write the header by which AWS Lambda detects functions that call themselves."""
        made: dict[str, dict[str, str]] = {"headers": {}}
        add_recursion_detection_header(made)
        return "".join(f"{name}: {value}\r\n" for name, value in made["headers"].items())


@final
class _Failures:
    """The failed attempts of one call.

    Attributes:
        context: What botocore's retry handler remembers.
    """

    def __init__(self, transport: LeanTransport, borrowed: Borrowed, operation: str) -> None:
        self._transport = transport
        self.context: dict[str, Any] = {}
        self._borrowed = borrowed
        self._operation = operation
        self._attempts = 1
        self._corrected = False

    async def after(self, met: Exception | tuple[Response, bytes], route: Route, now: float, skew: float) -> None:
        """Wait until the request is to be sent again, or correct the clock.

        Args:
            met: The error met in sending, or the response with an error and its body.
            now: The instant of the request's signature.
            skew: How far that instant was ahead of the clock.

        Raises:
            ClientError: DynamoDB refused the request for good, or too often.
            BotoCoreError: There was no answer, too often.
        """
        borrowed, attempts = self._borrowed, self._attempts
        self._attempts += 1
        if isinstance(met, Exception):
            if await borrowed.is_to_repeat(attempts, route, self.context, error=met):
                return
            raise met
        response, body = met
        parsed = responses.failure(response, body, borrowed.error_members)
        code = parsed["Error"]["Code"]
        if not self._corrected and (ahead := responses.skew(response, code, now)) is not None:
            # Once for each call: a server whose clock jumps would else be asked for ever.
            self._corrected = True
            self.context.setdefault("retries", {})["attempt"] = self._attempts
            # Not added to the correction: other calls of the same moment have corrected the clock by the same.
            self._transport.skew = skew + ahead
            return
        if await borrowed.is_to_repeat(attempts, route, self.context, response=response, parsed=parsed):
            return
        parsed["ResponseMetadata"]["RetryAttempts"] = attempts - 1
        if responses.has_binaries(body):
            parsed |= borrowed.parsed(body, route, code)
        raise borrowed.error(parsed, self._operation)


def _tables(parameters: Mapping[str, Any]) -> object:
    """Name the tables of a request. The endpoint may depend on them: an ARN names an account."""
    if (name := parameters.get("TableName")) is not None:
        return name
    if (parts := parameters.get("TransactItems")) is not None:
        return tuple([each["TableName"] for part in parts for each in part.values()])
    return tuple(parameters.get("RequestItems", ()))
