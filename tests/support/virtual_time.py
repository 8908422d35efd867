"""Time that passes at once: an event loop whose clock jumps to the next timer when nothing is ready."""

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, final

P = ParamSpec("P")

EPOCH = 1_800_000_000.0
"""What `epoch_seconds` reads when a virtual loop starts."""


@final
class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time, and real sockets have none to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        """Read the virtual clock."""
        return self._now

    def _run_once(self) -> None:
        inner: Any = self
        if not inner._ready:
            due = [timer.when() for timer in inner._scheduled if not timer.cancelled()]
            self._now = max(self._now, min(due, default=self._now))
        inner_run_once: Callable[[], None] = super()._run_once  # type: ignore[misc] # asyncio's own, not in its types
        inner_run_once()


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test on a virtual loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def body() -> None:
            await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(body())

    return run


def epoch_seconds() -> float:
    """Read the running loop's clock as a store wants it: `clock=epoch_seconds`."""
    return EPOCH + asyncio.get_running_loop().time()


async def pass_time(seconds: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(seconds)
