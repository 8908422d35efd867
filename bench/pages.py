"""Numbers in pages of the documentation, as they follow from what was measured.

Each stands between two comments, `<!-- numbers: name -->` and `<!-- end -->`, which nobody edits by hand.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from matplotlib.figure import Figure

from bench.plots import save

_BLOCK: Final = re.compile(r"(<!-- numbers: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def renewed(text: str, blocks: Mapping[str, str]) -> str:
    """Put numbers into the text of a page."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{blocks[block[2]]}\n\n{block[3]}", text)


def names(text: str) -> list[str]:
    """Name the blocks of a page, in their order."""
    return [block[2] for block in _BLOCK.finditer(text)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: str = "---:") -> str:
    """Write a table whose first column is text, and whose others are numbers, aligned as it says."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, [":---", *[numbers] * (len(head) - 1)], *rows))


def setting(machine: Mapping[str, object], versions: Mapping[str, str], command: str, rows: Mapping[str, str]) -> str:
    """Write on what something was measured, with what, and these rows."""
    common = {
        "Machine": f"{machine['cores']} cores, {machine['processor']}; {machine['system']}, {machine['python']}",
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Command": f"`{command}`",
    }
    return table(("", ""), [*common.items(), *rows.items()], numbers=":---")


def parser(module: str, description: str | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark's command."""
    made = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--output", type=Path, help="write all numbers into this file")
    made.add_argument("--read", type=Path, help="measure nothing, and read the numbers from this file")
    made.add_argument("--plots", type=Path, help="draw into this folder")
    made.add_argument("--page", type=Path, help="renew the numbers of this page")
    made.add_argument("--quick", action="store_true", help="less of everything: to see that it runs")
    return made


def publish(options: argparse.Namespace, blocks: Mapping[str, str], draw: Callable[[], Mapping[str, Figure]]) -> None:
    """Print the numbers, and put them and the pictures where the options say."""
    if options.page is not None:
        options.page.write_text(renewed(options.page.read_text(encoding="utf-8"), blocks), encoding="utf-8")
    if options.plots is not None:
        save(draw(), options.plots)
    say("\n\n".join(blocks.values()))


def say(text: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
