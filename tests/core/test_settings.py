"""Settings are checked when they are given, and said back when they make no sense."""

import math
from datetime import timedelta
from typing import Any

import pytest

from aioidempotency import AsyncIdempotencyStore
from aioidempotency._core.model import AttributeNames, Location
from aioidempotency._core.protocol import Claim
from aioidempotency._keys import LONGEST_NAMESPACE, check_namespace
from aioidempotency._options import (
    Duration,
    Settings,
    Wait,
    check_errors,
    check_table_name,
    interval,
    one_of,
    patience,
    seconds,
    time_limit,
)
from aioidempotency.backends.dynamodb.checks import check_table_name as check_dynamodb_name
from aioidempotency.exceptions import ConfigurationError, MissingKeyError
from aioidempotency.partitioning import CompositeKey, Static, Terms
from tests.core.playing import NOW

NO_DURATIONS: list[Any] = [0, 0.0, -1, -0.001, math.nan, math.inf, -math.inf, True, False, "60", None, timedelta(0)]


@pytest.mark.parametrize(
    ("given", "read"),
    [(1, 1.0), (0.5, 0.5), (timedelta(minutes=2), 120.0), (timedelta(milliseconds=1), 0.001), (1e-9, 1e-9)],
)
def test_durations_are_seconds(given: Duration, read: float) -> None:
    """A number or a timedelta at the face, a float inside."""
    assert seconds(given, "lease") == read
    assert isinstance(seconds(given, "lease"), float)


@pytest.mark.parametrize("given", [*NO_DURATIONS, timedelta(seconds=-1)])
def test_a_duration_that_is_none_is_refused(given: Duration) -> None:
    """By the name under which it was given."""
    with pytest.raises(ConfigurationError) as caught:
        seconds(given, "lease")
    assert str(caught.value) == f"lease= takes seconds or a timedelta, above 0 and under 300 years: not {given!r}"


def test_a_clock_skew_may_be_nothing() -> None:
    """One machine has one clock."""
    assert [seconds(given, "clock_skew", zero=True) for given in (0, 0.0, timedelta(0), 0.5, timedelta(seconds=2))] == [
        0.0,
        0.0,
        0.0,
        0.5,
        2.0,
    ]


@pytest.mark.parametrize("given", [-1, False, True, None, math.nan, "0"])
def test_a_clock_skew_that_is_none_is_refused(given: Any) -> None:
    """It is a duration, apart from 0."""
    with pytest.raises(ConfigurationError, match="clock_skew= takes"):
        seconds(given, "clock_skew", zero=True)


@pytest.mark.parametrize(
    ("heartbeat", "read"), [(False, None), (True, 20.0), (20, 20.0), (0.5, 0.5), (timedelta(seconds=1), 1.0), (1, 1.0)]
)
def test_a_heartbeat_is_a_third_of_the_lease_or_less(heartbeat: bool | Duration, read: float | None) -> None:
    """Two renewals may fail before the lease ends."""
    assert interval(heartbeat, 60.0) == read


def test_a_heartbeat_that_is_too_slow_is_refused() -> None:
    """A single failure would lose the lease."""
    with pytest.raises(ConfigurationError, match=r"^heartbeat=20.5 is longer than a third of the lease, 20 s; give a"):
        interval(20.5, 60.0)


@pytest.mark.parametrize("given", [0, -1, None, math.nan])
def test_a_heartbeat_that_is_no_duration_is_refused(given: Any) -> None:
    """`False` says that there is none."""
    with pytest.raises(ConfigurationError, match="heartbeat= takes"):
        interval(given, 60.0)


def test_waiting_takes_a_time_limit() -> None:
    """`raise` waits for nothing."""
    assert patience("raise") == 0.0
    assert patience(Wait(5)) == 5.0
    assert patience(Wait(timedelta(minutes=1))) == 60.0


@pytest.mark.parametrize("given", NO_DURATIONS)
def test_waiting_without_a_time_limit_is_refused(given: Duration) -> None:
    """When it is given, not when a duplicate comes."""
    with pytest.raises(ConfigurationError, match=r"^Wait\(timeout\)= takes"):
        Wait(given)


@pytest.mark.parametrize("given", ["wait", None, 5, Wait])
def test_what_is_no_way_to_meet_a_running_call_is_refused(given: Any) -> None:
    """There are two."""
    with pytest.raises(ConfigurationError, match=r"on_in_progress= is 'raise' or Wait\(seconds\): not "):
        patience(given)


def test_a_word_must_be_among_the_choices() -> None:
    """They are all named."""
    one_of("run", "missing_key", ("raise", "run"))
    with pytest.raises(ConfigurationError, match=r"^missing_key= is 'raise' or 'run': not 'walk'$"):
        one_of("walk", "missing_key", ("raise", "run"))


def test_errors_to_store_are_classes() -> None:
    """None, one or several."""
    check_errors(())
    check_errors((ValueError, KeyError))


@pytest.mark.parametrize(
    "given", [ValueError, [ValueError], (ValueError("x"),), (ValueError, KeyboardInterrupt), ("x",), None]
)
def test_errors_to_store_that_are_none_are_refused(given: Any) -> None:
    """A cancellation or an interruption is no outcome of a call."""
    with pytest.raises(ConfigurationError, match="store_errors= takes a tuple of exception classes: not "):
        check_errors(given)


@pytest.mark.parametrize(
    ("lease", "limit"),
    [(0.2, 0.1), (1, 0.5), (2, 1.0), (4, 1.0), (8, 2.0), (36, 9.0), (40, 10.0), (60, 10.0), (1e6, 10.0)],
)
def test_one_operation_is_bounded_well_below_the_lease(lease: float, limit: float) -> None:
    """A quarter of it, between one and ten seconds; never more than half of it."""
    assert time_limit(lease) == pytest.approx(limit)


