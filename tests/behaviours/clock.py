"""A clock that stands still until it is told otherwise."""

from typing import final


@final
class FakeClock:
    """Epoch seconds for `clock=`; several stores may share it."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
