"""Pauses between attempts: the library's only way to wait before a repetition."""

import random
from math import inf
from typing import final

import anyio


@final
class Backoff:
    """Pauses that double from `first` to `most` seconds, until the loop's time `until`.

    Each pause is shortened at random, by half at most, so that callers that failed together do not return together.
    A pause that would end after `until` is cut, so that the last attempt begins `first` seconds before that instant.
    """

    __slots__ = ("_first", "_most", "_next", "_tries_left", "_until")

    def __init__(self, first: float, most: float, *, until: float = inf, tries: int | None = None) -> None:
        self._first = self._next = first
        self._most = most
        self._until = until
        self._tries_left = inf if tries is None else tries

    def next(self, now: float, *, at_most: float = inf) -> float | None:
        """Compute the seconds of the next pause at the loop's time `now`. None if no attempt is left."""
        pause = min(self._next * random.uniform(0.5, 1.0), at_most)  # noqa: S311 - it keeps callers apart, no secret
        if self._tries_left <= 0:
            return None
        if now + pause >= self._until:
            # A pause up to the limit would only delay the failure: nothing could be sent afterwards.
            pause = self._until - now - self._first
            if pause < self._first:
                return None
        self._tries_left -= 1
        self._next = min(2 * self._next, self._most)
        return pause

    async def pause(self, *, at_most: float = inf) -> bool:
        """Pause before the next attempt, `at_most` seconds. False if no attempt is left."""
        seconds = self.next(anyio.current_time(), at_most=at_most)
        if seconds is None:
            return False
        await anyio.sleep(seconds)
        return True
