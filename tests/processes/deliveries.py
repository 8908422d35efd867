"""What every process of these tests handles, and how: one idempotent function whose effects are counted."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, final

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from aioidempotency import (
    AsyncIdempotencyStore,
    Execution,
    InProgressError,
    LeaseLostError,
    StoreError,
    TransactionError,
    Wait,
    idempotent,
)
from aioidempotency.events import CompletionFailed, Event, LeaseLost, ReleaseFailed
from tests.processes.ledger import Ledger

NAMESPACE = "deliveries"
RETENTION = 3600


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all processes of one test share. Times are seconds.

    `lease` is the store's, which bounds each of its requests, too; `own_lease` the function's. `entities` is a
    table in which each run counts its key up, in the transaction of its result.
    """

    endpoint_url: str
    table_name: str
    ledger: str
    lease: float
    own_lease: float | None = None
    clock_skew: float = 0.5
    heartbeat: bool = True
    answer_limit: float = 0.5
    entities: str | None = None

    def store(self, ledger: Ledger | None = None, *, clock: Callable[[], float] = time.time) -> AsyncIdempotencyStore:
        """Make a store; what it reports as going wrong goes into the ledger."""
        session = get_session()
        session.set_credentials("testing", "testing")
        return AsyncIdempotencyStore(
            self.table_name,
            session=session,
            endpoint_url=self.endpoint_url,
            region_name="eu-central-1",
            config=AioConfig(read_timeout=self.answer_limit, connect_timeout=self.answer_limit),
            lease=self.lease,
            clock_skew=self.clock_skew,
            retention=RETENTION,
            clock=clock,
            on_event=None if ledger is None else Complaints(ledger),
        )


@final
@dataclass(frozen=True, slots=True)
class Complaints:
    """An event hook that writes down what went wrong."""

    ledger: Ledger

    def __call__(self, event: Event) -> None:
        if isinstance(event, CompletionFailed | LeaseLost | ReleaseFailed):
            self.ledger.write("trouble", event.key, "", note=type(event).__name__)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message. `run` is new each time it is handed out; a `gated` body waits before its effect."""

    number: int
    key: str
    run: str
    work: float = 0.003
    gated: bool = False


@final
@dataclass(frozen=True, slots=True)
class Receipt:
    """What handling a key came to: `run` says whose effect it was."""

    key: str
    run: str


Handle = Callable[[Delivery], Awaitable[Receipt]]


@final
@dataclass(frozen=True, slots=True)
class Gate:
    """Holds gated bodies back until it is opened; `began` hears of each that has come to it."""

    began: Callable[[Delivery], object] = lambda _: None
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def passed(self, delivery: Delivery) -> None:
        """Wait, if the delivery is gated."""
        if delivery.gated:
            self.began(delivery)
            await self.opened.wait()


def handler(
    store: AsyncIdempotencyStore,
    ledger: Ledger,
    *,
    gate: Gate | None = None,
    lease: float | None = None,
    heartbeat: bool = True,
    patience: float | None = None,
    entities: str | None = None,
) -> Handle:
    """Make the function. The end of a run is written when its completion was answered, not before."""
    gate = gate or Gate()
    on_in_progress: Wait | Literal["raise"] = Wait(patience) if patience else "raise"

    @idempotent(
        store,
        key="delivery.key",
        namespace=NAMESPACE,
        lease=lease,
        heartbeat=heartbeat,
        on_in_progress=on_in_progress,
    )
    async def handle(delivery: Delivery) -> Receipt:
        ledger.write("begin", delivery.key, delivery.run)
        if entities is not None:
            Execution.current().transaction.update(
                entities,
                {"pk": delivery.key},
                "SET run = :run ADD n :one",
                ExpressionAttributeValues={":run": delivery.run, ":one": 1},
            )
        await gate.passed(delivery)
        await asyncio.sleep(delivery.work)
        ledger.write("effect", delivery.key, delivery.run)
        await asyncio.sleep(delivery.work)
        return Receipt(delivery.key, delivery.run)

    async def handle_and_note(delivery: Delivery) -> Receipt:
        receipt = await handle(delivery)
        if receipt.run == delivery.run:
            ledger.write("end", delivery.key, delivery.run)
        return receipt

    return handle_and_note


async def answer(handle: Handle, delivery: Delivery) -> dict[str, Any]:
    """Handle a delivery and say what came of it; any other error is a bug and passes on."""
    try:
        receipt = await handle(delivery)
    except InProgressError as error:
        return {"outcome": "refused", "retry_after": error.retry_after}
    except TransactionError as error:
        if not error.retryable:
            raise
        return {"outcome": "conflict"}
    except LeaseLostError:
        return {"outcome": "lost"}
    except StoreError:
        return {"outcome": "unreachable"}
    return {"outcome": "result", "run": receipt.run}
