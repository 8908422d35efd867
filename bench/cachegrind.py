"""Instructions that a process executes, counted by valgrind: on one machine they repeat within a percent.

Hashes of texts are the same in each run, or sets would be walked in another order each time. A process is about fifty
times slower than usual: its limits of time have to be long.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Final

_COMMAND: Final = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
_REFS: Final = re.compile(r"I\s+refs:\s+([\d,]+)")
_LIMIT: Final = 600.0
"""Seconds that one process may take."""


def available() -> bool:
    """Tell whether valgrind is installed."""
    return shutil.which("valgrind") is not None


def counted(command: Sequence[str], environment: Mapping[str, str], given: str = "") -> int:
    """Count the instructions of a process, which reads a text from its standard input.

    Let it run once before: what it imports is compiled then.

    Raises:
        ValueError: It failed, with what it wrote.
    """
    done = subprocess.run(
        [*_COMMAND, *command],
        input=given,
        env={**environment, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=_LIMIT,
    )
    refs = _REFS.search(done.stderr)
    if done.returncode or refs is None:
        raise ValueError(f"{command} failed, and wrote {done.stderr}")
    return int(refs[1].replace(",", ""))
