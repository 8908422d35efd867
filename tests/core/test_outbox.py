"""Events: where they are, in what order, and what a reader may publish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import ConfigurationError
from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import Item
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, FoundAll, Query
from aioidempotency._effects import outbox
from aioidempotency._effects.outbox import Emitted, Outbox
from tests.core.playing import RENAMED, Shelf, play
from tests.support.values import replace

BOX = Outbox(RENAMED, "shop")
EVENTS = Emitted(key="order-1", sequence=7, owner="me", events=('{"type": "paid"}', "5"))


def item(key: str, sequence: int, owner: str = "me") -> Item:
    return BOX.put(replace(EVENTS, key=key, sequence=sequence, owner=owner)).item


def test_events_of_one_key_are_one_item() -> None:
    """In the partition of their key's shard, ordered by number and then by owner; written where nothing is."""
    put = BOX.put(EVENTS)
    assert put.condition == Absent()
    assert put.location.partition == f"aioidempotency#outbox#{outbox.shard_of('order-1')}#shop"
    sort = str(put.location.sort)
    assert sort.endswith("#00000000000000000007#me")
    assert len(sort.partition("#")[0]) == 64
    assert put.item["sort"] == {"S": sort}
    assert outbox.parse(put.item, RENAMED) == EVENTS


def test_an_item_is_as_its_page_says() -> None:
    """The vector of the page on records."""
    owner = "3490a3a03d91f99037901e36354af944"
    written = Emitted(key="order-1", sequence=3, owner=owner, events=('{"type":"paid"}',))
    digest = "0bafe22156d2698c143b86040446d366ead863ba600d5c924f3d15c786ef4057"
    assert BOX.put(written).item == {
        "part": {"S": "aioidempotency#outbox#7#shop"},
        "sort": {"S": f"{digest}#00000000000000000003#{owner}"},
        "o": {"S": owner},
        "d": {"S": r'{"key": "order-1", "sequence": 3, "events": ["{\"type\":\"paid\"}"]}'},
    }


@pytest.mark.parametrize(("key", "shard"), [("order-1", 7), ("order-2", 3), ("", 5), ("é", 12)])
def test_the_shard_of_a_key_is_part_of_the_format(key: str, shard: int) -> None:
    assert outbox.shard_of(key) == shard


def test_without_a_namespace_a_partition_ends_with_its_shard() -> None:
    assert Outbox(RENAMED, "").partition(3) == "aioidempotency#outbox#3"


def test_a_reader_looks_twice_and_takes_what_it_saw_at_first() -> None:
    query = Query(replace(BOX.put(EVENTS).location, partition=BOX.partition(3), sort=""), outbox.PAGE)
    first, second = item("order-1", 1), item("order-1", 2)
    played = play(outbox.pending(BOX, 3), FoundAll((first,)), FoundAll((first, second)))
    assert (played.operations, played.outcome) == ((query, query), (first,))
    assert play(outbox.pending(BOX, 3), FoundAll(())).outcome == ()


def test_a_reader_takes_what_stands_before_what_it_saw() -> None:
    """It had come while the first look was under way."""
    first, second, other = item("a", 1), item("a", 2), item("b", 1)
    found = outbox.publishable([second], sorted([first, second, other], key=lambda each: str(each["sort"])), RENAMED)
    assert list(found) == [first, second]


@given(st.data())
def test_no_event_is_published_before_an_earlier_one_of_its_key(data: st.DataObject) -> None:
    """Whatever arrives between the items that a look reads, as long as each key's arrive in order."""
    keys = data.draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=12))
    arrivals = [item(key, keys[:index].count(key), f"{index:02}") for index, key in enumerate(keys)]
    moments = sorted(data.draw(st.lists(st.integers(0, 40), min_size=len(keys), max_size=len(keys))))

    def look(begins: int) -> list[Item]:
        """Read one item at each moment, in the order of the sort keys: what has arrived by then is seen."""
        order = sorted(arrivals, key=lambda each: str(each["sort"]["S"]))
        when = {str(each["sort"]): moment for each, moment in zip(arrivals, moments, strict=True)}
        return [each for step, each in enumerate(order) if when[str(each["sort"])] <= begins + step]

    published = list(outbox.publishable(look(10), look(10 + len(keys)), RENAMED))
    for each in published:
        key = str(each["sort"]["S"]).partition("#")[0]
        before = [
            one for one in arrivals if str(one["sort"]["S"]).startswith(key) and str(one["sort"]) < str(each["sort"])
        ]
        assert all(one in published for one in before)


def test_what_was_published_is_removed_unless_another_relay_did() -> None:
    put = BOX.put(EVENTS)
    shard = outbox.shard_of(EVENTS.key)
    for reply in (Applied(), ConditionFailed(None)):
        assert play(outbox.remove(BOX, shard, put.item), reply).operations == (
            Delete(put.location, Unchanged(put.item)),
        )


def test_an_outbox_is_emptied() -> None:
    """Against items in a dictionary, whole."""
    shelf = Shelf()
    put = BOX.put(EVENTS)
    assert shelf.answer(put) == Applied()
    shard = outbox.shard_of(EVENTS.key)
    (found,) = shelf.run(outbox.pending(BOX, shard))
    assert outbox.parse(found, RENAMED) == EVENTS
    shelf.run(outbox.remove(BOX, shard, found))
    assert shelf.run(outbox.pending(BOX, shard)) == ()


@pytest.mark.parametrize("data", [None, "5", "[]", "{}", '{"key": "k"}', '{"key": "k", "sequence": 1, "events": 5}'])
def test_what_is_no_event_is_a_configuration_error(data: str | None) -> None:
    """Its content is not told."""
    strange = {**item("a", 1), **({} if data is None else {"d": {"S": data}})}
    if data is None:
        del strange["d"]
    with pytest.raises(ConfigurationError, match="an item in the outbox of table 'renamed' holds no events"):
        outbox.parse(strange, RENAMED)


def test_answers_that_do_not_fit_are_bugs() -> None:
    with pytest.raises(TypeError, match="answered a query with Applied"):
        play(outbox.pending(BOX, 0), Applied())
    with pytest.raises(TypeError, match="answered a deletion with FoundAll"):
        play(outbox.remove(BOX, 0, item("a", 1)), FoundAll(()))