@pytest.mark.parametrize(
    "name", ["abc", "my_table-1.x", "arn:aws-cn:dynamodb:cn-north-1:123456789012:table/records", "a" * 255]
)
def test_names_and_arns_of_tables_are_accepted(name: str) -> None:
    """As DynamoDB writes them."""
    check_dynamodb_name(name)
    check_table_name(name)


@pytest.mark.parametrize(
    "name", ["ab", "a b", "täble", "abc\n", "a" * 256, "arn:aws:s3:::table/records", "", "\ud800", None, 5]
)
def test_what_is_no_table_name_is_refused(name: str) -> None:
    """With what was given. In memory, and on backends of one's own, any text is a name."""
    with pytest.raises(ConfigurationError, match="is not a table's name; DynamoDB takes 3 to 255"):
        check_dynamodb_name(name)
    if isinstance(name, str) and name not in {"", "\ud800"}:
        check_table_name(name)
        AsyncIdempotencyStore.in_memory(name)
        with pytest.raises(ConfigurationError, match=r"outbox_table= .* is not a table's name"):
            AsyncIdempotencyStore("orders", outbox_table=name)
    else:
        with pytest.raises(ConfigurationError, match="is not a table's name"):
            AsyncIdempotencyStore.in_memory(name)


@pytest.mark.parametrize(
    "namespace", ["", "shop.charge", "läden", "a" * LONGEST_NAMESPACE, "é" * (LONGEST_NAMESPACE // 2)]
)
def test_namespaces_are_texts(namespace: str) -> None:
    """Up to a length that fits a sort key twice."""
    assert 2 * LONGEST_NAMESPACE + len("##") + 64 <= 1024
    check_namespace(namespace)


@pytest.mark.parametrize("namespace", ["a#b", "#", None, 5])
def test_namespaces_that_could_be_mistaken_are_refused(namespace: str) -> None:
    """C7: `#` ends the namespace, so that `a` + `b#c` is not `a#b` + `c`."""
    with pytest.raises(ConfigurationError, match="a namespace is a text without '#'"):
        check_namespace(namespace)


@pytest.mark.parametrize("namespace", ["a" * (LONGEST_NAMESPACE + 1), "é" * (LONGEST_NAMESPACE // 2 + 1)])
def test_namespaces_that_are_too_long_are_refused(namespace: str) -> None:
    """Counted in bytes, as DynamoDB does."""
    with pytest.raises(ConfigurationError) as caught:
        check_namespace(namespace)
    assert str(caught.value) == (
        f"a namespace has 400 bytes at most, and {namespace[:40]!r}... has more; give a shorter one"
    )


def _settings(**changes: Any) -> Settings:
    layout = CompositeKey(partitioning=Static("here"))
    given: dict[str, Any] = {
        "table": layout.table("records", AttributeNames()),
        "layout": layout,
        "namespace": "shop",
        "terms": Terms(),
        "read_first": False,
        "clock": lambda: NOW,
        **changes,
    }
    return Settings(**given)


ONE = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


@pytest.mark.parametrize(
    ("store", "function", "key"),
    [
        ("shop", "charge", f"shop#charge#{ONE}"),
        ("", "charge", f"charge#{ONE}"),
        ("shop", "", f"shop#{ONE}"),
        ("", "", f"#{ONE}"),
    ],
)
def test_a_key_is_namespaces_and_digest(store: str, function: str, key: str) -> None:
    """C7: pinned, for it is the table's format."""
    assert _settings(namespace=store).key(1, function) == key


def test_a_missing_key_is_told_with_its_namespace() -> None:
    """C8: before anything is written."""
    with pytest.raises(MissingKeyError, match="no idempotency key: the key is None"):
        _settings().key(None, "")
    with pytest.raises(MissingKeyError, match=r"no idempotency key: the key of shop\.charge is None"):
        _settings().key({"a": None}, "shop.charge")


def test_a_bad_namespace_is_refused_when_a_key_is_made() -> None:
    """Whoever gave it."""
    with pytest.raises(ConfigurationError, match="without '#'"):
        _settings().key(1, "a#b")


def _attempt(*, fingerprint: str | None = None, namespace: str = "", **options: Any) -> Claim:
    layout = CompositeKey(partitioning=Static("here"))
    store = AsyncIdempotencyStore.in_memory(namespace="shop", layout=layout, clock=lambda: NOW, verify_layout=False)
    call = store._options(**options).call(1, fingerprint=fingerprint, namespace=namespace, result_type=Any)
    return call.attempt()


def test_an_attempt_takes_the_stores_settings() -> None:
    """Everything about a call is decided once; its owner is 128 random bits."""
    made = _attempt(namespace="charge")
    assert made.locations == (Location(table=made.locations[0].table, partition="here", sort=f"shop#charge#{ONE}"),)
    assert made.route.key == f"shop#charge#{ONE}"
    assert (made.now, made.lease, made.retention, made.clock_skew) == (NOW, 60.0, 3600.0, 1.0)
    assert (made.fingerprint, made.read_first) == (None, False)
    assert len(bytes.fromhex(made.owner)) == 16
    assert made.owner != _attempt().owner


def test_an_attempt_takes_the_calls_own_settings() -> None:
    """They win over the store's."""
    made = _attempt(fingerprint=ONE, lease=5.0, retention=7.0, read_first=True)
    assert (made.lease, made.retention, made.fingerprint, made.read_first) == (5.0, 7.0, ONE, True)
    store = AsyncIdempotencyStore.in_memory(read_first=True)
    assert store._options().call(1, result_type=Any).attempt().read_first
    assert not store._options(read_first=False).call(1, result_type=Any).attempt().read_first
