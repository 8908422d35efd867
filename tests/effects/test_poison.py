"""X6: a hot key and a poison event hold up no other key, and what fails again and again goes to the user's hook."""

import asyncio
import itertools
from collections import Counter, defaultdict
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioidempotency import (
    AsyncIdempotencyStore,
    CompositeKey,
    ConfigurationError,
    MemoryBackend,
    SerializationError,
    StoreError,
    TransactionError,
)
from aioidempotency import _attributes as attributes
from aioidempotency._core.operations import Put, Query
from aioidempotency._effects import outbox
from aioidempotency._effects.relay import LAST_PAUSE
from aioidempotency.events import Event, EventHeldBack, EventPutAside
from aioidempotency.transactions import OutboxEvent
from tests.effects.conftest import Shop
from tests.support.scripted import Down, Fault, ScriptedBackend
from tests.support.virtual_time import in_virtual_time, pass_time

POISON = "poison"


def store_on(backend: Any, **options: Any) -> AsyncIdempotencyStore:
    """Make a store as another process would."""
    return AsyncIdempotencyStore("table", layout=CompositeKey(), backend=backend, **options)


async def emit(store: AsyncIdempotencyStore, key: str, sequence: int, *events: object) -> None:
    async with store.execute(f"{key} {sequence}") as execution:
        for event in events:
            execution.transaction.emit(event, key=key, sequence=sequence)


def keys_of_one_shard(count: int) -> list[str]:
    """Name keys whose events are in one partition, in the order of a query."""
    named = (f"key-{number}" for number in itertools.count())
    shard = [key for key in itertools.islice(named, 2_000) if outbox.shard_of(key) == 3][:count]
    return sorted(shard, key=outbox._digest)


class PublisherError(Exception):
    """A receiver does not take an event."""


async def publish_until_it_raises(store: AsyncIdempotencyStore, published: list[OutboxEvent], **options: Any) -> bool:
    """Publish as a process does that a poison event ends. True if the outbox was gone through."""
    try:
        async for event in store.outbox(poll=None, **options):
            if event.event == POISON:
                raise PublisherError
            published.append(event)
    except PublisherError:
        return False
    return True


async def test_a_hot_key_that_sorts_first_starves_no_other_key() -> None:
    """More of its events come than are published: of 2,000, the quiet key had none."""
    hot, quiet = keys_of_one_shard(2)
    store = store_on(MemoryBackend())
    for number in range(300):
        await emit(store, hot, number, "hot")
    await emit(store, quiet, 1, "quiet")
    published: list[object] = []
    numbers = itertools.count(300)
    async for event in store.outbox(poll=None):
        published.append(event.event)
        if "quiet" in published:
            break
        await emit(store, hot, next(numbers), "hot")
        assert len(published) < 300
    assert published == ["hot", "quiet"], "in its first round, a relay takes one item of each key"


async def test_keys_have_their_turns_in_order_and_each_key_its_events() -> None:
    first, second, third = keys_of_one_shard(3)
    store = store_on(MemoryBackend())
    for number in range(250):
        for key in (first, second, third):
            await emit(store, key, number, number)
    turns = [(event.key, event.event) async for event in store.outbox(poll=None)]
    keys = [key for key, _ in itertools.groupby(turns, key=lambda each: each[0])]
    assert keys == [first, second, third] * 4, "one item in the first round, and then a page at a time"
    for key in (first, second, third):
        assert [number for each, number in turns if each == key] == list(range(250))


async def test_a_hot_key_on_an_engine(shop: Shop) -> None:
    """By queries that begin behind a key."""
    hot, quiet = keys_of_one_shard(2)
    store = shop.make_store()
    for number in range(12):
        await emit(store, hot, number, number)
    await emit(store, quiet, 1, "quiet")
    turns = [event.event async for event in store.outbox(poll=None)]
    assert turns == [0, "quiet", *range(1, 12)], "in its first round, a relay takes one item of each key"
    conditions = {sent.body["KeyConditionExpression"] for sent in shop.sent("Query")}
    assert conditions == {"#key = :key", "#key = :key AND #sort > :sort"}


