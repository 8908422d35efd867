"""Powertools for TypeScript: installed by npm into a directory that Git ignores, once."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

_HOME: Final = Path(__file__).resolve().parents[1] / "typescript"
_INSTALL: Final = ("install", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts")
_LIMIT: Final = 180.0


class UnavailableError(Exception):
    """It cannot take part; the message is the reason."""


def installed() -> tuple[str, ...]:
    """Install what `package.json` pins, unless it is there, and give the worker's command.

    Raises:
        UnavailableError: There is no Node or no npm, or npm cannot install.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise UnavailableError("Node and npm are not installed")
    if _versions("installed") != _versions("pinned"):
        _install(npm)
    return node, str(_HOME / "worker.mjs")


def versions() -> dict[str, str]:
    """Tell the versions that are pinned."""
    return _versions("pinned")


def _install(npm: str) -> None:
    try:
        done = subprocess.run([npm, *_INSTALL], cwd=_HOME, capture_output=True, text=True, timeout=_LIMIT, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"npm install took more than {_LIMIT:g} s") from error
    if done.returncode:
        raise UnavailableError(f"npm install failed with exit code {done.returncode}")


def _versions(which: str) -> dict[str, str]:
    pinned: dict[str, str] = json.loads((_HOME / "package.json").read_text())["dependencies"]
    if which == "pinned":
        return pinned
    files = {name: _HOME / "node_modules" / name / "package.json" for name in pinned}
    return {name: json.loads(path.read_text())["version"] for name, path in files.items() if path.exists()}
