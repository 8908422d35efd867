"""The limit of a partition, in a time that the tests set: P6, and what a split changes."""

import itertools
import math
from typing import Any

import pytest

from bench.model.limits import Limits
from bench.model.partitions import Demand, Partitions, admit
from tests.bench.calls import TABLE, Model

SECONDS = 10


def offered(model: Model, places: list[tuple[str, str]], *, per_second: int, seconds: int = SECONDS) -> list[int]:
    """Send so many writes in each second, to these places in turn; count those that were taken, by second."""
    taken = []
    turn = itertools.cycle(places)
    for second in range(seconds):
        before = model.counted("consumed_writes")
        for number in range(per_second):
            model.now = second + number / per_second
            partition, sort = next(turn)
            item = {**model.key(partition, f"{sort}{second}-{number}"), "data": {"S": "x"}}
            try_put(model, item)
        taken.append(round(model.counted("consumed_writes") - before))
    return taken


def try_put(model: Model, item: dict[str, dict[str, str]]) -> None:
    try:
        model.call("PutItem", TableName=TABLE, Item=item)
    except Exception as error:
        if "ProvisionedThroughputExceeded" not in str(error):
            raise


@pytest.mark.parametrize("partitions", [1, 64])
def test_one_partition_value_is_throttled_at_a_thousand_units_whatever_the_tables_size(partitions: int) -> None:
    """P6: more partitions do not help a static value; its burst is gone after the first seconds."""
    model = Model(composite=True, partitions=partitions, scale=0.1, burst=1)
    taken = offered(model, [("idempotency", "")], per_second=300)
    assert sum(taken[:1]) == pytest.approx(200, abs=2)
    assert taken[1:] == [pytest.approx(100, abs=2)] * (SECONDS - 1)
    assert model.counted("throttled_writes") == 300 * SECONDS - sum(taken)


def test_thirty_two_partition_values_are_not_throttled() -> None:
    """P6: the same load over 32 values finds room."""
    model = Model(composite=True, partitions=64, scale=0.1, burst=1)
    taken = offered(model, [(f"idempotency#{bucket}", "") for bucket in range(32)], per_second=300)
    assert taken == [300] * SECONDS
    assert model.counted("throttled_writes") == 0


def test_without_limits_everything_is_taken_and_counted() -> None:
    """A server for other tests and for a speed benchmark is never the limit."""
    model = Model(composite=True)
    assert offered(model, [("idempotency", "")], per_second=5000, seconds=1) == [5000]
    assert model.counted("throttled_writes") == 0


def test_unused_units_are_kept_up_to_the_burst() -> None:
    """After a long rest a partition gives its burst at once, and no more."""
    model = Model(composite=True, partitions=1, scale=0.01, burst=3)
    model.now = 1000.0
    for number in range(30):
        model.put("a", str(number))
    assert model.refusal("PutItem", TableName=TABLE, Item=model.key("a", "31")).name == (
        "ProvisionedThroughputExceededException"
    )


def test_a_write_larger_than_the_burst_gets_through_once_and_is_paid_for() -> None:
    """At a small scale an item of 400 KB costs more than a full bucket holds; the bucket owes the rest."""
    model = Model(partitions=1, scale=0.01, burst=1)
    model.put("large", data={"S": "x" * 100_000})
    for model.now in (1.0, 8.0, 8.8):
        assert model.refusal("PutItem", TableName=TABLE, Item=model.key("a")).name.startswith("ProvisionedThroughput")
    model.now = 9.0
    model.put("a")


def test_reads_and_writes_have_buckets_of_their_own() -> None:
    """A partition that is busy with writes still answers reads, three times as many."""
    model = Model(partitions=1, scale=0.01, burst=1)
    for number in range(10):
        model.put(str(number))
    assert model.refusal("PutItem", TableName=TABLE, Item=model.key("a")).name.startswith("ProvisionedThroughput")
    for number in range(30):
        model.get(str(number))
    refused = model.refusal("GetItem", TableName=TABLE, Key=model.key("1"), ConsistentRead=True)
    reasons = refused.fields["ThrottlingReasons"]
    assert reasons == [
        {
            "reason": "TableReadKeyRangeThroughputExceeded",
            "resource": "arn:aws:dynamodb:eu-central-1:000000000000:table/orders",
        }
    ]


def test_a_busy_partition_leaves_the_others_alone() -> None:
    """What one partition refuses costs its neighbours nothing."""
    model = Model(composite=True, partitions=2, scale=0.01, burst=1)
    low, high = values_on_both_sides(model)
    for number in range(10):
        model.put(low, str(number))
    assert model.refusal("PutItem", TableName=TABLE, Item=model.key(low, "x")).name.startswith("ProvisionedThroughput")
    for number in range(10):
        model.put(high, str(number))


