"""The numbers that tests cite are those of `tests/README.md`."""

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
NUMBER = re.compile(r"\b[CGHLOPTUX]\d{1,2}\b")


def _cited() -> set[str]:
    """Read the numbers in the docstrings of all tests and of what they use."""
    found: set[str] = set()
    for path in TESTS.rglob("*.py"):
        if path != Path(__file__):
            for docstring in re.findall(r'"""(.*?)"""', path.read_text(), re.DOTALL):
                found |= set(NUMBER.findall(docstring))
    return found


def test_every_number_that_a_test_cites_is_a_behaviour_and_every_behaviour_has_a_test() -> None:
    """A reader who meets a number finds what it stands for; a behaviour that nothing tests is no promise."""
    listed = {line[2:].split()[0] for line in (TESTS / "README.md").read_text().splitlines() if line.startswith("- ")}
    assert listed == _cited()
