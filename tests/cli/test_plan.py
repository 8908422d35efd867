"""The command `plan`: what it prints, draws and refuses."""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.image import imread
from typer.testing import CliRunner, Result

from aioidempotency._cli import plot
from aioidempotency._cli.app import app
from aioidempotency._cli.plan import notes
from aioidempotency._cli.planning import Load, Plan, make_plan

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "planning.md"
EXAMPLE = ("--calls-per-second", "20000", "--duplicates", "0.2", "--result-bytes", "900")
SMALL = ("--calls-per-second", "2000", "--duplicates", "0.2", "--result-bytes", "900")
GIVEN = {"--calls-per-second": "100", "--result-bytes": "100"}


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of the example."""
    return make_plan(Load(calls_per_second=20_000, duplicates=0.2, result_bytes=900))


def _run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["plan", *arguments])


def _answer(*arguments: str) -> dict[str, Any]:
    run = _run(*arguments, "--json")
    assert (run.exit_code, run.stderr) == (0, "")
    answer = json.loads(run.stdout)
    assert isinstance(answer, dict)
    return answer


def test_the_text_says_what_the_json_says() -> None:
    """Both are views of one plan."""
    answer = _answer(*EXAMPLE)
    shown = dict(re.findall(r"^(\w+(?: units)?) {2,}(.*)$", _run(*EXAMPLE).stdout, flags=re.MULTILINE))
    assert shown["Take"] == f"HashBuckets({answer['buckets']})"
    assert shown["Write units"].startswith(f"{answer['write_units']:,.0f} a second: {answer['fresh'][0]} for a fresh")
    assert shown["Read units"].startswith(f"{answer['read_units']:,.0f} a second: {answer['fresh'][1]} for a fresh")
    assert shown["Records"].startswith(f"{answer['finished_bytes']:,} bytes")
    assert shown["Requests"].startswith(f"${answer['cost']:,.2f} a month")


def test_every_row_of_the_text_is_a_row_of_the_json() -> None:
    """Buckets, the load rounded up, a bar as long as the load, and a mark at the answer."""
    rows = re.findall(r"^ +([\d,]+) +([\d,]+)  (█+)( *<- take this)?$", _run(*EXAMPLE).stdout, flags=re.MULTILINE)
    answer = _answer(*EXAMPLE)
    assert len(rows) == len(answer["hottest"])
    for (buckets, load, bar, mark), (number, share) in zip(rows, answer["hottest"].items(), strict=True):
        assert buckets == f"{int(number):,}"
        assert load == f"{math.ceil(share * 100):,}"
        assert len(bar) == min(40, round(20 * share))
        assert bool(mark) is (int(number) == answer["buckets"])


@pytest.mark.parametrize(
    "arguments", [EXAMPLE, (*SMALL, "--read-first", "--locations", "3", "--probability", "0.999999")]
)
def test_an_answer_fits_a_terminal_of_80_columns(arguments: tuple[str, ...]) -> None:
    """Wherever it is printed."""
    assert max(map(len, _run(*arguments).stdout.splitlines())) <= 80


def test_the_notes_follow_from_the_plan(plan: Plan) -> None:
    """A warm-up and a quota for a large load, neither for a small one."""
    large = " ".join(notes(plan))
    assert "4,000 write or 12,000 read units" in large
    assert "40,000 write or read units" in large
    small = " ".join(notes(make_plan(Load(calls_per_second=100, result_bytes=100))))
    assert "4,000" not in small
    assert "40,000" not in small
    assert "A bucket costs nothing" in small


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SMALL, "--read-first"), "reading first"),
        ((*SMALL, "--locations", "3"), "3 locations"),
        ((*SMALL, "--partitions", "40"), "The hottest of 40 partitions"),
        (EXAMPLE, "The hottest of 112 partitions"),
    ],
)
def test_an_answer_says_what_it_was_asked(arguments: tuple[str, ...], words: str) -> None:
    """The options that change the numbers stand beside them."""
    assert words in _run(*arguments).stdout


def test_several_locations_are_not_called_hash_buckets() -> None:
    """That strategy has one location."""
    text = _run(*SMALL, "--locations", "3").stdout
    assert re.search(r"^Take +[\d,]+ buckets$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--calls-per-second", "0"),
        ("--calls-per-second", "-5"),
        ("--calls-per-second", "nan"),
        ("--calls-per-second", "inf"),
        ("--duplicates", "-0.1"),
        ("--duplicates", "20"),
        ("--result-bytes", "-1"),
        ("--namespace-bytes", "401"),
        ("--locations", "0"),
        ("--partitions", "0"),
        ("--probability", "1"),
        ("--write-price", "-1"),
        ("--read-price", "nan"),
    ],
)
def test_a_number_out_of_bounds_is_refused(option: str, value: str) -> None:
    """The message names the option; the exit code is 2."""
    run = _run(*(word for pair in {**GIVEN, option: value}.items() for word in pair))
    assert (run.exit_code, run.stdout) == (2, "")
    assert f"Invalid value for '{option}'" in run.stderr


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--calls-per-second", "1e9", "spread the calls over several tables, or use a table without a sort key"),
        ("--partitions", "1", "warm the table up and give more --partitions"),
        ("--result-bytes", "409314", "--result-bytes 409314 does not fit into an item of DynamoDB: give up to 409313"),
        ("--plot", "plan.pdf", "--plot takes a file that ends in .png or .svg: not plan.pdf"),
        ("--plot", "missing/plan.png", "--plot missing/plan.png cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(option: str, value: str, words: str) -> None:
    """It says what to do; the exit code is 2."""
    run = _run(*(word for pair in {**GIVEN, "--calls-per-second": "500", option: value}.items() for word in pair))
    assert (run.exit_code, run.stdout) == (2, "")
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


def test_the_largest_result_that_fits_is_planned() -> None:
    """The size in the refusal is one that works."""
    answer = _answer("--calls-per-second", "1", "--result-bytes", "409313", "--partitions", "100")
    assert answer["finished_bytes"] == 400 * 1024


def test_prices_are_per_million_units() -> None:
    """Twice the price, twice the cost; reads have a price of their own."""
    asked = (*SMALL, "--read-first")
    once = _answer(*asked, "--write-price", "1", "--read-price", "0")
    twice = _answer(*asked, "--write-price", "2", "--read-price", "1")
    assert once["cost"] == pytest.approx(4800 * 730 * 3600 / 1e6)
    assert twice["cost"] == pytest.approx(2 * once["cost"] + 2000 * 730 * 3600 / 1e6)


def test_a_missing_matplotlib_is_named() -> None:
    """One line says what to install, and nothing is planned without the picture."""
    blocked = "import sys; sys.modules['matplotlib'] = None; from aioidempotency._cli import main; main()"
    command = [sys.executable, "-c", blocked, "plan", *SMALL, "--plot", "plan.png"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=45, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == (
        'aioidempotency: --plot needs matplotlib, which is not installed; install aioidempotency[plot], in a clone: pip install ".[plot]"\n'
    )


def test_a_picture_holds_the_rows_of_the_plan(plan: Plan) -> None:
    """Its line goes through the numbers of the text; the limit and the answer are marked."""
    (axes,) = plot.draw(plan).axes
    lines = {str(line.get_label()): np.column_stack(line.get_data()).tolist() for line in axes.lines}
    assert lines["hottest partition"] == [[buckets, share] for buckets, share in plan.hottest.items()]
    assert {y for _, y in lines["limit of a partition"]} == {1}
    assert {x for x, _ in lines["HashBuckets(4096)"]} == {4096}


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    """Of the size that was asked for, with ink on it."""
    file = tmp_path / "plan.PNG"
    assert _run(*SMALL, "--plot", str(file)).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(file)[:, :, :3]
    assert pixels.shape == (750, 1350, 3)
    assert pixels.min() < 0.1
    assert pixels.max() == 1


def test_an_svg_says_what_it_shows(tmp_path: Path) -> None:
    """Its text is text: the answer, the load, the axes; and the same plan gives the same file."""
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for file in first, second:
        assert _run(*EXAMPLE, "--plot", str(file)).exit_code == 0
    root = ET.fromstring(first.read_bytes())
    texts = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"HashBuckets(4096)", "buckets", "limit of a partition", "hottest partition"} <= texts
    title = "HashBuckets(4096) for 20,000 calls a second on 112 partitions: 56,000 write and 0 read units a second"
    assert title in texts
    assert first.read_bytes() == second.read_bytes()


def test_a_plan_that_is_drawn_is_printed_too(tmp_path: Path) -> None:
    """The file comes on top."""
    file = tmp_path / "plan.svg"
    assert _run(*SMALL, "--plot", str(file)).stdout == _run(*SMALL).stdout
    assert _answer(*SMALL, "--plot", str(file)) == _answer(*SMALL)


def test_the_page_on_planning_shows_what_the_command_prints() -> None:
    """Each command of the page, to the letter."""
    sessions = re.findall(
        r"^```console\n\$ aioidempotency plan (.*)\n((?s:.*?))^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sessions
    for arguments, shown in sessions:
        printed = "\n".join(line.rstrip() for line in _run(*shlex.split(arguments)).stdout.splitlines())
        assert printed.strip() == shown.strip()
