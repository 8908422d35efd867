"""Events: where they are, in what order, and what a reader may publish."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import ConfigurationError
from aioidempotency._core.conditions import Absent, Unchanged
from aioidempotency._core.model import AttributeValue, Item, Table
from aioidempotency._core.operations import Applied, ConditionFailed, Delete, Found, FoundAll, Get, Put, Query
from aioidempotency._effects import outbox
from aioidempotency._effects.outbox import Emitted, Outbox, Page
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
    played = play(outbox.page(BOX, 3), FoundAll((first,)), FoundAll((first, second)))
    assert (played.operations, played.outcome) == ((query, query), Page((first,), behind(first)))
    assert play(outbox.page(BOX, 3), FoundAll(())).outcome == Page((), None)


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
    delete = Delete(put.location, Unchanged(put.item))
    assert play(outbox.remove(BOX, shard, put.item), Applied()).operations == (delete,)
    gone = play(outbox.remove(BOX, shard, put.item), ConditionFailed(None), Found(None))
    assert gone.operations == (delete, Get(put.location))


def test_what_was_published_is_removed_though_another_relay_has_counted_a_failure() -> None:
    """Else each of two relays would keep what the other one has published; the attempts are bounded."""
    put = BOX.put(EVENTS)
    shard = outbox.shard_of(EVENTS.key)
    counted = {**put.item, "f": {"N": "1"}}
    delete, again = Delete(put.location, Unchanged(put.item)), Delete(put.location, Unchanged(counted))
    played = play(outbox.remove(BOX, shard, put.item), ConditionFailed(counted), Applied())
    assert played.operations == (delete, again)
    bounded = play(outbox.remove(BOX, shard, put.item), *[ConditionFailed(counted)] * outbox.ATTEMPTS)
    assert bounded.operations == (delete, *[again] * (outbox.ATTEMPTS - 1))


def behind(item: Item) -> str:
    """The position behind the key of an item."""
    return outbox.key_of(item, RENAMED) + "$"


def test_a_page_is_a_fair_turn_for_each_key() -> None:
    """At most one page of a key; a key that the page would cut has the next page for itself."""
    digests = sorted((outbox.key_of(item(key, 1), RENAMED), key) for key in "abc")
    first, second, third = (key for _, key in digests)
    shelf = Shelf()
    for key, count in ((first, 30), (second, 500), (third, 1)):
        for number in range(count):
            made = item(key, number)
            shelf.items["shard", str(made["sort"]["S"])] = {**made, "part": {"S": "shard"}}
    box = Everywhere(RENAMED)
    turns = []
    after = ""
    for _ in range(4):
        turn = shelf.run(outbox.page(box, 0, after))  # type: ignore[arg-type] # one partition for all keys
        turns.append(turn)
        after = turn.behind or ""
    shown = [[(outbox.parse(each, RENAMED).key, len(turn.items)) for each in turn.items[:1]] for turn in turns]
    assert shown == [[(first, 30)], [(second, outbox.PAGE)], [(third, 1)], []]
    assert turns[-1] == Page((), None)
    held = shelf.run(outbox.page(box, 0, skip={digests[0][0]}))  # type: ignore[arg-type]
    assert held == Page((), digests[0][0] + "$"), "and no second look, where nothing of the first may be published"


class Everywhere:
    """An outbox with one partition."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def partition(self, shard: int) -> str:
        """The only one."""
        return "shard"


def test_a_page_is_of_items_behind_its_position_whatever_the_backend_says() -> None:
    """One that reads from the beginning again would lead a relay in a circle."""
    made = item("order-1", 1)
    assert play(outbox.page(BOX, 3, behind(made)), FoundAll((made,))).outcome == Page((), None)


def test_a_failure_is_counted_in_the_item() -> None:
    """With what was published before it; and only where nobody has changed the item."""
    put = BOX.put(EVENTS)
    played = play(outbox.count(BOX, outbox.shard_of(EVENTS.key), put.item, done=0, failures=1), Applied())
    counted = played.outcome
    assert counted is not None
    assert played.operations == (Put(put.location, counted, Unchanged(put.item)),)
    assert outbox.parse(counted, RENAMED) == replace(EVENTS, failures=1)
    assert counted["f"] == {"N": "1"}
    assert outbox.was_counted(counted, RENAMED)
    assert not outbox.was_counted(put.item, RENAMED)
    later = play(outbox.count(BOX, 7, counted, done=1, failures=1), Applied()).outcome
    assert later is not None
    assert outbox.parse(later, RENAMED) == replace(EVENTS, events=(None, "5"), failures=1)
    assert later["f"] == {"N": "2"}, "the same count of another event is another change"
    assert play(outbox.count(BOX, 7, counted, done=1, failures=1), ConditionFailed(later)).outcome is None


def test_an_outbox_is_emptied() -> None:
    """Against items in a dictionary, whole."""
    shelf = Shelf()
    put = BOX.put(EVENTS)
    assert shelf.answer(put) == Applied()
    shard = outbox.shard_of(EVENTS.key)
    (found,) = shelf.run(outbox.page(BOX, shard)).items
    assert outbox.parse(found, RENAMED) == EVENTS
    shelf.run(outbox.remove(BOX, shard, found))
    assert shelf.run(outbox.page(BOX, shard)) == Page((), None)


@pytest.mark.parametrize(
    "data",
    [
        None,
        "5",
        "[]",
        "{}",
        "[" * 100_000,
        '{"key": "k"}',
        '{"key": "k", "sequence": 1, "events": 5}',
        '{"key": "k", "sequence": 1, "events": [5]}',
        '{"key": 5, "sequence": 1, "events": ["5"]}',
        '{"key": "k", "sequence": "1", "events": ["5"]}',
        '{"key": "k", "sequence": 1, "events": ["5"], "failures": -1}',
        '{"key": "k", "sequence": 1, "events": ["5"], "failures": 1e300}',
    ],
)
def test_what_is_no_event_is_a_configuration_error(data: str | None) -> None:
    """Its content is not told."""
    strange = {**item("a", 1), **({} if data is None else {"d": {"S": data}})}
    if data is None:
        del strange["d"]
    with pytest.raises(ConfigurationError, match="an item in the outbox of table 'renamed' holds no events"):
        outbox.parse(strange, RENAMED)


@pytest.mark.parametrize("changes", [{"N": "9.9E125"}, {"N": "-1"}, {"N": str(10**20)}, {"S": "1"}])
def test_a_strange_number_of_changes_is_no_event_s(changes: AttributeValue) -> None:
    with pytest.raises(ConfigurationError, match="holds no events"):
        outbox.parse({**item("a", 1), "f": changes}, RENAMED)


def test_answers_that_do_not_fit_are_bugs() -> None:
    with pytest.raises(TypeError, match="answered a query with Applied"):
        play(outbox.page(BOX, 0), Applied())
    with pytest.raises(TypeError, match="answered a put with FoundAll"):
        play(outbox.count(BOX, 0, item("a", 1), done=0, failures=1), FoundAll(()))
    with pytest.raises(TypeError, match="answered a deletion with FoundAll"):
        play(outbox.remove(BOX, 0, item("a", 1)), FoundAll(()))
