"""MiniStack's DynamoDB and SQS as a process of its own, on one loopback port and without a trace.

Its own command listens on every interface unless told otherwise, writes a process-id file,
and cannot take port 0. Its application is served here instead, on a socket that is ours.

Once a minute it deletes what expired by the real clock. A test whose record may be deleted fails once
in many runs, so a write of such a record is refused, and the test fails every time.
"""

import asyncio
import importlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.support.lifeline import announce, exit_with_parent, listen
from tests.support.real_time import ShortLifeError, check_outlasts_its_test

Item = Mapping[str, Mapping[str, object]]

_SETTINGS: Final = {
    "SERVICES": "dynamodb,sqs",
    "LOG_LEVEL": "ERROR",
    "PERSIST_STATE": "0",
    "S3_PERSIST": "0",
    "AUTH": "false",
    # Two listeners that no setting of SERVICES turns off.
    "SFTP_ENABLED": "0",
    "IOT_MTLS_ENABLED": "0",
    # It removes the containers of every other MiniStack it finds: let it find no daemon.
    "DOCKER_HOST": "unix:///nonexistent",
}


def main() -> None:
    """Serve until standard input ends."""
    exit_with_parent()
    listener = listen()
    port = listener.getsockname()[1]
    # MiniStack reads its settings while it is imported, so they come first.
    os.environ.update(_SETTINGS, GATEWAY_PORT=str(port))
    application = importlib.import_module("ministack.app").app
    refuse_short_lives(importlib.import_module("ministack.services.dynamodb"))
    announce(port)
    asyncio.run(serve(application, _config(listener.detach())))


def refuse_short_lives(dynamodb: Any) -> None:
    """Make MiniStack refuse items that its TTL would delete during a test.

    Every kind of write stores its items with one function, `_set_item`. The refusal is no condition's
    and no transaction's: no test can take it for an answer that it waits for.
    """
    set_item, update_ttl, handle_request = dynamodb._set_item, dynamodb._update_ttl, dynamodb.handle_request

    def guarded_set_item(table: Any, partition: str, sort: str, item: Item) -> object:
        _check(dynamodb._ttl_settings.get(table["TableName"]), [item])
        return set_item(table, partition, sort, item)

    def guarded_update_ttl(request: Any) -> object:
        answer = update_ttl(request)
        name = dynamodb._normalize_table_name(request.get("TableName"))
        stored = dynamodb._tables[name]["items"].values() if name in dynamodb._tables else ()
        _check(dynamodb._ttl_settings.get(name), (item for partition in stored for item in partition.values()))
        return answer

    async def guarded_handle_request(*request: Any) -> object:
        try:
            return await handle_request(*request)
        except ShortLifeError as error:
            body = {"__type": "com.amazon.coral.validate#ValidationException", "message": str(error)}
            return 400, {"Content-Type": "application/x-amz-json-1.0"}, json.dumps(body).encode()

    dynamodb._set_item = guarded_set_item
    dynamodb._update_ttl = guarded_update_ttl
    dynamodb.handle_request = guarded_handle_request


def _check(ttl: Mapping[str, str] | None, items: Iterable[Item]) -> None:
    if ttl is not None and ttl["TimeToLiveStatus"] == "ENABLED":
        for item in items:
            check_outlasts_its_test(item.get(ttl["AttributeName"], {}))


def _config(descriptor: int) -> Config:
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.backlog = 1024
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    return config


if __name__ == "__main__":
    main()
