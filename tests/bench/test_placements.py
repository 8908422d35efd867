"""The benchmark of placements: its page says what its file says, and its file shows what P6 promises."""

import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench import pages, placements, plots
from bench.hot import page, pictures
from bench.hot.arrivals import schedule
from bench.hot.calls import Outcome
from bench.hot.results import Result, counted
from bench.hot.settings import BUCKETS, NO_LIMITS, PLACEMENTS, STATIC, Settings
from bench.spread import percentile
from tests.support.values import replace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pages" / "hot-partitions.md").read_text(encoding="utf-8")
TINY = Settings(loads=(5,), rounds=1, warm_up=0, window=1, patience=0.2, tries=1)


@pytest.fixture(scope="module")
def result() -> Result:
    """What is published."""
    content = (ROOT / "bench" / "results" / "placements.json").read_bytes()
    return msgspec.json.decode(content, type=Result)


def test_every_number_of_the_page_is_that_of_the_file(result: Result) -> None:
    """Nobody copies numbers by hand: each block of the page follows from the file, and none is left out."""
    blocks = page.blocks(result)
    assert sorted(pages.names(PAGE)) == sorted(blocks)
    assert pages.renewed(PAGE, blocks) == PAGE


def test_a_changed_number_of_the_page_is_put_right(result: Result) -> None:
    """Renewing the page changes the blocks and nothing else, also where they are empty."""
    blocks = page.blocks(result)
    wrong, empty = (pages.renewed(PAGE, dict.fromkeys(blocks, text)) for text in ("0", ""))
    assert len({wrong, empty, PAGE}) == 3
    assert pages.renewed(wrong, blocks) == pages.renewed(empty, blocks) == PAGE


def test_the_published_run_is_a_whole_one(result: Result) -> None:
    """Every placement, under every load, in every round; with the settings that the command has."""
    assert result.settings == Settings()
    assert "--quick" not in result.command
    rounds = range(1, result.settings.rounds + 1)
    wanted = {(load, name, number) for load in result.settings.loads for name in PLACEMENTS for number in rounds}
    assert Counter((row.offered, row.strategy, row.round) for row in result.rows) == Counter(wanted)


def test_a_static_value_is_throttled_and_thirty_two_buckets_are_not(result: Result) -> None:
    """P6: measured, in each round by itself; the test that needs no clock is in tests/behaviours."""
    top = max(result.settings.loads)
    rows = {(row.strategy, row.round): row for row in result.rows if row.offered == top}
    for number in range(1, result.settings.rounds + 1):
        static, buckets = rows[STATIC, number], rows[BUCKETS, number]
        assert static.throttled_percent > 50
        assert static.completed_per_second <= 1.3 * result.settings.partition_limit
        assert buckets.throttled_percent < 5
        assert buckets.completed_per_second >= 0.9 * top
    assert page.ratio(result).least >= 8


def test_the_client_is_not_what_was_measured(result: Result) -> None:
    """Calls began in time, and a server without limits answered every one of every load."""
    for row in result.rows:
        assert row.late_ms <= result.settings.late_limit_ms
        assert row.client_busy < 0.8
        if row.strategy == NO_LIMITS:
            assert (row.throttled, row.unanswered) == (0, 0)


def test_the_pictures_are_those_of_the_file(result: Result, tmp_path: Path) -> None:
    """All pictures of the page are drawn; the names of the lines stand in them as text."""
    drawn = plots.save(pictures.drawn(result), tmp_path)
    shown = re.findall(r"\(images/([\w-]+\.svg)\)", PAGE)
    assert sorted(path.name for path in drawn) == sorted(shown)
    assert all((ROOT / "docs" / "pages" / "images" / name).exists() for name in shown)
    assert all(name in path.read_text(encoding="utf-8") for path in drawn for name in PLACEMENTS)


def test_a_schedule_offers_the_same_in_every_second_and_every_time() -> None:
    """All placements get the same times; another round gets others."""
    made = schedule(40, 5, "round 1")
    assert Counter(map(int, made)) == dict.fromkeys(range(5), 40)
    assert made == sorted(made) == schedule(40, 5, "round 1")
    assert made != schedule(40, 5, "round 2")


def test_calls_count_where_they_begin_and_completions_where_they_end() -> None:
    """Latency counts from the time of the schedule, and of completed calls alone."""
    outcomes = [
        Outcome(at=0.5, begun=0.5, ended=1.5, fate="executed"),
        Outcome(at=1.0, begun=1.1, ended=1.2, fate="executed"),
        Outcome(at=2.0, begun=2.0, ended=2.4, fate="executed"),
        Outcome(at=2.5, begun=2.5, ended=3.5, fate="executed"),
        Outcome(at=2.6, begun=2.6, ended=2.7, fate="throttled"),
        Outcome(at=2.8, begun=2.8),
        Outcome(at=3.0, begun=3.0, ended=3.1, fate="executed"),
    ]
    assert counted(outcomes, replace(TINY, warm_up=1, window=2)) == {
        "calls": 5,
        "executed": 3,
        "throttled": 1,
        "unanswered": 1,
        "completed_per_second": 1.5,
        "p50_ms": 400.0,
        "p99_ms": 1000.0,
        "late_ms": 100.0,
    }


def test_a_round_without_a_completed_call_has_no_latency(result: Result) -> None:
    """The other rounds' median stands; where no round has a latency, there is none."""
    none = replace(result.rows[0], p99_ms=None)
    first = (none.offered, none.strategy, "p99_ms")
    assert replace(result, rows=[none]).at(*first) is None
    found = replace(result, rows=[none, replace(none, round=2, p99_ms=7.0)]).at(*first)
    assert found is not None
    assert found.median == 7.0


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, wanted: int) -> None:
    """The smallest value that so many do not exceed."""
    assert percentile(list(map(float, range(1, 101))), share) == wanted


async def test_the_command_measures_every_placement() -> None:
    """A run of seconds on real servers: every call has one fate, and without limits none is throttled."""
    found = await placements.measured(TINY, "a test")
    assert [row.strategy for row in found.rows] == list(PLACEMENTS)
    for row in found.rows:
        assert row.calls == 5 == row.executed + row.throttled + row.unanswered
        assert row.throttled == 0 or row.strategy != NO_LIMITS
    assert msgspec.json.decode(msgspec.json.encode(found), type=Result) == found
