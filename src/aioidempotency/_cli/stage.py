"""Where the scene is played: one table of 32 buckets, and the stores that share it."""

import secrets
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Final, final

from aioidempotency._cli.scene import HANDLER, Figures, Tally, play
from aioidempotency._cli.script import Script
from aioidempotency._store import AsyncIdempotencyStore
from aioidempotency.partitioning import CompositeKey, HashBuckets

TABLE_NAME: Final = "aioidempotency-demo"
BUCKETS: Final = HashBuckets(32)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A table, and a namespace that no other run has."""

    table_name: str = TABLE_NAME
    endpoint_url: str | None = None
    region_name: str | None = None
    namespace: str = field(default_factory=lambda: f"demo-{secrets.token_hex(8)}")

    def store(self, tally: Tally) -> AsyncIdempotencyStore:
        """Make one worker's store; it opens a client of its own."""
        return AsyncIdempotencyStore(
            self.table_name,
            namespace=self.namespace,
            layout=CompositeKey("pk", "sk", partitioning=BUCKETS),
            lease=30,
            endpoint_url=self.endpoint_url,
            region_name=self.region_name,
            on_event=tally.note,
        )


async def perform(stage: Stage, script: Script, tally: Tally, *, workers: int) -> Figures:
    """Create the table if it is missing, play the scene, and look into the table.

    Raises:
        ConfigurationError: The table is there with another key, or cannot be used with these settings.
        StoreError: The table did not answer.
    """
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(stage.store(tally)) for _ in range(workers)]
        await stores[0].create_table()
        figures = await play(script, stores, tally)
        orders = [payment.order.order_id for payment in script.payments]
        return replace(figures, records_per_bucket=await _records_per_bucket(stores[0], orders))


async def _records_per_bucket(store: AsyncIdempotencyStore, orders: Iterable[str]) -> tuple[int, ...]:
    """Read the orders' records from the table. Each is read at its place, so one that is found is there."""
    found = [record for record in await store.get_many(orders, namespace=HANDLER) if record is not None]
    now = time.time()
    counts = Counter(BUCKETS.home(record.key, now) for record in found)
    return tuple(counts[f"{BUCKETS.prefix}#{bucket}"] for bucket in range(BUCKETS.n))
