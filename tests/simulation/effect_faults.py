"""Faults to plant where effects are committed with results, one at a time: the simulation must find each of them.

This is white-box by nature.
"""

from collections.abc import Callable
from typing import Any

import pytest

from aioidempotency._core import protocol
from aioidempotency._core.conditions import Absent
from aioidempotency._core.operations import Put, Transact
from aioidempotency._effects import commits
from tests.simulation.faults import Fault
from tests.simulation.planting import ANYTHING, rewriting
from tests.support.values import replace

UNLOCKED = "took over a lease|over another's record|overwrote a stored result|wrote a record with another's owner"


def _unconditional(operation: Any) -> Any:
    if not isinstance(operation, Transact):
        return operation
    return replace(operation, writes=tuple(replace(each, condition=ANYTHING) for each in operation.writes))


def _over_anything(operation: Any) -> Any:
    if not isinstance(operation, Transact):
        return operation
    first, *others = operation.writes
    put = isinstance(first, Put) and isinstance(first.condition, Absent)
    return replace(operation, writes=(replace(first, condition=ANYTHING) if put else first, *others))


def _without_effects(operation: Any) -> Any:
    return replace(operation, effects=()) if isinstance(operation, Transact) else operation


def _short_lived(patch: pytest.MonkeyPatch) -> None:
    """Let a finished record expire when its retention is over, whenever its lease ends."""
    real = commits.commit
    patch.setattr(commits, "commit", lambda wanted: real(replace(wanted, clock_skew=-1000.0)))


def _not_settled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(protocol, "finished_by", lambda *_: False)


def _rejected_as_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commits, "EffectsFailed", lambda reasons: protocol.Lost(None))


Plant = Callable[[pytest.MonkeyPatch], None]

EFFECT_FAULTS = (
    Fault("effects need no lease", UNLOCKED, rewriting("commit", _unconditional, module=commits)),
    Fault("effects are left out", "stored without its effect", rewriting("commit", _without_effects, module=commits)),
    Fault(
        "effects of a commit without a claim are left out",
        "stored without its effect",
        rewriting("commit_once", _without_effects, module=commits),
    ),
    Fault(
        "a finished record expires while tries go on",
        "was told LeaseLostError, and had its effect",
        _short_lived,
        short=True,
    ),
    Fault("a lost answer is not settled by the record", "nobody was changing its key", _not_settled),
    Fault(
        "a commit without a claim needs no free key", UNLOCKED, rewriting("commit_once", _over_anything, module=commits)
    ),
    Fault("refused effects are taken for a lost lease", "lease is lost, and it is not", _rejected_as_lost),
)
