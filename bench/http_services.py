"""The cost of the `Idempotency-Key` header: `python -m bench.http_services`.

Two measurements in one run, each in rounds in which the contestants take turns:

- a request without a key, through a real server in a process of its own: with the front end, and without;
- a first request with a key, in this process and without sockets: through the front end, and through the same
  application whose handler calls a decorated function. Both talk to `bench/speed/server.py`.

Processor time is user and system time. Ratios are taken inside each round, and then their median.
"""

import argparse
import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final

import uvicorn
from aiohttp import web
from fastapi import Depends, FastAPI, Header

import aioidempotency.aiohttp
import aioidempotency.fastapi
from aioidempotency import AsyncIdempotencyStore, idempotent
from aioidempotency.asgi import PUBLIC, IdempotencyMiddleware
from bench.machine import machine, versions
from bench.speed.jobs import TABLE
from bench.speed.processes import running
from tests.http.front_ends import listen

TICKS: Final = os.sysconf("SC_CLK_TCK")
BODY: Final = b'{"article":"chair","cents":4200}'
HEADERS: Final = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)), (b"host", b"x")]
CONNECTIONS: Final = 8
NOTHING: Final = "a part that does nothing"


async def plain(scope: Any, receive: Any, send: Any) -> None:
    """Answer without a framework."""
    assert scope["type"] == "http"
    await receive()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


async def nothing() -> None:
    """Show what FastAPI itself spends on a dependency."""


@web.middleware
async def pass_on(request: web.Request, handler: Any) -> web.StreamResponse:
    """Show what aiohttp itself spends on a middleware."""
    response: web.StreamResponse = await handler(request)
    return response


def keyless(name: str, store: AsyncIdempotencyStore) -> Any:
    """Make the application of a contestant without keys."""
    framework, _, with_it = name.partition(" with ")
    if framework == "ASGI":
        return IdempotencyMiddleware(plain, store=store, scope=PUBLIC) if with_it else plain
    if framework == "FastAPI":
        app = FastAPI()
        dependencies = []
        if with_it == NOTHING:
            dependencies = [Depends(nothing)]
        elif with_it:
            header = aioidempotency.fastapi.Idempotency(store, scope=PUBLIC)
            header.install(app)
            dependencies = [Depends(header())]

        @app.post("/", status_code=201, dependencies=dependencies)
        async def pay(order: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - FastAPI reads it
            return {}

        return app

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"{}", status=201, content_type="application/json")

    middleware = aioidempotency.aiohttp.Idempotency(store, scope=PUBLIC).middleware
    served = web.Application(middlewares=[pass_on if with_it == NOTHING else middleware] if with_it else [])
    served.router.add_post("/", handler)
    return served


def serve(name: str) -> None:
    """Serve a contestant until the process ends, and write the port."""
    app, listener = keyless(name, AsyncIdempotencyStore.in_memory()), listen()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    if isinstance(app, web.Application):
        web.run_app(app, sock=listener, print=None, access_log=None)
    else:
        config = uvicorn.Config(app, log_level=logging.CRITICAL, ws="none", lifespan="off", access_log=False)
        asyncio.run(uvicorn.Server(config).serve([listener]))


