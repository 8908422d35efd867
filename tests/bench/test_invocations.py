"""The benchmark of invocations: that it runs, and that the page shows what it measured."""

import json
from pathlib import Path

import pytest

from bench import pages
from bench.invocations import __main__ as command
from bench.invocations.handlers import HANDLERS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pages" / "lambda.md").read_text(encoding="utf-8")


def test_the_command_measures_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In small, with every handler; a duplicate runs no body, and a fresh one does."""
    output = tmp_path / "invocations.json"
    command.main(["--rounds", "1", "--calls", "10", "--output", str(output)])
    result = json.loads(output.read_text())
    assert list(result["figures"]) == list(HANDLERS)
    assert result["bodies"] == {name: 2 if name in {"undecorated", "adapter alone"} else 1 for name in HANDLERS}
    assert "| aioidempotency |" in capsys.readouterr().out


def test_every_number_of_the_page_is_that_of_its_file() -> None:
    """Nobody copies numbers by hand."""
    published = command.blocks(json.loads((ROOT / "bench" / "results" / "invocations.json").read_text()))
    assert sorted(pages.names(PAGE)) == sorted(published)
    assert pages.renewed(PAGE, published) == PAGE