async def test_a_poison_event_on_an_engine(shop: Shop) -> None:
    """The count is one conditional write, and the deletion is conditional on it."""
    store = shop.make_store()
    await emit(store, "a", 1, POISON, "next")
    await emit(store, "b", 1, "other")
    for expected in (1, 2):
        failures: list[int] = []

        def on_poison(event: OutboxEvent, error: Exception | None, count: int, failures: list[int] = failures) -> bool:
            failures.append(count)
            return False

        async for event in shop.make_store().outbox(poll=None, on_poison=on_poison):
            if event.event == POISON:
                event.failed(PublisherError())
        assert failures == [*([expected - 1] if expected > 1 else []), expected]
    rest = [event.event async for event in store.outbox(poll=None, on_poison=lambda *_: True)]
    assert rest == ["next"]
    assert [event async for event in store.outbox(poll=None)] == []


async def test_a_poison_event_that_ends_each_relay_holds_up_no_other_key() -> None:
    """At each restart it had stopped its shard, and all shards behind that."""
    backend = MemoryBackend()
    keys = [f"key-{number}" for number in range(40)]
    for key in keys:
        await emit(store_on(backend), key, 1, POISON if key == "key-7" else "fine")
        await emit(store_on(backend), key, 2, "later")
    published: list[OutboxEvent] = []
    for _ in range(2):
        assert not await publish_until_it_raises(store_on(backend), published)
    assert Counter(each.key for each in published) == {key: 2 for key in keys if key != "key-7"}


async def test_a_poison_event_of_a_relay_that_was_seen_through_is_found_by_the_next_ones() -> None:
    """It came later, and was not counted: the next relay counts it, and the one after has it last."""
    backend = MemoryBackend()
    store = store_on(backend)
    poisoned, other = keys_of_one_shard(2)
    await emit(store, other, 0, "first")
    published: list[object] = []
    with pytest.raises(PublisherError):
        async for event in store.outbox(poll=0.001):
            published.append(event.event)
            if event.event == POISON:
                raise PublisherError
            if event.event == "second":
                await emit(store, poisoned, 1, POISON)
            if event.event == "first":
                await emit(store, other, 1, "second")
    await emit(store, other, 2, "third")
    seen: list[OutboxEvent] = []
    assert not await publish_until_it_raises(store_on(backend), seen)
    assert not await publish_until_it_raises(store_on(backend), seen)
    assert [each.event for each in seen] == ["third"]


async def test_a_poison_event_is_put_aside_by_the_hook_after_some_restarts() -> None:
    """The count is in the table: each of these is another process. The error went with the process."""
    backend = MemoryBackend()
    await emit(store_on(backend), "a", 1, "before", POISON, "after")
    await emit(store_on(backend), "a", 2, "later")
    asked: list[tuple[object, object, int]] = []
    aside: list[OutboxEvent] = []

    async def on_poison(event: OutboxEvent, error: Exception | None, failures: int) -> bool:
        asked.append((event.event, error, failures))
        await asyncio.sleep(0)
        if failures == 3:
            aside.append(event)
        return failures == 3

    published: list[OutboxEvent] = []
    runs = [await publish_until_it_raises(store_on(backend), published, on_poison=on_poison) for _ in range(4)]
    assert runs == [False, False, False, True]
    assert asked == [(POISON, None, 1), (POISON, None, 2), (POISON, None, 3)]
    assert [each.event for each in published] == ["before", "after", "later"]
    assert [(each.event, each.index) for each in aside] == [(POISON, 1)]
    assert [each.id.partition("-")[2] for each in published] == ["0", "2", "0"]
    assert not [item for item in backend._items if item[1].startswith(outbox.KEY)]


