"""What a worker is asked and what it answers: one line of JSON each, until its standard input ends.

A worker is one contestant in a process of its own, so that processor time and memory are its alone.
`prepare` executes the keys that duplicates come for; `warm` opens connections; `measure` is the span
that counts; `memory` counts what a call in flight keeps, in a process that has done nothing else.
"""

import json
import math
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

Workload = Literal["fresh", "duplicates", "mix"]
WORKLOADS: Final[tuple[Workload, ...]] = ("fresh", "duplicates", "mix")
MIXED: Final = 4
"""In a mix, of so many calls one is a duplicate."""

TABLE: Final = "bench"
RESULT: Final = {"receipt": "r-1"}
"""What the body of every contestant answers."""

Job = Mapping[str, Any]
Answer = dict[str, Any]


def known(job: Job) -> Sequence[str]:
    """Name the keys that have been executed before."""
    return [f"{job['prefix']}-known-{number}" for number in range(job["known"])]


def keys(job: Job) -> Sequence[str]:
    """Name the key of each call, in order."""
    old = known(job)
    workload: Workload = job["workload"]
    repeats = {"fresh": 0, "duplicates": 1, "mix": MIXED}[workload]
    name = f"{job['prefix']}-{workload}-{job['concurrency']}"
    return [
        old[number % len(old)] if repeats and number % repeats == 0 else f"{name}-{number}"
        for number in range(job["calls"])
    ]


def fresh(job: Job) -> int:
    """Tell how many of the calls have a key of their own, and so how often the body has to run."""
    return len(set(keys(job)) - set(known(job)))


def percentile(ordered: Sequence[float], share: float) -> float:
    """Find the value that this share of the values does not exceed."""
    return ordered[math.ceil(len(ordered) * share) - 1]


def measured(latencies: Sequence[float], *, wall: float, processor: float) -> Answer:
    """Put the figures of a span together; times are in seconds."""
    ordered = sorted(latencies)
    # Linux counts in KB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "calls": len(ordered),
        "wall": wall,
        "processor": processor,
        "p50": percentile(ordered, 0.5),
        "p99": percentile(ordered, 0.99),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
    }


def serve(answer: Callable[[Job], Answer]) -> None:
    """Answer jobs until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)  # noqa: T201 - the answer
