"""The benchmarks run code that the other tests cover: it is not measured, so that measuring does not slow them."""

from tests.support.unmeasured import unmeasured

__all__ = ["unmeasured"]
