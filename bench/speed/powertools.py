"""The worker of Powertools for Python: `python -m bench.speed.powertools THREADS URL`.

Its functions are plain ones, so that calls side by side are threads. Everything is its default, but
for the client's pool, which has a connection for each thread, as botocore's own has for ten.
"""

import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final

import boto3
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from botocore.config import Config

from bench.speed import jobs

_REMAINING: Final = 60_000


class Context:
    """As much of Lambda's context as is asked for."""

    @staticmethod
    def get_remaining_time_in_millis() -> int:
        """Leave the time of our lease."""
        return _REMAINING


class Worker:
    """A decorated function, and the threads that call it."""

    def __init__(self, threads: int, url: str) -> None:
        self.started: list[str] = []
        self._pool = None if threads == 1 else ThreadPoolExecutor(threads)
        client = boto3.client("dynamodb", endpoint_url=url, config=Config(max_pool_connections=max(10, threads)))
        config = IdempotencyConfig()
        config.register_lambda_context(Context())
        layer = DynamoDBPersistenceLayer(jobs.TABLE, boto3_client=client)

        @idempotent_function(  # type: ignore[untyped-decorator]
            data_keyword_argument="order", persistence_store=layer, config=config
        )
        def charge(order: str) -> dict[str, str]:
            self.started.append(order)
            return jobs.RESULT

        self._call: Callable[..., object] = charge

    def run(self, keys: Sequence[str], concurrency: int) -> Sequence[float]:
        """Keep so many calls under way, or waiting for a thread; one thread needs no pool."""
        if self._pool is None:
            return [self._timed(key, time.perf_counter()) for key in keys]
        places = BoundedSemaphore(concurrency)
        running = []
        for key in keys:
            places.acquire()
            running.append(self._pool.submit(self._timed, key, time.perf_counter()))
            running[-1].add_done_callback(lambda _: places.release())
        return [each.result() for each in running]

    def _timed(self, key: str, start: float) -> float:
        result = self._call(order=key)
        latency = time.perf_counter() - start
        if result != jobs.RESULT:
            raise ValueError(f"{key} was answered with {result!r}")
        return latency


if __name__ == "__main__":
    worker = Worker(int(sys.argv[1]), sys.argv[2])
    jobs.serve(lambda job: jobs.answered(job, worker.run, lambda: len(worker.started)))
