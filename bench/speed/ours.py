"""The library's own contestants: a decorated function, as its users write it, with the defaults of its store."""

from typing import Any, Final, final

from aioidempotency import AsyncIdempotencyStore, GroupCommit, idempotent
from aioidempotency.backends import Applied, Operation, Reply
from bench.speed.calls import Calls
from bench.speed.jobs import TABLE

_CACHED: Final = 1000
"""Results in the local cache: more than the keys that duplicates come for."""


@final
class Decorated(Calls):
    """A function that one store makes idempotent."""

    def __init__(self, store: AsyncIdempotencyStore) -> None:
        super().__init__()
        self._store = store

        @idempotent(store)
        async def charge(order: str) -> dict[str, str]:  # noqa: ARG001 - it is the key
            return await self.body()

        self._charge = charge

    async def call(self, key: str) -> object:
        """Call the function."""
        return await self._charge(key)

    async def aclose(self) -> None:
        """Close the store's client."""
        await self._store.aclose()


@final
class Nothing:
    """A backend that does nothing: what is left is the library's own code."""

    async def execute(self, operation: Operation) -> Reply:  # noqa: ARG002 - whatever it is
        """Say that it was applied."""
        return Applied()


async def plain(url: str, **options: Any) -> Decorated:
    """Open the plain path: two requests for an execution."""
    return Decorated(_store(url, **options))


async def group_commit(url: str, **options: Any) -> Decorated:
    """Open the same with group commit."""
    return Decorated(_store(url, group_commit=GroupCommit(), **options))


async def local_cache(url: str) -> Decorated:
    """Open the plain path with a cache that holds all keys that duplicates come for."""
    return Decorated(_store(url, local_cache=_CACHED))


async def own_code(_: str) -> Decorated:
    """Open a store that sends nothing."""
    return Decorated(AsyncIdempotencyStore(TABLE, backend=Nothing()))


def _store(url: str, **options: Any) -> AsyncIdempotencyStore:
    return AsyncIdempotencyStore(TABLE, endpoint_url=url, **options)
