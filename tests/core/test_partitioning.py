"""Where records live: pinned routes, an even spread, and settings that are refused."""

import hashlib
from collections import Counter
from dataclasses import FrozenInstanceError

import pytest

from aioidempotency._core.model import AttributeNames, Location, Table
from aioidempotency.exceptions import ConfigurationError, PartitioningError
from aioidempotency.partitioning import CompositeKey, HashBuckets, SimpleKey, Static
from tests.core.playing import NOW

CRITICAL = 61.098
"""Chi-squared, 31 degrees of freedom: 999 of 1,000 even spreads stay below it."""


@pytest.mark.parametrize(
    ("key", "of_32", "of_7", "of_1000"),
    [
        ("", "idempotency#2", "idempotency#4", "idempotency#138"),
        ("a", "idempotency#31", "idempotency#1", "idempotency#719"),
        (
            "orders#6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b",
            "idempotency#22",
            "idempotency#2",
            "idempotency#878",
        ),
        ("shop.charge#" + "0" * 64, "idempotency#25", "idempotency#0", "idempotency#121"),
        ("läden#ключ", "idempotency#31", "idempotency#3", "idempotency#239"),
    ],
)
def test_routes_are_pinned(key: str, of_32: str, of_7: str, of_1000: str) -> None:
    """P1: xxh3_64 with seed 0 over UTF-8 is the table's format; another route would run every key again."""
    assert HashBuckets(32).home(key, NOW) == of_32
    assert HashBuckets(7).home(key, NOW) == of_7
    assert HashBuckets(1000).home(key, NOW) == of_1000


def test_keys_spread_evenly() -> None:
    """P1: 100,000 keys over 32 buckets pass a chi-squared test; the keys are fixed, so this does not flicker."""
    buckets = HashBuckets(32)
    keys = (f"orders#{hashlib.sha256(str(n).encode()).hexdigest()}" for n in range(100_000))
    counted = Counter(buckets.home(key, NOW) for key in keys)
    assert counted.keys() == {f"idempotency#{n}" for n in range(32)}
    expected = 100_000 / 32
    assert sum((found - expected) ** 2 / expected for found in counted.values()) < CRITICAL


def test_a_record_has_one_place_at_all_times() -> None:
    """A second attempt looks where the first one wrote."""
    for partitioning in (HashBuckets(32), Static("all")):
        assert partitioning.home("orders#1", NOW) == partitioning.home("orders#1", NOW + 1e9)
        assert partitioning.elsewhere("orders#1", NOW) == ()


def test_the_prefix_of_buckets_can_be_chosen() -> None:
    """Several stores may share one table."""
    assert HashBuckets(1, prefix="orders").home("any", NOW) == "orders#0"


def test_static_puts_all_records_into_one_partition() -> None:
    """As Powertools does."""
    assert {Static("idempotency#handler").home(key, NOW) for key in "abc"} == {"idempotency#handler"}


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "32", None])
def test_buckets_that_cannot_be_counted_are_refused(n: int) -> None:
    """The number is part of the table's format."""
    with pytest.raises(PartitioningError, match=f"as a whole number: not {n}$"):
        HashBuckets(n)


@pytest.mark.parametrize("text", ["", None, 5])
def test_a_partition_value_is_a_text(text: str) -> None:
    """DynamoDB takes no empty key, and a number would be another key than its text."""
    with pytest.raises(PartitioningError, match="HashBuckets needs a prefix: a text that is not empty"):
        HashBuckets(32, prefix=text)
    with pytest.raises(PartitioningError, match="Static needs a partition value: a text that is not empty"):
        Static(text)


def test_a_simple_key_is_the_partition() -> None:
    """DynamoDB spreads such a table by itself."""
    table = SimpleKey("key").table("records", AttributeNames(data="d"))
    assert table == Table("records", "key", None, AttributeNames(data="d"))
    assert SimpleKey("key").route(table, "orders#1") == Location(table=table, partition="orders#1", sort=None)


def test_a_composite_key_asks_its_partitioning() -> None:
    """The key goes into the sort attribute, whole."""
    layout = CompositeKey("p", "s", partitioning=Static("here"))
    table = layout.table("records", AttributeNames())
    assert table == Table("records", "p", "s", AttributeNames())
    assert layout.route(table, "orders#1") == Location(table=table, partition="here", sort="orders#1")


def test_the_default_layouts() -> None:
    """A table made for Powertools, and 32 buckets where there is a sort key."""
    assert SimpleKey() == SimpleKey("id")
    assert CompositeKey() == CompositeKey("pk", "sk", partitioning=HashBuckets(32, prefix="idempotency"))


def test_a_strategy_of_ones_own_is_refused() -> None:
    """One that goes by time would look for a record where it is not, and run its key again."""

    class ByDay:
        def home(self, key: str, now: float) -> str:
            return f"{key}@{now // 86400:.0f}"

        def elsewhere(self, key: str, now: float) -> tuple[str, ...]:
            return ()

    with pytest.raises(PartitioningError, match="known to be safe"):
        CompositeKey(partitioning=ByDay())  # type: ignore[arg-type] # that is the test


@pytest.mark.parametrize("names", [("", "sk"), ("pk", ""), ("pk", "pk"), (None, "sk")])
def test_a_composite_key_needs_two_names(names: tuple[str, str]) -> None:
    """ConditionFailed where they are given, before any table is described."""
    with pytest.raises(ConfigurationError, match="attribute"):
        CompositeKey(*names)


def test_a_simple_key_needs_a_name() -> None:
    """Likewise."""
    with pytest.raises(ConfigurationError, match="attribute"):
        SimpleKey("")


@pytest.mark.parametrize("strategy", [None, 32, "idempotency", object(), HashBuckets])
def test_what_is_no_partitioning_is_refused(strategy: HashBuckets) -> None:
    """The message names those that are."""
    with pytest.raises(PartitioningError, match=r"takes HashBuckets, TimeBuckets, .* known to be safe: not"):
        CompositeKey(partitioning=strategy)


@pytest.mark.parametrize(
    ("value", "field"),
    [(Static("a"), "value"), (HashBuckets(2), "n"), (SimpleKey(), "attribute"), (CompositeKey(), "partitioning")],
)
def test_where_records_live_cannot_be_changed(value: object, field: str) -> None:
    """Another location on live data would run keys twice."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, field, "other")
