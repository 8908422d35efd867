"""Pauses between tries: the one way in which the library waits before it does something again."""

import random
from math import inf
from typing import final

import anyio


@final
class Backoff:
    """Pauses that double from `first` to `most` seconds, until the loop's time `until`.

    Each is shortened at random, by half at the most: so callers that failed together do not come again
    together. A pause that would not end before `until` is not made.
    """

    __slots__ = ("_most", "_next", "_tries_left", "_until")

    def __init__(self, first: float, most: float, *, until: float = inf, tries: int | None = None) -> None:
        self._next = first
        self._most = most
        self._until = until
        self._tries_left = inf if tries is None else tries

    def next(self, now: float, *, at_most: float = inf) -> float | None:
        """Say for how many seconds to pause at the loop's time `now`; None where there is no further try."""
        pause = min(self._next * random.uniform(0.5, 1.0), at_most)  # noqa: S311 - it keeps callers apart, no secret
        if self._tries_left <= 0 or now + pause >= self._until:
            return None
        self._tries_left -= 1
        self._next = min(2 * self._next, self._most)
        return pause

    async def pause(self, *, at_most: float = inf) -> bool:
        """Pause before the next try, for `at_most` seconds; False where there is none."""
        seconds = self.next(anyio.current_time(), at_most=at_most)
        if seconds is None:
            return False
        await anyio.sleep(seconds)
        return True
