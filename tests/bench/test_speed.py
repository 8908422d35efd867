"""The benchmark of speed: what it sends, what it computes, and that it runs."""

import inspect
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import pytest

from aioidempotency import AsyncIdempotencyStore
from bench import pages, profile
from bench.speed import bare, contest, goals, jobs, page
from bench.speed.__main__ import main
from bench.speed.figures import FIGURES, summary
from bench.speed.ours import Decorated
from bench.spread import Spread


def job(workload: str, calls: int = 100) -> dict[str, Any]:
    return {"workload": workload, "calls": calls, "concurrency": 8, "prefix": "a", "known": 10}


def row(contestant: str, processor: float, *, number: int = 1, at_once: int = 64, p99: float = 0.02) -> dict[str, Any]:
    """One span of a hundred fresh calls."""
    counted = {"requests": 200, "write_units": 200.0, "read_units": 0.0, "processor": 0.1}
    figures = {"calls": 100, "wall": 1.0, "processor": processor, "p50": 0.01, "p99": p99, "peak_bytes": 50e6}
    cell = {"contestant": contestant, "workload": "fresh", "concurrency": at_once, "round": number}
    return {**cell, **figures, "bodies": 100, "server": counted}


@pytest.mark.parametrize(("workload", "fresh"), [("fresh", 100), ("duplicates", 0), ("mix", 75)])
def test_a_workload_has_its_share_of_duplicates(workload: str, fresh: int) -> None:
    """Every fresh call has a key of its own; the others come for keys that were executed before."""
    keys = jobs.keys(job(workload))
    assert len(keys) == 100
    assert jobs.fresh(job(workload)) == fresh
    assert sum(key in jobs.known(job(workload)) for key in keys) == 100 - fresh


def test_percentiles_are_values_that_were_measured() -> None:
    """The one that so many do not exceed."""
    values = [float(number) for number in range(1, 201)]
    assert [jobs.percentile(values, share) for share in (0.5, 0.99, 1.0)] == [100, 198, 200]
    assert jobs.percentile([7.0], 0.01) == 7


@final
class Recording:
    """A client that answers everything with success, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    def __getattr__(self, method: str) -> Any:
        async def answer(**parameters: Any) -> Mapping[str, Any]:
            self.asked.append((method, parameters))
            return {}

        return answer


async def test_the_bare_calls_send_what_the_library_sends() -> None:
    """The same parameters, the same names, and values of the same types and lengths: else the ratio says nothing."""
    theirs, ours = Recording(), Recording()
    decorated = Decorated(AsyncIdempotencyStore(jobs.TABLE, client=ours))
    await decorated.call("key")
    calls = bare.TwoCalls(theirs, resources=None)  # type: ignore[arg-type] # it is not closed
    await calls.call("key")
    assert [method for method, _ in theirs.asked] == [method for method, _ in ours.asked] == ["put_item", "update_item"]
    for (_, found), (_, expected) in zip(theirs.asked, ours.asked, strict=True):
        assert shape(found) == shape(expected)


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
    found = summary(rows)["plain path", "fresh", 64]
    assert found["processor_us"] == Spread(2000, 1000, 4000)
    assert found["per_processor_second"] == Spread(500, 250, 1000)
    assert found["requests"] == Spread(2, 2, 2)
    assert found["server_share"].most == 0.1
    assert found.keys() == FIGURES.keys()


def test_a_goal_is_a_ratio_inside_a_round() -> None:
    """A machine that is slow for one round is slow for both; a goal without a measurement is neither met nor missed."""
    bare_rows = [row(contest.BARE.name, seconds, number=number) for number, seconds in enumerate((0.1, 0.1, 0.4))]
    ours = [row(contest.PLAIN.name, seconds, number=number) for number, seconds in enumerate((0.105, 0.2, 0.42))]
    first, *others = goals.outcomes([*bare_rows, *ours], [])
    assert first.measured is not None
    assert [first.measured.median, first.measured.most] == pytest.approx([1.05, 2.0])
    assert first.met is True
    assert [each.met for each in others] == [None] * len(others)


def test_goals_of_both_senses_can_be_missed() -> None:
    """At least a rate, at most a time."""
    group, plain = contest.GROUP_COMMIT.name, contest.PLAIN.name
    rows = [row(group, 0.05, p99=0.03), row(plain, 0.1, p99=0.04), row(contest.BARE.name, 0.1)]
    found = {each.goal.name: each for each in goals.outcomes(rows, [{"bytes_per_call": 9000.0}])}
    missed = {name for name, each in found.items() if each.met is False}
    assert len(missed) == 3
    assert all(found[name].written()["measured"] is not None for name in missed)


def test_the_command_measures_prints_writes_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In small, with one contestant."""
    output = tmp_path / "results" / "speed.json"
    small = ["--concurrency", "2", "--rounds", "1", "--seconds", "0.01", "--only", "group commit"]
    main([*small, "--output", str(output), "--plots", str(tmp_path)])
    result = json.loads(output.read_text())
    assert {each["workload"] for each in result["figures"]} == set(jobs.WORKLOADS)
    assert result["memory"][0]["bytes_per_call"] > 0
    assert len(result["goals"]) == len(goals.GOALS)
    assert str(tmp_path) not in json.dumps(result["versions"] | result["machine"])
    assert "Fresh calls" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == [
        "speed-comparison.svg",
        "speed-latency.svg",
        "speed-throughput.svg",
    ]


ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pages" / "speed.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def published() -> dict[str, str]:
    """What the page has to show, from the files of the published run."""
    names = ("speed", "profile-before", "profile")
    read = (json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text()) for name in names)
    return page.blocks(*read)


