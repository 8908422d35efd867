"""The writes and events of a call, collected until the transaction is sent.

Each addition is checked together with all earlier ones. A refused addition is not collected, and the earlier
ones stay. After the end of the call's block, nothing can be added.
"""

import json
from dataclasses import dataclass, field
from typing import Final, final

from aioidempotency import _attributes as attributes
from aioidempotency._core.model import Locations
from aioidempotency._core.operations import Effect, Put
from aioidempotency._effects import writes as effects
from aioidempotency._effects.outbox import LARGEST_SEQUENCE, Emitted, Outbox
from aioidempotency._effects.writes import KeyNames, WriteSet
from aioidempotency.codecs import Codec
from aioidempotency.exceptions import SerializationError, TransactionClosedError

OVERHEAD: Final = 400 + effects.ROOM_FOR_COUNT
"""The most bytes of an outbox's item besides the events: key, names, owner, numbers, and the count of failures."""

ENDED: Final = "has ended its block; write inside it"
REPLAYED: Final = "is a replay, and has had its effects; test `execution.replayed` first"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class CallIdentity:
    """The identity of a transaction's call.

    Attributes:
        key: The record's key.
        owner: The call's random bits.
        sequence: The default sequence number of the call's events.
        record_locations: The possible locations of the record.
        record_actions: The number of actions for the record.
    """

    key: str
    owner: str
    sequence: int
    record_locations: Locations
    record_actions: int = 1


@final
@dataclass(frozen=True, slots=True)
class Events:
    """The events of one key, and about the number of bytes of their item."""

    sequence: int
    texts: tuple[str, ...] = field(repr=False)
    bytes: int


@final
class PendingWrites:
    """The writes and events of one call, until the transaction is sent."""

    def __init__(self, call: CallIdentity, codec: Codec, outbox: Outbox | None) -> None:
        self._call = call
        self._codec = codec
        self._outbox = outbox
        self._effects: list[Effect] = []
        self._write_set = WriteSet(record_locations=call.record_locations, record_actions=call.record_actions)
        self._events: dict[str, Events] = {}
        self._state: str | None = None

    def add(self, kind: str, **given: object) -> None:
        """Add a write, with DynamoDB's parameters."""
        self._check_open()
        effect = effects.effect(kind, given)
        write_set = self._write_set.with_write(effect)
        write_set.check_room(actions=len(self._events), more=self._bytes_of_events)
        # Only now, after all checks: the caller may catch the error and go on with the earlier writes.
        self._write_set = write_set
        self._effects.append(effect)

    def emit(self, event: object, *, key: str | None, sequence: int | None) -> None:
        """Add an event."""
        self._check_open()
        if self._outbox is None:
            raise effects.no_outbox()
        event_key = self._call.key if key is None else key
        events = self._events_of(event_key, sequence)
        try:
            # Written now: a later change of the event by the caller has no effect.
            text = self._codec.encode(event)
        except SerializationError as error:
            advice = "emit a value that JSON can hold, or give the store another codec="
            raise SerializationError("the event", error.kind, advice) from None
        more = len(json.dumps(text))
        if events.bytes + more > attributes.LARGEST_ITEM:
            raise effects.too_many_events()
        self._write_set.check_room(actions=len(self._events.keys() | {event_key}), more=self._bytes_of_events + more)
        self._events[event_key] = Events(events.sequence, (*events.texts, text), events.bytes + more)

    def close(self, state: str) -> None:
        """Refuse further writes. `state` is the reason."""
        self._state = state

    def collected(self, keys: KeyNames, *, record_bytes: int = 0) -> tuple[Effect | Put, ...]:
        """Return all writes, checked as a whole, beside a record of `record_bytes` bytes."""
        writes: tuple[Effect | Put, ...] = (*self._effects, *self._puts())
        write_set = WriteSet(
            record_locations=self._call.record_locations,
            record_actions=self._call.record_actions,
            keys=keys,
            bytes=record_bytes,
        )
        # Once more, because the tables' keys may be known only now, and the result's size too.
        for write in writes:
            write_set = write_set.with_write(write)
        return writes

    def ambiguous_tables(self, keys: KeyNames) -> list[str]:
        """Name the tables whose keys decide whether two puts are of one item."""
        return [name for name in self._write_set.ambiguous_tables() if effects.without_arn(name) not in keys]

    def __len__(self) -> int:
        return len(self._effects) + len(self._events)

    def __repr__(self) -> str:
        what = f"{len(self)} writes" if self._state is None else self._state
        return f"<Transaction of {self._call.key}: {what}>"

    @property
    def _bytes_of_events(self) -> int:
        return sum(events.bytes for events in self._events.values())

    def _events_of(self, key: str, sequence: int | None) -> Events:
        """Find the key's events so far, and their sequence number."""
        if not isinstance(key, str) or not key:
            raise effects.refused("emit takes key= as a text that is not empty")
        plain = attributes.text(key, "the key of an event")
        known = self._events.get(key)
        number = sequence if sequence is not None else self._call.sequence if known is None else known.sequence
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_SEQUENCE:
            raise effects.refused("emit takes sequence= as a whole number, 0 or more, of at most 20 digits")
        if known is not None and known.sequence != number:
            raise effects.refused("the events of one key in one transaction have one sequence=; give each the same")
        return known or Events(number, (), OVERHEAD + len(json.dumps(plain)))

    def _puts(self) -> list[Put]:
        if self._outbox is None:
            return []
        owner = self._call.owner
        return [
            self._outbox.put(Emitted(key=key, sequence=events.sequence, owner=owner, events=events.texts))
            for key, events in self._events.items()
        ]

    def _check_open(self) -> None:
        if self._state is not None:
            raise TransactionClosedError(self._call.key, self._state)
