"""Pauses between attempts: the library's only way to wait before a repetition."""

import random
from math import inf
from typing import final

import anyio


@final
class Backoff:
    """Pauses that double from `first` to `most` seconds, until the loop's time `until`.

    Each pause is shortened at random, by half at most, so that callers that failed together do not return together.
    There is no pause that would end after `until`.
    """

    __slots__ = ("_most", "_next", "_tries_left", "_until")

    def __init__(self, first: float, most: float, *, until: float = inf, tries: int | None = None) -> None:
        self._next = first
        self._most = most
        self._until = until
        self._tries_left = inf if tries is None else tries

    def next(self, now: float, *, at_most: float = inf) -> float | None:
        """Compute the seconds of the next pause at the loop's time `now`. None if no attempt is left."""
        pause = min(self._next * random.uniform(0.5, 1.0), at_most)  # noqa: S311 - it keeps callers apart, no secret
        # A pause up to the limit would only delay the failure: nothing could be sent afterwards.
        if self._tries_left <= 0 or now + pause >= self._until:
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
