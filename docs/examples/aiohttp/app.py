"""A payment service on aiohttp: a repeated request is paid once."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.aiohttp import Idempotency

store = AsyncIdempotencyStore("payments")

TOKENS = {"Bearer token-of-anna": "anna", "Bearer token-of-bert": "bert"}
USER = web.RequestKey("user", str)
payments: list[dict[str, object]] = []

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def authenticate(
    request: web.Request,
    handler: Handler,
) -> web.StreamResponse:
    user = TOKENS.get(request.headers.get("Authorization", ""))
    if user is None:
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": "Bearer"})
    request[USER] = user
    return await handler(request)


async def caller(request: web.Request) -> str:
    return request[USER]


idempotency = Idempotency(store, scope=caller)


@idempotency.handler(required=True)
async def pay(request: web.Request) -> web.Response:
    try:
        order = await request.json()
        cents = int(order["cents"])
    except (LookupError, TypeError, ValueError):
        raise web.HTTPBadRequest(text="no order") from None
    payments.append({"payer": request[USER], "cents": cents})
    receipt = {"number": len(payments), "payer": request[USER], "cents": cents}
    return web.json_response(receipt, status=201)


def make_app() -> web.Application:
    app = web.Application(middlewares=[authenticate])
    app.router.add_post("/payments", pay)
    app.cleanup_ctx.append(idempotency.lifespan)
    return app
