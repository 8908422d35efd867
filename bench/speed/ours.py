"""The library's own contestants: a decorated function, as its users write it, with the defaults of its store."""

from typing import Any, Final, final

from aioidempotency import AsyncIdempotencyStore, GroupCommit, idempotent
from bench.speed.calls import Gate
from bench.speed.jobs import RESULT, TABLE

_CACHED: Final = 1000


@final
class Decorated:
    """A function that one store makes idempotent."""

    def __init__(self, store: AsyncIdempotencyStore) -> None:
        self.bodies = 0
        self.gate: Gate | None = None
        self._store = store

        @idempotent(store)
        async def charge(order: str) -> dict[str, str]:  # noqa: ARG001 - it is the key
            return await self.body()

        self.call = charge

    async def body(self) -> dict[str, str]:
        """Answer, at the gate if there is one."""
        self.bodies += 1
        if self.gate is not None:
            await self.gate.wait()
        return RESULT

    async def aclose(self) -> None:
        """Close the store's client."""
        await self._store.aclose()


async def plain(url: str) -> Decorated:
    """Open the plain path: two requests for an execution."""
    return Decorated(_store(url))


async def group_commit(url: str) -> Decorated:
    """Open the same with group commit."""
    return Decorated(_store(url, group_commit=GroupCommit()))


async def local_cache(url: str) -> Decorated:
    """Open the plain path with a cache that holds all keys that duplicates come for."""
    return Decorated(_store(url, local_cache=_CACHED))


def _store(url: str, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore(TABLE, endpoint_url=url, **options)