async def test_a_reader_that_tells_of_a_failure_goes_on_with_the_other_keys() -> None:
    """The later events of the key wait; those before are not sent again."""
    backend = MemoryBackend()
    events: list[Event] = []
    store = store_on(backend, on_event=events.append)
    await emit(store, "a", 1, "first", "second", "third")
    await emit(store, "a", 2, "fourth")
    await emit(store, "b", 1, "other")
    error = PublisherError("canary")
    told: list[tuple[object, object, int]] = []

    def on_poison(event: OutboxEvent, error: Exception | None, failures: int) -> bool:
        told.append((event.event, error, failures))
        return False

    seen = []
    async for event in store.outbox(poll=None, on_poison=on_poison):
        seen.append(event.event)
        if event.event == "second":
            event.failed(error)
            assert event.error is error
    assert sorted(map(str, seen)) == ["first", "other", "second"]
    assert told == [("second", error, 1)]
    (held,) = [each for each in events if isinstance(each, EventHeldBack)]
    assert (held.failures, held.reason) == (1, "PublisherError")
    assert "canary" not in repr(held)
    assert [event.event async for event in store.outbox(poll=None)] == ["second", "third", "fourth"]
    assert [event async for event in store.outbox(poll=None)] == []


async def test_the_hook_puts_an_event_aside_at_once_where_it_knows_the_error() -> None:
    backend = MemoryBackend()
    events: list[Event] = []
    store = store_on(backend, on_event=events.append)
    await emit(store, "a", 1, POISON, "next")
    await emit(store, "a", 2, POISON)
    seen = []
    async for event in store.outbox(poll=None, on_poison=lambda event, error, failures: True):
        seen.append(event.event)
        if event.event == POISON:
            event.failed(ValueError())
    assert seen == [POISON, "next", POISON]
    assert [each.failures for each in events if isinstance(each, EventPutAside)] == [1, 1]
    assert [event async for event in store.outbox(poll=None)] == []


async def test_an_unreadable_event_holds_up_its_own_key_and_is_told_at_the_end() -> None:
    backend = MemoryBackend()
    store = store_on(backend)
    poisoned, other = keys_of_one_shard(2)
    await emit(store, poisoned, 1, "no number")
    await emit(store, poisoned, 2, 5)
    await emit(store, other, 1, 7)
    for _ in range(2):
        seen = []
        with pytest.raises(SerializationError, match=r"the event [0-9a-f]{32}-0 cannot hold"):
            async for event in store.outbox(poll=None, event_type=int):
                seen.append(event.event)  # noqa: PERF401 - what was seen before the error counts
        assert seen in ([7], [])
    asked: list[tuple[object, str, int]] = []

    def on_poison(event: OutboxEvent, error: Exception | None, failures: int) -> bool:
        asked.append((event.event, type(error).__name__, failures))
        return True

    rest = [event.event async for event in store.outbox(poll=None, event_type=int, on_poison=on_poison)]
    assert (rest, asked) == ([5], [('"no number"', "SerializationError", 3)])


async def test_an_item_that_holds_no_events_holds_up_its_own_key() -> None:
    backend = MemoryBackend()
    store = store_on(backend)
    await emit(store, "a", 1, "lost")
    (location,) = (location for location in backend._items if location[1].startswith(outbox.KEY))
    backend._items[location] = {name: value for name, value in backend._items[location].items() if name != "data"}
    for number in range(40):
        await emit(store, f"key-{number}", 1, number)
    seen = []
    with pytest.raises(ConfigurationError, match="holds no events"):
        async for event in store.outbox(poll=None):
            seen.append(event.event)  # noqa: PERF401 - what was seen before the error counts
    assert sorted(map(int, map(str, seen))) == list(range(40))


async def test_a_type_that_nothing_can_be_read_as_ends_the_relay() -> None:
    """It is the reader's mistake, and no event's."""
    backend = MemoryBackend()
    store = store_on(backend)
    await emit(store, "a", 1, "fine")
    with pytest.raises(ConfigurationError, match="cannot be read back"):
        [event async for event in store.outbox(poll=None, event_type=list[int] | list[str])]
    assert [event.event async for event in store.outbox(poll=None)] == ["fine"]


