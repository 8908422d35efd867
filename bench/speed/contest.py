"""Who takes part, in which measurements, and who cannot and why."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

Workload = Literal["fresh", "duplicates", "mix", "burst", "open load", "cold start"]
WORKLOADS: Final[tuple[Workload, ...]] = ("fresh", "duplicates", "mix")
"""Those of closed loops."""

MANY: Final = 64
"""Calls at once where contestants are compared at one level."""

_WORKER: Final = (sys.executable, "-m", "bench.speed.worker")
_PEER: Final = (sys.executable, "-m", "bench.speed.peers")
_POWERTOOLS: Final = (sys.executable, "-m", "bench.speed.powertools")
_TYPESCRIPT: Final = Path(__file__).resolve().parents[1] / "typescript"
THREADS: Final = 32


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One line of every table.

    Attributes:
        command: What starts its worker; the server's URL is added.
        needs: Packages that must be installed.
        levels: At how many calls at once it can be measured, or is worth it; none: at all of them.
        loaded: It takes part where load does not come in a closed loop.
        memory: Its worker knows what a call in flight keeps.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = WORKLOADS
    levels: tuple[int, ...] = ()
    loaded: bool = False
    memory: bool = False

    @property
    def usual(self) -> int:
        """At how many calls at once it is compared: `MANY`, or one after the other if it can do no better."""
        return MANY if MANY in (self.levels or (MANY,)) else 1

    def takes(self, workload: Workload, concurrency: int) -> bool:
        """Tell whether it takes part in a measurement. Only fresh calls are measured at every level."""
        everywhere = workload == "fresh" and not self.levels
        return workload in self.workloads and (everywhere or concurrency in (self.levels or (self.usual,)))


GROUP_COMMIT: Final = Contestant(name="group commit", command=(*_WORKER, "group-commit"), memory=True, loaded=True)
PLAIN: Final = Contestant(name="plain path", command=(*_WORKER, "plain"), memory=True, loaded=True)
CACHE: Final = Contestant(
    name="local cache", command=(*_WORKER, "local-cache"), workloads=("duplicates",), levels=(MANY,)
)
OWN_CODE: Final = Contestant(
    name="own code alone", command=(*_WORKER, "own-code"), workloads=("fresh",), levels=(MANY,)
)
LEAN: Final = Contestant(name="two requests alone", command=(*_WORKER, "lean"), workloads=("fresh",), levels=(MANY,))
BARE: Final = Contestant(name="two bare calls, tuned", command=(*_WORKER, "bare-tuned"), loaded=True)
BARE_DEFAULT: Final = Contestant(name="two bare calls, default", command=(*_WORKER, "bare-default"))
_PEERS: Final = ("aiodynamo", "pydynox")
AIODYNAMO: Final = Contestant(name="aiodynamo", command=(*_PEER, "aiodynamo"), needs=_PEERS)
PYDYNOX: Final = Contestant(name="pydynox", command=(*_PEER, "pydynox"), needs=_PEERS)
_OF_POWERTOOLS: Final = ("aws_lambda_powertools", "boto3")
POWERTOOLS: Final = Contestant(
    name="Powertools, 1 thread", command=(*_POWERTOOLS, "1"), needs=_OF_POWERTOOLS, levels=(1,)
)
POWERTOOLS_THREADS: Final = Contestant(
    name=f"Powertools, {THREADS} threads", command=(*_POWERTOOLS, str(THREADS)), needs=_OF_POWERTOOLS
)
TYPESCRIPT: Final = Contestant(name="Powertools for TypeScript", command=("node", str(_TYPESCRIPT / "worker.mjs")))
_BY_NAME: Final = {
    each.name: each
    for each in (
        *(PLAIN, GROUP_COMMIT, CACHE, OWN_CODE, LEAN, BARE, BARE_DEFAULT, AIODYNAMO, PYDYNOX),
        *(POWERTOOLS, POWERTOOLS_THREADS, TYPESCRIPT),
    )
}
ORDER: Final = tuple(_BY_NAME)
"""How tables and pictures list them."""


def usual_concurrency(name: str) -> int:
    """Tell at how many calls at once a contestant is compared."""
    return _BY_NAME[name].usual


def gather(wanted: Collection[str] = ORDER) -> tuple[list[Contestant], dict[str, str]]:
    """Find who of these can take part here, and for each other one the reason."""
    asked = [_BY_NAME[name] for name in ORDER if name in wanted]
    missing = {
        each.name: "install the dependency group bench"
        for each in asked
        if not all(importlib.util.find_spec(name) for name in each.needs)
    }
    if TYPESCRIPT.name in wanted and (shutil.which("node") is None or not typescript_versions()):
        missing[TYPESCRIPT.name] = "it needs Node 20, and `npm install` in bench/typescript"
    return [each for each in asked if each.name not in missing], missing


def typescript_versions() -> dict[str, str]:
    """Tell the versions of the packages that npm has installed in `bench/typescript`."""
    names = json.loads((_TYPESCRIPT / "package.json").read_text(encoding="utf-8"))["dependencies"]
    files = {name: _TYPESCRIPT / "node_modules" / name / "package.json" for name in names}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))["version"] for name, path in files.items() if path.exists()
    }
