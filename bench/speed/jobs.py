"""What a worker is asked and what it answers: one line of JSON each, until its standard input ends.

A job has `keys`, one for each call, and `concurrency`, how many calls are under way at once. `do` is "run",
"measure", or "memory": count what a call in flight keeps. A worker is one contestant in a process of its own, so
that processor time and memory are its alone.
"""

import gc
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bench.spread import percentile

TABLE: Final = "bench"
RESULT: Final = {"receipt": "r-1"}
"""What the body of every contestant answers."""

Job = Mapping[str, Any]
Answer = dict[str, Any]
Run = Callable[[Sequence[str], int], Sequence[float]]
"""Makes a call for each key, so many at once, and gives the latencies in seconds."""


def answered(job: Job, run: Run, bodies: Callable[[], int]) -> Answer:
    """Do a job, and measure it if that is what was asked; `bodies` tells how often the body ran so far."""
    keys, concurrency = job["keys"], job["concurrency"]
    if job["do"] == "run":
        run(keys, concurrency)
        return {}
    gc.collect()
    before, wall, processor = bodies(), time.perf_counter(), time.process_time()
    latencies = run(keys, concurrency)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "calls": len(latencies),
        "wall": wall,
        "processor": processor,
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        # Linux counts in KB, macOS in bytes.
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "bodies": bodies() - before,
    }


def serve(answer: Callable[[Job], Answer]) -> None:
    """Answer jobs until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the answer
