"""What a result was measured on, and with."""

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from bench.speed import typescript
from bench.speed.contest import TYPESCRIPT, Contestant

_PACKAGES: Final = (
    "aioidempotency",
    "aiobotocore",
    "aiohttp",
    "anyio",
    "aws-lambda-powertools",
    "boto3",
    "botocore",
    "msgspec",
)


def machine() -> dict[str, object]:
    """Describe the machine, without a name."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions(contestants: Sequence[Contestant]) -> dict[str, str]:
    """Tell the versions of what takes part."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    for each in contestants:
        if each.name == TYPESCRIPT:
            asked = subprocess.run([each.command[0], "--version"], capture_output=True, text=True, check=True)
            found |= {"node": asked.stdout.strip().removeprefix("v"), **typescript.versions()}
    return found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    named = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return named[1] if named else platform.machine()
