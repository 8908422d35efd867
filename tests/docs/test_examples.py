"""The documentation is true: its code runs, its commands are those of `.ci/run`, its names are there."""

import ast
import codeop
import json
import re
from collections import Counter
from pathlib import Path

import pytest

import aioidempotency
from tests.docs.blocks import Block, blocks, running

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "pages").glob("*.md"))]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

NOT_RUN: Counter[str] = Counter()
"""How many Python blocks of each page are marked `no-run`: none, so far."""

FILES = {("backends.md", 0), ("planning.md", 0)}
"""Blocks that are longer than anybody pastes into a prompt: by page, and by number among those that run."""

LANGUAGES = {"python", "json", "console", "text"}

DEMO = "python3 -m venv .venv && .venv/bin/pip install -q '.[demo]' && .venv/bin/aioidempotency demo"
TESTS = "python3 -m venv .venv && .venv/bin/pip install -q nox && .venv/bin/nox -s tests"


def page_blocks(page: Path) -> list[Block]:
    return blocks(page.read_text(encoding="utf-8"))


@EVERY_PAGE
def test_the_python_blocks_of_a_page_run(page: Path, amazon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """U2: in order, in one namespace; a block that awaits runs as it does in `python -m asyncio`."""
    with running(f"page_{page.stem.replace('-', '_')}", str(page), monkeypatch) as run:
        for block in page_blocks(page):
            if block.runs:
                run(block)


def test_the_pages_run_one_after_the_other_on_one_endpoint(amazon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """U2: a reader who pastes page after page, in the order of the navigation, needs one engine and no clean-up."""
    pages = in_the_order_of_the_navigation()
    assert set(pages) == set(PAGES) - {ROOT / "README.md"}
    for page in [ROOT / "README.md", *pages]:
        with running(f"in_turn_{page.stem.replace('-', '_')}", str(page), monkeypatch) as run:
            for block in page_blocks(page):
                if block.runs:
                    run(block)


def in_the_order_of_the_navigation() -> list[Path]:
    settings = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = settings.partition("\nnav:\n")[2].partition("\n\n")[0]
    return [ROOT / "docs" / "pages" / name for name in re.findall(r"^ +- .*: (\S+\.md)$", navigation, re.MULTILINE)]


@EVERY_PAGE
def test_the_blocks_of_a_page_can_be_pasted(page: Path) -> None:
    """U2: `python -m asyncio` takes line after line, and ends a compound statement at a blank one."""
    for number, block in enumerate(block for block in page_blocks(page) if block.runs):
        if (page.name, number) not in FILES:
            _paste(block)


def _paste(block: Block) -> None:
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    waiting: list[str] = []
    for line in [*block.text.splitlines(), ""]:
        waiting.append(line)
        if compiler("\n".join(waiting), f"line {block.line}") is not None:
            waiting.clear()
    assert waiting == []


@EVERY_PAGE
def test_the_code_of_a_page_fits_the_page(page: Path) -> None:
    """U2: a line that is longer scrolls out of sight; the README's two commands stay on one line each."""
    lines = [line for block in page_blocks(page) for line in block.text.splitlines()]
    assert [line for line in lines if len(line) > 88 and line not in (DEMO, TESTS)] == []


@EVERY_PAGE
def test_every_block_says_what_it_is(page: Path) -> None:
    """U2: a block in no language, or in a misspelt one, would not be tested."""
    assert {block.language for block in page_blocks(page)} <= LANGUAGES


def test_the_blocks_that_do_not_run_are_pinned() -> None:
    """U2: an example that cannot run is an exception that somebody decided on."""
    marked = Counter(page.name for page in PAGES for block in page_blocks(page) if "no-run" in block.info)
    assert marked == NOT_RUN


def test_there_is_something_to_run() -> None:
    """U2: the extraction finds the blocks that are there."""
    running = {page.name for page in PAGES if any(block.runs for block in page_blocks(page))}
    assert {"README.md", "index.md", "guarantees.md", "record.md", "testing.md"} <= running


@EVERY_PAGE
def test_the_json_blocks_of_a_page_parse(page: Path) -> None:
    """U2: policies and items can be copied."""
    for block in page_blocks(page):
        if block.language == "json":
            assert json.loads(block.text)


def test_the_files_of_the_page_on_testing_pass(pytester: pytest.Pytester) -> None:
    """U2: blocks with a title are files; together they are a project whose tests pass."""
    files = {block.title: block.text for block in page_blocks(ROOT / "docs" / "pages" / "testing.md") if block.title}
    assert set(files) == {"conftest.py", "test_charges.py", "shop.py", "test_shop.py"}
    for name, text in files.items():
        pytester.path.joinpath(name).write_text(text, encoding="utf-8")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)


def test_the_readme_names_the_two_commands() -> None:
    """U1: near the top, each on one line; the second is what `.ci/run` runs, to the letter."""
    readme = ROOT / "README.md"
    commands = [block for block in page_blocks(readme) if block.language == "console"]
    assert [block.text.strip() for block in commands[:2]] == [DEMO, TESTS]
    assert all(block.line < 25 for block in commands[:2])
    assert TESTS in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert len(readme.read_text(encoding="utf-8").splitlines()) < 145


def test_the_readme_and_the_first_page_start_the_same_engine() -> None:
    """U2: the settings of the engine, and of the examples that use it, are said twice and are the same."""
    readme, first = (page_blocks(page) for page in (ROOT / "README.md", ROOT / "docs" / "pages" / "index.md"))
    commands = [block.text for block in readme if block.language == "console"][2:]
    assert len(commands) == 2
    assert commands == [block.text for block in first if block.language == "console"][1:]


def test_the_demo_is_started_as_the_readme_says() -> None:
    """U1: the page on the demo has the same command."""
    commands = [block.text.strip() for block in page_blocks(ROOT / "docs" / "pages" / "demo.md")]
    assert commands == [DEMO]


def test_every_exported_name_is_in_the_reference() -> None:
    """Each public name has its entry."""
    reference = (ROOT / "docs" / "pages" / "reference.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: aioidempotency\.([A-Za-z]\w*)$", reference, flags=re.MULTILINE)
    assert set(aioidempotency.__all__) == set(listed) - {"events", "testing", "transactions"}
    assert not [name for name, count in Counter(listed).items() if count > 1]


@EVERY_PAGE
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    """A guarantee that names its proof has one."""
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    assert named <= _tests()


def test_every_row_of_the_failure_table_has_its_proof() -> None:
    """The page for users says what happens; the page for maintainers has the same rows, each with its tests."""
    promised, proved = (failures(ROOT / "docs" / "pages" / name) for name in ("guarantees.md", "proofs.md"))
    assert len(promised) > 60
    assert [row[0] for row in promised] == [row[0] for row in proved]
    assert [row for row in proved if not re.search(r"`test_\w+`", row[-1])] == []


def test_pages_for_users_name_no_tests() -> None:
    """A user reads what is guaranteed, or what was measured; the tests of guarantees are on a page for maintainers."""
    named = {page.name for page in PAGES if re.search(r"`test_\w+`", page.read_text(encoding="utf-8"))}
    assert named <= {"proofs.md", "hot-partitions.md", "speed.md"}


def failures(page: Path) -> list[list[str]]:
    lines = page.read_text(encoding="utf-8").partition("## The failure table")[2].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]
    return [row for row in rows if row[0] != "Where it breaks" and not row[0].startswith("---")]


def _tests() -> set[str]:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {name for source in sources for name in re.findall(r"def (test_\w+)\(", source)}


@EVERY_PAGE
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    """Links to files of the repository, which `mkdocs build --strict` checks for the pages but not for the README."""
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if "://" not in target and not (page.parent / target).exists()] == []
