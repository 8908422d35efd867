"""A payment service on FastAPI: a repeated request is paid once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from aioidempotency import AsyncIdempotencyStore
from aioidempotency.fastapi import Idempotency

store = AsyncIdempotencyStore("payments")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await store.aclose(drain=5)


app = FastAPI(title="Payments", lifespan=lifespan)
idempotency = Idempotency(store)
idempotency.install(app)

TOKENS = {"token-of-anna": "anna", "token-of-bert": "bert"}
payments: list[dict[str, object]] = []


class Order(BaseModel):
    article: str
    cents: int


class Receipt(BaseModel):
    number: int
    payer: str
    cents: int


async def current_user(
    token: Annotated[object, Depends(HTTPBearer(auto_error=False))],
) -> str:
    user = TOKENS.get(getattr(token, "credentials", ""))
    if user is None:
        raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
    return user


CurrentUser = Annotated[str, Depends(current_user)]


async def caller(user: CurrentUser) -> str:
    return user


once = Depends(idempotency(scope=caller, required=True))


@app.post("/payments", status_code=201, dependencies=[once])
async def pay(order: Order, user: CurrentUser) -> Receipt:
    payments.append({"payer": user, **order.model_dump()})
    return Receipt(number=len(payments), payer=user, cents=order.cents)
