"""Which HTTP responses are answers of DynamoDB.

A proxy, a login page or a broken load balancer answers with HTTP 200, too. botocore reads an empty body, a page and
half of a document as `{}`, which is DynamoDB's answer to a write that was applied. So each body is looked at before
botocore reads the body. A response that is no answer is marked, and `checked` raises `NoAnswerError`: the write may
have been applied, or not, as after a broken connection.

The mark changes nothing for the other calls of a caller's client: a response that is an answer stays as it is.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from botocore.exceptions import BotoCoreError
from botocore.hooks import BaseEventHooks

NO_ANSWER: Final = "aioidempotency.no_answer"
"""The member that marks a response that is no answer."""

_NOTHING: Final = b"{}"
"""DynamoDB's answer to a write, and to a read of an absent item."""

_REDIRECT: Final = 300
"""The lowest HTTP status that is no success."""

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


_UNREAD: Final = frozenset({"CreateTable", "UpdateTimeToLive"})
"""The requests whose answers nobody reads. The table is described afterwards."""


class NoAnswerError(BotoCoreError):  # type: ignore[misc] # botocore ships no types
    """A response with HTTP 200 is no answer of DynamoDB."""

    fmt = "HTTP 200 with a body that is no answer of DynamoDB"


def watch(client: Any) -> None:
    """Look at each response of a client. A stub without botocore's events is left alone."""
    events = getattr(getattr(client, "meta", None), "events", None)
    if isinstance(events, BaseEventHooks):
        events.register("before-parse.dynamodb", _look, unique_id=NO_ANSWER)


def checked(response: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a response that is an answer.

    Raises:
        NoAnswerError: The response is none.
    """
    if NO_ANSWER in response:
        raise NoAnswerError
    return response


def _look(
    response_dict: dict[str, Any], operation_model: Any, customized_response_dict: dict[str, Any], **_: object
) -> None:
    """Mark a response that is no answer, and give botocore's parser a body that the parser can read."""
    body = response_dict["body"]
    if body == _NOTHING:
        return
    answer = json_object(body)
    success = response_dict["status_code"] < _REDIRECT
    # An object without any member of DynamoDB's answer is somebody else's, such as `{"status": "ok"}`. Engines
    # differ in what they tell of a new table.
    foreign = (
        success
        and answer
        and operation_model.name not in _UNREAD
        and not operation_model.output_shape.members.keys() & answer.keys()
    )
    if answer is None or foreign:
        response_dict["body"] = _NOTHING
        if success:
            customized_response_dict[NO_ANSWER] = True


def json_object(body: bytes) -> Mapping[str, Any] | None:
    """Read a JSON object. None if the body is none, or no whole one."""
    try:
        return _decode(body)
    except (msgspec.DecodeError, RecursionError):
        # Python's own module takes more: some engines return surrogates, as half of a character.
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None