@in_virtual_time
async def test_a_failing_event_is_tried_again_after_pauses_that_grow() -> None:
    store = store_on(MemoryBackend())
    await emit(store, "a", 1, POISON)
    times: list[float] = []
    loop = asyncio.get_running_loop()

    async def relay() -> None:
        async for event in store.outbox(poll=0.5):
            times.append(loop.time())
            event.failed(PublisherError())

    running = asyncio.create_task(relay())
    await pass_time(1_500)
    running.cancel()
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(2**index <= each <= 2**index + 1 for index, each in enumerate(pauses[:8]))
    assert all(each <= LAST_PAUSE + 1 for each in pauses)
    assert max(pauses) > 256


async def test_a_count_in_the_table_of_any_size_fills_no_memory() -> None:
    backend = MemoryBackend()
    store = store_on(backend)
    await emit(store, "a", 1, "one")
    (location,) = (location for location in backend._items if location[1].startswith(outbox.KEY))
    item = backend._items[location]
    data = str(item["data"]["S"])[:-1] + f', "failures": {2**53}}}'
    backend._items[location] = {**item, "data": {"S": data}, "fencing_token": {"N": "1"}}
    async for event in store.outbox(poll=None):
        event.failed(PublisherError())
    assert [event.event async for event in store.outbox(poll=None)] == ["one"]


async def test_a_count_that_is_not_written_hands_nothing_out() -> None:
    """Else the event could end each relay, and never be counted."""
    backend = ScriptedBackend(MemoryBackend())
    store = store_on(backend)
    await emit(store, "a", 1, "one")
    backend.rule = lambda operation: Down() if isinstance(operation, Put) else None
    with pytest.raises(StoreError):
        [event async for event in store.outbox(poll=None)]
    backend.rule = lambda _: None
    assert [event.event async for event in store.outbox(poll=None)] == ["one"]


async def test_what_another_relay_has_just_changed_is_left_to_it() -> None:
    """A count is conditional on the item that was read."""
    inner = MemoryBackend()
    backend = ScriptedBackend(inner)
    store = store_on(backend)
    await emit(store, "a", 1, "one")
    other = store_on(inner)
    taken: list[object] = []

    class TheOtherFirst(Fault):
        async def answer(self, backend: Any, operation: Any) -> Any:
            rule.clear()
            taken.extend([event.event async for event in other.outbox(poll=None)])
            return await backend.execute(operation)

    rule: list[Any] = [TheOtherFirst()]
    backend.rule = lambda operation: rule[0] if rule and isinstance(operation, Put) else None
    assert [event.event async for event in store.outbox(poll=None)] == []
    assert taken == ["one"]


async def test_after_its_first_round_a_relay_writes_no_counts() -> None:
    """They would double the price of each event."""
    backend = ScriptedBackend(MemoryBackend())
    store = store_on(backend, verify_layout=False)
    await emit(store, "a", 0, "first")
    await emit(store, "a", 1, "second")
    before = len(backend.operations)
    assert [event.event async for event in store.outbox(poll=None)] == ["first", "second"]
    sent = [type(each).__name__ for each in backend.operations[before:] if not isinstance(each, Query)]
    assert sent == ["Put", "Delete", "Delete"]


