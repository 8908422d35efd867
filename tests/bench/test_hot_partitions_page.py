"""The picture of hot partitions: its page says what its file says, and its file shows what P6 promises."""

import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench.hot import page, pictures
from bench.hot.results import Result, Row, percentile, summary
from bench.hot.settings import BUCKETS, NO_LIMITS, PLACEMENTS, STATIC, STREAMS, Settings
from tests.support.values import replace

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pages" / "hot-partitions.md").read_text(encoding="utf-8")
LOADS = Settings().loads


@pytest.fixture(scope="module")
def result() -> Result:
    """What is published."""
    content = (ROOT / "bench" / "results" / "placements.json").read_bytes()
    return msgspec.json.decode(content, type=Result)


def test_every_number_of_the_page_is_that_of_the_file(result: Result) -> None:
    """Nobody copies numbers by hand: each block of the page follows from the file, and none is left out."""
    found = re.findall(r"<!-- numbers: ([\w-]+) -->\n\n(.*?)\n\n<!-- end -->", PAGE, flags=re.DOTALL)
    assert PAGE.count("<!-- numbers:") == PAGE.count("<!-- end -->") == len(found)
    assert dict(found) == page.blocks(result)
    assert page.renewed(PAGE, result) == PAGE


def test_a_changed_number_is_put_right(result: Result) -> None:
    """Renewing the page changes the blocks and nothing else, also where they are empty."""
    wrong = re.sub(r"(<!-- numbers: completed -->\n).*?(\n<!-- end -->)", r"\g<1>0\2", PAGE, flags=re.DOTALL)
    empty = re.sub(r"(<!-- numbers: [\w-]+ -->\n).*?(<!-- end -->)", r"\1\2", PAGE, flags=re.DOTALL)
    assert len({wrong, empty, PAGE}) == 3
    assert page.renewed(wrong, result) == page.renewed(empty, result) == PAGE


def test_the_published_run_is_a_whole_one(result: Result) -> None:
    """Every placement, under every load, in every round; with the settings that the command has."""
    assert result.settings == Settings()
    wanted = {
        (stream, load, placement.name, number + 1)
        for stream in STREAMS
        for load in LOADS
        for placement in PLACEMENTS
        for number in range(result.settings.rounds)
    }
    assert Counter((row.stream, row.offered, row.strategy, row.round) for row in result.rows) == Counter(wanted)
    assert result.summary == summary(result.rows)
    assert "--quick" not in result.command


@pytest.mark.parametrize("load", LOADS[-2:])
def test_where_one_partition_is_saturated_thirty_two_buckets_complete_eight_times_the_calls(
    result: Result, load: int
) -> None:
    """P6: measured, in each round by itself; the test that needs no clock is in tests/behaviours."""
    done = {(row.strategy, row.round): row.completed_per_second for row in result.rows if is_at(row, load)}
    for number in range(1, result.settings.rounds + 1):
        assert done[BUCKETS, number] >= 0.8 * load
        assert done[STATIC, number] <= 1.3 * result.settings.partition_limit
    assert page.ratio(result, load) >= (8 if load == LOADS[-1] else 7.5)


def is_at(row: Row, load: int) -> bool:
    return (row.stream, row.offered) == ("uniform", load)


def test_the_client_is_not_what_was_measured(result: Result) -> None:
    """Calls began in time, and a server without limits answers every one of every load."""
    for row in result.rows:
        assert row.late_ms <= result.settings.late_limit_ms
        assert row.client_busy < 0.8
        if row.strategy == NO_LIMITS:
            assert (row.throttled, row.unanswered) == (0, 0)
    assert all(curve.late_ms <= result.settings.late_limit_ms for curve in result.splitting)
    assert result.at("uniform", LOADS[-1], NO_LIMITS).completed_per_second.median > 0.95 * LOADS[-1]


def test_the_pictures_are_those_of_the_file(result: Result, tmp_path: Path) -> None:
    """All that the page shows are drawn; the names of the lines stand in them as text."""
    pictures.save(result, tmp_path)
    shown = re.findall(r"\(images/([\w-]+\.svg)\)", PAGE)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(shown)
    assert all((ROOT / "docs" / "pages" / "images" / name).exists() for name in shown)
    for name in shown:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert BUCKETS in text
        assert STATIC in text


def test_a_round_without_a_completed_call_has_no_latency(result: Result) -> None:
    """The others' median stands; where no round has one, there is none."""
    assert percentile([], 0.5) is None
    row = replace(result.rows[0], executed=0, throttled=result.rows[0].calls, unanswered=0, p99_ms=None)
    (point,) = summary([row, replace(row, round=2)])
    assert (point.p99_ms, point.failed_share.median) == (None, 1.0)
    (point,) = summary([row, replace(row, round=2, p99_ms=7.0)])
    assert point.p99_ms is not None
    assert point.p99_ms.median == 7.0
