"""MiniStack's DynamoDB as a process of its own, on one loopback port and without a trace.

Its own command listens on every interface unless told otherwise, writes a process-id file,
and cannot take port 0. Its application is served here instead, on a socket that is ours.
"""

import asyncio
import importlib
import os
from typing import Final

from hypercorn.asyncio import serve
from hypercorn.config import Config

from tests.support.lifeline import announce, exit_with_parent, listen

_SETTINGS: Final = {
    "SERVICES": "dynamodb",
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
    announce(port)
    asyncio.run(serve(application, _config(listener.detach())))


def _config(descriptor: int) -> Config:
    config = Config()
    config.bind = [f"fd://{descriptor}"]
    config.backlog = 1024
    config.keep_alive_timeout = 75
    config.loglevel = "ERROR"
    return config


if __name__ == "__main__":
    main()
