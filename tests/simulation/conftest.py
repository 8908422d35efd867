"""The simulation runs code that the other tests cover: it is not measured."""

from tests.support.unmeasured import unmeasured

__all__ = ["unmeasured"]
