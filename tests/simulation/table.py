"""The table that all processes share: a real `MemoryBackend`, and the history of what was written to it.

The history is read from the stored items themselves, before and after each operation: a write is what
changed them, whatever was answered.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import final

from aioidempotency import MemoryBackend
from aioidempotency._core.model import Item
from aioidempotency._core.operations import Operation, Reply


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
    """One change of one item, by one call."""

    time: float
    key: str
    sender: str
    before: Row | None
    after: Row | None


class WatchedTable:
    """Executes operations, and tells of each change before anything else can happen."""

    def __init__(self, now: Callable[[], float], tell: Callable[[Write], None]) -> None:
        self._now = now
        self._tell = tell
        self._memory = MemoryBackend()
        self._known: dict[str, Item] = {}

    async def execute(self, operation: Operation, sender: str) -> Reply:
        """Execute one operation. This is a white-box test: the items are looked at where they are."""
        reply = await self._memory.execute(operation)
        location = operation.location
        place = (location.table.name, location.partition, location.sort)
        self._note(location.key, self._memory._items.get(place), sender)
        return reply

    def reap(self, epoch: float) -> None:
        """Delete what has expired, as the table's TTL does."""
        for place, item in list(self._memory._items.items()):
            if row(item).expiration < epoch:
                del self._memory._items[place]
                self._note(place[1], None, "ttl")

    def _note(self, key: str, item: Item | None, sender: str) -> None:
        known = self._known.get(key)
        if item is known:
            return
        if item is None:
            del self._known[key]
        else:
            self._known[key] = item
        before, after = (None if each is None else row(each) for each in (known, item))
        self._tell(Write(time=self._now(), key=key, sender=sender, before=before, after=after))


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
    )


@lru_cache
def digest(text: str) -> str:
    """Digest a key or a payload as the table has it."""
    return hashlib.sha256(json.dumps(text).encode()).hexdigest()