async def requests(port: int, number: int) -> None:
    """Send requests on kept connections."""
    head = b"".join(b"%s: %s\r\n" % header for header in HEADERS)
    request = b"POST / HTTP/1.1\r\n" + head + b"\r\n" + BODY

    async def send(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            writer.write(request)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(2)
        writer.close()

    await asyncio.gather(*(send(number // CONNECTIONS) for _ in range(CONNECTIONS)))


def processor_time(pid: int) -> float:
    """Read the processor time of a process, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure_keyless(rounds: int, number: int) -> dict[str, list[float]]:
    """Measure seconds of processor time for a request without a key."""
    names = [f"{name}{suffix}" for name in ("ASGI", "FastAPI", "aiohttp") for suffix in ("", " with the header")]
    names += [f"{name} with {NOTHING}" for name in ("FastAPI", "aiohttp")]
    started = {}
    for name in names:
        command = [sys.executable, "-m", "bench.http_services", "--serve", name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started[name] = process, int(process.stdout.readline())
    found: dict[str, list[float]] = {name: [] for name in names}
    try:
        for turn in range(rounds + 1):
            for name in names if turn % 2 else reversed(names):
                process, port = started[name]
                before = processor_time(process.pid)
                asyncio.run(requests(port, number))
                if turn:  # the first round warms up
                    found[name].append((processor_time(process.pid) - before) / number)
    finally:
        for process, _ in started.values():
            process.terminate()
            process.communicate()
    return found


Request = Callable[[str], Awaitable[object]]


def asgi_request(app: Any) -> Request:
    """Make a function that sends one request with a key to an application in this process."""

    async def request(key: str) -> None:
        messages = [{"type": "http.request", "body": BODY, "more_body": False}]
        statuses = []

        async def receive() -> Any:
            return messages.pop()

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "client": None,
            "server": None,
            "headers": [*HEADERS, (b"idempotency-key", key.encode())],
        }
        await app(scope, receive, send)
        assert statuses[0] == 201  # noqa: PLR2004 - created

    return request


def keyed(store: AsyncIdempotencyStore) -> dict[str, Request]:
    """Make the contestants with keys."""

    @idempotent(store, key="key", fingerprint="body", retention=86_400)
    async def work(key: str, body: str) -> dict[str, str]:  # noqa: ARG001 - both are the key
        return {}

    async def decorated(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"].decode()
        key = next(value for name, value in scope["headers"] if name == b"idempotency-key").decode()
        await work(key, body)

        async def again() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        await plain(scope, again, send)

    with_header = FastAPI()
    header = aioidempotency.fastapi.Idempotency(store, scope=PUBLIC)
    header.install(with_header)

    @with_header.post("/", status_code=201, dependencies=[Depends(header())])
    async def pay(order: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG001 - FastAPI reads it
        return {}

    with_function = FastAPI()

    @with_function.post("/", status_code=201)
    async def pay_too(order: dict[str, Any], idempotency_key: Annotated[str, Header()]) -> dict[str, str]:
        return await work(idempotency_key, json.dumps(order))

    return {
        "decorated function": lambda key: work(key, BODY.decode()),
        "ASGI, decorated function": asgi_request(decorated),
        "ASGI, header": asgi_request(IdempotencyMiddleware(plain, store=store, scope=PUBLIC)),
        "FastAPI, decorated function": asgi_request(with_function),
        "FastAPI, header": asgi_request(with_header),
    }


async def measure_keyed(url: str, rounds: int, number: int) -> dict[str, list[float]]:
    """Measure seconds of processor time for a first request with a key."""
    options: dict[str, Any] = {"endpoint_url": url, "region_name": "eu-central-1"}
    async with AsyncIdempotencyStore(TABLE, **options) as store:
        contestants = keyed(store)
        found: dict[str, list[float]] = {name: [] for name in contestants}
        for turn in range(rounds + 1):
            for name, request in contestants.items() if turn % 2 else reversed(contestants.items()):
                before = time.process_time()
                for count in range(number):
                    await request(f"{name[:4]}{len(name)}-{turn}-{count}")
                if turn:
                    found[name].append((time.process_time() - before) / number)
        return found


def ratio(found: dict[str, list[float]], name: str, base: str) -> float:
    """Take the ratio of each round, and the median of the ratios."""
    return statistics.median(one / other for one, other in zip(found[name], found[base], strict=True))


def main() -> None:
    """Run, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.http_services", description=__doc__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="a file for the rounds, as JSON")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    without = measure_keyless(given.rounds, 16_000)
    with running() as server:
        first = asyncio.run(measure_keyed(server.url, given.rounds, 200))
    for name, seconds in {**without, **first}.items():
        sys.stdout.write(f"{name:32} {statistics.median(seconds) * 1e6:8.0f} us\n")
    for name in ("ASGI", "FastAPI", "aiohttp"):
        lost = 1 - 1 / ratio(without, f"{name} with the header", name)
        sys.stdout.write(f"{name}: keyless requests lose {lost:.1%} (at most 3 %)\n")
        if (base := f"{name} with {NOTHING}") in without:
            lost = 1 - 1 / ratio(without, f"{name} with the header", base)
            sys.stdout.write(f"{name}: of it, beyond {NOTHING}: {lost:.1%}\n")
    for name, base in [
        ("ASGI, header", "decorated function"),
        ("ASGI, header", "ASGI, decorated function"),
        ("FastAPI, header", "FastAPI, decorated function"),
    ]:
        sys.stdout.write(f"{name} over {base}: {ratio(first, name, base):.2f} (at most 1.3)\n")
    if given.output:
        facts = {"machine": machine(), "versions": versions(["fastapi", "uvicorn", "aiohttp", "aiobotocore"])}
        given.output.write_text(json.dumps({**facts, "keyless": without, "keyed": first}, indent=1) + "\n")


if __name__ == "__main__":
    main()
