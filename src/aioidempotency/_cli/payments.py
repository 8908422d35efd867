"""The demo's payments: a queue delivers payment orders again and again, to several workers at once.

The ledger of the payment provider, which knows nothing of this library, says how often each order was charged.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, final

from aioidempotency._concurrency import concurrently
from aioidempotency._decorator import idempotent
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.events import CallReplayed, Event, RecordCompleted
from aioidempotency.exceptions import InProgressError

NAMESPACE: Final = "charge"
"""The namespace of the handler's records, inside the store's."""

_SPACING: Final = 0.006
"""Seconds from one delivery to the next, on average; moto answers some 250 requests a second."""


@final
@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid. Its id makes two deliveries the same order."""

    order_id: str
    cents: int


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
@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """How long the payment of an order takes, and how often it fails first."""

    order: Order
    seconds: float
    failures: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message of the queue: its order, when it arrives, and how soon it comes again if it must."""

    order: Order
    after: float
    pause: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What happened; `demo.conclude` prints what each number means."""

    orders: int
    deliveries: int
    executions: int
    replays: int
    refused: int
    retried: int
    charges: int
    charged_otherwise: dict[str, int]
    seconds: float


@final
class Payments:
    """The orders, the queue that delivers them, and the payment provider.

    Everything that chance decides is drawn from one seed when it is made.
    """

    def __init__(self, *, orders: int, deliveries: int, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a demonstration, not a secret
        self.payments = [
            Payment(
                order=Order(f"order-{number:03}", chance.randint(500, 50_000)),
                seconds=chance.uniform(0.3, 1.0),
                failures=chance.choice((0, 0, 0, 0, 1, 2)),
            )
            for number in range(1, orders + 1)
        ]
        self.deliveries = [
            Delivery(
                order=payment.order,
                after=chance.uniform(0, orders * deliveries * _SPACING),
                pause=chance.uniform(0.3, 0.6),
            )
            for payment in self.payments
            for _ in range(chance.randint((deliveries + 1) // 2, deliveries))
        ]
        self.ledger: list[str] = []
        self.executions: Counter[str] = Counter()
        self.answered = self.replayed = self.completed = self.refused = self.failed = 0

    def note(self, event: Event) -> None:
        """Count what the library reports: the stores' `on_event`."""
        self.completed += isinstance(event, RecordCompleted)
        self.replayed += isinstance(event, CallReplayed)

    async def deliver(self, stores: Sequence[AsyncIdempotencyStore]) -> Figures:
        """Deliver every message until it is answered, to one worker for each store."""
        payments = {payment.order.order_id: payment for payment in self.payments}

        async def provider(order: Order) -> Receipt:
            """Charge an order, as often as it is asked to: slow, and at times out of reach."""
            self.executions[order.order_id] += 1
            fails = self.executions[order.order_id] <= payments[order.order_id].failures
            await asyncio.sleep(payments[order.order_id].seconds)
            if fails:
                raise ProviderUnavailableError
            self.ledger.append(order.order_id)
            return Receipt(order.order_id, order.cents, f"charge-{len(self.ledger)}")

        workers = [_worker(store, provider) for store in stores]

        async def deliver_numbered(numbered: tuple[int, Delivery]) -> None:
            number, delivery = numbered
            first = number % len(workers)
            await self._deliver_one(delivery, itertools.cycle(workers[first:] + workers[:first]))

        start = time.perf_counter()
        await concurrently(deliver_numbered, enumerate(self.deliveries), limit=len(self.deliveries))
        return Figures(
            orders=len(self.payments),
            deliveries=len(self.deliveries),
            executions=self.executions.total(),
            replays=self.replayed,
            refused=self.refused,
            retried=self.failed,
            charges=len(self.ledger),
            charged_otherwise=charged_otherwise(payments, self.ledger),
            seconds=round(time.perf_counter() - start, 1),
        )

    async def _deliver_one(self, delivery: Delivery, workers: "Iterable[Handler]") -> None:
        """Deliver one message to one worker after the other, with pauses, until one answers."""
        await asyncio.sleep(delivery.after)
        for handle in workers:
            try:
                await handle(delivery.order)
            except InProgressError:
                self.refused += 1
            except ProviderUnavailableError:
                self.failed += 1
            else:
                self.answered += 1
                return
            await asyncio.sleep(delivery.pause)


Handler = Callable[[Order], Awaitable[Receipt]]


def _worker(store: AsyncIdempotencyStore, provider: Handler) -> Handler:
    """Make a worker's handler: what a user of the library writes."""

    @idempotent(store, key="order.order_id", namespace=NAMESPACE)
    async def charge(order: Order) -> Receipt:
        return await provider(order)

    return charge


def charged_otherwise(orders: Iterable[str], ledger: Iterable[str]) -> dict[str, int]:
    """Read the ledger: how often each order was charged that was not charged exactly once."""
    wanted, charges = Counter(set(orders)), Counter(ledger)
    return {order: charges[order] for order in sorted(wanted | charges) if charges[order] != wanted[order]}
