"""The ledger: what truly happened, written by whoever did it and read at the end.

It is a file that several processes append to. A line is one `write` to a descriptor opened with
`O_APPEND`, so lines never mix, and a process that is killed has either written its line or not.
"""

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, final

Kind = Literal["begin", "effect", "end", "trouble"]
"""A body began; its effect took place; its call was answered; the library reported something bad."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that happened. `run` is new for each delivery to a process, `at` is epoch seconds."""

    kind: Kind
    key: str
    run: str
    pid: int
    at: float
    note: str = ""


@final
class Ledger:
    """Appends to the file until the block ends."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def write(self, kind: Kind, key: str, run: str, note: str = "") -> None:
        """Append one line."""
        line = Line(kind=kind, key=key, run=run, pid=os.getpid(), at=time.time(), note=note)
        os.write(self._file, f"{json.dumps(asdict(line))}\n".encode())


@final
@dataclass(frozen=True, slots=True)
class Story:
    """All lines of one key, or of all keys, in the order they were written."""

    lines: tuple[Line, ...]

    @classmethod
    def read(cls, path: Path, key: str | None = None) -> Self:
        """Read the file, or one key's lines of it."""
        lines = (Line(**json.loads(text)) for text in path.read_text().splitlines())
        return cls(tuple(line for line in lines if key in (None, line.key)))

    def of(self, kind: Kind) -> list[Line]:
        """List the lines of one kind."""
        return [line for line in self.lines if line.kind == kind]

    def by_key(self) -> "dict[str, Story]":
        """Tell the story of each key."""
        lines: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines:
            lines[line.key].append(line)
        return {key: Story(tuple(own)) for key, own in lines.items()}

    def cut_short(self, killed: Iterable[int]) -> list[Line]:
        """List the beginnings whose end a killed process did not live to see."""
        ended = {line.run for line in self.of("end")}
        return [line for line in self.of("begin") if line.pid in set(killed) and line.run not in ended]
