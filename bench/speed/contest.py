"""Who takes part, in which measurements, and who cannot and why."""

import importlib.util
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, final

from bench.speed import typescript
from bench.speed.jobs import WORKLOADS, Workload

_WORKER: Final = (sys.executable, "-m", "bench.speed.worker")
_POWERTOOLS: Final = (sys.executable, "-m", "bench.speed.powertools")
THREADS: Final = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One line of every table.

    Attributes:
        command: What starts its worker; the model's URL is added.
        alone: It has one call at a time.
        memory: Its worker knows what a call in flight keeps.
    """

    name: str
    command: tuple[str, ...]
    workloads: tuple[Workload, ...] = WORKLOADS
    alone: bool = False
    memory: bool = False

    def takes(self, workload: Workload, concurrency: int) -> bool:
        """Tell whether it takes part in a measurement."""
        return workload in self.workloads and (concurrency == 1 or not self.alone)


GROUP_COMMIT: Final = Contestant(name="group commit", command=(*_WORKER, "group-commit"), memory=True)
PLAIN: Final = Contestant(name="plain path", command=(*_WORKER, "plain"), memory=True)
CACHE: Final = Contestant(name="local cache", command=(*_WORKER, "local-cache"), workloads=("duplicates",))
BARE: Final = Contestant(name="two bare calls, tuned", command=(*_WORKER, "bare-tuned"))
BARE_DEFAULT: Final = Contestant(name="two bare calls, default", command=(*_WORKER, "bare-default"))
POWERTOOLS: Final = Contestant(name="Powertools, 1 thread", command=(*_POWERTOOLS, "1"), alone=True)
POWERTOOLS_THREADS: Final = Contestant(name=f"Powertools, {THREADS} threads", command=(*_POWERTOOLS, str(THREADS)))
TYPESCRIPT: Final = "Powertools for TypeScript"
ORDER: Final = (
    *(each.name for each in (GROUP_COMMIT, PLAIN, CACHE, BARE, BARE_DEFAULT, POWERTOOLS, POWERTOOLS_THREADS)),
    TYPESCRIPT,
)
"""How tables and pictures list them."""


_AVAILABLE: Final = (GROUP_COMMIT, PLAIN, CACHE, BARE, BARE_DEFAULT, POWERTOOLS, POWERTOOLS_THREADS)


def gather(wanted: Collection[str] = ORDER) -> tuple[Sequence[Contestant], dict[str, str]]:
    """Find who of these can take part here, and for each other one the reason.

    Powertools for TypeScript is installed, if Node and its registry can be reached.
    """
    present = [each for each in _AVAILABLE if each.name in wanted]
    missing: dict[str, str] = {}
    if not all(importlib.util.find_spec(name) for name in ("aws_lambda_powertools", "boto3")):
        absent = [each for each in present if each.command[: len(_POWERTOOLS)] == _POWERTOOLS]
        present = [each for each in present if each not in absent]
        missing |= {each.name: "install the dependency group bench" for each in absent}
    if TYPESCRIPT in wanted:
        try:
            present.append(Contestant(name=TYPESCRIPT, command=typescript.installed()))
        except typescript.UnavailableError as error:
            missing[TYPESCRIPT] = str(error)
    return present, missing
