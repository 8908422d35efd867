"""Publishes the events of an outbox, with a fair turn for each key. A failing event holds up its own key alone.

1. At least once, and in order for each key. An item is deleted after the reader has asked for the next event, and no
   item of a key is handed out before the key's earlier items are gone.
2. A turn is one page, see `outbox.page`. The next turn begins behind the page, in each shard.
3. A failing event holds up its key, for a pause that grows. The count of failures is in the item.
4. A reader that raises, or is killed, ends the relay without a word. So in its first round through all shards, a relay
   takes the first item of each key alone, and counts each event before it hands the event out. A key whose first item
   was counted by an earlier relay has its turn after that round. So a poison event ends a relay at first, is counted by
   the next one, and then ends a relay only after all other keys had their turn.
"""

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from math import inf
from typing import Final, TypeVar, final

import anyio

from aioidempotency._core.model import Item
from aioidempotency._core.placements import Procedure
from aioidempotency._effects import outbox
from aioidempotency._effects.outbox import Emitted, Outbox
from aioidempotency._effects.transaction import OutboxEvent
from aioidempotency._records import Records
from aioidempotency.codecs import Codec
from aioidempotency.events import EventHeldBack, EventPutAside
from aioidempotency.exceptions import ConfigurationError, SerializationError

T = TypeVar("T")

OnPoison = Callable[[OutboxEvent, Exception | None, int], bool | Awaitable[bool]]
"""Decides whether to put an event aside: given the event, its error if known, and the number of failures."""

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 300.0
"""Seconds of the first and of the longest pause before a failing event is tried again; doubled each time."""


@final
class _Delivery:
    """One item on its way out.

    Attributes:
        shard: The shard of the item.
        key: The digest of the key.
        item: The item as last written.
        emitted: The events.
        index: The next event's index.
        failures: How often the next event has failed, or its delivery did not end.
        counted: Whether the count includes the delivery under way.
        stopped: Whether the key has no further turn now.
    """

    __slots__ = ("counted", "emitted", "failures", "index", "item", "key", "shard", "stopped")

    def __init__(self, shard: int, key: str, item: Item, emitted: Emitted) -> None:
        self.shard = shard
        self.key = key
        self.item = item
        self.emitted = emitted
        self.index = 0
        self.failures = emitted.failures
        self.counted = False
        self.stopped = False

    def advance(self) -> None:
        """Go on to the next event: this one is published, or put aside."""
        self.index += 1
        self.failures = 0
        self.counted = False


