"""The fenced blocks of a Markdown text, and how the Python blocks run."""

import ast
import asyncio
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import pytest
from markdown_it import MarkdownIt


@final
@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the text after the fence, the block's first line, and the block's text."""

    info: str
    line: int
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def title(self) -> str | None:
        """The name of the file that the block is."""
        found = re.search(r'title="([^"]+)"', self.info)
        return found[1] if found else None

    @property
    def runs(self) -> bool:
        return self.language == "python" and self.title is None and "no-run" not in self.info


def blocks(text: str) -> list[Block]:
    tokens = MarkdownIt().parse(text)
    fences = [(token, token.map) for token in tokens if token.type in {"fence", "code_block"}]
    return [
        Block(token.info.strip(), location[0] + 1, token.content) for token, location in fences if location is not None
    ]


@contextmanager
def running(name: str, filename: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Block], None]]:
    """Run blocks one after the other, in one module and one event loop; a block may await, as in `python -m asyncio`."""
    # The types of an example are looked up in the module that defines them.
    module = types.ModuleType(name)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with asyncio.Runner() as runner:

        def run(block: Block) -> None:
            # The empty lines make a traceback name the line of the text.
            source = "\n" * block.line + block.text
            flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            code = compile(source, filename, "exec", flags=flags, dont_inherit=True)
            awaitable = eval(code, vars(module))
            if inspect.iscoroutine(awaitable):
                runner.run(awaitable)

        yield run
