"""Coverage of what other tests cover already."""

from collections.abc import Iterator

import coverage
import pytest


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    """Stop measuring during a test: it would run a million steps at a multiple of their time."""
    measuring = coverage.Coverage.current()
    if measuring is None:
        yield
        return
    measuring.stop()
    yield
    measuring.start()
