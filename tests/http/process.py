"""One service in a process of its own: `python -m tests.http.process FRONT_END ENDPOINT TABLE LEASE GRACE`.

Writes its port, and a line for each run of `/gate`. A line on standard input opens the gate.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from aiohttp import web

from aioidempotency import AsyncIdempotencyStore
from tests.http.front_ends import FRONT_ENDS, listen
from tests.http.service import Service


def serve(front_end: str, endpoint_url: str, table_name: str, lease: str, grace: str) -> None:
    """Serve until a signal."""
    options: dict[str, Any] = {"endpoint_url": endpoint_url, "region_name": "eu-central-1", "clock_skew": 0.2}
    store = AsyncIdempotencyStore(table_name, lease=float(lease), **options)
    service = Service()
    app = FRONT_ENDS[front_end](service, store)
    listener = listen()
    if isinstance(app, web.Application):

        async def lifespan(_: web.Application) -> AsyncIterator[None]:
            told = _begin(service)
            yield
            told.cancel()
            await store.aclose(drain=5)

        app.cleanup_ctx.append(lifespan)
        say(listener.getsockname()[1])
        # aiohttp takes 0 for no limit.
        web.run_app(app, sock=listener, shutdown_timeout=max(0.1, float(grace)), print=None, access_log=None)
        return

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        told = _begin(service)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        told.cancel()
        await store.aclose(drain=5)
        await send({"type": "lifespan.shutdown.complete"})

    say(listener.getsockname()[1])
    seconds = max(1, int(grace))
    config = uvicorn.Config(with_lifespan, log_level=logging.CRITICAL, ws="none", timeout_graceful_shutdown=seconds)
    asyncio.run(uvicorn.Server(config).serve([listener]))


def _begin(service: Service) -> asyncio.Task[None]:
    """Tell of the run of `/gate`, and open the gate at a line."""
    loop = asyncio.get_running_loop()

    def wait_for_a_line() -> None:
        sys.stdin.readline()
        loop.call_soon_threadsafe(service.gate.set)

    threading.Thread(target=wait_for_a_line, daemon=True).start()
    return asyncio.create_task(_tell(service))


async def _tell(service: Service) -> None:
    await service.entered.wait()
    say("entered")


def say(word: object) -> None:
    """Write a line, at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve(*sys.argv[1:])
