"""What the measurement of placements rests on: schedules that are fair, and counts that say what happened."""

from collections import Counter
from itertools import pairwise

import msgspec
import pytest

from bench import placements
from bench.hot import pictures
from bench.hot.arrivals import schedule
from bench.hot.calls import Outcome
from bench.hot.labels import spread_out
from bench.hot.results import Result, counted, percentile
from bench.hot.settings import NO_LIMITS, PLACEMENTS, QUICK, STREAMS, Settings, batches
from tests.support.values import replace

TINY = Settings(
    loads=(5, 10),
    rounds=1,
    warm_up=1,
    window=1,
    patience=0.2,
    repeats=0,
    split_load=5,
    split_seconds=1,
    ceiling_seconds=0.1,
)


@pytest.mark.parametrize("settings", [Settings(), QUICK], ids=["whole", "quick"])
@pytest.mark.parametrize("turn", range(3))
def test_each_measurement_is_in_one_batch_that_the_client_can_play(settings: Settings, turn: int) -> None:
    """None is forgotten, and turns differ in who plays together."""
    made = batches(settings, turn)
    wanted = Counter((placement.name, load) for placement in PLACEMENTS for load in settings.loads)
    assert Counter((each.placement.name, each.offered) for batch in made for each in batch) == wanted
    assert all(sum(each.work for each in batch) <= settings.at_once for batch in made)
    assert made != batches(settings, turn + 1)


@pytest.mark.parametrize("stream", STREAMS)
def test_a_schedule_offers_the_same_in_every_second_and_every_time(stream: str) -> None:
    """All placements get the same calls; another round gets others."""
    made = schedule(stream, 40, 5, "round 1")
    assert Counter(int(each.at) for each in made) == dict.fromkeys(range(5), 40)
    assert [each.at for each in made] == sorted(each.at for each in made)
    assert made == schedule(stream, 40, 5, "round 1")
    assert made != schedule(stream, 40, 5, "round 2")


def test_half_of_a_skewed_schedule_are_duplicates_and_most_of_few_keys() -> None:
    """A key is never repeated before it came; the first ones come most often."""
    keys = [each.key for each in schedule("skewed", 1000, 5, "round 1")]
    counts = Counter(keys)
    assert 1 - len(counts) / len(keys) == pytest.approx(0.5, abs=0.03)
    first_come = list(dict.fromkeys(keys))
    assert counts[first_come[0]] == max(counts.values()) > 200
    assert sum(count for _, count in counts.most_common(len(counts) // 100)) > len(keys) / 4
    assert len({each.key for each in schedule("uniform", 1000, 5, "round 1")}) == 5000


def test_calls_count_where_they_begin_and_completions_where_they_end() -> None:
    """Latency counts from the time of the schedule, and of completed calls alone."""
    settings = replace(TINY, warm_up=1, window=2)
    outcomes = [
        Outcome(at=0.5, begun=0.5, ended=1.5, fate="executed"),
        Outcome(at=1.0, begun=1.1, ended=1.2, fate="executed"),
        Outcome(at=2.0, begun=2.0, ended=2.4, fate="replayed"),
        Outcome(at=2.5, begun=2.5, ended=3.5, fate="executed"),
        Outcome(at=2.6, begun=2.6, ended=2.7, fate="throttled"),
        Outcome(at=2.7, begun=2.7, ended=2.8, fate="refused"),
        Outcome(at=2.8, begun=2.8),
        Outcome(at=3.0, begun=3.0, ended=3.1, fate="executed"),
    ]
    assert counted(outcomes, settings) == {
        "calls": 6,
        "executed": 2,
        "replayed": 1,
        "refused": 1,
        "throttled": 1,
        "unanswered": 1,
        "completed_per_second": 1.5,
        "p50_ms": 400.0,
        "p99_ms": 1000.0,
        "late_ms": 100.0,
    }


@pytest.mark.parametrize(("share", "wanted"), [(0.5, 50), (0.99, 99), (1, 100), (0.001, 1)])
def test_a_percentile_is_one_of_the_values(share: float, wanted: int) -> None:
    """The smallest one that so many are not above."""
    assert percentile(map(float, range(1, 101)), share) == wanted


@pytest.mark.parametrize("heights", [[0.0] * 8, [1.0] * 8, [0.1, 0.11, 0.9, 0.91, 0.99, 1.0], [0.5]], ids=len)
def test_names_at_the_ends_of_lines_do_not_cover_each_other(heights: list[float]) -> None:
    """They keep their order, and stay beside the axes."""
    places = spread_out(heights)
    assert all(after - before > 0.06 for before, after in pairwise(places))
    assert min(places) >= 0
    assert max(places) <= 1


async def test_the_command_measures_what_it_says() -> None:
    """A run of seconds on real servers: every call has one fate, and without limits it is completed."""
    found = await placements.measured(TINY, "a test")
    assert len(found.rows) == len(STREAMS) * len(TINY.loads) * len(PLACEMENTS)
    for row in found.rows:
        assert row.calls == row.offered * TINY.window
        assert row.calls == row.executed + row.replayed + row.refused + row.throttled + row.unanswered
        assert row.write_units > 0
        if row.strategy == NO_LIMITS:
            assert row.throttled_writes == 0
    assert msgspec.json.decode(msgspec.json.encode(found), type=Result) == found
    assert len(pictures.drawn(found)) == 4
