"""One of several processes that call one function with one key; `test_races` starts them.

It prints `ready`, waits for a line, makes its calls at once, and prints how they ended.
"""

import argparse
import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from aioidempotency import AsyncIdempotencyStore, DynamoDBBackend, InProgressError, idempotent

ANSWER = "paid"


def patient_backend(endpoint_url: str) -> DynamoDBBackend:
    """Reach an engine that a crowd keeps waiting: far longer limits than the library's own."""
    session = get_session()
    session.set_credentials("testing", "testing")
    config = AioConfig(max_pool_connections=64, connect_timeout=60, read_timeout=60)
    return DynamoDBBackend(
        session=session, endpoint_url=endpoint_url, region_name="eu-central-1", config=config, time_limit=300
    )


async def contend(store: AsyncIdempotencyStore, ledger: Path, *, key: str, calls: int, wait: bool) -> Counter[str]:
    """Make calls at once, and count how they end.

    With `wait` the body ends when every other call of this process has ended: it outlasts them all.
    """
    others = asyncio.Event()
    if not wait or calls == 1:
        others.set()
    ends: Counter[str] = Counter()

    @idempotent(store, namespace="races")
    async def charge(order_id: str) -> str:
        with ledger.open("ab", buffering=0) as file:
            file.write(f"{os.getpid()}\n".encode())
        await others.wait()
        return ANSWER

    async def call() -> None:
        try:
            ends["answered" if await charge(key) == ANSWER else "wrong"] += 1
        except InProgressError:
            ends["refused"] += 1
        if ends.total() == calls - 1:
            others.set()

    await asyncio.gather(*(call() for _ in range(calls)))
    return ends


async def main() -> None:
    """Contend as the command line says."""
    parser = argparse.ArgumentParser()
    for name in ("endpoint", "table", "ledger", "key"):
        parser.add_argument(name)
    parser.add_argument("calls", type=int)
    given = parser.parse_args()
    backend = patient_backend(given.endpoint)
    store = AsyncIdempotencyStore(given.table, backend=backend)
    await store.get("opens the client")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    ends = await contend(store, Path(given.ledger), key=given.key, calls=given.calls, wait=True)
    await backend.aclose()
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    asyncio.run(main())
