"""Room in a client's connection pool: claims and reads leave connections to owners.

A pool serves whoever came first. With far more claims than the store serves, a renewal would wait behind all of them,
and its lease would end. So only claims and reads wait here, and a part of the connections is never theirs.
"""

import asyncio
from collections import deque
from math import inf
from typing import Any, Final, final

OF_OWNERS_ALONE: Final = 8
"""One of so many connections, and one at the least, serves only completions, renewals and releases."""


@final
class Room:
    """The connections for claims and reads in one event loop.

    Attributes:
        free: How many more requests may leave now.
        waiting: The callers that wait, oldest first. Each freed connection wakes one.
    """

    __slots__ = ("free", "waiting")

    def __init__(self, connections: float) -> None:
        self.free = max(1, connections - max(1, connections // OF_OWNERS_ALONE))
        self.waiting: deque[asyncio.Future[None]] = deque()

    @classmethod
    def of(cls, client: Any) -> "Room":
        """Make the room of a client. A stub without a pool has room for all."""
        config = getattr(getattr(client, "meta", None), "config", None)
        connections = getattr(config, "max_pool_connections", None)
        return cls(connections if isinstance(connections, int) else inf)

    async def wait(self) -> None:
        """Wait until a request may leave. The connection is the caller's then, until `leave`."""
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            # The turn may have come at the same moment: it is passed on.
            if not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Give a connection back, to the caller that waits the longest."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1
