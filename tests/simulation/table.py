"""The table that all processes share: a real `MemoryBackend`, and the history of what was written to it.

The history is read from the stored items themselves, before and after each operation: a write is what
changed them, whatever was answered. What one operation changes is one change of its key's record, in
however many locations the key has; the layout item is no record.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from aioidempotency import MemoryBackend
from aioidempotency._core.model import Item, Location
from aioidempotency._core.operations import Applied, Effect, Get, GetAll, Operation, Reply, Transact, TransactionFailed
from aioidempotency.exceptions import Reason
from aioidempotency.partitioning import table_layout as layout

Place = tuple[str, str, str | None]
"""Where the backend keeps an item: table, partition, sort key."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One item, read without the library's help. Instants are epoch seconds by the writer's clock."""

    running: bool
    owner: str | None
    token: int
    lease_end: float
    expiration: int
    payload: str | None
    encoding: str | None
    data: str | None
    freed: bool = False

    @property
    def left(self) -> bool:
        """Whether it is what freeing a key has left of a record: nobody's."""
        return self.running and self.freed and self.lease_end == 0

    @property
    def author(self) -> str | None:
        """The call whose result or error this is; None for a tombstone."""
        if self.encoding == "tombstone" or self.data is None:
            return None
        content = json.loads(self.data)
        return str(content["args"][0] if self.encoding == "error" else content["by"])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One change of one key's record, by one call.

    Attributes:
        location: Where it was put or changed; where it was deleted, if it is gone.
        before: What was in that location.
        with_effects: Whether effects were applied by the same operation.
        cleared: What the same operation deleted in other locations, or replaced by what is left of a record.
        vacated: What it left there.
        beside: What is in the key's other locations when all is done.
    """

    time: float
    key: str
    sender: str
    location: Place
    before: Row | None
    after: Row | None
    with_effects: bool = False
    cleared: tuple[tuple[Place, Row], ...] = ()
    vacated: tuple[tuple[Place, Row], ...] = ()
    beside: tuple[tuple[Place, Row], ...] = ()

    @property
    def before_by_location(self) -> tuple[tuple[Place, Row], ...]:
        """What was in each location that it has changed."""
        return (*(() if self.before is None else ((self.location, self.before),)), *self.cleared)

    @property
    def after_by_location(self) -> dict[Place, Row]:
        """What is in each location that it has changed."""
        return {**({} if self.after is None else {self.location: self.after}), **dict(self.vacated)}

    @property
    def replaced(self) -> tuple[Row, ...]:
        """All that was there, and is not as it was."""
        return (*(() if self.before is None else (self.before,)), *(each for _, each in self.cleared))


class WatchedTable:
    """Executes operations, and tells of each change before anything else can happen."""

    def __init__(
        self, now: Callable[[], float], tell: Callable[[Write], None], applied: Callable[[str, Write | None], None]
    ) -> None:
        self._now = now
        self._tell = tell
        self._applied = applied
        self._memory = MemoryBackend()
        self._known: dict[str, dict[Place, Item]] = defaultdict(dict)

    async def execute(self, operation: Operation, sender: str) -> Reply:
        """Execute one operation. This is a white-box test: the items are looked at where they are."""
        effects = operation.effects if isinstance(operation, Transact) else ()
        if any(isinstance(each, Effect) and each.kind == "ConditionCheck" for each in effects):
            assert isinstance(operation, Transact)
            return self._refused(operation)
        if isinstance(operation, Transact):
            reply = await self._memory.execute(Transact(operation.writes))
        else:
            reply = await self._memory.execute(operation)
        applied = bool(effects) and isinstance(reply, Applied)
        if not isinstance(operation, Get | GetAll) and not is_of_layout(operation):
            writes = operation.writes if isinstance(operation, Transact) else (operation,)
            write = self._note(operation.location.key, [_location(each.location) for each in writes], sender, applied)
            if applied:
                self._applied(sender, write)
        return (
            TransactionFailed(reply.failures, (None,) * len(effects)) if isinstance(reply, TransactionFailed) else reply
        )

    def _refused(self, operation: Transact) -> TransactionFailed:
        """Refuse effects, of which one is a check that never holds; tell of the record what is the matter with it."""
        reason = Reason("ConditionalCheckFailed")
        return TransactionFailed(
            tuple(map(self._memory._refusal, operation.writes)), (reason,) * len(operation.effects)
        )

    def reap(self, epoch: float) -> None:
        """Delete what has expired, as the table's TTL does."""
        for location, item in list(self._memory._items.items()):
            if "expiration" in item and row(item).expiration < epoch:
                del self._memory._items[location]
                self._note(location[2] or location[1], [location], "ttl")

    def _note(self, key: str, locations: list[Place], sender: str, applied: bool = False) -> Write | None:
        """Find out what an operation changed in some locations, and tell of it."""
        known, stored = self._known[key], self._memory._items
        changed = [location for location in locations if known.get(location) is not stored.get(location)]
        if not changed:
            return None
        befores = {location: row(known[location]) for location in changed if location in known}
        put = [location for location in changed if location in stored]
        more = {location: row(stored[location]) for location in put[1:]}
        assert all(each.left for each in more.values()), "two records of one key, put by one operation"
        for location in changed:
            known.pop(location, None)
        known.update({location: stored[location] for location in put})
        home = (put or changed)[0]
        write = Write(
            time=self._now(),
            key=key,
            sender=sender,
            location=home,
            before=befores.pop(home, None),
            after=row(known[home]) if put else None,
            with_effects=applied,
            cleared=tuple(befores.items()),
            vacated=tuple(more.items()),
            beside=tuple((location, row(item)) for location, item in known.items() if location not in {home, *more}),
        )
        self._tell(write)
        return write


def is_of_layout(operation: Operation) -> bool:
    """Tell whether an operation is about the layout item, and not about a record."""
    return operation.location.partition == layout.KEY


def _location(location: Location) -> Place:
    return location.table.name, location.partition, location.sort


def row(item: Item) -> Row:
    """Read an item."""
    values = {name: str(next(iter(value.values()))) for name, value in item.items()}
    return Row(
        running=values["status"] == "INPROGRESS",
        owner=values.get("owner"),
        token=int(values.get("fencing_token", 0)),
        lease_end=int(values.get("in_progress_expiration", 0)) / 1000,
        expiration=int(values["expiration"]),
        payload=values.get("validation"),
        encoding=values.get("encoding"),
        data=values.get("data"),
        freed="freed_by" in values,
    )


@lru_cache
def digest(text: str) -> str:
    """Digest a key or a payload as the table has it."""
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()
