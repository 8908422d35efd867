"""A DynamoDB of the demo's own: moto's, on a free loopback port of this process."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from aiohttp import web

from aioidempotency._cli.failure import CommandError

_ENVIRONMENT: Final = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # The lower-case name wins over the other one, and an asterisk over the system's own proxy settings.
    "no_proxy": "*",
}


@asynccontextmanager
async def moto_dynamodb() -> AsyncIterator[str]:
    """Serve moto's DynamoDB until the block ends; yields its URL.

    Moto does not lock its tables, so two conditional writes in two threads could both be applied. Here the
    event loop calls moto, so moto works on one request at a time.

    Raises:
        CommandError: moto's server is not installed.
    """
    try:
        from moto.moto_server.werkzeug_app import (  # noqa: PLC0415 - only the demo without a table needs it
            DomainDispatcherApplication,
            create_backend_app,
        )
        from werkzeug.test import Client  # noqa: PLC0415 - it calls an application without a socket
    except ModuleNotFoundError as error:
        raise CommandError(
            f'the demo needs {error.name}, which is not installed; install aioidempotency[demo], in a clone: pip install ".[demo]", '
            "or give --endpoint-url"
        ) from error
    moto = Client(DomainDispatcherApplication(create_backend_app), use_cookies=False)

    async def answer(request: web.BaseRequest) -> web.Response:
        body = await request.content.read()
        answered = moto.open(request.path_qs, method=request.method, headers=list(request.headers.items()), data=body)
        headers = [(name, value) for name, value in answered.headers if name.lower() != "content-length"]
        return web.Response(body=answered.data, status=answered.status_code, headers=headers)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextmanager
def own_environment() -> Iterator[None]:
    """Hide the user's AWS settings and proxies from the clients that the block makes.

    A session with credentials of its own would not do: clients read the profile, the configuration file and
    the proxies from the environment even then.
    """
    kept = dict(os.environ)
    for name in kept:
        if name.upper().startswith(("AWS_", "MOTO_")):
            del os.environ[name]
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