def values_on_both_sides(model: Model) -> tuple[str, str]:
    """Find two partition values in the two partitions of a table."""
    found: dict[int, str] = {}
    for number in range(100):
        before = [each["consumed_writes"] for each in model.report()["partitions"]]
        model.now += 1
        model.put(f"value-{number}", "0")
        after = [each["consumed_writes"] for each in model.report()["partitions"]]
        found.setdefault(next(index for index in range(2) if after[index] > before[index]), f"value-{number}")
        if len(found) == 2:
            break
    model.now += 10
    return found[0], found[1]


def test_a_demand_over_two_partitions_takes_from_both_or_from_none() -> None:
    """The busy one refuses the whole, and the index says which part it was."""
    table = Partitions(Limits(partitions=2, scale=0.01, burst=1), 0.0)
    low, high = b"\x00", b"\xf0"
    assert admit([Demand(table=table, point=low, writes=8)], 0.0) == ()
    both = [Demand(table=table, point=high, writes=5), Demand(table=table, point=low, writes=5)]
    assert admit(both, 0.0) == [1]
    assert admit([Demand(table=table, point=high, writes=10)], 0.0) == ()


def test_a_saturated_partition_is_split_inside_one_value_by_its_sort_key() -> None:
    """A split raises the limit: after it, both halves give as much as the whole did."""
    model = Model(composite=True, partitions=1, scale=0.1, burst=1, split_after=3)
    places = [("idempotency", f"{letter}-") for letter in "abcdefgh"]
    taken = offered(model, places, per_second=150)
    assert taken[2] == pytest.approx(100, abs=2)
    assert taken[-1] == 150
    assert model.report()["splits"] == 1
    assert len(model.report()["partitions"]) == 2


def test_a_split_between_two_values_gives_each_its_own_partition() -> None:
    """The point that halves the traffic of two values is where one of them begins."""
    model = Model(composite=True, partitions=1, scale=0.1, burst=1, split_after=3)
    offered(model, [("one", ""), ("two", "")], per_second=180)
    counts = [each["items"] for each in model.report()["partitions"]]
    assert len(counts) == 2
    assert min(counts) > 300


def test_refusals_that_stop_in_between_do_not_split_a_partition() -> None:
    """Saturation lasts: a burst every few seconds is none, however long that goes on."""
    model = Model(composite=True, partitions=1, scale=0.1, burst=1, split_after=3)
    for tick in range(20):
        for number in range(150):
            model.now = tick * 2 + number / 1000
            try_put(model, model.key("idempotency", f"{number}"))
    assert model.counted("throttled_writes") > 0
    assert model.report()["splits"] == 0


def test_a_partition_is_not_split_when_that_is_turned_off() -> None:
    """The default: the limit stays, for as long as the load does."""
    model = Model(composite=True, partitions=1, scale=0.1, burst=1)
    offered(model, [("idempotency", "")], per_second=300)
    assert model.report()["splits"] == 0


def test_a_growing_sort_key_is_hot_again_after_a_split() -> None:
    """All new traffic lies right of the point that halved the old: a split does not help it."""
    model = Model(composite=True, partitions=1, scale=0.1, burst=1, split_after=3)
    taken = []
    for second in range(12):
        before = model.counted("consumed_writes")
        for number in range(200):
            model.now = second + number / 200
            try_put(model, model.key("idempotency", f"{second:04}-{number:04}"))
        taken.append(round(model.counted("consumed_writes") - before))
    assert model.report()["splits"] > 0
    assert taken[4:] == [pytest.approx(100, abs=3)] * 8


def test_one_hot_item_cannot_be_split() -> None:
    """A partition holds at least one item, and its limit is the item's."""
    model = Model(composite=True, partitions=1, scale=0.1, burst=1, split_after=1)
    for tick in range(1000):
        model.now = tick / 200
        try_put(model, model.key("idempotency", "always"))
    assert model.report()["splits"] == 0


@pytest.mark.parametrize(
    "wrong", [{"partitions": 0}, {"scale": 0}, {"scale": math.inf}, {"burst": 0}, {"split_after": -1}], ids=str
)
def test_limits_that_make_no_partition_are_refused(wrong: dict[str, Any]) -> None:
    """A benchmark with a mistyped setting does not run."""
    with pytest.raises(ValueError, match="|".join(wrong)[:5]):
        Limits(**wrong)


def test_the_report_counts_by_partition_and_starts_again() -> None:
    """Units, refusals and items; items are no count of events, and stay."""
    model = Model(partitions=4, scale=0.01, burst=1)
    for number in range(20):
        model.put(f"item-{number}")
    model.get("item-1")
    partitions = model.report(Reset=True)["partitions"]
    assert len(partitions) == 4
    assert partitions[0]["start"] == ""
    assert sum(each["items"] for each in partitions) == sum(each["consumed_writes"] for each in partitions) == 20
    assert sum(each["consumed_reads"] for each in partitions) == 1
    assert (model.counted("consumed_writes"), model.counted("consumed_reads")) == (0, 0)
    assert sum(each["items"] for each in model.report()["partitions"]) == 20
