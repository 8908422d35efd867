"""What a call is going to write together with its result, as it is collected.

Each addition is checked as a whole with what was collected before; one that is refused is not kept. When the
call's block has ended, nothing is added any more.
"""

from dataclasses import dataclass
from typing import Final, final

from aioidempotency._core import effects
from aioidempotency._core.effects import KeyNames
from aioidempotency._core.model import Places
from aioidempotency._core.operations import Effect, Put
from aioidempotency._core.outbox import LARGEST_SEQUENCE, Emitted, Outbox
from aioidempotency.codecs import Codec
from aioidempotency.exceptions import SerializationError, TransactionClosedError, TransactionError

ENDED: Final = "has ended its block; write inside it"
REPLAYED: Final = "is a replay, and has had its effects; test `execution.replayed` first"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a transaction knows of the call that it belongs to.

    Attributes:
        key: The record's key.
        owner: The call's random bits.
        sequence: The number of its events, where they are given none.
        own: Where its record may be.
        parts: How many actions the record takes.
    """

    key: str
    owner: str
    sequence: int
    own: Places
    parts: int = 1


@final
class Draft:
    """The effects of one call."""

    def __init__(self, origin: Origin, codec: Codec, outbox: Outbox | None) -> None:
        self._origin = origin
        self._codec = codec
        self._outbox = outbox
        self._effects: list[Effect] = []
        self._events: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._state: str | None = None

    def add(self, kind: str, **given: object) -> None:
        """Add a write, in the wire's parameters."""
        self._check_open()
        self._effects.append(effects.effect(kind, given))
        try:
            self._check({})
        except TransactionError:
            self._effects.pop()
            raise

    def emit(self, event: object, *, key: str | None, sequence: int | None) -> None:
        """Add an event."""
        self._check_open()
        if self._outbox is None:
            raise effects.no_outbox()
        under = self._origin.key if key is None else key
        number = self._sequence_of(under, sequence)
        try:
            text = self._codec.encode(event)
        except SerializationError as error:
            advice = "emit what JSON can carry, or give the store another codec="
            raise SerializationError("the event", error.kind, advice) from None
        before = dict(self._events)
        self._events[under] = (number, (*before.get(under, (number, ()))[1], text))
        try:
            self._check({})
        except TransactionError:
            self._events = before
            raise

    def close(self, state: str) -> None:
        """Take no more writes; `state` says why."""
        self._state = state

    def collected(self, keys: KeyNames, *, spare: int = 0) -> tuple[Effect | Put, ...]:
        """Read all that is to be applied, checked as a whole; `spare` are the bytes that the record takes."""
        return self._check(keys, spare=spare)

    def doubtful(self, keys: KeyNames) -> list[str]:
        """Name the tables whose key must be known, to tell whether two puts are of one item."""
        return list(effects.doubtful(self._effects, self._origin.own, keys))

    def __len__(self) -> int:
        return len(self._effects) + len(self._events)

    def __repr__(self) -> str:
        what = f"{len(self)} writes" if self._state is None else self._state
        return f"<Transaction of {self._origin.key}: {what}>"

    def _sequence_of(self, key: str, sequence: int | None) -> int:
        """Say by which number the events of a key are ordered."""
        if not isinstance(key, str) or not key:
            raise effects.refused("emit takes key= as a text that is not empty")
        known = self._events.get(key)
        number = sequence if sequence is not None else self._origin.sequence if known is None else known[0]
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= LARGEST_SEQUENCE:
            raise effects.refused("emit takes sequence= as a whole number, 0 or more, of at most 20 digits")
        if known is not None and known[0] != number:
            raise effects.refused("the events of one key in one transaction have one sequence=; give each the same")
        return number

    def _check(self, keys: KeyNames, *, spare: int = 0) -> tuple[Effect | Put, ...]:
        writes: tuple[Effect | Put, ...] = (*self._effects, *self._puts())
        effects.check(writes, self._origin.own, keys, parts=self._origin.parts, spare=spare)
        return writes

    def _puts(self) -> list[Put]:
        if self._outbox is None:
            return []
        owner = self._origin.owner
        return [
            self._outbox.put(Emitted(key=key, sequence=sequence, owner=owner, events=events))
            for key, (sequence, events) in self._events.items()
        ]

    def _check_open(self) -> None:
        if self._state is not None:
            raise TransactionClosedError(self._origin.key, self._state)
