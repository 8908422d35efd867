"""Faults to plant where keys are freed, one at a time: the simulation must find each of them.

This is white-box by nature.
"""

from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency._core import freeing, model, protocol
from aioidempotency._core.conditions import Unchanged
from aioidempotency._core.operations import Delete, Put
from aioidempotency._core.protocol import Vacant
from tests.simulation.faults import Fault
from tests.simulation.planting import rewriting, unconditional
from tests.support.values import replace

BACK = "was shut out, and is back"


def _leaving(**wrong: Callable[[Any], Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """Have what is left of a record say something else."""
    real = model.vacant

    def vacant(location: Any, **right: Any) -> Any:
        return real(location, **{name: wrong[name](given) if name in wrong else given for name, given in right.items()})

    return lambda patch: patch.setattr(model, "vacant", vacant)


def _deleting(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(freeing, "_freed", lambda found, *_, **__: Delete(found.location, Unchanged(found.item)))


def _unjudged(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(freeing, "judge_all", lambda *_: Vacant())
    patch.setattr(freeing, "judge", lambda *_: Vacant())


def _dutiless(patch: pytest.MonkeyPatch) -> None:
    real = protocol.take_over
    patch.setattr(protocol, "take_over", lambda *given: replace(real(*given), freed_by=None))


def _giving_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "_give_back", lambda lease, condition: Delete(lease.location, condition))


def _seeing_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        freeing, "_counts", lambda record, *_, **__: record.status.value == "INPROGRESS" and not record.vacant
    )


FREEING_FAULTS = (
    Fault("who is shut out is deleted", BACK, _deleting),
    Fault(
        "what is left has the same token", "fencing token that did not grow", _leaving(fencing_token=lambda it: it - 1)
    ),
    Fault("what is left expires early", "expires before the one", _leaving(expiration=lambda it: it - 10_000)),
    Fault("who runs is forgotten", "freed a key that is running", _unjudged),
    Fault("who takes over lets the old owner in", f"{BACK}|took over a record that keeps an owner out", _dutiless),
    Fault("who gives back lets the old owner in", f"{BACK}|keeps an owner out, and left none", _giving_back),
    Fault(
        "what is forgotten is not looked at again",
        "freed a key that is running|deleted a record, and",
        rewriting("forget", lambda it: unconditional(it) if isinstance(it, Put | Delete) else it, module=freeing),
    ),
    Fault("results are not forgotten", "there is nothing to free", _seeing_nothing),
)
