"""Request bodies, written here and not by botocore's serializer.

What the library sends is JSON as the wire has it, so there is nothing to translate: botocore walks each
value of it, which takes a hundred times as long as the encoder does. A client that the library opens
itself takes the body at its event `before-call`, ahead of signing and retries, which stay botocore's; a
client of the user's is left as it is.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any

import msgspec

_body: ContextVar[bytes | None] = ContextVar("aioidempotency_request_body", default=None)
_encode = msgspec.json.Encoder().encode


def take_bodies(client: Any) -> None:
    """Have a client send the bodies that `send` writes."""
    client.meta.events.register("before-call.dynamodb", _replace_body)


async def send(call: Callable[..., Awaitable[Any]], parameters: Mapping[str, Any]) -> Any:
    """Call an operation of such a client with a body that holds these parameters."""
    written = _body.set(_encode(parameters))
    try:
        return await call(**_routing(parameters))
    finally:
        _body.reset(written)


def _routing(parameters: Mapping[str, Any]) -> dict[str, object]:
    """Keep the names of tables, which have a part in where a request goes."""
    if "TableName" in parameters:
        return {"TableName": parameters["TableName"]}
    tables: Mapping[str, Any] = parameters.get("RequestItems", {})
    return {"RequestItems": {name: {} for name in tables}} if tables else {}


def _replace_body(params: dict[str, Any], **_: object) -> None:
    body = _body.get()
    if body is not None:
        params["body"] = body
