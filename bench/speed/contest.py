"""Who takes part, in which measurements, and who cannot and why."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

Workload = Literal["fresh", "duplicates", "mix"]
WORKLOADS: Final[tuple[Workload, ...]] = ("fresh", "duplicates", "mix")

_WORKER: Final = (sys.executable, "-m", "bench.speed.worker")
_POWERTOOLS: Final = (sys.executable, "-m", "bench.speed.powertools")
_TYPESCRIPT: Final = Path(__file__).resolve().parents[1] / "typescript"
THREADS: Final = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One line of every table.

    Attributes:
        command: What starts its worker; the server's URL is added.
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
TYPESCRIPT: Final = Contestant(name="Powertools for TypeScript", command=("node", str(_TYPESCRIPT / "worker.mjs")))
_ALL: Final = (GROUP_COMMIT, PLAIN, CACHE, BARE, BARE_DEFAULT, POWERTOOLS, POWERTOOLS_THREADS, TYPESCRIPT)
ORDER: Final = tuple(each.name for each in _ALL)
"""How tables and pictures list them."""


def usual_concurrency(name: str, many: int) -> int:
    """Tell at which concurrency a contestant is compared: at many calls at once, if it can make more than one."""
    return 1 if name == POWERTOOLS.name else many


def gather(wanted: Collection[str] = ORDER) -> tuple[list[Contestant], dict[str, str]]:
    """Find who of these can take part here, and for each other one the reason."""
    missing = {}
    if not all(importlib.util.find_spec(name) for name in ("aws_lambda_powertools", "boto3")):
        missing = dict.fromkeys((POWERTOOLS.name, POWERTOOLS_THREADS.name), "install the dependency group bench")
    if shutil.which("node") is None or not typescript_versions():
        missing[TYPESCRIPT.name] = "it needs Node 20, and `npm install` in bench/typescript"
    missing = {name: reason for name, reason in missing.items() if name in wanted}
    return [each for each in _ALL if each.name in wanted and each.name not in missing], missing


def typescript_versions() -> dict[str, str]:
    """Tell the versions of the packages that npm has installed in `bench/typescript`."""
    names = json.loads((_TYPESCRIPT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    files = {name: _TYPESCRIPT / "node_modules" / name / "package.json" for name in names}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))["version"] for name, path in files.items() if path.exists()
    }
