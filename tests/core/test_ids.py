"""What is made once, played reply by reply."""

import uuid

import pytest

from aioidempotency import ConfigurationError, StoreError
from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import Item, Location, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Found, Get, Put, Reply
from aioidempotency._core.placements import Procedure
from aioidempotency._effects import ids
from aioidempotency.backends.dynamodb import requests as expressions
from tests.core.playing import NOW, PLACE, RENAMED, SIMPLE, play

AT = ids.location_of(RENAMED, "shop", "1234")
MADE: Item = {**AT.item, "d": {"S": "id-2"}}
FIRST: Item = {**AT.item, "d": {"S": "id-1"}}
PUT = Put(AT, MADE, Absent())


def making(expires_after: float | None = None) -> Procedure[str]:
    return ids.get_or_create(AT, "id-2", now=NOW, expires_after=expires_after)


def test_an_id_has_a_partition_of_its_own() -> None:
    """It depends on the key alone; no namespaces of records, two at the most, look so."""
    assert Location(table=RENAMED, partition="aioidempotency#id#shop#1234", sort="aioidempotency#id#shop#1234") == AT
    assert ids.location_of(SIMPLE, "", "1234") == Location(table=SIMPLE, partition="aioidempotency#id##1234")


def test_the_first_id_is_stored_for_ever() -> None:
    """X1: one put, without an expiration."""
    played = play(making(), Applied())
    assert (played.operations, played.outcome) == ((PUT,), "id-2")


@pytest.mark.parametrize(
    "replies", [[ConditionFailed(FIRST)], [ConditionFailed(None), Found(FIRST)]], ids=["brought", "read"]
)
def test_everybody_after_that_gets_it(replies: list[Reply]) -> None:
    """X1: and a lost answer is no different: it brings our own."""
    played = play(making(), *replies)
    assert (played.operations, played.outcome) == ((PUT, Get(AT))[: len(replies)], "id-1")
    assert play(making(), ConditionFailed(MADE)).outcome == "id-2"


def test_an_id_can_expire() -> None:
    """Strictly after its second; it is replaced as long as it has not changed."""
    item = {**MADE, "e": {"N": "1700000090"}}
    assert play(making(expires_after=90.9), Applied()).operations == (Put(AT, item, Absent()),)
    over = {**FIRST, "e": {"N": "1699999999"}}
    played = play(making(expires_after=90.9), ConditionFailed(over), Applied())
    assert (played.operations[1], played.outcome) == (Put(AT, item, Unchanged(over)), "id-2")
    raced = play(
        making(), ConditionFailed(over), ConditionFailed({**FIRST, "d": {"S": "id-3"}, "e": {"N": "1700000000"}})
    )
    assert raced.outcome == "id-3"


def test_an_id_that_goes_away_is_made_anew_some_times() -> None:
    played = play(making(), ConditionFailed(None), Found(None), Applied())
    assert played.operations == (PUT, Get(AT), PUT)
    with pytest.raises(StoreError, match="contended: others deleted it 5 times"):
        play(making(), *[reply for _ in range(5) for reply in (ConditionFailed(None), Found(None))])


@pytest.mark.parametrize("data", [{}, {"d": {"N": "5"}}])
def test_what_is_no_id_is_left_alone(data: Item) -> None:
    with pytest.raises(
        ConfigurationError, match=r"'aioidempotency#id#shop#1234' of table 'renamed' is not an id: .* 'd'"
    ):
        play(making(), ConditionFailed({**AT.item, **data}))


def test_an_item_is_stored_or_the_earlier_one_is_the_answer() -> None:
    mine: Item = {**PLACE.item, "n": {"N": "1"}}
    put = Put(PLACE, mine, Absent())
    assert play(ids.put_if_absent(PLACE, mine), Applied()).outcome == mine
    earlier: Item = {**PLACE.item, "n": {"N": "2"}}
    played = play(ids.put_if_absent(PLACE, mine), ConditionFailed(earlier))
    assert (played.operations, played.outcome) == ((put,), earlier)
    read = play(
        ids.put_if_absent(PLACE, mine), ConditionFailed(None), Found(None), ConditionFailed(None), Found(earlier)
    )
    assert (read.operations, read.outcome) == ((put, Get(PLACE), put, Get(PLACE)), earlier)
    with pytest.raises(StoreError, match="an item made once must stay"):
        play(
            ids.put_if_absent(PLACE, mine), *[reply for _ in range(5) for reply in (ConditionFailed(None), Found(None))]
        )
    with pytest.raises(TypeError, match="answered a put with Found"):
        play(ids.put_if_absent(PLACE, mine), Found(None))


def test_a_uuid_of_version_7_is_the_standards() -> None:
    """The example of RFC 9562, appendix A.6."""
    random = 0xCC3 << 62 | 0x18C4DC0C0C07398F
    assert ids.uuid7(0x017F22E279B0, random) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    for bits in (0, (1 << 74) - 1):
        made = uuid.UUID(ids.uuid7(1_700_000_000_000, bits))
        assert (made.version, made.variant, made.int >> 80) == (7, uuid.RFC_4122, 1_700_000_000_000)


def test_uuids_are_ordered_by_time() -> None:
    assert ids.uuid7(1, (1 << 74) - 1) < ids.uuid7(2, 0)


def test_an_item_whose_key_is_no_text_is_read_by_its_key() -> None:
    """Where the refusal does not bring it, as in a batch."""
    table = Table("orders", "id", "version", ids.UNUSED_NAMES)
    key: Item = {"id": {"B": b"a"}, "version": {"N": "1"}}
    location = Location(table=table, partition="B:a", sort="N:1", typed=key)
    assert location.item == key
    played = play(ids.put_if_absent(location, key), ConditionFailed(None), Found({**key, "n": {"N": "2"}}))
    assert expressions.request(played.operations[1]).parameters["Key"] == key
    assert played.outcome["n"] == {"N": "2"}
