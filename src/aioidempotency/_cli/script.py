"""What is going to happen in the demo's scene, as far as chance decides it.

All of it is drawn beforehand, from one seed: how often each order is delivered and when, how long its
payment takes, how often it fails first.
"""

import random
from dataclasses import dataclass
from typing import Final, final

SPACING: Final = 0.006
"""Seconds from one delivery to the next, on average; the embedded server answers some 250 requests a second."""


@final
@dataclass(frozen=True, slots=True)
class Order:
    """What is to be paid. Its id makes two deliveries the same order."""

    order_id: str
    cents: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How large the scene is, and the seed of its chance."""

    orders: int = 20
    deliveries: int = 25
    workers: int = 4
    seed: int = 1


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One order, and how its payment is going to go."""

    order: Order
    seconds: float
    failures: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One message of the queue: what it carries, when it arrives, and how soon it comes again if it must."""

    order: Order
    after: float
    pause: float


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Everything that is going to happen, as far as chance decides it."""

    payments: tuple[Payment, ...]
    deliveries: tuple[Delivery, ...]


def write_script(settings: Settings) -> Script:
    """Draw everything that chance decides; the same seed gives the same script."""
    chance = random.Random(settings.seed)  # noqa: S311 - a scene, not a secret
    payments = tuple(
        Payment(
            order=Order(f"order-{number:03}", chance.randint(500, 50_000)),
            seconds=chance.uniform(0.3, 1.0),
            failures=chance.choice((0, 0, 0, 0, 1, 2)),
        )
        for number in range(1, settings.orders + 1)
    )
    arrivals = settings.orders * settings.deliveries * SPACING
    deliveries = tuple(
        Delivery(order=payment.order, after=chance.uniform(0, arrivals), pause=chance.uniform(0.3, 0.6))
        for payment in payments
        for _ in range(chance.randint((settings.deliveries + 1) // 2, settings.deliveries))
    )
    return Script(payments=payments, deliveries=deliveries)
