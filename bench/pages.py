"""Numbers in pages of the documentation, as they follow from what was measured.

Each stands between two comments, `<!-- numbers: name -->` and `<!-- end -->`, which nobody edits by hand.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

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
