"""The real clock, by which MiniStack deletes what expired, whatever the clock of a store says."""

import time
from collections.abc import Mapping
from typing import Final, final

LONGEST_TEST: Final = 600.0
"""Seconds that no test with an engine takes."""


@final
class ShortLifeError(Exception):
    """A record may be deleted before the test has ended that writes it."""

    def __init__(self, expiration: float) -> None:
        """Say what to do about it."""
        super().__init__(
            f"MiniStack's TTL deletes a record that expires at {expiration:.0f} at some time during the test: "
            "make it with tests.support.records, give its store a FakeClock, or turn the TTL of its table off"
        )


def check_outlasts_its_test(expiration: Mapping[str, object]) -> None:
    """Refuse an attribute by which MiniStack may delete its item during the test; what is no number is none."""
    for value in expiration.values():
        try:
            instant = float(str(value))
        except ValueError:
            continue
        if instant <= time.time() + LONGEST_TEST:
            raise ShortLifeError(instant)
