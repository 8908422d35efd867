"""Room in a client's connection pool: claims and reads leave connections to owners.

A pool serves whoever came first. With far more claims than the store serves, a renewal would wait behind all of them,
and its lease would end. So only claims and reads wait here, and a part of the connections is never theirs.

The time limit of an operation is for a store that is silent: a crowd that takes longer to serve is no outage. So the
limit begins when the operation leaves, and who waits here waits longer, as long as the store answers others.
"""

import asyncio
from collections import deque
from math import inf
from typing import Any, Final, final

OF_OWNERS_ALONE: Final = 8
"""One of so many connections, and one at the least, serves only completions, renewals and releases."""

LONGEST_WAIT: Final = 3
"""How many time limits an operation waits for its turn while the store answers others.

With the default lease, three time limits are half of the lease, after which a claim has to be renewed before anyone
relies on it.
"""

LOOKS: Final = 4
"""How often in a time limit the waiting operations are looked at."""


class NotSentError(TimeoutError):
    """An operation has waited too long for its turn.

    Attributes:
        seconds: How long.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not sent within {seconds:g} s")
        self.seconds = seconds


@final
class Room:
    """The connections for claims and reads in one event loop.

    Args:
        connections: The size of the pool.
        limit: The time limit of an operation, in seconds.

    Attributes:
        free: How many more requests may leave now.
        waiting: The callers that wait, oldest first, each with the loop's time of its arrival. Each freed connection
            wakes one.
    """

    __slots__ = ("_heard", "_limit", "_timer", "free", "waiting")

    def __init__(self, connections: float, *, limit: float = inf) -> None:
        self.free = max(1, connections - max(1, connections // OF_OWNERS_ALONE))
        self.waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._limit = limit
        self._heard = -inf
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, client: Any, *, limit: float) -> "Room":
        """Make the room of a client. A stub without a pool has room for all."""
        config = getattr(getattr(client, "meta", None), "config", None)
        connections = getattr(config, "max_pool_connections", None)
        return cls(connections if isinstance(connections, int) else inf, limit=limit)

    async def wait(self) -> None:
        """Wait until a request may leave. The connection is the caller's then, until `leave`.

        Raises:
            NotSentError: The store was silent for a time limit, or served others for too long.
        """
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self.waiting.append((turn, loop.time()))
        if self._timer is None and self._limit < inf:
            self._timer = loop.call_later(self._limit, self._look)
        try:
            await turn
        except asyncio.CancelledError:
            # The turn may have come at the same moment: it is passed on.
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()
            raise

    def answered(self) -> None:
        """Note that the store has answered an operation, for those that wait."""
        self._heard = asyncio.get_running_loop().time()

    def leave(self) -> None:
        """Give a connection back, to the caller that waits the longest."""
        while self.waiting:
            turn, _ = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def _look(self) -> None:
        """Turn away those that have waited too long."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        patience = self._limit * (LONGEST_WAIT if now <= self._heard + self._limit else 1)
        while self.waiting:
            turn, since = self.waiting[0]
            if not turn.done():
                if now < since + patience:
                    break
                turn.set_exception(NotSentError(patience))
            self.waiting.popleft()
        if self.waiting:
            self._timer = loop.call_later(self._limit / LOOKS, self._look)
