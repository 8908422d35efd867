"""Faults to plant where a key has several locations, one at a time: the simulation must find each of them.

This is white-box by nature.
"""

from collections.abc import Callable, Generator
from math import floor, inf
from typing import Any

import pytest

from aioidempotency._core import placements, protocol
from aioidempotency._core.operations import Check, Delete, Transact
from aioidempotency._records import Records
from aioidempotency.partitioning import table_layout
from aioidempotency.partitioning.key_schemas import PartitionedRoute
from aioidempotency.partitioning.table_layout import TableLayout
from aioidempotency.partitioning.windows import Windows
from tests.simulation import schemes
from tests.simulation.faults import Fault
from tests.simulation.planting import nothing, rewriting

BESIDE = "has a record beside one of"
AGAIN = "was stored and lived when it claimed"


def _alone(operation: Any) -> Any:
    """Put at home, and look nowhere else."""
    return operation.writes[0] if isinstance(operation, Transact) else operation


def _checked(operation: Any) -> Any:
    """Insist that what is taken over elsewhere is unchanged, and leave it there."""
    if not isinstance(operation, Transact):
        return operation
    writes = (Check(each.location, each.condition) if isinstance(each, Delete) else each for each in operation.writes)
    return Transact(tuple(writes))


def _numbers(*, less: int = 0, ahead: float | None = None) -> Callable[[pytest.MonkeyPatch], None]:
    """Have windows look back by so many fewer, or ahead by other seconds."""

    def numbers(self: Windows, now: float) -> range:
        latest = floor((now + (self.ahead if ahead is None else ahead)) / self.window)
        return range(
            latest, min(latest, floor((now - self.retention - self.answer_within) / self.window) + less) - 1, -1
        )

    return lambda patch: patch.setattr(Windows, "_numbers", numbers)


def _skipping(patch: pytest.MonkeyPatch) -> None:
    """Deploy the cutover beside the old phase, and have nobody hold that against the table."""
    patch.setattr(schemes, "FORWARD", ((schemes.OLD, schemes.CUTOVER),))
    patch.setattr(schemes, "ASTRAY", ((schemes.OLD, schemes.CUTOVER),))


def _wrong_index(patch: pytest.MonkeyPatch) -> None:
    real = placements.seen_by

    def seen_by(operation: Any, refusal: Any) -> Generator[Any, Any, Any]:
        return tuple(reversed((yield from real(operation, refusal))))

    patch.setattr(placements, "seen_by", seen_by)


def _setting(name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(protocol, name, value)


def _windows(name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(Windows, name, value)


def _answering_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PartitionedRoute, "answer_within", property(lambda _: inf))


def _waiting_for_nobody_else(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(TableLayout, "promised_until", property(lambda _: None))


def _lowering(*promises: float | None) -> float | None:
    """Take the last promise for the longest one."""
    return next((each for each in reversed(promises) if each is not None), None)


def _dropping(*_: object) -> tuple[None, None]:
    return None, None


def _layout(name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(table_layout, name, value)


PLACE_FAULTS = (
    Fault("a claim does not look at the other locations", BESIDE, rewriting("claim", _alone)),
    Fault("a take-over leaves what it found elsewhere", BESIDE, rewriting("claim", _checked)),
    Fault("windows look back one window too little", f"{BESIDE}|{AGAIN}", _numbers(less=1), windows=True),
    Fault("windows do not look ahead", BESIDE, _numbers(ahead=0.0), windows=True),
    Fault(
        "an answer may take any time",
        "runs on a late copy",
        _answering_for_ever,
        windows=True,
    ),
    Fault(
        "a record outlasts its window", "outlasts the time", _windows("searched_until", lambda *_: inf), windows=True
    ),
    Fault("a move skips a phase", BESIDE, _skipping),
    Fault("a call's longer promise is not written", f"{BESIDE}|{AGAIN}", nothing(Records, "promise"), promised=True),
    Fault("a move waits for who opens the table", f"{BESIDE}|{AGAIN}", _waiting_for_nobody_else, promised=True),
    Fault("a shorter promise lowers a longer one", f"{BESIDE}|{AGAIN}", _layout("_longest", _lowering), promised=True),
    Fault(
        "a step of a move drops what was promised", f"{BESIDE}|{AGAIN}", _layout("_carried", _dropping), promised=True
    ),
    Fault("failures are taken for those of other locations", "locked past its lease", _wrong_index),
    Fault("a result is put by an old instant", BESIDE, _setting("inf", -inf), windows=True),
)
