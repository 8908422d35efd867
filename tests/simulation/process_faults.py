"""Faults to plant in what one process does with what it knows itself: the simulation must find each of them.

This is white-box by nature.
"""

from typing import Any

import anyio
import pytest

from aioidempotency import _lease
from aioidempotency._call import Call
from aioidempotency._lease import Leases, RunningLease
from aioidempotency._records import Records
from aioidempotency.exceptions import ConfigurationError, LeaseLostError, StoreError
from tests.simulation.calls import CALL
from tests.simulation.faults import Fault
from tests.simulation.loop import now
from tests.simulation.planting import nothing, nothing_async

TAKEN = "took the key of .*, whose body runs in the same process"
PAST_THE_END = "went on for .* past the end of its lease"


def _by_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    """Judge a running call that is followed, and what bodies of the process hold, by the wall clock."""

    def wall(_: RunningLease) -> float:
        call = CALL.get()
        assert call is not None
        return call.clock(now())

    patch.setattr(RunningLease, "now", property(wall))


def _never_resent(patch: pytest.MonkeyPatch) -> None:
    async def complete(self: Call, running: Any, result: Any, *, shielded: bool = False) -> Any:
        try:
            return await self._records.complete(running.lease, result)
        except LeaseLostError:
            raise
        except (StoreError, ConfigurationError) as error:
            self._completion_failed(error)
            return None

    patch.setattr(Call, "_complete", complete)


def _scoped(patch: pytest.MonkeyPatch) -> None:
    """Put a cancel scope around each block, as a task group has one."""
    enter, leave = Call.__aenter__, Call.__aexit__
    scopes: dict[Call, anyio.CancelScope] = {}

    async def entering(self: Call) -> Any:
        execution = await enter(self)
        scopes[self] = anyio.CancelScope().__enter__()
        return execution

    async def leaving(self: Call, *error: Any) -> None:
        scopes.pop(self).__exit__(None, None, None)
        await leave(self, *error)

    patch.setattr(Call, "__aenter__", entering)
    patch.setattr(Call, "__aexit__", leaving)


def _never_taken_back(patch: pytest.MonkeyPatch) -> None:
    def take_back(self: RunningLease, error: BaseException | None) -> bool:
        if self._task is not None:
            _lease._CANCELLED.pop(self._task, None)
        return False

    patch.setattr(RunningLease, "take_back", take_back)


def _marked(patch: pytest.MonkeyPatch) -> None:
    """Cancel a task for one lost block, and never for another one."""

    def cancel(self: RunningLease) -> None:
        task = self._task
        if task is not None and not task.done() and task not in _lease._CANCELLED:
            _lease._CANCELLED[task] = self
            task.cancel()

    patch.setattr(RunningLease, "_cancel", cancel)


PROCESS_FAULTS = (
    Fault("a call of the process is judged by the wall clock", TAKEN, _by_the_wall_clock),
    Fault("a body of the process is not known by its owner", TAKEN, nothing(Records, "_by_own_clock")),
    Fault("a machine that slept is not noticed", PAST_THE_END, nothing(Leases, "_count_sleep")),
    Fault("a refused completion is not sent again", "gave its completion up", _never_resent),
    Fault(
        "a process without the right to complete goes on",
        "cannot store any result",
        nothing_async(Records, "_complete_first"),
    ),
    Fault("each block is a cancel scope", "for no reason", _scoped),
    Fault("of two lost blocks, one is merely marked", PAST_THE_END, _marked),
    Fault("a lost lease leaves its task cancelled", "left its task cancelled", _never_taken_back),
)
