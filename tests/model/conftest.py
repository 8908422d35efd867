"""The model runs code that the other tests cover: it is not measured, and takes no time for what it does not need."""

import gc
from collections.abc import Iterator

import pytest

from tests.support.unmeasured import unmeasured

__all__ = ["no_collection_of_cycles", "unmeasured"]


@pytest.fixture(autouse=True)
def no_collection_of_cycles() -> Iterator[None]:
    """States are many, and none is in a cycle: looking for some takes a tenth of the time."""
    gc.disable()
    yield
    gc.enable()