@pytest.mark.parametrize("on_poison", [5, "put aside"])
def test_a_hook_that_is_no_function_is_refused(on_poison: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_poison= takes a function"):
        store_on(MemoryBackend()).outbox(on_poison=on_poison)


async def test_an_event_of_the_largest_size_has_room_for_its_count() -> None:
    """Else DynamoDB would refuse the count, and with that end each relay."""
    backend = MemoryBackend()
    store = store_on(backend)
    size = attributes.LARGEST_ITEM
    while not [item for item in backend._items if item[1].startswith(outbox.KEY)]:
        size -= 40
        with suppress(TransactionError):
            await emit(store, f"key-{size}", 1, "x" * size)
    for _ in range(12):
        async for event in store.outbox(poll=None):
            event.failed(PublisherError())
    (item,) = (item for location, item in backend._items.items() if location[1].startswith(outbox.KEY))
    assert attributes.LARGEST_ITEM - 1_200 < attributes.size(item) <= attributes.LARGEST_ITEM


Plan = dict[str, list[tuple[str, ...]]]
KINDS = st.sampled_from(["fine", "fine", "fine", "raises", "fails", "unreadable"])
PLANS = st.dictionaries(
    st.sampled_from([*keys_of_one_shard(3), "a", "b", "c"]),
    st.lists(st.lists(KINDS, min_size=1, max_size=3).map(tuple), min_size=1, max_size=4),
    min_size=1,
)


class Relays:
    """Relays, each a process of its own, and what readers have met.

    Attributes:
        wanted: The names of the events of each key, in order.
        firsts: The names in the order of their first deliveries.
    """

    def __init__(self, plan: Plan, most: int) -> None:
        self.wanted = {
            key: [name for sequence, kinds in enumerate(items) for name in _names(key, sequence, kinds)]
            for key, items in plan.items()
        }
        self.firsts: defaultdict[str, list[str]] = defaultdict(list)
        self._plan = plan
        self._most = most
        self._backend = MemoryBackend()

    async def emit(self) -> None:
        """Emit all events. A text cannot be read as a list, which these readers want."""
        for key, items in self._plan.items():
            for sequence, kinds in enumerate(items):
                names = _names(key, sequence, kinds)
                await emit(store_on(self._backend), key, sequence, *(n if "unreadable" in n else [n] for n in names))

    @property
    def left(self) -> bool:
        """Whether the outbox still has items."""
        return any(location[1].startswith(outbox.KEY) for location in self._backend._items)

    async def run(self, times: int) -> None:
        """Publish until nothing is left, each time as a new process."""
        for _ in range(times):
            if self.left:
                with suppress(PublisherError, SerializationError):
                    await self._publish()

    async def _publish(self) -> None:
        shards = {outbox.shard_of(key) for key in self._plan}
        store = store_on(self._backend)
        async for event in store.outbox(poll=None, event_type=list[str], on_poison=self._on_poison, shards=shards):
            name = self._meet(event)
            await asyncio.sleep(0)
            if "raises" in name:
                raise PublisherError
            if "fails" in name:
                event.failed(PublisherError())

    def _on_poison(self, event: OutboxEvent, error: Exception | None, failures: int) -> bool:
        self._meet(event)
        return failures >= self._most

    def _meet(self, event: OutboxEvent) -> str:
        name = str(event.event[0] if isinstance(event.event, list) else str(event.event).strip('"'))
        if name not in self.firsts[event.key]:
            self.firsts[event.key].append(name)
        return name


def _names(key: str, sequence: int, kinds: tuple[str, ...]) -> list[str]:
    return [f"{key} {sequence} {index} {kind}" for index, kind in enumerate(kinds)]


@given(PLANS, st.integers(1, 4), st.sampled_from([1, 2]), st.sampled_from([2, 3, outbox.PAGE]))
def test_whatever_fails_each_key_is_published_in_order(plan: Plan, most: int, relays: int, page: int) -> None:
    """Simulated: relays one after the other, or side by side, each ended by an event that raises, until nothing is left.

    1. First deliveries of each key are in order, without a gap.
    2. All events are met, and those that fail are put aside after as many failures as the hook wants.
    3. A key without poison waits for no key with poison, however often that one ends the relay.
    """

    async def simulated() -> None:
        world = Relays(plan, most)
        await world.emit()
        await asyncio.gather(*(world.run(3) for _ in range(relays)))
        names = [name for each in world.wanted.values() for name in each]
        if relays == 1 and sum("raises" in name for name in names) <= 1:
            for key, wanted in world.wanted.items():
                assert world.firsts[key] == wanted or not all("fine" in name for name in wanted), "a key waits"
        poisons = sum("fine" not in name for name in names)
        await asyncio.gather(*(world.run(1 + poisons * (most + 1)) for _ in range(relays)))
        assert dict(world.firsts) == world.wanted
        assert not world.left

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "PAGE", page)
        asyncio.run(simulated())
