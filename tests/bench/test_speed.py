"""The benchmark of speed: what it sends, what it computes, and that it runs."""

import dataclasses
import itertools
import json
import re
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest

from aioidempotency import AsyncIdempotencyStore
from bench import instructions, pages
from bench.speed import bare, contest, goals, jobs, loads, page, rounds
from bench.speed.__main__ import main
from bench.speed.contest import Workload
from bench.speed.figures import FIGURES, summary
from bench.speed.ours import Decorated

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
PAGE = (ROOT / "docs" / "pages" / "speed.md").read_text(encoding="utf-8")


def row(contestant: str, processor: float, *, number: int = 1, at_once: int = 64, p99: float = 0.02) -> dict[str, Any]:
    """One span of a hundred fresh calls."""
    counted = {"requests": 200, "write_units": 200.0, "read_units": 0.0, "processor": 0.1}
    figures = {"calls": 100, "wall": 1.0, "processor": processor, "p50": 0.01, "p99": p99, "peak_bytes": 50e6}
    cell = {"contestant": contestant, "workload": "fresh", "level": at_once, "round": number}
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
    assert (found["contestant"], found["workload"], found["level"]) == ("plain path", "fresh", 64)
    assert found["processor_us"] == [2000, 1000, 4000]
    assert found["per_processor_second"] == [500, 250, 1000]
    assert found["requests"] == [2, 2, 2]
    assert found["server_share"][2] == 0.1
    assert found.keys() > FIGURES.keys()


def test_a_goal_is_a_ratio_inside_a_round() -> None:
    """A machine that is slow for one round is slow for both; a goal without a measurement is neither met nor missed."""
    bare_rows = [row(contest.BARE.name, seconds, number=number) for number, seconds in enumerate((0.1, 0.1, 0.4))]
    ours = [row(contest.PLAIN.name, seconds, number=number) for number, seconds in enumerate((0.014, 0.02, 0.056))]
    first, *others = goals.outcomes([*bare_rows, *ours], [], {})
    assert [first["measured"].median, first["measured"].most] == pytest.approx([0.14, 0.2])
    assert first["met"] is True
    assert [each["met"] for each in others] == [None] * len(others)


def test_goals_of_both_senses_can_be_missed() -> None:
    """At least a rate, at most a time."""
    group, plain = contest.GROUP_COMMIT.name, contest.PLAIN.name
    rows = [row(group, 0.05, p99=0.03), row(plain, 0.1, p99=0.04), row(contest.BARE.name, 0.1)]
    counted = {group: 500.0, plain: 100.0, contest.BARE.name: 1000.0}
    found = goals.outcomes(rows, [{"bytes_per_call": 9000.0}], counted)
    missed = [each for each in found if each["met"] is False]
    assert {"at most" in each for each in missed} == {True, False}
    assert len(missed) == 4
    assert [each["goal"].split(",")[1] for each in found if each["met"]] == [" instructions"]


def test_a_goal_can_be_a_figure_over_a_number() -> None:
    """Own code is compared with what it once took."""
    own = [row(contest.OWN_CODE.name, 0.00308)]
    (found,) = [each for each in goals.outcomes(own, [], {}) if each["met"] is not None]
    assert found["measured"].median == pytest.approx(0.5)
    assert found["met"] is False


@pytest.mark.parametrize("rate", [50, 1500])
def test_arrivals_are_those_of_a_poisson_process(rate: int) -> None:
    """Gaps vary as much as their mean; all contestants get the same ones, and another round gets others."""
    times = loads.arrivals(rate, 100, "round 1")
    gaps = [later - earlier for earlier, later in itertools.pairwise([0.0, *times])]
    assert statistics.mean(gaps) == pytest.approx(1 / rate, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / rate, rel=0.05)
    assert times == loads.arrivals(rate, 100, "round 1") != loads.arrivals(rate, 100, "round 2")


def test_only_the_own_numbers_must_not_grow() -> None:
    """Not those of peers, which others write; and not by less than counting itself moves them."""
    before = {"plain path": 100.0, "group commit": 100.0, "two bare calls, tuned": 100.0}
    now = {"plain path": 103.5, "group commit": 102.5, "two bare calls, tuned": 200.0, "cold start": 5.0}
    assert instructions.grown(before, now) == ["plain path"]
    assert instructions.rows(before, now)[-1] == ("cold start", "", "5")


@pytest.mark.timeout(180)  # it starts a dozen processes
def test_the_command_measures_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In small, with two contestants, each of whose calls in flight are weighed."""
    output = tmp_path / "speed.json"
    small = ["--concurrency", "64", "--rounds", "1", "--seconds", "0.01", "--rates", "1000", "--bursts", "10", "20"]
    main([*small, "--only", "group commit", "plain path", "--output", str(output), "--plots", str(tmp_path)])
    result = json.loads(output.read_text())
    assert {each["workload"] for each in result["figures"]} == set(get_args(contest.Workload))
    assert [each["contestant"] for each in result["memory"]] == ["plain path", "group commit"]
    assert str(tmp_path) not in json.dumps(result["versions"] | result["machine"])
    assert "| group commit |" in capsys.readouterr().out
    names = [f"speed-{name}.svg" for name in ("comparison", "latency", "throughput")]
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == names


@pytest.fixture(scope="module")
def published() -> dict[str, str]:
    """What the page has to show, from the file of the published run."""
    return page.blocks(*(json.loads((RESULTS / f"{name}.json").read_text()) for name in ("speed", "instructions")))


def test_every_number_of_the_page_is_that_of_its_file(published: dict[str, str]) -> None:
    """Nobody copies numbers by hand: each block of the page follows from the file, and none is left out."""
    assert sorted(pages.names(PAGE)) == sorted(published)
    assert pages.renewed(PAGE, published) == PAGE


def test_the_published_run_is_a_whole_one() -> None:
    """Every contestant that could take part, every level, every round; and the pictures that the page shows."""
    run, counted = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("speed", "instructions"))
    assert list(counted["thousands"]) == list(instructions.COUNTS)
    assert run["settings"] == json.loads(json.dumps(dataclasses.asdict(rounds.Settings())))
    assert {row["contestant"] for row in run["figures"]} | set(run["left_out"]) == set(contest.ORDER)
    assert len(run["rounds"]) == run["settings"]["rounds"] * len(run["figures"])
    shown = re.findall(r"images/(\S+\.svg)", PAGE)
    assert len(shown) == 3
    assert all((ROOT / "docs" / "pages" / "images" / name).exists() for name in shown)
