"""The time limit of operations, with one timer for each event loop.

`asyncio.timeout` makes a timer for each operation, and leaves it behind in the loop's heap: 33 thousand instructions,
measured with cachegrind. All operations of a backend have the same limit, so they are over in the order in which they
began, and a timer for the oldest serves all.

As with `asyncio.timeout`, an operation that is over is cancelled once, and who ends the operation takes that cancellation
back. A cancellation by the caller passes, also if it comes at the same moment.
"""

import asyncio
from typing import Any, final

from msgspec import Struct


@final
class Limited(Struct, eq=False):
    """One operation under the limit.

    Attributes:
        task: The task that runs the operation.
        ends: The loop's time at which the operation is over.
        cancelling: How many cancellations of the task were not taken back at the beginning.
        is_over: Whether the limit has cancelled the task.
    """

    task: "asyncio.Task[Any]"
    ends: float
    cancelling: int
    is_over: bool = False


@final
class TimeLimit:
    """The time limit of a backend's operations in the running event loop.

    Args:
        seconds: The time of one operation.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        # A dict for its order.
        self._under_way: dict[Limited, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> Limited:
        """Begin an operation of the running task."""
        loop = self._loop
        task = asyncio.current_task(loop)
        if task is None:
            raise RuntimeError("an operation has a time limit, and so runs inside a task")
        limited = Limited(task, loop.time() + self._seconds, task.cancelling())
        self._under_way[limited] = None
        if self._timer is None:
            self._timer = loop.call_at(limited.ends, self._look)
        return limited

    def end(self, limited: Limited) -> bool:
        """End an operation. Tell whether a cancellation that has ended the operation was the limit's alone."""
        self._under_way.pop(limited, None)
        if not limited.is_over:
            return False
        limited.is_over = False  # taken back once
        return limited.task.uncancel() <= limited.cancelling

    def _look(self) -> None:
        """Cancel the operations that are over, and look again when the oldest of the others is."""
        self._timer = None
        now = self._loop.time()
        for limited in tuple(self._under_way):
            if limited.ends > now:
                self._timer = self._loop.call_at(limited.ends, self._look)
                return
            del self._under_way[limited]
            limited.is_over = True
            limited.task.cancel()
