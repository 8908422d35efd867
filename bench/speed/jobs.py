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
from pathlib import Path
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
        "failed": len(keys) - len(latencies),
        "wall": wall,
        "processor": processor,
        "p50": percentile(latencies, 0.5),
        "p99": percentile(latencies, 0.99),
        "peak_bytes": peak(),
        "bodies": bodies() - before,
    }


def peak() -> int:
    """Tell the largest resident size of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # what `getrusage` tells on Linux begins with the size of the process that started this one
        return 1024 * int(status.read_text(encoding="utf-8").partition("VmHWM:")[2].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def serve(answer: Callable[[Job], Answer]) -> None:
    """Answer jobs until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the answer
