"""The command `plan`: what it prints, draws and refuses."""

import json
import re
import shlex
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.image import imread
from rich.console import Console
from typer.testing import CliRunner, Result

from aioidempotency._cli import chart, plot
from aioidempotency._cli.app import app
from aioidempotency._cli.planning import Plan, Row, Terms, make_plan
from aioidempotency._cli.workload import Workload
from tests.support.values import replace

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "planning.md"
EXAMPLE = ("--calls-per-second", "20000", "--duplicates", "0.2", "--result-bytes", "900")
SMALL = ("--calls-per-second", "2000", "--duplicates", "0.2", "--result-bytes", "900")
GIVEN = {"--calls-per-second": "100", "--result-bytes": "100"}
ROW = re.compile(
    r"^ +([\d,]+) +(> 99\.9|< 0\.1|[\d.e-]+) % +(> 99\.9|< 0\.1|[\d.e-]+) % +(\S.*?|) +([\d,]+) % ?([◀◁]?)"
)


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The plan of the example."""
    return make_plan(Workload(calls_per_second=20_000, duplicates=0.2, result_bytes=900), Terms())


def _run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["plan", *arguments])


def _answer(*arguments: str) -> dict[str, Any]:
    run = _run(*arguments, "--json")
    assert (run.exit_code, run.stderr) == (0, "")
    answer = json.loads(run.stdout)
    assert isinstance(answer, dict)
    return answer


def _drawn(plan: Plan) -> str:
    console = Console(width=80, file=StringIO(), record=True)
    console.print(chart.answer(plan))
    return console.export_text()


def _facts(text: str) -> dict[str, str]:
    """The lines of the first table: what stands between name and meaning."""
    return dict(re.findall(r"^ (\S+(?: \S+)*) {2,}(\S+(?: bytes| %)?)(?: {2,}|$)", text, flags=re.MULTILINE))


def test_the_table_prints_what_the_json_says() -> None:
    """Both are views of one plan."""
    shown, answer = _facts(_run(*EXAMPLE).stdout), _answer(*EXAMPLE)
    assert shown["Take"] == f"HashBuckets({answer['buckets']})"
    assert shown["Enough after splits"] == f"{answer['enough_alone']:,}"
    assert shown["Enough before splits"] == f"{answer['enough_together']:,}"
    assert shown["Write units a second"] == f"{answer['write_units']:,.0f}"
    assert shown["Read units a second"] == f"{answer['read_units']:,.0f}"
    assert shown["A finished record"] == f"{answer['finished_bytes']:,} bytes"
    assert shown["Static would take"] == f"{answer['static'] * 100:.3g} %"
    assert shown["Requests a month"] == f"${answer['cost']:,.2f}"
    assert answer["cost"] == pytest.approx(answer["write_cost"] + answer["read_cost"])


def test_every_row_of_the_chart_is_a_row_of_the_json() -> None:
    """Buckets, both probabilities, the hottest load, a bar as long as the load and marks at the two answers."""
    lines = [found for line in _run(*EXAMPLE).stdout.splitlines() if (found := ROW.match(line))]
    answer = _answer(*EXAMPLE)
    assert len(lines) == len(answer["rows"])
    for found, row in zip(lines, answer["rows"], strict=True):
        buckets, after, before, bar, hottest, mark = found.groups()
        assert buckets == f"{row['buckets']:,}"
        assert f"{after} %" == chart.likelihood(row["alone"])
        assert f"{before} %" == chart.likelihood(row["together"])
        assert hottest == f"{row['hottest'] * 100:,.0f}"
        assert mark == {answer["buckets"]: "◀", answer["enough_alone"]: "◁"}.get(row["buckets"], "")
        assert bar.count("█") + bar.count("┃") == min(26, round(row["hottest"] * 13))
        assert ("▶" in bar) is (row["hottest"] > 2)
        assert re.split("[│┃]", bar)[0].replace(" ", "█") == "█" * 13


def test_an_answer_fits_a_terminal_of_80_columns(plan: Plan) -> None:
    """Nothing is cut off, and no line of a table is broken."""
    text = _drawn(plan)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert len([line for line in text.splitlines() if ROW.match(line)]) == len(plan.rows)


@pytest.mark.parametrize(
    ("probability", "shown"),
    [(0, "0 %"), (1e-9, "< 0.1 %"), (0.53041, "53 %"), (0.98177, "98.2 %"), (0.9999, "> 99.9 %"), (1.0, "> 99.9 %")],
)
def test_no_probability_is_printed_as_certain(probability: float, shown: str) -> None:
    """What rounds to 1 is printed as above 99.9 %."""
    assert chart.likelihood(probability) == shown


def test_the_notes_follow_from_the_plan(plan: Plan) -> None:
    """A warm-up and a quota for a large load, neither for a small one; a plan without an answer says so."""
    large = " ".join(chart.notes(plan))
    assert "4,000 write or 12,000 read units" in large
    assert "40,000 write or read units" in large
    assert "HashBuckets(32)" not in large
    little = make_plan(Workload(calls_per_second=100, result_bytes=100), Terms())
    small = " ".join(chart.notes(little))
    assert "4,000" not in small
    assert "40,000" not in small
    assert "HashBuckets(32), is enough" in small
    assert "No power of two up to 8,192 is enough for 112 partitions" in _flat(replace(plan, enough_together=None))


def _flat(plan: Plan) -> str:
    return " ".join(_drawn(plan).split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*SMALL, "--read-first"), "reading first"),
        ((*SMALL, "--places", "3"), "3 places"),
        ((*SMALL, "--partitions", "40"), "40 partitions, as given"),
        (("--calls-per-second", "100", "--result-bytes", "100"), "4 partitions, a new table's"),
        (EXAMPLE, "112 partitions, twice the need"),
    ],
)
def test_an_answer_says_what_it_was_asked(arguments: tuple[str, ...], words: str) -> None:
    """The options that change the numbers stand beside them."""
    assert words in " ".join(_run(*arguments).stdout.split())


def test_several_places_are_not_called_hash_buckets() -> None:
    """That strategy has one place."""
    text = _run(*SMALL, "--places", "3").stdout
    assert re.search(r"^ Take +[\d,]+ buckets +", text, flags=re.MULTILINE)
    assert "HashBuckets" not in text


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--calls-per-second", "0", "above 0: not 0"),
        ("--calls-per-second", "-5", "above 0: not -5"),
        ("--calls-per-second", "nan", "above 0: not nan"),
        ("--calls-per-second", "inf", "above 0: not inf"),
        (
            "--calls-per-second",
            "1e9",
            "more than 10,000 buckets; spread the calls over several tables, or take SimpleKey",
        ),
        ("--duplicates", "-0.1", "0 to 1: not -0.1"),
        ("--duplicates", "20", "0 to 1: not 20; 0.2 means 20 %"),
        ("--duplicates", "nan", "0 to 1: not nan"),
        ("--result-bytes", "-1", "0 or more: not -1"),
        ("--result-bytes", "409349", "409348 at the most: not 409349"),
        ("--namespace-bytes", "401", "1 to 400: not 401"),
        ("--places", "0", "1 to 100: not 0"),
        ("--partitions", "0", "1 to 100000: not 0"),
        ("--probability", "0", "above 0 and up to 0.999999: not 0"),
        ("--probability", "1", "above 0 and up to 0.999999: not 1"),
        ("--write-price", "-1", "0 or more: not -1"),
        ("--read-price", "nan", "0 or more: not nan"),
        ("--plot", "plan.pdf", ".png or .svg: not plan.pdf"),
        ("--plot", "missing/plan.png", "cannot be written: No such file or directory"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(option: str, value: str, words: str) -> None:
    """It names the option and what it takes; the exit code is 2."""
    run = _run(*(word for pair in {**GIVEN, option: value}.items() for word in pair))
    assert (run.exit_code, run.stdout) == (2, "")
    assert run.stderr.startswith(f"aioidempotency: {option} ")
    assert words in run.stderr
    assert run.stderr.count("\n") == 1


def test_the_largest_result_that_fits_is_planned() -> None:
    """The size in the refusal is one that works."""
    answer = _answer("--calls-per-second", "1", "--result-bytes", "409348")
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
        'aioidempotency: --plot needs matplotlib, which is not installed; run: pip install "aioidempotency[plot]"\n'
    )


def test_a_picture_holds_the_rows_of_the_plan(plan: Plan) -> None:
    """Its lines go through the numbers of the chart; the chosen one is marked in both halves."""
    likely, hot = plot.draw(plan).axes
    lines = {str(line.get_label()): np.column_stack(line.get_data()) for line in (*likely.lines, *hot.lines)}

    def points(name: str) -> list[tuple[float, float]]:
        return [tuple(point) for point in lines[name]]

    def of(value: str) -> list[tuple[float, float]]:
        return [(row.buckets, getattr(row, value)) for row in plan.rows]

    assert points("after splits: each bucket alone") == of("alone")
    assert points("before splits: 112 partitions, at least") == of("together")
    assert points("hottest partition before splits, median of the simulation") == of("hottest")
    assert {y for _, y in points("asked for: 0.99")} == {0.99}
    for axes in likely, hot:
        assert [4096, 4096] in [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
    assert [text.get_text() for text in likely.texts] == ["HashBuckets(4096)"]


def test_a_png_shows_both_curves(tmp_path: Path) -> None:
    """A picture of the size that was asked for, with ink in the colour of each curve."""
    file = tmp_path / "plan.PNG"
    assert _run(*SMALL, "--plot", str(file)).exit_code == 0
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    pixels = imread(file)[:, :, :3]
    assert pixels.shape == (1050, 1350, 3)
    for colour in plot._AFTER, plot._BEFORE:
        ink = np.abs(pixels - np.array(colors.to_rgb(colour))).max(axis=2) < 0.02
        columns = np.flatnonzero(ink[150:540].any(axis=0))  # the upper half, below its legend
        assert np.ptp(columns) > 600


def test_an_svg_says_what_it_shows(tmp_path: Path) -> None:
    """Its text is text: the answer, the load, the axes; and the same plan gives the same file."""
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    for file in first, second:
        assert _run(*EXAMPLE, "--plot", str(file)).exit_code == 0
    root = ET.fromstring(first.read_bytes())
    texts = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"HashBuckets(4096)", "buckets", "limit of a partition", "before splits: 112 partitions, at least"} <= texts
    assert "20,000 calls a second: 56,000 write and 0 read units a second" in texts
    assert first.read_bytes() == second.read_bytes()


def test_a_plan_that_is_drawn_is_printed_too(tmp_path: Path) -> None:
    """The file comes on top."""
    file = tmp_path / "plan.svg"
    assert _run(*SMALL, "--plot", str(file)).stdout == _run(*SMALL).stdout
    assert _answer(*SMALL, "--plot", str(file)) == _answer(*SMALL)


def test_the_errors_of_a_simulation_are_never_drawn_as_none() -> None:
    """25 seconds that all went well do not prove that all do."""
    row = Row(buckets=1, alone=1, together=1, together_at_most=1, hottest=0.5, simulated=1, seconds=25)
    assert 0.05 < plot._uncertain(row) < 0.15


def test_the_page_on_planning_shows_what_the_command_prints() -> None:
    """Each command of the page, to the letter."""
    sessions = re.findall(
        r"^```console\n\$ aioidempotency plan (.*)\n((?s:.*?))^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sessions
    for arguments, shown in sessions:
        printed = "\n".join(line.rstrip() for line in _run(*shlex.split(arguments)).stdout.splitlines())
        assert printed.strip() == shown.strip()
