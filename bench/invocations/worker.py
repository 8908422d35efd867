"""The process of one handler: `python -m bench.invocations.worker NAME URL`."""

import sys
import time
from collections.abc import Sequence

from bench.invocations import handlers
from bench.speed import jobs
from bench.speed.jobs import Answer, Job


def main(name: str, url: str) -> None:
    """Make the handler, and answer jobs. The first one tells what the process took until its first answer."""
    handler, context = handlers.HANDLERS[name](url), handlers.Context()

    def run(keys: Sequence[str], _: int) -> list[float]:
        latencies = []
        for key in keys:
            begin = time.perf_counter()
            if handler({"id": key}, context) != jobs.RESULT:
                raise ValueError(f"{name} gave another answer")
            latencies.append(time.perf_counter() - begin)
        return latencies

    def answer(job: Job) -> Answer:
        if job["do"] != "cold":
            return jobs.answered(job, run, lambda: len(handlers.bodies))
        run(job["keys"], 1)
        return {"processor": time.process_time()}

    jobs.serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
