"""The demo's scene: a queue delivers payment orders again and again, to several workers at once.

What counts in the end is the ledger of the payment provider, which knows nothing of this library.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from aioidempotency._cli.script import Delivery, Order, Payment, Script
from aioidempotency._concurrency import concurrently
from aioidempotency._decorator import idempotent
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.events import CallReplayed, Event, RecordCompleted
from aioidempotency.exceptions import InProgressError

IN_HAND: Final = 16
"""Deliveries that one worker has in hand at a time."""

HANDLER: Final = "charge"
"""The namespace of the handler's records, inside the store's."""


@final
@dataclass(frozen=True, slots=True)
class Receipt:
    """What the handler answers, the first time and every other time."""

    order_id: str
    cents: int
    charge_id: str


class ProviderUnavailableError(Exception):
    """The payment provider could not be reached; nothing was charged."""


@final
@dataclass(slots=True)
class Tally:
    """What has happened so far; the picture looks at it while the scene plays."""

    answered: int = 0
    refused: int = 0
    failed: int = 0
    completed: int = 0
    replayed: int = 0

    def note(self, event: Event) -> None:
        """Count what the library reports: an `on_event` hook."""
        self.completed += isinstance(event, RecordCompleted)
        self.replayed += isinstance(event, CallReplayed)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What happened.

    Attributes:
        orders: Orders to be paid.
        deliveries: Messages of the queue, several for each order.
        executions: Times that the handler ran, failed ones included.
        replays: Deliveries answered with the stored receipt.
        refused: Deliveries turned away because the order was running; each came again.
        retried: Executions that failed; each delivery came again.
        charges: Lines of the provider's ledger.
        charged_otherwise: How often each order was charged that was not charged exactly once.
        seconds: How long the scene took.
        records_per_bucket: Records of this run in each partition of the table.
    """

    orders: int
    deliveries: int
    executions: int
    replays: int
    refused: int
    retried: int
    charges: int
    charged_otherwise: dict[str, int]
    seconds: float
    records_per_bucket: tuple[int, ...] = ()

    @property
    def exactly_once(self) -> bool:
        """Whether every order was charged exactly once."""
        return not self.charged_otherwise


Handler = Callable[[Order], Awaitable[Receipt]]


@final
@dataclass(slots=True)
class Provider:
    """The payment provider: slow, at times out of reach, and with a ledger of its own."""

    payments: dict[str, Payment]
    executions: Counter[str] = field(default_factory=Counter)
    ledger: list[str] = field(default_factory=list)

    async def charge(self, order: Order) -> Receipt:
        """Charge an order, as often as it is asked to.

        Raises:
            ProviderUnavailableError: It failed, and nothing was charged.
        """
        payment = self.payments[order.order_id]
        self.executions[order.order_id] += 1
        fails = self.executions[order.order_id] <= payment.failures
        await asyncio.sleep(payment.seconds)
        if fails:
            raise ProviderUnavailableError
        self.ledger.append(order.order_id)
        return Receipt(order.order_id, order.cents, f"charge-{len(self.ledger)}")


async def play(script: Script, stores: Sequence[AsyncIdempotencyStore], tally: Tally) -> Figures:
    """Deliver every message until it is answered, to one worker for each store.

    The stores count their replays with `on_event=tally.note`.
    """
    provider = Provider({payment.order.order_id: payment for payment in script.payments})
    workers = [_worker(store, provider) for store in stores]

    async def deliver(numbered: tuple[int, Delivery]) -> None:
        number, delivery = numbered
        first = number % len(workers)
        await _deliver(delivery, itertools.cycle(workers[first:] + workers[:first]), tally)

    start = time.perf_counter()
    await concurrently(deliver, enumerate(script.deliveries), limit=len(script.deliveries))
    return Figures(
        orders=len(script.payments),
        deliveries=len(script.deliveries),
        executions=provider.executions.total(),
        replays=tally.replayed,
        refused=tally.refused,
        retried=tally.failed,
        charges=len(provider.ledger),
        charged_otherwise=charged_otherwise(provider.payments, provider.ledger),
        seconds=round(time.perf_counter() - start, 1),
    )


def charged_otherwise(orders: Iterable[str], ledger: Iterable[str]) -> dict[str, int]:
    """Read the verdict from the ledger: how often each order was charged that was not charged exactly once."""
    wanted, charges = Counter(set(orders)), Counter(ledger)
    return {order: charges[order] for order in sorted(wanted | charges) if charges[order] != wanted[order]}


def _worker(store: AsyncIdempotencyStore, provider: Provider) -> Handler:
    """Make a worker's handler: what a user of the library writes."""
    hands = asyncio.Semaphore(IN_HAND)

    @idempotent(store, key="order.order_id", namespace=HANDLER)
    async def charge(order: Order) -> Receipt:
        return await provider.charge(order)

    async def handle(order: Order) -> Receipt:
        async with hands:
            return await charge(order)

    return handle


async def _deliver(delivery: Delivery, workers: Iterable[Handler], tally: Tally) -> None:
    """Deliver one message to one worker after the other, with pauses, until one answers."""
    await asyncio.sleep(delivery.after)
    for handle in workers:
        try:
            await handle(delivery.order)
        except InProgressError:
            tally.refused += 1
        except ProviderUnavailableError:
            tally.failed += 1
        else:
            tally.answered += 1
            return
        await asyncio.sleep(delivery.pause)