@final
class Relay:
    """Publishes the events of some shards, for one reader.

    Args:
        records: Runs procedures on the store's backend.
        box: The outbox.
        codec: Reads events.
        shards: The shards to publish.
        poll: Seconds between two looks at an outbox without events to publish; None ends the relay there.
        event_type: The type of events.
        on_poison: Decides whether to put a failing event aside.
    """

    def __init__(
        self,
        records: Records,
        box: Outbox,
        codec: Codec,
        *,
        shards: Collection[int],
        poll: float | None,
        event_type: object,
        on_poison: OnPoison | None,
    ) -> None:
        self._records = records
        self._box = box
        self._codec = codec
        self._poll = poll
        self._event_type = event_type
        self._on_poison = on_poison
        self._after = dict.fromkeys(shards, "")
        self._busy: set[int] = set()
        self._idle: set[int] = set()
        self._not_seen_through = set(shards)
        self._held: dict[str, float] = {}
        self._unreadable: Exception | None = None

    async def events(self) -> AsyncGenerator[OutboxEvent, None]:
        """Hand out the events."""
        while True:
            for shard in self._after:
                items = await self._turn(shard)
                begun: set[str] = set()
                stopped: set[str] = set()
                for item in items:
                    key = outbox.key_of(item, self._box.table)
                    first = key not in begun
                    delivery = None if key in stopped else self._delivery(shard, key, item, first=first)
                    begun.add(key)
                    if delivery is None:
                        stopped.add(key)
                        continue
                    while (event := await self._next(delivery)) is not None:
                        yield event
                        await self._delivered(delivery, event)
                    if delivery.stopped:
                        stopped.add(key)
                        continue
                    # Only after the reader has taken all events of the item: a crash before this line repeats events,
                    # and loses none.
                    await self._run(outbox.remove(self._box, shard, delivery.item))
                    self._held.pop(key, None)
            # Shards end their rounds at different times: each keeps its word until it has something to publish.
            if len(self._idle) < len(self._after):
                continue
            if self._poll is not None:
                await anyio.sleep(self._poll)
            elif self._unreadable is not None:
                raise self._unreadable
            else:
                return

    async def _turn(self, shard: int) -> tuple[Item, ...]:
        """Read the next page of a shard, and note whether the shard has something to publish."""
        while True:
            now = anyio.current_time()
            held = {key for key, until in self._held.items() if until > now}
            page = await self._run(outbox.page(self._box, shard, self._after[shard], skip=held))
            if page.items:
                self._busy.add(shard)
                self._idle.discard(shard)
            if page.behind is not None:
                self._after[shard] = page.behind
                return page.items
            self._after[shard] = ""
            self._not_seen_through.discard(shard)
            if shard not in self._busy:
                self._idle.add(shard)
                return ()
            self._busy.discard(shard)

    def _delivery(self, shard: int, key: str, item: Item, *, first: bool) -> _Delivery | None:
        """Begin with an item. None if its key has no turn now."""
        # Rule 4: the first round. An item that was counted may have ended the relay before this one.
        if self._not_seen_through and (not first or outbox.was_counted(item, self._box.table)):
            return None
        try:
            return _Delivery(shard, key, item, outbox.parse(item, self._box.table))
        except ConfigurationError as error:
            self._unreadable = self._unreadable or error
            self._hold(key, f"an item of shard {shard}", 1 + (key in self._held), error)
            return None

    async def _next(self, delivery: _Delivery) -> OutboxEvent | None:
        """Find the next event to hand out. None at the end of the item, or where the item is stopped."""
        events = delivery.emitted.events
        while not delivery.stopped and delivery.index < len(events):
            text = events[delivery.index]
            if text is None:
                delivery.index += 1
                continue
            event = self._read(delivery, text)
            if event.error is not None:
                self._unreadable = self._unreadable or event.error
                await self._failed(delivery, event, event.error)
                continue
            # A failure that this relay saw was decided at once; others were left by relays that have ended.
            if delivery.failures and delivery.key not in self._held and await self._is_put_aside(delivery, event, None):
                continue
            # Of an item that was counted, each event is: the count also says what is published, or put aside.
            if self._not_seen_through or outbox.was_counted(delivery.item, self._box.table):
                await self._count(delivery)
            return None if delivery.stopped else event
        return None

    async def _delivered(self, delivery: _Delivery, event: OutboxEvent) -> None:
        """Go on after the reader has taken an event."""
        if event.error is None:
            delivery.advance()
        else:
            await self._failed(delivery, event, event.error)

    async def _failed(self, delivery: _Delivery, event: OutboxEvent, error: Exception) -> None:
        """Count a failure, and put the event aside or hold up its key."""
        if not delivery.counted:
            await self._count(delivery)
        if delivery.stopped or await self._is_put_aside(delivery, event, error):
            return
        delivery.stopped = True
        self._hold(delivery.key, event.id, delivery.failures, error)

    async def _count(self, delivery: _Delivery) -> None:
        """Write one failure more into the item. If another relay has changed the item, leave the item to that one."""
        failures = delivery.failures + 1
        counted = await self._run(
            outbox.count(self._box, delivery.shard, delivery.item, done=delivery.index, failures=failures)
        )
        if counted is None:
            delivery.stopped = True
        else:
            delivery.item, delivery.failures, delivery.counted = counted, failures, True

    async def _is_put_aside(self, delivery: _Delivery, event: OutboxEvent, error: Exception | None) -> bool:
        if self._on_poison is None:
            return False
        answer = self._on_poison(event, error, delivery.failures)
        if not (await answer if inspect.isawaitable(answer) else answer):
            return False
        self._records.report(EventPutAside(event.id, delivery.failures))
        if self._unreadable is error:
            self._unreadable = None
        delivery.advance()
        return True

    def _hold(self, key: str, event_id: str, failures: int, error: Exception) -> None:
        """Give a key no turn for a while."""
        # The count comes from the table, and a power of any number may fill the memory.
        pause = min(LAST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 20))
        self._held[key] = inf if self._poll is None else anyio.current_time() + pause
        self._records.report(EventHeldBack(event_id, failures, type(error).__name__))

    def _read(self, delivery: _Delivery, text: str) -> OutboxEvent:
        """Read an event. An unreadable one has failed, and carries its text."""
        emitted, index = delivery.emitted, delivery.index
        name = f"{emitted.owner}-{index}"
        value: object = text
        failure: SerializationError | None = None
        advice = "read the event without event_type=, or as another type; the event stays until then"
        try:
            value = self._codec.decode(text, self._event_type)
        except ConfigurationError:  # no event can be read as this type
            raise
        except SerializationError as error:
            failure = SerializationError(f"the event {name}", error.kind, advice)
            failure.__cause__ = error
        except Exception as error:  # noqa: BLE001 - a codec may raise anything, and its errors may quote the event
            failure = SerializationError(f"the event {name}", f"what raises {type(error).__name__}", advice)
        event = OutboxEvent(id=name, key=emitted.key, sequence=emitted.sequence, index=index, event=value)
        if failure is not None:
            event.failed(failure)
        return event

    async def _run(self, procedure: Procedure[T]) -> T:
        return await self._records.run_unverified(procedure)