def test_every_number_of_the_page_is_that_of_its_files(published: dict[str, str]) -> None:
    """Nobody copies numbers by hand: each block of the page follows from the files, and none is left out."""
    assert sorted(pages.names(PAGE)) == sorted(published)
    assert pages.renewed(PAGE, published) == PAGE


def test_a_changed_number_of_the_page_is_put_right(published: dict[str, str]) -> None:
    """Renewing changes the blocks and nothing else, also where they are empty."""
    wrong, empty = (pages.renewed(PAGE, dict.fromkeys(published, text)) for text in ("0", ""))
    assert len({wrong, empty, PAGE}) == 3
    assert pages.renewed(wrong, published) == pages.renewed(empty, published) == PAGE


def test_the_published_run_is_a_whole_one() -> None:
    """Every contestant that could take part, every level, every round; and the pictures that the page shows."""
    run = json.loads((ROOT / "bench" / "results" / "speed.json").read_text())
    assert run["settings"]["concurrencies"] == [1, 8, 32, 64, 128, 256]
    assert {row["contestant"] for row in run["figures"]} | set(run["left_out"]) == set(contest.ORDER)
    assert len(run["rounds"]) == run["settings"]["rounds"] * len(run["figures"])
    shown = re.findall(r"images/(\S+\.svg)", PAGE)
    assert len(shown) == 3
    assert all((ROOT / "docs" / "pages" / "images" / name).exists() for name in shown)


def busy() -> int:
    """Run for a while where no rule names."""
    return sum(range(20_000))


def test_samples_belong_to_the_innermost_frame_that_a_rule_names() -> None:
    """Code of nobody's, called by nobody's, is other; the shares of what was sampled make a hundred."""
    samples: Counter[str] = Counter()
    with profile.sampling(samples):
        while samples.total() < 5:
            busy()
    assert set(samples) == {"other"}
    assert profile.shares(Counter({"event loop": 1, "other": 3})) == {"event loop": 25.0, "other": 75.0}
    namespace: dict[str, Any] = {"inspect": inspect}
    exec(compile("def look(): return inspect.currentframe()", "site-packages/botocore/auth.py", "exec"), namespace)
    assert profile.area_of(namespace["look"]()) == "client: signing"
    assert profile.area_of(None) == "other"
