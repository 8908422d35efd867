"""The benchmark of speed: what it sends, what it computes, and that it runs."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore
from bench import pages
from bench.speed import bare, contest, goals, jobs, page, rounds
from bench.speed.__main__ import main
from bench.speed.contest import Workload
from bench.speed.figures import FIGURES, summary
from bench.speed.ours import Decorated

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pages" / "speed.md").read_text(encoding="utf-8")


def row(contestant: str, processor: float, *, number: int = 1, at_once: int = 64, p99: float = 0.02) -> dict[str, Any]:
    """One span of a hundred fresh calls."""
    counted = {"requests": 200, "write_units": 200.0, "read_units": 0.0, "processor": 0.1}
    figures = {"calls": 100, "wall": 1.0, "processor": processor, "p50": 0.01, "p99": p99, "peak_bytes": 50e6}
    cell = {"contestant": contestant, "workload": "fresh", "concurrency": at_once, "round": number}
    return {**cell, **figures, "bodies": 100, "server": counted}


@pytest.mark.parametrize(("workload", "fresh"), [("fresh", 100), ("duplicates", 0), ("mix", 75)])
def test_a_workload_has_its_share_of_duplicates(workload: Workload, fresh: int) -> None:
    """Every fresh call has a key of its own; the others come for keys that were executed before."""
    keys = rounds.keys(workload, "a", 8, 100)
    assert len(keys) == 100
    assert len(set(keys) - set(rounds.known("a"))) == fresh
    assert sum(key in rounds.known("a") for key in keys) == 100 - fresh


async def test_the_bare_calls_send_what_the_library_sends() -> None:
    """The same parameters, the same names, and values of the same types and lengths: else the ratio says nothing."""
    ours, theirs = bare.Recording(), bare.Recording()
    await Decorated(AsyncIdempotencyStore(jobs.TABLE, client=ours)).call("key")
    await bare.TwoCalls(theirs, None, ours.asked).call("key")  # type: ignore[arg-type] # it is not closed
    assert list(theirs.asked) == list(ours.asked) == ["put_item", "update_item"]
    assert shape(theirs.asked) == shape(ours.asked)


def shape(value: Any) -> object:
    """Keep names and expressions, and of attribute values type and length."""
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1 and value.keys() & {"S", "N"}:
        return [(kind, len(content)) for kind, content in value.items()]
    return {name: shape(each) for name, each in value.items()}


def test_a_figure_is_the_median_of_the_rounds_with_its_spread() -> None:
    """Per execution, and per second of the worker's own processor time."""
    rows = [row("plain path", seconds, number=number) for number, seconds in enumerate((0.2, 0.1, 0.4))]
    (found,) = summary(rows)
    assert (found["contestant"], found["workload"], found["concurrency"]) == ("plain path", "fresh", 64)
    assert found["processor_us"] == [2000, 1000, 4000]
    assert found["per_processor_second"] == [500, 250, 1000]
    assert found["requests"] == [2, 2, 2]
    assert found["server_share"][2] == 0.1
    assert found.keys() > FIGURES.keys()


def test_a_goal_is_a_ratio_inside_a_round() -> None:
    """A machine that is slow for one round is slow for both; a goal without a measurement is neither met nor missed."""
    bare_rows = [row(contest.BARE.name, seconds, number=number) for number, seconds in enumerate((0.1, 0.1, 0.4))]
    ours = [row(contest.PLAIN.name, seconds, number=number) for number, seconds in enumerate((0.105, 0.2, 0.42))]
    first, *others = goals.outcomes([*bare_rows, *ours], [])
    assert [first["measured"].median, first["measured"].most] == pytest.approx([1.05, 2.0])
    assert first["met"] is True
    assert [each["met"] for each in others] == [None] * len(others)


def test_goals_of_both_senses_can_be_missed() -> None:
    """At least a rate, at most a time."""
    group, plain = contest.GROUP_COMMIT.name, contest.PLAIN.name
    rows = [row(group, 0.05, p99=0.03), row(plain, 0.1, p99=0.04), row(contest.BARE.name, 0.1)]
    missed = [each for each in goals.outcomes(rows, [{"bytes_per_call": 9000.0}]) if each["met"] is False]
    assert {"at most" in each for each in missed} == {True, False}
    assert len(missed) == 3


def test_the_command_measures_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In small, with two contestants, each of whose calls in flight are weighed."""
    output = tmp_path / "speed.json"
    small = ["--concurrency", "2", "--rounds", "1", "--seconds", "0.01", "--only", "group commit", "plain path"]
    main([*small, "--output", str(output), "--plots", str(tmp_path)])
    result = json.loads(output.read_text())
    assert {each["workload"] for each in result["figures"]} == set(contest.WORKLOADS)
    assert [each["contestant"] for each in result["memory"]] == ["group commit", "plain path"]
    assert len(result["goals"]) == len(goals.GOALS) + 1
    assert str(tmp_path) not in json.dumps(result["versions"] | result["machine"])
    assert "| group commit |" in capsys.readouterr().out
    names = [f"speed-{name}.svg" for name in ("comparison", "latency", "throughput")]
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == names


@pytest.fixture(scope="module")
def published() -> dict[str, str]:
    """What the page has to show, from the file of the published run."""
    return page.blocks(json.loads((ROOT / "bench" / "results" / "speed.json").read_text()))


def test_every_number_of_the_page_is_that_of_its_file(published: dict[str, str]) -> None:
    """Nobody copies numbers by hand: each block of the page follows from the file, and none is left out."""
    assert sorted(pages.names(PAGE)) == sorted(published)
    assert pages.renewed(PAGE, published) == PAGE


def test_the_published_run_is_a_whole_one() -> None:
    """Every contestant that could take part, every level, every round; and the pictures that the page shows."""
    run = json.loads((ROOT / "bench" / "results" / "speed.json").read_text())
    assert run["settings"]["concurrencies"] == [1, 8, 32, 64, 128, 256]
    assert {row["contestant"] for row in run["figures"]} | set(run["left_out"]) == set(contest.ORDER)
    assert len(run["rounds"]) == run["settings"]["rounds"] * len(run["figures"])
    shown = re.findall(r"images/(\S+\.svg)", PAGE)
    assert len(shown) == 3
    assert all((ROOT / "docs" / "pages" / "images" / name).exists() for name in shown)
